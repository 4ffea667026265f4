"""Tiny trees in the published layouts: `write_<kind>(root, face)` makes one and returns its items, written by hand.

face: uint8 RGB, square, with room around the face so that the detector finds it. Every photo and video is a little
different. Items are in the reader's order for `args(kind)`; `write_all` puts the trees side by side below root/<kind>.
"""

import csv
import json
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
from PIL import Image

from ffaa.data.sources.base import Item, SourceArgs
from ffaa.types import ForgeryType, Label

FRAMES, SIDE, LIGHT = 6, 192, 60
SWAP, EDIT = ForgeryType.IDENTITY_EXCHANGE, ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION
SYNTHESIS = ForgeryType.ENTIRE_FACE_SYNTHESIS
# What a recipe must say for a tree to be read.
ARGS = {
    "multiffdi": {"types": {"MultiFFDI": "identity_exchange"}},
    "folder": {"types": {"swap": "identity_exchange", "retouch": "facial_attribute_manipulation"}},
    "csv": {"columns": {"path": "file", "label": "target", "method": "generator"}},
}


def args(kind, **more):
    return SourceArgs(kind=kind, root=kind, **(ARGS.get(kind, {}) | more))


def variant(face, name, side=SIDE):
    """The face in other light and place, and mirrored or not, as `name` decides: uint8 RGB (side, side, 3).

    The light falls unevenly, so that perceptual hashes differ too.
    """
    rng = np.random.default_rng(zlib.crc32(str(name).encode()))
    edge = face.shape[0]
    cut = rng.integers(0, edge // 12 + 1, 2)
    part = face[cut[0] : edge - edge // 12 + cut[0], cut[1] : edge - edge // 12 + cut[1]]
    part = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    light = cv2.resize(
        rng.uniform(-LIGHT, LIGHT, (5, 5, 1)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    part = np.clip(part * rng.uniform(0.8, 1.1) + light[..., None] + rng.uniform(-8, 8, 3), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(part[:, ::-1]) if rng.random() < 0.5 else part


def mask_of(pixels):
    """A grey ellipse in the middle, uint8 RGB."""
    height, width = pixels.shape[:2]
    mask = np.zeros_like(pixels)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 4, height // 3), 0, 0, 360, (255, 255, 255), -1)
    return mask


def write_video(path, frames, rate=25):
    """H.264 (yuv420p) of uint8 RGB frames with even sides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(rate), options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.thread_count = 1
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def _media(root, face, *names):
    """Writes every named photo or video; in videos the face moves a pixel a frame."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = variant(face, name)
        if path.suffix == ".mp4":
            write_video(path, [np.roll(pixels, i, axis=1) for i in range(FRAMES)])
        else:
            Image.fromarray(pixels).save(path)


def _masks(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = mask_of(np.zeros((SIDE, SIDE, 3), np.uint8))
        if path.suffix == ".mp4":
            write_video(path, [np.roll(pixels, i, axis=1) for i in range(FRAMES)])
        else:
            Image.fromarray(pixels[..., 0]).save(path)


def _text(root, name, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")


def _real(path, groups=(), split="", **more):
    return Item(path, Label.REAL, ForgeryType.REAL, "", groups, split, **more)


def _fake(path, kind, method, groups=(), split="", reference="", mask="", **more):
    return Item(path, Label.FAKE, kind, method, groups, split, reference, mask, **more)


def _write(root, face, items):
    """The photos, videos and masks of the items."""
    _media(root, face, *(item.path for item in items))
    _masks(root, *(item.mask for item in items if item.mask))
    return items


def write_faceforensics(root, face):
    """Pairs 000-003 (test), 071-054 (train) and 720-672 (val), as in the official lists."""
    _text(root, "splits/train.json", [["071", "054"]])
    _text(root, "splits/val.json", [["720", "672"]])
    _text(root, "splits/test.json", [["000", "003"]])
    youtube, changed = "original_sequences/youtube/c23/videos", "manipulated_sequences"
    key = {name: f"faceforensics/{name}" for name in ("000", "003", "054", "071", "672", "720")}
    test, train, val = (key["000"], key["003"]), (key["071"], key["054"]), (key["720"], key["672"])
    reals = [
        _real(f"{youtube}/000.mp4", (key["000"],), "test"),
        _real(f"{youtube}/003.mp4", (key["003"],), "test"),
        _real(f"{youtube}/054.mp4", (key["054"],), "train"),
        _real(f"{youtube}/071.mp4", (key["071"],), "train"),
        _real(f"{youtube}/672.mp4", (key["672"],), "val"),
        _real(f"{youtube}/720.mp4", (key["720"],), "val"),
    ]
    fakes = [
        _fake(f"{changed}/Deepfakes/c23/videos/000_003.mp4", SWAP, "Deepfakes", test, "test",
              f"{youtube}/000.mp4", f"{changed}/Deepfakes/masks/videos/000_003.mp4"),
        _fake(f"{changed}/Deepfakes/c23/videos/054_071.mp4", SWAP, "Deepfakes", train[::-1], "train",
              f"{youtube}/054.mp4", f"{changed}/Deepfakes/masks/videos/054_071.mp4"),
        _fake(f"{changed}/Deepfakes/c23/videos/071_054.mp4", SWAP, "Deepfakes", train, "train",
              f"{youtube}/071.mp4", f"{changed}/Deepfakes/masks/videos/071_054.mp4"),
        _fake(f"{changed}/Face2Face/c23/videos/720_672.mp4", EDIT, "Face2Face", val, "val",
              f"{youtube}/720.mp4", f"{changed}/Face2Face/masks/videos/720_672.mp4"),
        _fake(f"{changed}/FaceSwap/c23/videos/071_054.mp4", SWAP, "FaceSwap", train, "train",
              f"{youtube}/071.mp4", f"{changed}/FaceSwap/masks/videos/071_054.mp4"),
        _fake(f"{changed}/NeuralTextures/c23/videos/000_003.mp4", EDIT, "NeuralTextures", test, "test",
              f"{youtube}/000.mp4", f"{changed}/NeuralTextures/masks/videos/000_003.mp4"),
        _fake(f"{changed}/FaceShifter/c23/videos/071_054.mp4", SWAP, "FaceShifter", train, "train",
              f"{youtube}/071.mp4"),
    ]  # fmt: skip
    return _write(root, face, reals + fakes)


def write_deepfakedetection(root, face):
    actors = "original_sequences/actors/c23/videos"
    swaps = "manipulated_sequences/DeepFakeDetection"
    one, two = "deepfakedetection/01__exit_phone_room", "deepfakedetection/02__talking_against_wall"
    items = [
        _real(f"{actors}/01__exit_phone_room.mp4", (one,)),
        _real(f"{actors}/02__talking_against_wall.mp4", (two,)),
        _fake(f"{swaps}/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4", SWAP, "DeepFakeDetection", (one,), "",
              f"{actors}/01__exit_phone_room.mp4", f"{swaps}/masks/videos/01_02__exit_phone_room__YVGY8LOK.mp4"),
        _fake(f"{swaps}/c23/videos/02_01__talking_against_wall__6TSB8VDI.mp4", SWAP, "DeepFakeDetection", (two,), "",
              f"{actors}/02__talking_against_wall.mp4",
              f"{swaps}/masks/videos/02_01__talking_against_wall__6TSB8VDI.mp4"),
    ]  # fmt: skip
    return _write(root, face, items)


def write_celebdf(root, face):
    listed = "1 YouTube-real/00170.mp4\n1 Celeb-real/id1_0000.mp4\n0 Celeb-synthesis/id1_id0_0000.mp4\n"
    _text(root, "List_of_testing_videos.txt", listed)
    items = [
        _real("Celeb-real/id0_0000.mp4", ("celebdf/id0_0000",)),
        _real("Celeb-real/id1_0000.mp4", ("celebdf/id1_0000",), "test"),
        _real("YouTube-real/00000.mp4", ("celebdf/youtube_00000",)),
        _real("YouTube-real/00170.mp4", ("celebdf/youtube_00170",), "test"),
        _fake("Celeb-synthesis/id0_id1_0000.mp4", SWAP, "Celeb-DF-v2", ("celebdf/id0_0000",), "",
              "Celeb-real/id0_0000.mp4"),
        _fake("Celeb-synthesis/id1_id0_0000.mp4", SWAP, "Celeb-DF-v2", ("celebdf/id1_0000",), "test",
              "Celeb-real/id1_0000.mp4"),
    ]  # fmt: skip
    return _write(root, face, items)


def write_dffd(root, face):
    items = [
        _real("ffhq/train/00001.png", split="train"),
        _real("ffhq/validation/00002.png", split="val"),
        _real("ffhq/test/00003.png", split="test"),
        _real("celeba/train/000004.png", split="train"),
        _fake("faceapp/train/1_5.png", EDIT, "faceapp", (), "train", "", "faceapp/train_mask/1_5.png"),
        _fake("stargan/test/2.png", EDIT, "stargan", (), "test", "", "stargan/test_mask/2.png"),
        _fake("pggan_v1/train/3.png", SYNTHESIS, "pggan_v1", (), "train"),
        _fake("pggan_v2/validation/4.png", SYNTHESIS, "pggan_v2", (), "val"),
        _fake("stylegan_celeba/test/5.png", SYNTHESIS, "stylegan_celeba", (), "test"),
        _fake("stylegan_ffhq/test/6.png", SYNTHESIS, "stylegan_ffhq", (), "test"),
    ]
    return _write(root, face, items)


def write_gandiffface(root, face):
    one, two = "gandiffface/Black_Male/7381461", "gandiffface/White_Female/120"
    items = [
        _fake("Black_Male/7381461/0.png", SYNTHESIS, "GANDiffFace", (one,)),
        _fake("Black_Male/7381461/49.png", SYNTHESIS, "GANDiffFace", (one,)),
        _fake("White_Female/120/3.png", SYNTHESIS, "GANDiffFace", (two,)),
    ]
    return _write(root, face, items)


def write_deeperforensics(root, face):
    for split, name in (("train", "000_M101.mp4"), ("val", "003_W101.mp4"), ("test", "012_M004.mp4")):
        _text(root, f"lists/splits/{split}.txt", f"{name}\n")
    man, woman, swaps = "deeperforensics/M101", "deeperforensics/W101", "manipulated_videos"
    studio = "source_videos/M101/light_down/happy/camera_front/M101_light_down_happy_camera_front.mp4"
    items = [
        _real(studio, (man,), "train"),
        _real("source_videos/W101/BlendShape/camera_up/W101_BlendShape_camera_up.mp4", (woman,), "val"),
        _fake(f"{swaps}/end_to_end/000_M101.mp4", SWAP, "end_to_end", (man, "faceforensics/000"), "train"),
        _fake(f"{swaps}/end_to_end/003_W101.mp4", SWAP, "end_to_end", (woman, "faceforensics/003"), "val"),
        _fake(f"{swaps}/end_to_end_level_1/000_M101.mp4", SWAP, "end_to_end_level_1", (man, "faceforensics/000"),
              "train"),
        _fake(f"{swaps}/reenact_postprocess/012_M004.mp4", SWAP, "reenact_postprocess",
              ("deeperforensics/M004", "faceforensics/012"), "test"),
    ]  # fmt: skip
    return _write(root, face, items)


def write_dfdc(root, face):
    one = {
        "owxbbpjpch.mp4": {"label": "FAKE", "split": "train", "original": "wynotylpnm.mp4"},
        "wynotylpnm.mp4": {"label": "REAL", "split": "train", "original": None},
    }
    two = {"vpmyeepbep.mp4": {"label": "REAL", "split": "train"}}
    test = {
        "aalscayrfi.mp4": {"is_fake": 1, "augmentations": ["blur"]},
        "bwdmzwhdnw.mp4": {"is_fake": 0, "augmentations": []},
    }
    for folder, entries in (("dfdc_train_part_0", one), ("dfdc_train_part_1", two), ("test", test)):
        _text(root, f"{folder}/metadata.json", entries)
    items = [
        _fake("dfdc_train_part_0/owxbbpjpch.mp4", SWAP, "DFDC", ("dfdc/wynotylpnm.mp4",), "train",
              "dfdc_train_part_0/wynotylpnm.mp4"),
        _real("dfdc_train_part_0/wynotylpnm.mp4", ("dfdc/wynotylpnm.mp4",), "train"),
        _real("dfdc_train_part_1/vpmyeepbep.mp4", ("dfdc/vpmyeepbep.mp4",), "train"),
        _fake("test/aalscayrfi.mp4", SWAP, "DFDC", ("dfdc/aalscayrfi.mp4",), "test"),
        _real("test/bwdmzwhdnw.mp4", ("dfdc/bwdmzwhdnw.mp4",), "test"),
    ]  # fmt: skip
    return _write(root, face, items)


def write_pgc(root, face):
    _text(root, "CelebA/Eval/list_eval_partition.txt", "000001.jpg 0\n000002.jpg 0\n162771.jpg 1\n182638.jpg 2\n")
    _text(root, "CelebA/Anno/identity_CelebA.txt", "000001.jpg 2880\n000002.jpg 2880\n162771.jpg 5\n182638.jpg 17\n")
    photos = "CelebA/Img/img_align_celeba"
    items = [
        _real(f"{photos}/000001.jpg", ("celeba/2880",), "train"),
        _real(f"{photos}/000002.jpg", ("celeba/2880",), "train"),
        _real(f"{photos}/162771.jpg", ("celeba/5",), "val"),
        _real(f"{photos}/182638.jpg", ("celeba/17",), "test"),
        _fake("PGGAN/celebahq-1024x1024/img00000000.png", SYNTHESIS, "PGGAN"),
        _fake("PGGAN/celebahq-1024x1024/img00000001.png", SYNTHESIS, "PGGAN"),
    ]
    return _write(root, face, items)


def write_whichfaceisreal(root, face):
    items = [
        _real("0_real/00012.jpeg"),
        _real("0_real/10286.jpeg"),
        _fake("1_fake/image-2019-02-17_022542.jpeg", SYNTHESIS, "StyleGAN"),
        _fake("1_fake/image-2019-02-17_023139.jpeg", SYNTHESIS, "StyleGAN"),
    ]
    return _write(root, face, items)


def write_multiffdi(root, face):
    one, two, three = ("3381ccbc4df9e7778b720d53a2987014", "63fee8a89581307c0b4fd05a48e0ff79",
                       "cd0e3907b3312f6046b98187fc25f9c7")  # fmt: skip
    _text(root, "trainset_label.txt", f"img_name,target\n{one}.jpg,1\n{two}.jpg,0\n")
    _text(root, "valset_label.txt", f"img_name,target\n{three}.jpg,1\n")
    items = [
        _fake(f"trainset/{one}.jpg", SWAP, "MultiFFDI", (), "train"),
        _real(f"trainset/{two}.jpg", split="train"),
        _fake(f"valset/{three}.jpg", SWAP, "MultiFFDI", (), "val"),
    ]
    return _write(root, face, items)


def write_ddvqa(root, face):
    """As published, with the frames in frames/."""
    answers = {"0": {"question": "Does the image looks real/fake?", "answer": ["The image looks fake."]}}
    _text(root, "DQ_FF++/split/train.json", [["071", "054"]])
    _text(root, "DQ_FF++/split/val.json", [["720", "672"]])
    _text(root, "DQ_FF++/split/test.json", [["000", "003"]])
    for part, method, keys in (
        ("train_set", "Deepfakes", ["0_071_054"]),
        ("train_set", "Original", ["5_720"]),
        ("test_set", "Neuraltexture", ["6_000_003"]),
        ("test_set", "Original", ["5_003"]),
    ):
        _text(root, f"DQ_FF++/{part}/{method}/{method}.json", dict.fromkeys(keys, answers))
    items = [
        _fake("frames/0_071_054.jpg", SWAP, "Deepfakes", ("faceforensics/071", "faceforensics/054"), "train"),
        _real("frames/5_720.jpg", ("faceforensics/720",), "val"),
        _fake("frames/6_000_003.jpg", EDIT, "NeuralTextures", ("faceforensics/000", "faceforensics/003"), "test"),
        _real("frames/5_003.jpg", ("faceforensics/003",), "test"),
    ]
    return _write(root, face, items)


def write_folder(root, face):
    items = [
        _real("real/a.png", ("folder/a",)),
        _real("real/more/b.mp4", ("folder/more/b",)),
        _fake("fake/retouch/more/b.mp4", EDIT, "retouch", ("folder/more/b",), mask="masks/retouch/more/b.mp4"),
        _fake("fake/swap/a.png", SWAP, "swap", ("folder/a",), mask="masks/swap/a.png"),
        _fake("fake/swap/c.jpg", SWAP, "swap", ("folder/c",)),
    ]
    return _write(root, face, items)


def write_csv(root, face):
    """Three columns have names of their own; one column is none of the manifest's."""
    with_dataset = {"dataset": "portraits"}
    rows = [
        {"file": "photos/1.jpg", "target": "Real", "group": "p1", "split": "train", "note": "a, b"},
        {"file": "photos/2.jpg", "target": "FAKE", "forgery_type": "identity_exchange", "generator": "simswap",
         "group": "p1", "split": "train", "regions": "mouth;nose", "mask": "masks/2.png", "reference": "photos/1.jpg"},
        {"file": "photos/3.png", "target": "1", "forgery_type": "Entire face synthesis", "generator": "sd",
         "split": "bench", "bench": "set 1", **with_dataset},
        {"file": "clips/4.mp4", "target": "0", "split": "bench", "bench": "set 1", **with_dataset},
    ]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        names = ["note", "file", "target", "forgery_type", "generator", "dataset", "split", "bench", "group", "regions"]
        writer = csv.DictWriter(file, [*names, "mask", "reference"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    items = [
        _real("photos/1.jpg", ("p1",), "train"),
        _fake("photos/2.jpg", SWAP, "simswap", ("p1",), "train", "photos/1.jpg", "masks/2.png",
              regions=("mouth", "nose")),
        _fake("photos/3.png", SYNTHESIS, "sd", (), "bench", bench="set 1", dataset="portraits"),
        _real("clips/4.mp4", (), "bench", bench="set 1", dataset="portraits"),
    ]  # fmt: skip
    return _write(root, face, items)


WRITERS = {
    "faceforensics": write_faceforensics,
    "deepfakedetection": write_deepfakedetection,
    "celebdf": write_celebdf,
    "dffd": write_dffd,
    "gandiffface": write_gandiffface,
    "deeperforensics": write_deeperforensics,
    "dfdc": write_dfdc,
    "pgc": write_pgc,
    "whichfaceisreal": write_whichfaceisreal,
    "multiffdi": write_multiffdi,
    "ddvqa": write_ddvqa,
    "folder": write_folder,
    "csv": write_csv,
}


def write_all(root, face):
    """kind -> its items, below root/<kind>."""
    return {kind: write(root / kind, face) for kind, write in WRITERS.items()}
