"""What the hub says that a file holds, and whether a file on this machine holds that."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_CHUNK = 1 << 20
_SHA256_DIGITS = 64
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file by its hash.

    Args:
        size: bytes.
        digest: hexadecimal; the SHA-256 of a large file, or git's own SHA-1 of a small one.
    """

    size: int
    digest: str

    @classmethod
    def of(cls, content: bytes, *, large: bool) -> Content:
        """Say what the hub must say of these bytes, stored as a large file or a small one."""
        found = _hash(len(content), large=large)
        found.update(content)
        return cls(len(content), found.hexdigest())

    @property
    def is_large(self) -> bool:
        """Whether the hub stores the file beside git."""
        return len(self.digest) == _SHA256_DIGITS

    def is_in(self, path: Path) -> bool:
        """Say whether a file holds exactly this content."""
        if path.stat().st_size != self.size:
            return False
        found = _hash(self.size, large=self.is_large)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        return found.hexdigest() == self.digest


def is_digest(text: str) -> bool:
    """Say whether a text can be a hash of the hub."""
    return _DIGEST.fullmatch(text) is not None


def _hash(size: int, *, large: bool) -> _Hash:
    if large:
        return hashlib.sha256()
    found = hashlib.sha1(usedforsecurity=False)  # what git has; the manifest holds SHA-256 too
    found.update(b"blob %d\0" % size)
    return found
