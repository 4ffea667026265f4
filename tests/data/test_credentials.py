import io
import random
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from ffaa import wording
from ffaa.data import credentials
from ffaa.data.credentials import load_trust_list, read_clip_credentials, read_credentials
from ffaa.errors import InputError, UsageError
from ffaa.types import CredentialStatus

pytest.importorskip("c2pa", reason="pip install 'ffaa[report]'")

from tests.data.signing import authority, created, jpeg, sign, tampered  # needs the library

PLAIN_WORDS = ("suspicious", "forged", "fake", "manipulated", "authentic", "genuine")


@pytest.fixture(scope="module")
def portrait(astronaut):
    return jpeg(astronaut[20:220, 130:330])


@pytest.fixture(scope="module")
def signed(portrait):
    actions = [
        created(softwareAgent={"name": "Camera", "version": "3"}),
        {"action": "c2pa.color_adjustments", "when": "2026-01-01T00:00:00Z"},
    ]
    return sign(portrait, actions)


def test_a_signature_that_fits_by_a_signer_whom_nobody_vouches_for(signed):
    found = read_credentials(signed)
    assert found.status is CredentialStatus.VALID
    assert found.trusted is None
    assert (found.signer, found.organisation) == ("Test Signer", "Test Office")
    assert found.generator == "Test App 1.2"
    assert found.problems == []
    assert found.reader.startswith("c2pa-python ")
    assert [action.action for action in found.actions] == ["c2pa.created", "c2pa.color_adjustments"]
    assert found.source_types == ["digitalCapture"]
    assert [wording.credentials_action(action) for action in found.actions] == [
        "created: captured by a digital camera; with Camera 3", "color adjustments: 2026-01-01T00:00:00Z",
    ]  # fmt: skip
    assert "was not changed since" in wording.credentials_headline(found)
    told = wording.credentials_signer(found)
    assert "states the name Test Signer, Test Office; not confirmed: no trust list was given" in told
    assert wording.credentials_generated(found) == ""


def test_the_trust_list_decides_who_is_trusted(signed):
    found = read_credentials(signed, authority()[1])
    assert (found.status, found.trusted) == (CredentialStatus.VALID, True)
    assert wording.credentials_signer(found) == "Test Signer, Test Office (on the trust list that was given)"
    found = read_credentials(signed, authority("Another")[1])
    assert (found.status, found.trusted) == (CredentialStatus.VALID, False)
    assert "not confirmed: not on the trust list" in wording.credentials_signer(found)


def test_a_trust_list_is_checked(tmp_path, signed):
    with pytest.raises(UsageError, match="PEM"):
        read_credentials(signed, "no certificate")
    path = tmp_path / "list.pem"
    path.write_text(authority()[1] * 3)
    assert load_trust_list(path) == authority()[1] * 3
    path.write_text("text")
    with pytest.raises(UsageError, match="PEM"):
        load_trust_list(path)
    with pytest.raises(InputError, match="no such file"):
        load_trust_list(tmp_path / "none.pem")


@pytest.mark.parametrize("trust", [False, True])
def test_changed_pixels_are_invalid_whoever_signed(signed, trust):
    found = read_credentials(tampered(signed), authority()[1] if trust else None)
    assert found.status is CredentialStatus.INVALID
    assert any(problem.startswith("assertion.dataHash.mismatch: ") for problem in found.problems)
    assert not any("untrusted" in problem for problem in found.problems)
    told = wording.credentials_headline(found)
    assert "INVALID: the file was changed after it was signed" in told
    assert not any(word in told for word in PLAIN_WORDS)


def test_a_changed_statement_is_invalid(signed):
    found = read_credentials(signed.replace(b"c2pa.color_adjustments", b"c2pa.color_adjustmentz"))
    assert found.status is CredentialStatus.INVALID
    assert "the credentials themselves were changed" in wording.credentials_headline(found)


def test_absent_is_no_sign_of_anything(portrait):
    found = read_credentials(portrait)
    assert found.status is CredentialStatus.ABSENT
    told = wording.credentials_headline(found)
    assert told == "None in this file. Most files carry none; that says nothing for or against it."
    assert wording.credentials_signer(found) == wording.credentials_generated(found) == ""


