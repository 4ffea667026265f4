"""API keys: a file with their sha256, one a line. A key itself is printed once, when it is made, and kept nowhere."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
from pathlib import Path

from ffaa.errors import UsageError

_LINE = re.compile(r"[0-9a-f]{64}")


def new_key(path: Path) -> str:
    """Makes a key (256 random bits), adds its hash to `path` (made with rights for its owner alone); returns the key.

    Raises UsageError when the file cannot be written.
    """
    key = "ffaa_" + secrets.token_urlsafe(32)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(digest(key) + "\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another file") from error
    return key


def digest(key: str) -> str:
    """sha256, hexadecimal. Keys are random and long, so that no salt or slow hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "backslashreplace")).hexdigest()


class Keys:
    """The hashes of a file, read again when it changes, so that a key can be added or removed while the server runs."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._hashes: tuple[str, ...] = ()
        if not self._read():
            raise UsageError(f"{path}: holds no key; add one with: ffaa serve --new-key {path}")

    def owner(self, key: str) -> str | None:
        """A short name for the holder of `key`, None for an unknown key. Takes the same time for every key."""
        with self._lock:
            hashes = self._read()
        given, found = digest(key), None
        for known in hashes:
            if hmac.compare_digest(given, known):
                found = known[:16]
        return found

    def _read(self) -> tuple[str, ...]:
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                lines = self.path.read_text(encoding="utf-8").split("\n")
                words = [line.split("#")[0].strip() for line in lines]
                wrong = [number for number, word in enumerate(words, 1) if word and not _LINE.fullmatch(word)]
                if wrong and self._stamp is None:
                    raise UsageError(f"{self.path}: line {wrong[0]} is no sha256 (64 hexadecimal digits)")
                # While the server runs, a torn line only means that its key is not known yet.
                self._hashes = tuple(word for word in words if _LINE.fullmatch(word))
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            if self._stamp is None:
                reason = getattr(error, "strerror", None) or "no text"
                raise UsageError(f"{self.path}: keys cannot be read ({reason})") from error
            self._hashes = ()  # removed: nobody gets in
        return self._hashes
