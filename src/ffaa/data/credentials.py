"""Content credentials (C2PA) of a file, read by the library c2pa-python (extra `report`)."""

from __future__ import annotations

import io
import json
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from ffaa.data.images import Limits, opened, read_bytes, shown
from ffaa.errors import InputError, MissingExtraError, UsageError
from ffaa.types import CredentialAction, Credentials, CredentialStatus, Ingredient
from ffaa.wording import printable

MAX_BYTES = 256 * 2**20
MAX_SECONDS, MAX_CLIP_SECONDS = 10.0, 60.0  # honest photos take milliseconds, videos as long as it takes to read them
MAX_MANIFEST = 8 * 2**20  # characters of JSON; what honest software writes has some ten thousand
MAX_ACTIONS, MAX_INGREDIENTS, MAX_PROBLEMS, MAX_TEXT = 30, 12, 12, 200

# No photo may make the reader call an address: neither for credentials kept elsewhere nor for revoked certificates.
_OFFLINE = {
    "verify": {"verify_after_reading": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"allowed_network_hosts": []},
}
_MIME = {"JPEG": "jpeg", "MPO": "jpeg", "HEIF": "heic"} | {n: n.lower() for n in ("PNG", "GIF", "WEBP", "TIFF", "AVIF")}
_INSTALL = "install ffaa[report] to check them"
_UNTRUSTED = "signingCredential.untrusted"


def can_read() -> bool:
    """Is the library there (pip install 'ffaa[report]')?"""
    return find_spec("c2pa") is not None


def require_reader() -> None:
    """Raises MissingExtraError where the library is not there."""
    if not can_read():
        raise MissingExtraError("reading content credentials needs the extra 'report'; run: pip install 'ffaa[report]'")


def load_trust_list(path: str | Path) -> str:
    """The certificates of a PEM file of at most 4 MiB, for `read_credentials`.

    Raises InputError when it cannot be read, UsageError when it holds none, MissingExtraError without the library.
    """
    require_reader()
    from cryptography.x509 import load_pem_x509_certificates

    data = read_bytes(path, Limits(max_bytes=4 * 2**20))
    try:
        load_pem_x509_certificates(data)
    except ValueError:
        raise UsageError(f"{shown(path)}: the trust list holds no certificates; give a file in PEM format") from None
    return data.decode("ascii", "replace")


def read_credentials(data: bytes, trust_list: str | None = None) -> Credentials:
    """The content credentials in the bytes of a photo. Never uses the network, and never raises for a bad file.

    data: at most 256 MiB; more is not checked. trust_list: certificates (PEM) of the authorities whose signers are
    trusted; without it `trusted` is None, and the signer's name is only what the certificate says. Credentials that
    are kept at an address are not fetched (`remote_manifest_fetch` is off, no host is allowed), and whether a
    certificate was revoked is not asked (`ocsp_fetch` is off). Without the library the status is not_checked.
    Texts are cut to 200 characters, lists to 30 actions and 12 ingredients. After 10 s it is given up (not_checked).
    Raises UsageError for a trust list without certificates.
    """
    if not can_read():
        return _not("not_checked", _INSTALL)
    if len(data) > MAX_BYTES:
        return _not("not_checked", f"the file is larger than {MAX_BYTES >> 20} MiB")
    try:
        with opened(data, "file") as image:
            kind = image.format or ""
    except InputError:
        return _not("unreadable", "the content is no image that can be read")
    if kind not in _MIME:
        return _not("not_checked", f"the reader knows no content credentials in {kind} files")
    return _read(io.BytesIO(data), f"image/{_MIME[kind]}", trust_list, MAX_SECONDS)


def read_clip_credentials(file: BinaryIO, trust_list: str | None = None) -> Credentials:
    """The same of a video: MP4, MOV or AVI, open for reading; it is read from its start, a part at a time.

    Given up after 60 s (not_checked). Raises as `read_credentials`.
    """
    if not can_read():
        return _not("not_checked", _INSTALL)
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp":
        mime = "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        mime = "video/avi"
    else:
        return _not("not_checked", "the reader knows no content credentials in videos of this kind")
    return _read(file, mime, trust_list, MAX_CLIP_SECONDS)


class _Timed:
    """What the library sees of a file: nothing once the time is up. A small file of many parts can keep it for long."""

    def __init__(self, file: BinaryIO, seconds: float):
        self._file, self._until, self.late = file, time.monotonic() + seconds, False
        self.tell, self.flush = file.tell, file.flush

    def _check(self) -> None:
        self.late = self.late or time.monotonic() > self._until
        if self.late:
            raise TimeoutError

    def read(self, count: int = -1) -> bytes:
        self._check()
        return self._file.read(count)

    def readinto(self, buffer: Any) -> int:
        self._check()
        return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def seek(self, place: int, whence: int = 0) -> int:
        self._check()
        return self._file.seek(place, whence)

    def write(self, data: bytes) -> int:
        raise io.UnsupportedOperation("only for reading")


