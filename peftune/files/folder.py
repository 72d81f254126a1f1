"""The files of a shared artifact, by name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from peftune.errors import ArtifactError
from peftune.files.plain import read_plain

MAX_ENTRIES = 64
"""Most entries that a folder may have; an artifact has fewer than ten."""


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """Files that somebody else may have written; each is opened on its own, and read once.

    Args:
        name: how messages call the folder: its path, or `user/name@commit`.
        entries: where the bytes of each file lie, by the file's name.
        path: the folder on this machine; None for one that lies on the hub.
    """

    name: str
    entries: Mapping[str, Path]
    path: Path | None = None

    def read(self, name: str, *, limit: int) -> bytes:
        """Read a file, if it is plain and has at most `limit` bytes.

        Raises:
            ArtifactError: it is missing, no plain file, or too large.
        """
        if name not in self.entries:
            message = f"'{self.name}/{name}' is missing; the artifact is incomplete or was changed. Fetch it again."
            raise ArtifactError(message)
        return read_plain(self.entries[name], limit=limit, shown=f"{self.name}/{name}")

    def refuse_others(self, allowed: Collection[str]) -> None:
        """Refuse entries beyond the allowed ones; none of them is opened.

        Raises:
            ArtifactError: there is another one.
        """
        for name in sorted(set(self.entries) - set(allowed)):
            message = f"'{self.name}/{name}' does not belong into an artifact, and is not opened. Remove it."
            raise ArtifactError(message)


def local_folder(path: Path) -> SharedFolder:
    """List a folder of this machine.

    Raises:
        ArtifactError: it is no folder that can be read, or has too many entries.
    """
    try:
        with os.scandir(path) as found:
            entries = {
                entry.name: path / entry.name for entry in itertools.islice(found, MAX_ENTRIES + 1)
            }
    except OSError as error:
        message = f"'{path}' cannot be opened: {os.strerror(error.errno or 0)}."
        raise ArtifactError(message) from error
    if len(entries) > MAX_ENTRIES:
        message = f"'{path}' has more than {MAX_ENTRIES} entries, so it is no artifact."
        raise ArtifactError(message)
    return SharedFolder(str(path), entries, path)