@pytest.mark.parametrize(
    "data", [b"", b"junk" * 100, b"\xff\xd8\xff\xe0" + b"junk" * 100, b"PK\x03\x04" + bytes(100), b"%PDF-1.7\n" * 9]
)
def test_junk_is_unreadable(data):
    found = read_credentials(data)
    assert found.status is CredentialStatus.UNREADABLE
    assert found.reason
    assert "nothing for or against" in wording.credentials_headline(found)


def test_a_truncated_file_is_unreadable(signed):
    found = read_credentials(signed[: len(signed) - 20_000])
    assert found.status in (CredentialStatus.UNREADABLE, CredentialStatus.INVALID)
    assert read_credentials(signed[:3000]).status is CredentialStatus.UNREADABLE


def test_other_kinds_of_files(portrait):
    image = Image.open(io.BytesIO(portrait))
    for kind in ("PNG", "WEBP", "TIFF", "GIF"):
        file = io.BytesIO()
        image.save(file, kind)
        assert read_credentials(file.getvalue()).status is CredentialStatus.ABSENT
        found = read_credentials(sign(file.getvalue(), mime=f"image/{kind.lower()}"))
        assert found.status is CredentialStatus.VALID
    file = io.BytesIO()
    image.save(file, "BMP")
    found = read_credentials(file.getvalue())
    assert found.status is CredentialStatus.NOT_CHECKED
    assert "BMP" in found.reason


def test_generated_pictures_are_said_with_how_far_that_holds(portrait):
    generated = sign(portrait, [created("trainedAlgorithmicMedia")])
    found = read_credentials(generated)
    told = wording.credentials_generated(found)
    assert told == "The credentials say: this file was made by generative AI. Who says so is not confirmed."
    trusted = wording.credentials_generated(read_credentials(generated, authority()[1]))
    assert trusted == "The credentials say: this file was made by generative AI."
    assert "not borne out" in wording.credentials_generated(read_credentials(tampered(generated)))

    edited = read_credentials(sign(sign(generated, edit=True), edit=True))
    assert edited.status is CredentialStatus.VALID
    assert edited.source_types == []
    (parent,) = edited.ingredients
    assert (parent.relationship, parent.has_credentials) == ("parentOf", True)
    assert parent.source_types == ["trainedAlgorithmicMedia"]  # two steps back
    assert "an earlier version or a part of it was made by generative AI" in wording.credentials_generated(edited)


def test_a_parent_that_did_not_hold_is_told(signed):
    found = read_credentials(sign(tampered(signed), edit=True))
    (parent,) = found.ingredients
    assert any("dataHash.mismatch" in problem for problem in parent.problems)


def test_no_address_is_ever_called(portrait, monkeypatch):
    called = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            called.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        elsewhere = sign(portrait, remote=f"http://127.0.0.1:{server.server_port}/manifest.c2pa")
        found = read_credentials(elsewhere)
        assert found.status is CredentialStatus.NOT_CHECKED
        assert "never fetched" in found.reason
        assert called == []
        monkeypatch.setattr(credentials, "_OFFLINE", {})  # so that the test would see a call
        read_credentials(elsewhere)
        assert called == ["/manifest.c2pa"]
    finally:
        server.shutdown()
        server.server_close()


def test_texts_and_lists_are_cut_and_printable(portrait):
    actions = [created(description="x" * 5000 + "\x1b[31m"), *({"action": "c2pa.edited"} for _ in range(60))]
    found = read_credentials(sign(portrait, actions, generator="A\nB\x1b[0m" + "<script>" * 100))
    assert len(found.actions) == credentials.MAX_ACTIONS
    assert found.left_out == 61 - credentials.MAX_ACTIONS
    assert len(found.actions[0].description) == len(found.generator) == credentials.MAX_TEXT
    assert found.generator.startswith("A B?[0m<script>")


