"""Training state on disk: which checkpoints are whole, and which one to resume from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from peftune.errors import StorageError
from peftune.files.publishing import free_bytes, replace_file, writing
from peftune.models.architecture import trainable_parameters

logger = logging.getLogger(__name__)

_DIGEST = "peftune_digest.json"
_STATE = "trainer_state.json"
_PREFIX = "checkpoint-"
_SKIPPED = f"skipped-{_PREFIX}"
_OTHER = "it belongs to another recipe"

MOST_AT_ONCE = 3
"""Checkpoints that lie in a folder while one is written: two are kept."""

OPTIMIZER_BYTES = {
    "adamw_torch_fused": 8.0,
    "adamw_torch": 8.0,
    "adamw_bnb_8bit": 2.0,
    "adafactor": 0.1,
    "sgd": 0.0,
}
"""Bytes that an optimizer keeps for each trainable weight: two moments in float32 for AdamW."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint, and what its training had come to.

    Args:
        path: its folder.
        best: folder of the best checkpoint so far; None where none was chosen.
        ended: whether training was over there: all steps done, or stopped by a callback.
    """

    path: Path
    best: Path | None
    ended: bool

    @property
    def step(self) -> int:
        """Return the optimizer steps that it has behind it."""
        return _step(self.path)


def saved_bytes(model: nn.Module) -> int:
    """Count the bytes of the weights in a checkpoint: all, or a PEFT method's own."""
    whole = not isinstance(model, PeftModel)
    saved = model.parameters() if whole else trainable_parameters(model).values()
    return sum(weight.nbytes for weight in saved)


def checkpoint_bytes(model: nn.Module, optim: str) -> int:
    """Count the bytes of a checkpoint's weights and of its optimizer: its least size.

    Args:
        model: prepared.
        optim: `training.optim`.
    """
    trainable = sum(weight.numel() for weight in trainable_parameters(model).values())
    return saved_bytes(model) + int(trainable * OPTIMIZER_BYTES.get(optim, 0.0))


def disk_bytes(checkpoint: int, artifact: int, *, there: int, to_come: int) -> int:
    """Count the bytes that a run has still to write at most at any time.

    Args:
        checkpoint: bytes of one.
        artifact: bytes of what is saved at the end.
        there: checkpoints that lie there already.
        to_come: checkpoints that are still to be written.
    """
    if not to_come:
        return artifact
    while_writing = min(MOST_AT_ONCE, there + to_come) * checkpoint
    at_the_end = min(MOST_AT_ONCE - 1, there + to_come) * checkpoint + artifact
    return max(0, max(while_writing, at_the_end) - there * checkpoint)


def refuse_little_room(folder: Path, model: nn.Module, optim: str, *, to_come: int) -> None:
    """Refuse a training whose checkpoints and artifact will not fit on the disk.

    Args:
        folder: of the training state.
        model: prepared.
        optim: `training.optim`.
        to_come: checkpoints that are still to be written.

    Raises:
        StorageError: with the bytes needed and free. A quota is not seen.
    """
    checkpoint = checkpoint_bytes(model, optim)
    artifact = sum(weight.nbytes for weight in trainable_parameters(model).values())
    there = len(_newest_first(folder))
    needed = disk_bytes(checkpoint, artifact, there=there, to_come=to_come)
    free = free_bytes(folder)
    if free is not None and free < needed:
        message = f"'{folder}' has {free:,} bytes free, and this training needs {needed:,}: checkpoints of {checkpoint:,} bytes, up to {MOST_AT_ONCE} at once, and the artifact of {artifact:,}. Make room, or choose another output folder with --output."
        raise StorageError(message)


@contextlib.contextmanager
def partial_removed(checkpoint: Path, *, needed: int) -> Iterator[None]:
    """Remove a checkpoint that could not be written to its end: it would take the room of the next.

    One that is whole stays, where only its folder could not be synced after its digest was written.

    Args:
        checkpoint: its folder, which is not there yet.
        needed: its bytes.

    Raises:
        StorageError: a write has failed.
    """
    try:
        with writing(checkpoint, needed=needed):
            yield
    except BaseException:
        if not (checkpoint / _DIGEST).exists():
            shutil.rmtree(checkpoint, ignore_errors=True)
        raise


