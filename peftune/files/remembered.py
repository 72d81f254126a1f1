"""What is remembered on this machine: hashes of large files, and where bases were last seen."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SETTLED_NS = 2_000_000_000
"""A file that was written just now may be written again within the same tick of its clock."""

_PLACES = "base-places"

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
    they were. A cache that cannot be read or written is done without.

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
    place = cache_folder() / kind / key
    with contextlib.suppress(OSError, UnicodeDecodeError):
        digest = place.read_text(encoding="ascii")
        if _DIGEST.match(digest):
            return _known.setdefault(key, digest)
    digest = compute()
    newest = max(s.st_ctime_ns for _, s in stamps)
    if time.time_ns() - newest > _SETTLED_NS:
        _known[key] = digest
        with contextlib.suppress(OSError):
            _write(place, digest)
    return digest


def remember_place(identity: Sequence[str], folder: Path) -> None:
    """Remember on this machine where a base lies; a later place replaces it.

    Args:
        identity: all by which it is asked for again, such as its hashes and its name.
        folder: where it was just seen.
    """
    with contextlib.suppress(OSError, UnicodeError):
        if last_place(identity) != folder.resolve():
            _write(_place(identity), str(folder.resolve()))


def last_place(identity: Sequence[str]) -> Path | None:
    """Return the folder in which a base was last seen, if it is still a folder.

    It is a hint and nothing more: what lies there now may be another base.
    """
    with contextlib.suppress(OSError, ValueError):
        folder = Path(_place(identity).read_text(encoding="utf-8"))
        if folder.is_absolute() and folder.is_dir():
            return folder
    return None


def _place(identity: Sequence[str]) -> Path:
    return cache_folder() / _PLACES / hashlib.sha256(repr(list(identity)).encode()).hexdigest()


def _write(place: Path, content: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, staged = tempfile.mkstemp(dir=place.parent, suffix=".partial")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
    Path(staged).replace(place)
