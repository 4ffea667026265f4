"""The grounded writer and the judge that reads its sentences back."""

from types import SimpleNamespace

import numpy as np
import pytest

from ffaa.evidence.examine import MEASURES
from ffaa.types import EvidenceItem, EvidenceRecord, ForgeryType, Label, Support
from ffaa.vqa.judge import find_claims, judge
from ffaa.vqa.sentences import claims, lean_file, plain, says, sentence_file, wordings
from ffaa.vqa.writer import AGAINST, LEADS, LEANS, SILENT, balance, count_tokens, explains, lean, write


def record(seed=0, **words):
    """A record with drawn words; `words` sets some, '' takes one away."""
    rng = np.random.default_rng(seed)
    items = {}
    for name, measure in MEASURES.items():
        word = words.get(name, str(rng.choice(measure.words)))
        common = {"name": name, "unit": measure.unit, "method": measure.method, "region": measure.region}
        if word:
            items[name] = EvidenceItem(**common, value=0.0, word=word, strength=float(rng.random()))
        else:
            items[name] = EvidenceItem(**common, value=None, reason="not seen")
    return EvidenceRecord(items=items, versions={})


def truth(kind=ForgeryType.REAL, method="", regions=()):
    label = Label.REAL if kind is ForgeryType.REAL else Label.FAKE
    return SimpleNamespace(label=label, forgery_type=kind, method=method, regions=regions)


FAKE = truth(ForgeryType.IDENTITY_EXCHANGE, "Deepfakes")
TRUTHS = [truth(), FAKE, *(truth(kind) for kind in list(ForgeryType)[1:])]


def text(sentences, part=None):
    return " ".join(s.text for s in sentences if part in (None, s.part))


def test_the_sentence_file_fits_the_measures():
    file = sentence_file()
    assert not set(file["describe"]) & set(file["reason"])
    for part in ("describe", "reason"):
        for item, words in file[part].items():
            assert tuple(words) == MEASURES[item].words
            for word in words:
                found = {w for pattern in says(part, item, word) for w in wordings(pattern)}
                assert len(found) >= 4, (item, word)
                assert all("{" not in w and "|" not in w for w in found)
    for odds in lean_file().values():
        assert all(tuple(odds[item]) == MEASURES[item].words for item in file["reason"])


def test_no_wording_states_two_things():
    seen = {}
    for part in ("describe", "reason"):
        for item, words in sentence_file()[part].items():
            for word in words:
                for pattern in says(part, item, word):
                    for wording in wordings(pattern):
                        assert seen.setdefault(plain(wording), (item, word)) == (item, word)
    assert {wording: tuple(claim) for wording, claim in claims().items()} == seen
    assert len(seen) > 800


def test_wordings_expand_every_choice():
    assert wordings("{a|b} c{ d|}") == ("a c d", "a c", "b c d", "b c")
    assert wordings("the {regions} changed") == ("the {regions} changed",)


@pytest.mark.parametrize("row", TRUTHS, ids=lambda row: f"{row.forgery_type} {row.method}")
def test_every_sentence_is_read_back_as_what_it_rests_on(row):
    for seed in range(25):
        found = record(seed)
        for sentence in write(found, row, np.random.default_rng(seed)):
            assert sentence.evidence
            named = [name for name in sentence.evidence if name in MEASURES]
            if named:
                assert [claim.item for claim in find_claims(sentence.text)] == named, sentence.text
                assert judge(sentence.text, found) is Support.SUPPORTED, sentence.text
            else:
                source = sentence.evidence[0]
                assert source in ("frame", "balance") or source.startswith("manifest:")


def test_the_description_does_not_know_the_label():
    for seed in range(20):
        found = record(seed)
        texts = {text(write(found, row, np.random.default_rng(seed)), "description") for row in TRUTHS}
        assert len(texts) == 1


def test_lengths_and_shares():
    tokens, shares = [], []
    for seed in range(60):
        sentences = write(record(seed), TRUTHS[seed % len(TRUTHS)], np.random.default_rng(seed))
        tokens.append(count_tokens(text(sentences)))
        shares.append(count_tokens(text(sentences, "description")) / tokens[-1])
    assert min(tokens) >= 140
    assert max(tokens) <= 235
    assert 0.34 < np.mean(shares) < 0.46


def test_the_same_seed_gives_the_same_text_and_faces_do_not_read_alike():
    found = record(1)
    assert write(found, FAKE, np.random.default_rng(3)) == write(found, FAKE, np.random.default_rng(3))
    texts = [text(write(found, FAKE, np.random.default_rng(seed))) for seed in range(50)]
    assert len(set(texts)) == 50


def test_the_manifest_is_told_and_named():
    row = truth(ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION, "photoshop", ("left_eye", "nose", "mouth"))
    sentences = write(record(2), row, np.random.default_rng(0))
    by_source = {s.evidence[0]: s.text for s in sentences}
    assert "left eye, nose and mouth" in by_source["manifest:regions"]
    assert {"manifest:label", "manifest:forgery_type", "balance"} <= set(by_source)
    sources = [s.evidence[0] for seed in range(20) for s in write(record(2), row, np.random.default_rng(seed))]
    assert 5 < sources.count("manifest:method") < 20
    assert not any(s.evidence[0] in ("manifest:method", "manifest:regions") for s in write(record(2), truth(),
                   np.random.default_rng(0)))  # fmt: skip