def _read(file: BinaryIO, mime: str, trust_list: str | None, seconds: float) -> Credentials:
    """Of a file that stands at its start."""
    import c2pa

    settings: dict[str, Any] = dict(_OFFLINE)
    if trust_list is not None:
        settings["trust"] = {"trust_anchors": trust_list}
    try:
        context = c2pa.Context.from_dict(settings)
    except c2pa.C2paError:
        raise UsageError("the trust list cannot be used; give certificates in PEM format") from None
    by = f"c2pa-python {version('c2pa-python')} (c2pa-rs {c2pa.sdk_version()})"
    timed = _Timed(file, seconds)
    found = _found(timed, mime, context, trust_list is not None, by)
    # What the library says of a file that it could not read to its end, even that nothing is in it, says nothing.
    return _not("not_checked", f"reading them takes longer than {seconds:g} s", by) if timed.late else found


def _found(timed: _Timed, mime: str, context: Any, with_list: bool, by: str) -> Credentials:
    import c2pa

    try:
        with c2pa.Reader(mime, timed, context=context) as reader:
            text = reader.json()
        if len(text) > MAX_MANIFEST:
            return _not("unreadable", "they are far larger than honest software makes them", by)
        return _told(json.loads(text), with_list, by)
    except c2pa.C2paError.ManifestNotFound:
        return _not("absent", "", by)
    except c2pa.C2paError as error:
        if str(error).startswith("Remote:"):
            return _not("not_checked", "they are kept at an address, and addresses are never fetched", by)
        return _not("unreadable", _text(str(error)), by)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # What a stranger signed need not have the shape that the specification asks for.
        return _not("unreadable", "they do not have the expected structure", by)


def _told(store: dict[str, Any], with_list: bool, by: str) -> Credentials:
    """The library's report of a manifest store -> what is worth telling."""
    manifests = store["manifests"]
    own = manifests[store["active_manifest"]]
    results = store.get("validation_results", {})
    checks = results.get("activeManifest", {})
    deltas = [d.get("validationDeltas", {}) for d in results.get("ingredientDeltas", [])]
    failed = [*checks.get("failure", []), *(f for delta in deltas for f in delta.get("failure", []))]
    signed = own.get("signature_info") or {}
    actions, ingredients = _actions(own), own.get("ingredients", [])
    return Credentials(
        status=CredentialStatus.VALID if store.get("validation_state") in ("Valid", "Trusted") else "invalid",
        trusted=any(c["code"] == "signingCredential.trusted" for c in checks.get("success", [])) if with_list else None,
        signer=_text(signed.get("common_name")),
        organisation=_text(signed.get("issuer")),
        signed_at=_text(signed.get("time")),
        generator=_software(own.get("claim_generator_info")) or _text(own.get("claim_generator")),
        actions=[_action(action) for action in actions[:MAX_ACTIONS]],
        ingredients=[_ingredient(one, manifests) for one in ingredients[:MAX_INGREDIENTS]],
        left_out=max(0, len(actions) - MAX_ACTIONS) + max(0, len(ingredients) - MAX_INGREDIENTS),
        problems=_problems(failed),
        reader=by,
    )


def _actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found = [a["data"]["actions"] for a in manifest.get("assertions", []) if a["label"].startswith("c2pa.actions")]
    return [action for actions in found for action in actions]


def _action(action: dict[str, Any]) -> CredentialAction:
    return CredentialAction(
        action=_text(action["action"]),
        when=_text(action.get("when")),
        software=_software(action.get("softwareAgent")),
        source_type=_text(action.get("digitalSourceType")).rpartition("/")[2],
        description=_text(action.get("description")),
    )


def _ingredient(one: dict[str, Any], manifests: dict[str, Any]) -> Ingredient:
    """Its source types are those of its own credentials and of all that went into it in turn."""
    types: list[str] = []
    waiting, seen = [one], set()
    while waiting:
        name = waiting.pop().get("active_manifest")
        if name in manifests and name not in seen:
            seen.add(name)
            types += [action.source_type for action in map(_action, _actions(manifests[name])[:MAX_ACTIONS])]
            waiting += manifests[name].get("ingredients", [])
    failed = (one.get("validation_results") or {}).get("activeManifest", {}).get("failure", [])
    return Ingredient(
        title=_text(one.get("title")) or "untitled",
        relationship=_text(one.get("relationship")),
        has_credentials=bool(one.get("active_manifest")),
        problems=_problems(failed),
        source_types=list(dict.fromkeys(filter(None, types)))[:MAX_ACTIONS],
    )


def _problems(failed: list[dict[str, Any]]) -> list[str]:
    """An untrusted signer is no failed check of the file: `trusted` tells it."""
    lines = [_text(f"{f['code']}: {f.get('explanation', '')}") for f in failed if f["code"] != _UNTRUSTED]
    return list(dict.fromkeys(lines))[:MAX_PROBLEMS]


def _software(value: Any) -> str:
    """A name, {name, version}, or the first of a list of them."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict):
        return _text(f"{first.get('name', '')} {first.get('version', '')}")
    return _text(first)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    line = printable(value[: 4 * MAX_TEXT])
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def _not(status: str, reason: str, by: str = "") -> Credentials:
    return Credentials(status=CredentialStatus(status), reason=reason, reader=by)
