"""Something else in the place of a file: links, pipes, devices, folders, nothing, too much."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.case import CONFIG, FILES, WEIGHTS, Artifact, Case, Damage, Draft, cases

HUGE = 10 * 2**30
"""Bytes of a sparse file: nothing on the disk, everything in memory if it is read."""


def _link(draft: Draft, name: str) -> None:
    """The same bytes, elsewhere: every hash fits."""
    (draft.folder / name).unlink()
    (draft.folder / name).symlink_to(draft.outside / name)


def _relative_link(draft: Draft, name: str) -> None:
    beside = draft.folder.parent / "beside"
    shutil.copytree(draft.outside, beside)
    (draft.folder / name).unlink()
    (draft.folder / name).symlink_to(Path("..") / beside.name / name)


def _link_inside(draft: Draft, name: str) -> None:
    (draft.folder / name).rename(draft.folder / "moved")
    (draft.folder / name).symlink_to("moved")


def _dangling(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    (draft.folder / name).symlink_to(draft.outside / "nothing")


def _loop(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    (draft.folder / name).symlink_to(name)


def _device(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    (draft.folder / name).symlink_to("/dev/zero")


def _fifo(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    os.mkfifo(draft.folder / name)


def _socket(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    with _inside(draft.folder), contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
        one.bind(name)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder: the name of a socket may be no longer than 108 bytes."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _directory(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    (draft.folder / name).mkdir()


def _directory_link(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()
    (draft.folder / name).symlink_to(draft.outside)


def _huge(draft: Draft, name: str) -> None:
    os.truncate(draft.folder / name, HUGE)


def _missing(draft: Draft, name: str) -> None:
    (draft.folder / name).unlink()


def _empty(draft: Draft, name: str) -> None:
    draft.write(name, b"")


def _doubled(draft: Draft, name: str) -> None:
    draft.write(name, draft.read(name) * 2)


_INSTEAD: dict[str, Callable[[Draft, str], None]] = {
    "a link out of the folder": _link,
    "a relative link out of the folder": _relative_link,
    "a link within the folder": _link_inside,
    "a link to nothing": _dangling,
    "a link to itself": _loop,
    "a link to a device": _device,
    "a link to a folder": _directory_link,
    "a pipe": _fifo,
    "a socket": _socket,
    "a folder": _directory,
    "ten gigabytes of nothing": _huge,
    "no file": _missing,
    "an empty file": _empty,
    "the file twice": _doubled,
}
_FEWER = ("a link out of the folder", "a link to a device", "a pipe", "a folder", "ten gigabytes of nothing", "no file")  # fmt: skip


def _instead(artifact: Artifact, names: tuple[str, ...], kinds: tuple[str, ...]) -> Iterator[Case]:
    for name in names:
        for kind in kinds:
            put = _INSTEAD[kind]
            damages: dict[str, Damage] = {
                f"{name} is {kind}": lambda draft, put=put, name=name: put(draft, name)  # type: ignore[misc]
            }
            yield from cases(
                artifact, damages, unfitting=kind in ("an empty file", "the file twice")
            )


IN_PLACE_CASES: tuple[Case, ...] = (
    *_instead("lora", FILES["lora"], tuple(_INSTEAD)),
    *_instead("head-only", FILES["head-only"], _FEWER[:3]),
    *_instead("full", FILES["full"], _FEWER),
    *_instead("plain", (CONFIG, WEIGHTS), tuple(kind for kind in _FEWER if kind != "no file")),
)
