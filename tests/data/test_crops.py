import cv2
import numpy as np
import pytest
from PIL import Image

from ffaa.data import crops
from ffaa.data.crops import borrow_colours, plain_face, read_photo, train_sample
from ffaa.data.manifest import Row
from ffaa.data.quality import measure_quality
from ffaa.errors import InputError
from ffaa.types import Box, ForgeryType, Label

BOX = Box(left=161, top=137, right=377, bottom=353)


def row(box=BOX, kind=ForgeryType.REAL, width=512, height=600, path="hopper.png"):
    return Row(
        path=path, sha256="0", label=Label.REAL if kind is ForgeryType.REAL else Label.FAKE, forgery_type=kind,
        method="", dataset="d", split="train", bench="", group="", regions=(), width=width, height=height, box=box,
        faces=1 if box else 0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory, hopper):
    folder = tmp_path_factory.mktemp("crops")
    Image.fromarray(hopper).save(folder / "hopper.png")
    wide = np.full((200, 600, 3), 90, np.uint8)
    wide[20:180, 10:170] = cv2.resize(hopper[137:353, 161:377], (160, 160))
    Image.fromarray(wide).save(folder / "wide.png")
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return folder


def sample(root, seed, blend=0.0, size=96, **fields):
    return train_sample(root, row(**fields), size, np.random.default_rng(seed), blend)


def test_read_photo_is_rgb(root, hopper):
    assert np.array_equal(read_photo(root, row()), hopper)


@pytest.mark.parametrize("name", ["broken.jpg", "missing.jpg"])
def test_an_unreadable_photo_is_named(root, name):
    with pytest.raises(InputError, match=name):
        read_photo(root, row(path=name))


def test_plain_face_is_the_papers_crop(hopper):
    face = plain_face(hopper, row(), 224)
    assert (face.crop.padding, face.crop.whole_image) == (40, False)
    region = hopper[137 - 40 : 353 + 40, 161 - 40 : 377 + 40]
    assert np.array_equal(face.image, cv2.resize(region, (224, 224), interpolation=cv2.INTER_AREA))
    none = plain_face(hopper, row(box=None), 224)
    assert none.crop.whole_image
    assert none.crop.region == Box(left=0, top=44, right=512, bottom=556)


def test_the_same_generator_gives_the_same_sample(root):
    one, two, other = sample(root, 1, 0.5), sample(root, 1, 0.5), sample(root, 2, 0.5)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.mask, two.mask)
    assert one.rect == two.rect
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("seed", range(6))
def test_shapes_and_ranges(root, seed):
    found = sample(root, seed, 0.5)
    assert found.image.shape == (96, 96, 3)
    assert found.image.dtype == np.uint8
    assert found.mask.shape == (7, 7)
    assert found.mask.dtype == np.float32
    assert found.mask.min() >= 0
    assert found.mask.max() <= 1


def test_what_the_mask_says(root):
    assert sample(root, 0).mask.max() == 0
    assert sample(root, 0, kind=ForgeryType.ENTIRE_FACE_SYNTHESIS).mask.min() == 1
    for kind in (ForgeryType.IDENTITY_EXCHANGE, ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION):
        assert set(sample(root, 0, kind=kind).mask.flatten()) == {-1}  # unknown


def test_a_blended_real_photo_is_an_identity_exchange(root):
    found = sample(root, 3, blend=1.0)
    assert (found.label, found.forgery_type) == (Label.FAKE, ForgeryType.IDENTITY_EXCHANGE)
    assert found.mask.max() > 0.5
    assert found.mask.min() < 0.1
    fake = sample(root, 3, blend=1.0, kind=ForgeryType.ENTIRE_FACE_SYNTHESIS)
    assert fake.forgery_type is ForgeryType.ENTIRE_FACE_SYNTHESIS  # only real photos are blended
    share = np.mean([sample(root, i, blend=0.3, size=32).label is Label.FAKE for i in range(150)])
    assert share == pytest.approx(0.3, abs=0.1)


def flips_seen(root, monkeypatch):
    """Paints the box red and looks for it in the crop."""
    painted = read_photo(root, row()).copy()
    painted[...] = 0
    painted[BOX.top : BOX.bottom, BOX.left : BOX.right] = (255, 0, 0)
    monkeypatch.setattr(crops, "read_photo", lambda *_: painted)
    monkeypatch.setattr(crops, "augmentation", lambda size, strength: _Resize(size))
    seen = set()
    for seed in range(12):
        found = sample(root, seed)
        left, _, right, _ = found.rect
        ys, xs = np.nonzero(found.image[..., 0] > 127)
        assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - found.rect).max() <= 1
        seen.add(left > 96 - right)
    return seen


