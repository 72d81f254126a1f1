"""A ladder on disk: measured once, and again only where something that it depends on changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from peftune.baselines.calibration import CONTENT_FREE
from peftune.baselines.ladder import BATCH, PROMPTING, Prompting, ladder
from peftune.baselines.prompt import TEMPLATE
from peftune.baselines.scores import Baseline
from peftune.data.task import Task
from peftune.files.publish import replace_file, writing
from peftune.models.fingerprint import base_fingerprint
from peftune.models.source import find_base
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256
from peftune.recipe import Recipe


def kept_ladder(
    recipe: Recipe, task: Task, file: Path, prompting: Prompting = PROMPTING
) -> list[Baseline]:
    """Read the ladder from a file if it is the one asked for; otherwise measure it, and write it.

    Args:
        recipe: see `ladder`.
        task: see `ladder`.
        file: JSON; a torn or foreign one counts as absent, and is replaced as a whole.
        prompting: see `ladder`.
    """
    identity = ladder_identity(recipe, task, prompting)
    found = read_ladder(file, identity)
    if found is not None:
        return found
    measured = ladder(recipe, task, prompting)
    write_ladder(measured, file, identity)
    return measured


def write_ladder(baselines: list[Baseline], file: Path, identity: str) -> None:
    """Write a ladder, whole or not at all."""
    content = {"identity": identity, "baselines": [baseline.as_json() for baseline in baselines]}
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_ladder(file: Path, identity: str | None = None) -> list[Baseline] | None:
    """Read a ladder; None if the file holds none, or another than the one with this identity."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if identity is not None and content["identity"] != identity:
            return None
        return [Baseline.from_json(values) for values in content["baselines"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def ladder_identity(recipe: Recipe, task: Task, prompting: Prompting = PROMPTING) -> str:
    """Hash all that a ladder depends on: rows, base, choices and protocol; not the strategy."""
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    facts = {
        "rows": task.fingerprint(),
        "ids": [list(task.train.ids), list(task.judged[1].ids)],
        "base": base_fingerprint(source.folder),
        "tokenizer": tokenizer_sha256(load_tokenizer(source.folder)),
        "max_length": recipe.model.max_length,
        "seed": recipe.data.seed,
        "few_shot": [prompting.shots, prompting.seeds, prompting.most_rows],
        "protocol": _protocol(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _protocol() -> dict[str, Any]:
    """Say how the baselines are measured; another number here is another ladder."""
    return {"version": 3, "template": TEMPLATE, "content_free": CONTENT_FREE, "batch": BATCH}
