"""What is remembered on this machine: hashes of large files, and where bases were last seen."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from peftune.errors import ArtifactError
from peftune.files.publishing import replace_file
from peftune.files.reading import read_plain

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SETTLED_NS = 2_000_000_000
"""A file that was written just now may be written again within the same tick of its clock."""

_PLACES = "base-places"
_LARGEST_ENTRY = 1 << 30

_known: dict[str, str] = {}


def cache_folder() -> Path:
    """Return where peftune keeps what it can work out again.

    `$PEFTUNE_CACHE`; or `peftune` in `$XDG_CACHE_HOME` or `~/.cache`. The folder may not be there,
    and it may not be possible to write it: then nothing is kept.
    """
    chosen, shared = os.environ.get("PEFTUNE_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if chosen:
        return Path(chosen)
    if Path(shared).is_absolute():  # any other is to be ignored, says the XDG specification
        return Path(shared) / "peftune"
    try:
        return Path.home() / ".cache" / "peftune"
    except RuntimeError:  # a user without a home folder
        return Path(os.devnull) / "peftune"


def remembered(
    kind: str, files: Sequence[Path], compute: Callable[[], str], *, facts: str = ""
) -> str:
    """Return a hash of some files: from an earlier time, if none of them has changed since.

    A file counts as unchanged if path, size, inode and time of change to the nanosecond are what
    they were. An entry that is damaged is worked out anew and replaced; a cache that cannot be read
    or written is done without.

    Args:
        kind: what is hashed; names the folder in the cache.
        files: all the files that the hash depends on.
        compute: works it out, as 64 hexadecimal digits.
        facts: whatever else it depends on.
    """
    stamps = [(path.resolve(), path.stat()) for path in files]
    seen = [(str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for p, s in stamps]
    key = hashlib.sha256(repr((kind, facts, seen)).encode()).hexdigest()
    if key in _known:
        return _known[key]
    entry = read_entry(kind, key)
    if entry is not None and _DIGEST.match(digest := entry.decode()):
        return _known.setdefault(key, digest)
    digest = compute()
    newest = max(s.st_ctime_ns for _, s in stamps)
    if time.time_ns() - newest > _SETTLED_NS:
        _known[key] = digest
        with contextlib.suppress(OSError):
            write_entry(kind, key, digest.encode())
    return digest


def remember_place(identity: Sequence[str], folder: Path) -> None:
    """Remember on this machine where a base lies; a later place replaces it.

    Args:
        identity: all by which it is asked for again, such as its hashes and its name.
        folder: where it was just seen.
    """
    place = str(folder.resolve())
    with contextlib.suppress(OSError, UnicodeError):
        if last_place(identity) != Path(place):
            write_entry(_PLACES, _identity_key(identity), place.encode())


def last_place(identity: Sequence[str]) -> Path | None:
    """Return the folder in which a base was last seen, if it is still a folder.

    It is a hint and nothing more: what lies there now may be another base.
    """
    with contextlib.suppress(OSError, ValueError):
        entry = read_entry(_PLACES, _identity_key(identity))
        folder = Path(entry.decode()) if entry is not None else None
        if folder is not None and folder.is_absolute() and folder.is_dir():
            return folder
    return None


def read_entry(kind: str, key: str) -> bytes | None:
    """Return what the cache holds under a key; None where it holds nothing that can be believed.

    An entry begins with a checksum of its key and its content. One that is torn, changed, moved
    from another key or of an earlier version without checksum counts as absent.
    """
    try:
        entry = read_plain(_entry_path(kind, key), limit=_LARGEST_ENTRY)
    except (ArtifactError, ValueError):
        return None
    checksum, _, content = entry.partition(b"\n")
    return content if checksum == _checksum(kind, key, content) else None


def write_entry(kind: str, key: str, content: bytes) -> None:
    """Keep something in the cache under a key, whole or not at all.

    Raises:
        OSError: the cache cannot be written.
    """
    place = _entry_path(kind, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(place, _checksum(kind, key, content) + b"\n" + content)


def _entry_path(kind: str, key: str) -> Path:
    return cache_folder() / kind / key


def _checksum(kind: str, key: str, content: bytes) -> bytes:
    return hashlib.sha256(f"{kind}/{key}\n".encode() + content).hexdigest().encode()


def _identity_key(identity: Sequence[str]) -> str:
    return hashlib.sha256(repr(list(identity)).encode()).hexdigest()
