"""Train on one subset and score the validation rows; what is finished is read, not done again."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from peftune.artifacts.start import Beginning, begin
from peftune.data.task import Task
from peftune.errors import OutputFolderError
from peftune.models.fingerprint import base_fingerprint
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of
from peftune.models.source import find_base
from peftune.recipe import Recipe, recipe_sha256
from peftune.runs.folder import CHECKPOINTS, write_json
from peftune.training.train import train

RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """What one training on a subset gave.

    Args:
        wrong: 1.0 for each validation row that got another label, (rows,).
        seconds: training time; None for one that was resumed.
    """

    wrong: NDArray[np.float64]
    seconds: float | None


def trained_on(recipe: Recipe, task: Task, folder: Path) -> Trained:
    """Train as a run would, without probes, and score the validation rows with the kept weights.

    Args:
        recipe: resolved, with the seed.
        task: the subset as train, and no test.
        folder: of this training; an unfinished one is resumed.

    Raises:
        OutputFolderError: the folder holds another training.
    """
    identity = _identity(recipe, task)
    found = _read(folder / RESULT, identity)
    if found is not None:
        return found
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    folder.mkdir(parents=True, exist_ok=True)
    model = begin(Beginning.of(recipe, task.labels, base_folder=folder / "base"))
    training = train(
        model,
        task,
        recipe.training.model_copy(update={"report_to": "none"}),
        checkpoints=folder / CHECKPOINTS,
        run_identity=identity,
        regularizers=recipe.forgetting.regularizers,
        score_train_sample=False,
    )
    preparation = preparation_of(model)
    logits = predict_logits(
        model, preparation.tokenizer, task.validation.texts, max_length=preparation.max_length
    )
    wrong = (logits.argmax(-1) != np.asarray(task.validation.labels)).astype(np.float64)
    values = {"identity": identity, "seconds": training.seconds, "wrong": wrong.tolist()}
    write_json(values, folder / RESULT)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Trained(wrong, training.seconds)


def _read(file: Path, identity: str) -> Trained | None:
    if not file.exists():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    if values["identity"] != identity:
        message = f"'{file.parent}' holds a training of another recipe, base or other rows. Choose another folder with --output, or remove it."
        raise OutputFolderError(message)
    return Trained(np.array(values["wrong"]), values["seconds"])


def _identity(recipe: Recipe, task: Task) -> str:
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    parts = (recipe_sha256(recipe), task.fingerprint(), base_fingerprint(source.folder))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