def write_digest(checkpoint: Path, run_identity: str) -> None:
    """Mark a checkpoint as whole: written last, it names every file with its hash.

    Args:
        checkpoint: folder that Trainer has finished writing.
        run_identity: hash of the recipe; a checkpoint serves its own run only.
    """
    facts = {
        "run": run_identity,
        "files": {path.name: _sha256(path) for path in _files(checkpoint)},
    }
    replace_file(checkpoint / _DIGEST, json.dumps(facts))


def remove_unneeded(folder: Path) -> None:
    """Keep the newest checkpoint, and the one to fall back on; remove all others.

    The one to fall back on is the best so far, or, where the newest is the best, the best before
    it: a checkpoint without its best one could not end as the uninterrupted training does. What
    was set aside goes too. Trainer's own rotation would run before the digest is written, and a
    kill between the two would leave neither.

    Args:
        folder: of the training state; its newest checkpoint is whole.
    """
    newest_first = _newest_first(folder)
    whole = [checkpoint for checkpoint in newest_first if (checkpoint / _DIGEST).exists()]
    kept = set(whole[:1])
    for checkpoint in whole[:2]:
        if len(kept) == 1:
            kept.add(_best_of(checkpoint) or checkpoint)
    for path in (*newest_first, *folder.glob(f"{_SKIPPED}*")):
        if path not in kept:
            # First, so that what is left of it by a kill is not whole.
            (path / _DIGEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def latest_whole(folder: Path, run_identity: str) -> Checkpoint | None:
    """Return the newest checkpoint that is whole and belongs to this run.

    A torn or damaged one (Trainer would fail on it, or resume silently with other weights) is
    set aside with a word in the log, and so is one whose best checkpoint is: what an earlier start
    set aside is removed then.
    """
    for number, (checkpoint, fault) in enumerate(_with_faults(folder, run_identity)):
        if fault is None:
            return Checkpoint(checkpoint, _best_of(checkpoint), _ended(checkpoint))
        logger.warning("%s is not resumed from: %s", checkpoint.name, fault)
        if number == 0:
            for earlier in folder.glob(f"{_SKIPPED}*"):
                shutil.rmtree(earlier, ignore_errors=True)
        checkpoint.rename(checkpoint.with_name(f"skipped-{checkpoint.name}"))
    return None


def holds_other_run(folder: Path, run_identity: str) -> bool:
    """Say whether a whole checkpoint of a folder belongs to another run."""
    return any(_fault(checkpoint, run_identity) == _OTHER for checkpoint in _newest_first(folder))


def _with_faults(folder: Path, run_identity: str) -> Iterator[tuple[Path, str | None]]:
    for checkpoint in _newest_first(folder):
        fault = _fault(checkpoint, run_identity)
        best = None if fault else _best_of(checkpoint)
        if best not in (None, checkpoint) and _fault(best, run_identity):
            fault = f"its best checkpoint, {best.name}, is missing or damaged"
        yield checkpoint, fault


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdecimal()]
    return sorted(found, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    return state


def _best_of(checkpoint: Path) -> Path | None:
    """Find the best checkpoint by its step: the path in the state is that of the folder then."""
    best = _state(checkpoint).get("best_global_step")
    return checkpoint.with_name(f"{_PREFIX}{best}") if best else None


def _ended(checkpoint: Path) -> bool:
    """Read what the last evaluation decided, which Trainer saves and does not load."""
    state = _state(checkpoint)
    control = state["stateful_callbacks"]["TrainerControl"]["args"]
    return bool(control["should_training_stop"] or state["global_step"] >= state["max_steps"])


def _fault(checkpoint: Path, run_identity: str) -> str | None:
    try:
        facts = json.loads((checkpoint / _DIGEST).read_text(encoding="utf-8"))
        run, files = facts["run"], dict(facts["files"])
    except (OSError, ValueError, LookupError, TypeError):
        return "it was not written to its end"
    if run != run_identity:
        return _OTHER
    present = {path.name: path for path in _files(checkpoint)}
    for name, expected in files.items():
        if name not in present or _sha256(present[name]) != expected:
            return f"its file {name} is missing or damaged"
    return None


def _files(checkpoint: Path) -> list[Path]:
    return sorted(
        path
        for path in checkpoint.iterdir()
        if path.is_file() and not path.name.startswith(_DIGEST)
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
