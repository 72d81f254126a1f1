"""Training state on disk: which checkpoints are whole, and which one to resume from."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

_SEAL = "peftune_seal.json"
_OTHER = "it belongs to another recipe"


def seal(checkpoint: Path, run_identity: str) -> None:
    """Mark a checkpoint as whole: written last, it names every file with its hash.

    Args:
        checkpoint: folder that Trainer has finished writing.
        run_identity: hash of the recipe; a checkpoint serves its own run only.
    """
    facts = {
        "run": run_identity,
        "files": {path.name: _sha256(path) for path in _files(checkpoint)},
    }
    staged = checkpoint / f"{_SEAL}.partial"
    staged.write_text(json.dumps(facts), encoding="utf-8")
    staged.rename(checkpoint / _SEAL)


def latest_whole(folder: Path, run_identity: str) -> Path | None:
    """Return the newest checkpoint that is whole and belongs to this run.

    A torn or damaged one (Trainer would fail on it, or resume silently with other weights) is
    set aside with a word in the log: left in its place, its higher step would make Trainer take
    the next checkpoint for the older one and delete it.
    """
    checkpoints = sorted(
        folder.glob("checkpoint-*"),
        key=lambda path: int(path.name.rpartition("-")[2]),
        reverse=True,
    )
    for checkpoint in checkpoints:
        fault = _fault(checkpoint, run_identity)
        if fault is None:
            return checkpoint
        logger.warning("%s is not resumed from: %s", checkpoint.name, fault)
        _set_aside(checkpoint)
    return None


def holds_other_run(folder: Path, run_identity: str) -> bool:
    """Say whether a whole checkpoint of a folder belongs to another run."""
    return any(
        _fault(checkpoint, run_identity) == _OTHER for checkpoint in folder.glob("checkpoint-*")
    )


def _set_aside(checkpoint: Path) -> None:
    aside = checkpoint.with_name(f"skipped-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)


def _fault(checkpoint: Path, run_identity: str) -> str | None:
    try:
        facts = json.loads((checkpoint / _SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it was not written to its end"
    if facts["run"] != run_identity:
        return _OTHER
    present = {path.name: path for path in _files(checkpoint)}
    for name, expected in facts["files"].items():
        if name not in present or _sha256(present[name]) != expected:
            return f"its file {name} is missing or damaged"
    return None


def _files(checkpoint: Path) -> list[Path]:
    return sorted(
        path for path in checkpoint.iterdir() if path.is_file() and not path.name.startswith(_SEAL)
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