class _Resize:
    def __init__(self, size):
        self.size = size

    def set_random_seed(self, seed):
        pass

    def __call__(self, **images):
        return {name: cv2.resize(image, (self.size, self.size)) for name, image in images.items()}


def test_rect_follows_padding_and_flip(root, monkeypatch):
    assert flips_seen(root, monkeypatch) == {True, False}


def test_mask_follows_the_flip(root, monkeypatch):
    """A forgery in the left half of the face ends up where the image shows it."""

    def half(face, rng):
        mask = np.zeros(face.shape[:2], np.float32)
        mask[:, : face.shape[1] // 2] = 1
        forged = face.copy()
        forged[mask > 0] = 255
        return forged, mask

    monkeypatch.setattr(crops, "self_blend", half)
    monkeypatch.setattr(crops, "augmentation", lambda size, strength: _Resize(size))
    sides = set()
    for seed in range(8):
        found = sample(root, seed, blend=1.0)
        bright = cv2.resize((found.image.min(-1) == 255).astype(np.float32), (7, 7), interpolation=cv2.INTER_AREA)
        assert np.allclose(bright, found.mask, atol=0.1)
        sides.add(bool(found.mask[3, 0] > 0.5))
    assert sides == {True, False}


def test_region_is_padded_by_a_random_share_of_the_face():
    pads = []
    for seed in range(200):
        region = crops._train_region(row(), np.random.default_rng(seed))
        assert 0 <= region.left <= BOX.left
        assert 0 <= region.top <= BOX.top
        assert BOX.right <= region.right <= 512
        assert BOX.bottom <= region.bottom <= 600
        pads.append((BOX.left - region.left) / BOX.width)
    narrow = [p for p in pads if p < 0.33]
    assert 0.015 < min(narrow) < 0.06
    assert max(narrow) > 0.28
    assert 1 <= len(pads) - len(narrow) < 30  # now and then the whole photo


def test_a_face_beside_the_centre_square_keeps_its_rectangle(root):
    box = Box(left=10, top=20, right=170, bottom=180)
    for seed in range(150):
        found = sample(root, seed, size=32, box=box, width=600, height=200, path="wide.png")
        left, top, right, bottom = found.rect
        assert 0 <= left < right <= 32, seed
        assert 0 <= top < bottom <= 32, seed


def test_borrowed_colours(hopper, astronaut):
    lab = {name: cv2.cvtColor(i, cv2.COLOR_RGB2LAB).astype(float) for name, i in (("h", hopper), ("a", astronaut))}
    whole = cv2.cvtColor(borrow_colours(hopper, astronaut, 1.0), cv2.COLOR_RGB2LAB).astype(float)
    before, after = (np.abs(lab["a"].mean((0, 1)) - i.mean((0, 1))).max() for i in (lab["h"], whole))
    assert after < 0.35 * before
    assert np.abs(borrow_colours(hopper, astronaut, 0.0).astype(int) - hopper).max() <= 1
    assert np.corrcoef(whole[..., 0].ravel(), lab["h"][..., 0].ravel())[0, 1] > 0.97  # the picture stays


def test_a_sample_may_take_on_the_look_of_another(root, hopper):
    Image.fromarray(np.full((600, 512, 3), (200, 40, 40), np.uint8)).save(root / "red.png")
    plain = train_sample(root, row(), 96, np.random.default_rng(3))
    red = train_sample(root, row(), 96, np.random.default_rng(3), colours=row(path="red.png"))
    share = [i.image[..., 0].mean() / i.image.mean() for i in (plain, red)]
    assert share[1] > 1.3 * share[0]
    assert red.label is Label.REAL


def test_a_decoded_photo_is_a_synthesis(root):
    found = [sample(root, seed, 0.5).forgery_type for seed in range(40)]
    assert ForgeryType.ENTIRE_FACE_SYNTHESIS not in found
    made = [train_sample(root, row(), 96, np.random.default_rng(seed), 0.3, 0.4) for seed in range(60)]
    kinds = [s.forgery_type for s in made]
    assert 8 <= kinds.count(ForgeryType.IDENTITY_EXCHANGE) <= 28
    assert 14 <= kinds.count(ForgeryType.ENTIRE_FACE_SYNTHESIS) <= 34
    decoded = made[kinds.index(ForgeryType.ENTIRE_FACE_SYNTHESIS)]
    assert decoded.label is Label.FAKE
    assert np.allclose(decoded.mask, 1)


def test_a_known_mask_comes_along(root, monkeypatch):
    monkeypatch.setattr(crops, "augmentation", lambda size, strength: _Resize(size))
    mask: np.ndarray = np.zeros((600, 512), np.uint8)
    mask[:, 269:] = 255  # the right half of the face
    Image.fromarray(mask).save(root / "mask.png")
    fake = row(kind=ForgeryType.IDENTITY_EXCHANGE).model_copy(update={"mask": "mask.png"})
    for seed in range(8):
        cells = train_sample(root, fake, 96, np.random.default_rng(seed)).mask
        sides = cells[:, 0].mean(), cells[:, -1].mean()
        assert sorted(sides) == pytest.approx([0.0, 1.0])
    Image.fromarray(mask[:50]).save(root / "mask.png")
    with pytest.raises(InputError, match="of another size"):
        train_sample(root, fake, 96, np.random.default_rng(0))


def test_every_transform_of_the_augmentation_draws_for_itself(hopper):
    """With one stream for all, a photo would get all of them or none."""
    transform = crops.augmentation(64)
    drawn = []
    for seed in range(300):
        crops.seed_each(transform, np.random.default_rng(seed))
        drawn.append([t.py_random.random() < t.p for t in transform.transforms[:-1]])
    drawn = np.array(drawn)
    shares = [t.p for t in transform.transforms[:-1]]
    assert np.allclose(drawn.mean(0), shares, atol=0.08)
    none = np.prod([1 - share for share in shares])
    assert abs((~drawn).all(1).mean() - none) < 0.06
    together = np.corrcoef(drawn.T)[~np.eye(len(shares), dtype=bool)]
    assert np.abs(together).max() < 0.25


def test_together_leaves_half_of_the_samples_as_they_are(tmp_path):
    Image.fromarray(np.full((600, 512, 3), 128, np.uint8)).save(tmp_path / "hopper.png")
    untouched = {}
    for together in (False, True):
        made = [
            train_sample(tmp_path, row(), 48, np.random.default_rng(seed), together=together).image
            for seed in range(200)
        ]
        untouched[together] = np.mean([(image == 128).all() for image in made])
    assert untouched[True] == pytest.approx(0.5, abs=0.1)
    assert untouched[False] < 0.4


def test_the_augmentation_is_the_same_for_the_same_generator(hopper):
    transform = crops.augmentation(64)
    found = []
    for _ in range(2):
        crops.seed_each(transform, np.random.default_rng(5))
        found.append(transform(image=hopper)["image"])
    assert np.array_equal(*found)


@pytest.mark.parametrize("kind", [ForgeryType.REAL, ForgeryType.ENTIRE_FACE_SYNTHESIS])
def test_a_share_of_both_classes_loses_its_fine_detail(root, monkeypatch, kind):
    """Were it the forged alone, blur would be a mark of forgery."""
    monkeypatch.setattr(crops, "augmentation", lambda size, strength: _Resize(size))

    def sharpness(blurred):
        made = [
            train_sample(root, row(kind=kind), 192, np.random.default_rng(seed), blurred=blurred) for seed in range(60)
        ]
        assert {s.label for s in made} == {row(kind=kind).label}
        return np.array([measure_quality(s.image).sharpness for s in made])

    plain, all_of_them, some = sharpness(0.0), sharpness(1.0), sharpness(0.25)
    assert np.median(all_of_them) < 0.3 * np.median(plain)
    assert 6 <= (some < 0.7 * np.median(plain)).sum() <= 26


def test_what_is_blurred_out_keeps_its_look(hopper):
    face = np.ascontiguousarray(hopper[137:353, 161:377])
    for seed in range(20):
        out = crops.blur_out(face, np.random.default_rng(seed))
        assert (out.shape, out.dtype) == (face.shape, np.uint8)
        assert np.abs(out.mean((0, 1)) - face.mean((0, 1))).max() < 2
        assert np.corrcoef(out.ravel(), face.ravel())[0, 1] > 0.9
    assert crops.blur_out(face[:3, :3], np.random.default_rng(0)).shape == (3, 3, 3)
