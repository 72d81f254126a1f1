"""Things that leave a mark if they are executed, and files that want to be."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

EVIL_MODULE = "hostile_module"
"""The module that hostile configurations name; importing it writes the marker."""


class Payload:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Ask the unpickler to create the marker."""
        return Path.touch, (self.marker,)


def pickled(marker: Path) -> bytes:
    """Return a plain pickle."""
    return pickle.dumps(Payload(marker))


def torch_archive(marker: Path) -> bytes:
    """Return what `torch.save` would write: a zip archive around a pickle."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(marker))
        archive.writestr("archive/version", "3\n")
    return target.getvalue()


def numpy_objects(marker: Path) -> bytes:
    """Return a `.npy` file of an object array, which is a pickle too."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + pickled(marker)


def python_source(marker: Path) -> bytes:
    """Return a module that creates the marker when it is imported."""
    return f"from pathlib import Path\nPath({str(marker)!r}).touch()\n".encode()
