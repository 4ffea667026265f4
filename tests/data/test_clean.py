import numpy as np
import pytest

from ffaa.data import clean
from ffaa.data.clean import SPLITS, Faces, Groups, LeakError

NONE = len(SPLITS)


def faces(rows):
    """rows: dicts with item, digest, hash, fake, stratum, given, draw."""
    found = Faces()
    for i, row in enumerate(rows):
        found.item.append(row.get("item", i))
        found.digest.append(row.get("digest", 1000 + i))
        found.hashes.append(row.get("hash", np.random.default_rng(i).bytes(32)))
        found.fake.append(row.get("fake", 0))
        found.kind.append(row.get("kind", row.get("fake", 0)))
        found.stratum.append(row.get("stratum", 0))
        found.given.append(SPLITS.index(row["given"]) if "given" in row else NONE)
        found.draw.append(row.get("draw", i))
    return found


def alone(n):
    return -2 - np.arange(n)


def test_groups_join_through_others():
    groups = Groups()
    a, b = groups.join(("v:1", "p:ann")), groups.join(("v:2", "p:bob"))
    assert groups.root(a) != groups.root(b)
    c = groups.join(("p:bob", "p:ann"))  # a swap between the two
    assert groups.root(a) == groups.root(b) == groups.root(c)
    assert groups.names() == {groups.root(a): "p:ann"}


def test_the_name_of_a_group_does_not_depend_on_the_order():
    for order in ([("b", "c"), ("a", "b")], [("a", "b"), ("b", "c")]):
        groups = Groups()
        number, _ = (groups.join(keys) for keys in order)
        assert groups.names() == {groups.root(number): "a"}


def test_equal_files_stay_once_and_the_held_out_copy_wins():
    found = faces([{"digest": 5}, {"digest": 5, "given": "test"}, {"digest": 5}, {"digest": 6}])
    dropped = clean.duplicates(found, alone(4), 0)
    assert {i: (d.kind, d.of) for i, d in dropped.items()} == {0: ("duplicate", 1), 2: ("duplicate", 1)}


def test_faces_of_one_photo_are_no_duplicates():
    found = faces([{"digest": 5, "item": 1}, {"digest": 5, "item": 1}, {"digest": 5, "item": 2}])
    assert set(clean.duplicates(found, np.array([0, 0, 1]), 0)) == {2}


def test_equal_files_with_two_labels_all_go():
    found = faces([{"digest": 5, "fake": 1}, {"digest": 5, "given": "bench"}, {"digest": 7}])
    dropped = clean.duplicates(found, alone(3), 0)
    assert {i: (d.kind, d.of) for i, d in dropped.items()} == {0: ("conflict", 1), 1: ("conflict", 0)}


def test_near_faces_go_only_between_groups():
    base = np.random.default_rng(99).bytes(32)
    near = bytes([base[0] ^ 1]) + base[1:]
    found = faces([{"hash": base}, {"hash": near}, {"hash": near}, {}])
    groups = np.array([0, 0, 1, 2])
    dropped = clean.duplicates(found, groups, 2)
    assert set(dropped) == {2}
    assert dropped[2].kind == "near duplicate"
    assert dropped[2].of in {0, 1}
    assert clean.duplicates(found, np.zeros(4, np.int64), 2) == {}


def test_a_forgery_and_its_original_are_joined_not_removed():
    base = np.random.default_rng(99).bytes(32)
    near = bytes([base[0] ^ 1]) + base[1:]
    found = faces([{"hash": base}, {"hash": near, "fake": 1}, {"hash": near, "fake": 1, "kind": 2}, {}, {"hash": base}])
    groups = np.array([-2, -3, 7, -5, 7])
    assert set(clean.duplicates(found, groups, 2)) == {4}
    assert clean.related(found, groups, np.arange(4), 2).tolist() == [7, 7, 7, -5, 7]
    assert clean.related(found, groups, np.array([0, 3]), 2) is groups


def test_a_near_training_copy_gives_way_to_the_test_one():
    same = np.random.default_rng(99).bytes(32)
    found = faces([{"hash": same}, {"hash": same, "given": "test"}])
    assert {i: d.of for i, d in clean.duplicates(found, alone(2), 0).items()} == {0: 1}


def test_given_splits_that_cut_a_group():
    found = faces([{"given": "train"}, {"given": "test"}, {}, {"given": "train"}, {"given": "val"}])
    groups, kept = np.array([0, 0, 0, 1, 2]), np.arange(5)
    with pytest.raises(LeakError) as leak:
        clean.given_splits(found, groups, kept, drop=False)
    assert leak.value.pairs == [(0, 1)]
    dropped = clean.given_splits(found, groups, kept, drop=True)
    assert {i: (d.kind, d.of) for i, d in dropped.items()} == {0: ("leak", 1)}
    assert clean.given_splits(found, groups, np.array([1, 2, 3, 4]), drop=False) == {}
    assert clean.given_splits(found, groups, np.array([2]), drop=False) == {}


def splits(found, groups, shares, kept=None):
    kept = np.arange(len(found)) if kept is None else kept
    return [SPLITS[s] for s in clean.assign(found, groups, kept, shares)]


def test_assign_draws_whole_groups_per_stratum():
    rng = np.random.default_rng(0)
    rows = [{"stratum": i // 300, "draw": int(rng.integers(2**60))} for i in range(600)]
    groups = np.arange(600) // 3
    found = faces(rows)
    given = splits(found, groups, {0: (0.1, 0.2), 1: (0.0, 0.5)})
    for group in range(200):
        assert len(set(given[3 * group : 3 * group + 3])) == 1
    first, second = given[:300], given[300:]
    assert (first.count("val"), first.count("test"), first.count("train")) == (30, 60, 210)
    assert (second.count("val"), second.count("test")) == (0, 150)
    assert splits(found, groups, {0: (0.1, 0.2), 1: (0.0, 0.5)}) == given


def test_assign_follows_given_splits_through_the_group():
    found = faces([{"given": "bench"}, {}, {"given": "val"}, {}])
    assert splits(found, np.array([0, 0, 1, -3]), {0: (0.0, 0.0)}) == ["bench", "bench", "val", "train"]


def test_removing_others_moves_no_face_of_another_stratum():
    rng = np.random.default_rng(1)
    rows = [{"stratum": i % 2, "draw": int(rng.integers(2**60))} for i in range(200)]
    found, shares = faces(rows), {0: (0.1, 0.1), 1: (0.1, 0.1)}
    whole = splits(found, alone(200), shares)
    part = splits(found, alone(200), shares, np.arange(0, 200, 2))
    assert part == whole[::2]


def test_draw_depends_on_seed_and_name():
    assert clean.draw(1, "a") == clean.draw(1, "a")
    assert len({clean.draw(1, "a"), clean.draw(2, "a"), clean.draw(1, "b")}) == 3
    assert all(0 <= clean.draw(0, str(i)) < 2**63 for i in range(50))


def test_leak_message_names_the_first_pairs():
    text = clean.leak_message([("a.png", "b.png")], 9)
    assert "9 leaks" in text
    assert "a.png and b.png" in text
    assert "and 4 more" in text