def test_large_files_and_manifests_are_not_worked_on(signed, monkeypatch):
    monkeypatch.setattr(credentials, "MAX_MANIFEST", 100)
    assert read_credentials(signed).status is CredentialStatus.UNREADABLE
    monkeypatch.setattr(credentials, "MAX_BYTES", 100)
    assert read_credentials(signed).status is CredentialStatus.NOT_CHECKED


def test_without_the_library_it_is_said(signed, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read_credentials(signed)
    assert found.status is CredentialStatus.NOT_CHECKED
    assert wording.credentials_headline(found) == "Not checked: install ffaa[report] to check them."


def test_damaged_manifests_never_raise(signed):
    rng = random.Random(5)
    start = signed.index(b"jumb")
    for _ in range(60):
        data = bytearray(signed)
        place = rng.randrange(start, start + 4000)
        data[place : place + 4] = rng.randbytes(rng.choice((0, 4, 7)))
        assert read_credentials(bytes(data)).trusted is None


@pytest.mark.parametrize(
    "store",
    [
        "[]", "{}", '{"active_manifest": "a", "manifests": {"a": []}}',
        '{"active_manifest": "a", "manifests": {"a": {"assertions": [{"label": "c2pa.actions", "data": 3}]}}}',
        '{"active_manifest": "a", "manifests": {"a": {"ingredients": [7]}}}',
    ],
)  # fmt: skip
def test_what_was_signed_may_have_any_shape(signed, monkeypatch, store):
    import c2pa

    monkeypatch.setattr(c2pa.Reader, "json", lambda self: store)
    found = read_credentials(signed)
    assert found.status is CredentialStatus.UNREADABLE
    assert "structure" in found.reason


@pytest.mark.parametrize(("suffix", "mime"), [("mp4", "video/mp4"), ("mov", "video/quicktime"), ("avi", "video/avi")])
def test_videos(make_clip, tmp_path, suffix, mime):
    rng = np.random.default_rng(1)
    plain = make_clip(tmp_path / f"a.{suffix}", rng.integers(0, 256, (4, 32, 32, 3), np.uint8)).read_bytes()
    assert read_clip_credentials(io.BytesIO(plain)).status is CredentialStatus.ABSENT
    signed = sign(plain, [created("trainedAlgorithmicMedia")], mime=mime)
    found = read_clip_credentials(io.BytesIO(signed))
    assert (found.status, found.signer, found.trusted) == (CredentialStatus.VALID, "Test Signer", None)
    assert "made by generative AI" in wording.credentials_generated(found)
    assert read_clip_credentials(io.BytesIO(signed), authority()[1]).trusted is True
    place = signed.index(b"movi" if suffix == "avi" else b"mdat") + 60
    changed = read_clip_credentials(io.BytesIO(signed[:place] + bytes([signed[place] ^ 255]) + signed[place + 1 :]))
    assert "INVALID: the file was changed after it was signed" in wording.credentials_headline(changed)


def test_videos_that_carry_none(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mkv", [np.zeros((32, 32, 3), np.uint8)])
    for data in (path.read_bytes(), b"", b"text"):
        found = read_clip_credentials(io.BytesIO(data))
        assert found.status is CredentialStatus.NOT_CHECKED
        assert "videos of this kind" in found.reason


def test_a_file_of_many_parts_does_not_keep_the_reader(monkeypatch):
    """A tenth of a megabyte of empty boxes takes the library ten seconds; the time grows with its square."""
    monkeypatch.setattr(credentials, "MAX_CLIP_SECONDS", 0.2)
    box = struct.Struct(">I4s")
    crowd = box.pack(16, b"ftyp") + b"isom" + bytes(4) + box.pack(8, b"free") * 40_000
    found = read_clip_credentials(io.BytesIO(crowd))
    assert found.status is CredentialStatus.NOT_CHECKED
    assert found.reason == "reading them takes longer than 0.2 s"
    monkeypatch.setattr(credentials, "MAX_SECONDS", 0.0)
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")
    assert "takes longer" in read_credentials(picture.getvalue()).reason  # never "absent" of what was not read