def test_nothing_is_said_of_what_was_not_measured():
    missing = dict.fromkeys(("yaw", "smile", "noise_grain", "iris_detail", "rolloff"), "")
    for seed in range(20):
        sentences = write(record(seed, **missing), FAKE, np.random.default_rng(seed))
        assert not {name for s in sentences for name in s.evidence} & set(missing)
    bare = EvidenceRecord(items={}, versions={})
    assert [s.evidence for s in write(bare, truth(), np.random.default_rng(0))] == [
        ["frame"], ["manifest:label"], ["manifest:forgery_type"], ["balance"]
    ]  # fmt: skip


def extreme(row, way):
    """The record whose every word leans most to (way 1) or from (-1) the truth."""
    words = {}
    for item in sentence_file()["reason"]:
        words[item] = max(MEASURES[item].words, key=lambda word: way * lean(record(0, **{item: word}), row, item))
    return record(0, **words)


@pytest.mark.parametrize("row", TRUTHS[:2], ids=["real", "fake"])
def test_the_weight_of_the_evidence_is_told(row):
    assert balance(extreme(row, 1), row) == "strong"
    assert balance(extreme(row, -1), row) == "against"
    for way, key in ((1, "strong"), (-1, "against")):
        last = write(extreme(row, way), row, np.random.default_rng(0))[-1].text
        options = {plain(w) for p in sentence_file()["closing"][row.label.value][key] for w in wordings(p)}
        assert plain(last) in options


def test_contrary_signs_are_admitted():
    sentences = write(extreme(FAKE, -1), FAKE, np.random.default_rng(1))
    contrary = {plain(w) for p in sentence_file()["contrary"]["fake"] for w in wordings(p)}
    assert any(any(plain(s.text).endswith(tail) for tail in contrary) for s in sentences)


def test_a_description_is_told_topic_by_topic():
    topic = {name: key for key, names in sentence_file()["topics"].items() for name in names}
    assert set(topic) == set(sentence_file()["describe"])
    for seed in range(30):
        sentences = [s for s in write(record(seed), FAKE, np.random.default_rng(seed)) if s.part == "description"][1:]
        told = [topic[name] for s in sentences for name in s.evidence]
        blocks = [key for i, key in enumerate(told) if i == 0 or told[i - 1] != key]
        assert len(blocks) == len(set(blocks))
        assert all(len({topic[name] for name in s.evidence}) == 1 for s in sentences)


def test_quiet_words_are_not_volunteered():
    quiet = sentence_file()["quiet"]
    words = {name: said[0] for name, said in quiet.items()}
    told = {n for seed in range(40) for s in write(record(seed, **words), FAKE, np.random.default_rng(seed))
            for n in s.evidence}  # fmt: skip
    assert not told & set(quiet)
    assert judge("Nothing around the eyes suggests a pair of glasses.", record(0, glasses="none")) is Support.SUPPORTED


def test_what_cannot_be_explained_is_no_sign():
    """Of a lone item the lean may be large: without a reason for that side it is not told as one."""
    file = sentence_file()["reason"]
    for row in TRUTHS:
        for item, words in file.items():
            for word in words:
                alone = record(0, **{name: word if name == item else "" for name in MEASURES})
                found = [s for s in write(alone, row, np.random.default_rng(0)) if s.evidence == [item]]
                weight = lean(alone, row, item)
                if weight >= LEANS:
                    assert bool(found) is explains(item, word, row.forgery_type), (item, word)
                elif weight > -LEANS:
                    assert len(found) == 1


def test_a_reasoning_repeats_no_lead_and_stays_silent_twice_at_most():
    for seed in range(60):
        row = TRUTHS[seed % len(TRUTHS)]
        found = record(seed)
        sentences = [s for s in write(found, row, np.random.default_rng(seed)) if s.evidence[0] in MEASURES]
        reasons = [s for s in sentences if s.part == "reasoning"]
        leads = [lead for s in reasons for lead in (*LEADS, *AGAINST) if s.text.lower().startswith(lead)]
        assert len(leads) == len(set(leads))
        assert sum(abs(lean(found, row, s.evidence[0])) < LEANS for s in reasons) <= SILENT


def test_changed_regions_are_listed_as_one_or_several_and_the_whole_face_is_not():
    def said(*regions):
        row = truth(ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION, "replace", regions)
        texts = [s.text for seed in range(20) for s in write(record(2), row, np.random.default_rng(seed))
                 if s.evidence == ["manifest:regions"]]  # fmt: skip
        return set(texts)

    assert said("mouth")
    assert all(" mouth" in t and not any(w in t.split() for w in ("were", "are", "parts")) for t in said("mouth"))
    assert all("nose and mouth" in t and "was" not in t.split() for t in said("nose", "mouth"))
    assert not said("left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth", "skin")
    assert not said()
