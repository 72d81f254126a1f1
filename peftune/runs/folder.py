"""The run folder: who owns it, and what lies in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from peftune.errors import OutputFolderError, RecipeError, StorageError, UsageError
from peftune.files.paths import given_path
from peftune.files.publish import found_no_room, make_writable
from peftune.recipe import Recipe, read_recipe, recipe_sha256, write_recipe
from peftune.runs.inputs import Inputs
from peftune.runs.report import Run, Unfinished
from peftune.runs.report_reader import run_from_json

RECIPE = "recipe.yaml"
REPORT = "report.json"
PREDICTIONS = "predictions.jsonl"
CHECKPOINTS = "checkpoints"
BASE = "base"
"""Where the trunk of `model.init_from` lies, if the strategy was put on it as its base."""


def claim_folder(folder: Path, recipe: Recipe, inputs: Inputs) -> Run | None:
    """Take a folder for a run, or recognise the run that is already in it.

    Args:
        folder: the run folder; the rows that the recipe reads may lie in it already.
        recipe: the resolved recipe.
        inputs: hashes of all that the run reads.

    Returns:
        The run, if this very run has finished there; None if it is to be started or resumed.

    Raises:
        OutputFolderError: the folder holds another run, or something else; nothing is touched.
    """
    if folder.exists() and not folder.is_dir():
        message = f"'{folder}' is a file. Choose another output folder with --output."
        raise OutputFolderError(message)
    if folder.is_dir() and any(
        str(path) != recipe.data.dataset_name for path in folder.resolve().iterdir()
    ):
        _refuse_other_run(folder, recipe)
        finished = finished_run(folder)
        if finished is not None:
            _refuse_changed_inputs(finished, inputs)
            return finished
    make_writable(folder)
    try:
        write_recipe(recipe, folder / RECIPE)
    except OSError as error:
        message = f"'{folder}' cannot be written: {error.strerror}. Choose another output folder with --output."
        raise OutputFolderError(message) from error
    return None


def finished_run(folder: Path) -> Run | None:
    """Return the run of a folder if it is complete.

    Raises:
        OutputFolderError: the folder's report is none of this version.
    """
    try:
        values = _read_report(folder)
        return run_from_json(values, folder) if values.get("status") == "complete" else None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"'{folder / REPORT}' is no report of this version of peftune ({type(error).__name__}: {error}). Choose another folder, or remove this one."
        raise OutputFolderError(message) from error


def reason_of(folder: Path) -> str | None:
    """Return why the run of a folder did not finish, if it had time to say so."""
    try:
        reason = _read_report(folder).get("reason")
    except (ValueError, AttributeError):
        return None
    return str(reason) if reason else None


def read_run(folder: str | Path) -> Run:
    """Read a finished run from its folder.

    Raises:
        UsageError: the folder holds no finished run.
    """
    run = finished_run(given_path(folder, "folder"))
    if run is None:
        message = f"'{folder}' holds no finished run; name the output folder of 'peftune run'."
        raise UsageError(message)
    return run


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file whole or not at all."""
    staged = path.with_name(f".{path.name}.partial")
    staged.write_text(
        json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    os.replace(staged, path)  # noqa: PTH105 - Path.replace is the same; this says that it is atomic


def write_lines(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write one JSON line each."""
    with path.open("w", encoding="utf-8") as file:
        for values in lines:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def failure_reported(folder: Path) -> Iterator[None]:
    """Leave a word in the report of a run that did not finish; the error goes on.

    Raises:
        StorageError: in the place of what a library says where there is no room left.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            ending = Unfinished("interrupted", "interrupted; run the same command again to go on")
        else:
            ending = Unfinished("failed", str(error) or type(error).__name__)
        no_room = found_no_room(error)
        with contextlib.suppress(*(OSError,) if no_room else ()):
            write_json(ending.as_json(), folder / REPORT)
        if no_room:
            message = f"There is no room left to write into '{folder}'. What had finished is kept: make room, and run the same command again."
            raise StorageError(message) from error
        raise


def _read_report(folder: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return values


def _refuse_other_run(folder: Path, recipe: Recipe) -> None:
    if not (folder / RECIPE).is_file():
        message = f"'{folder}' is not empty and holds no run. Choose another output folder with --output, or empty it."
        raise OutputFolderError(message)
    try:
        same = recipe_sha256(read_recipe(folder / RECIPE)) == recipe_sha256(recipe)
    except RecipeError as error:
        message = f"'{folder}' holds a run whose recipe cannot be read ({error}). Choose another output folder with --output."
        raise OutputFolderError(message) from error
    if not same:
        message = f"'{folder}' already holds another run (its {RECIPE} differs from this one). Choose another folder with --output, or remove it."
        raise OutputFolderError(message)


def _refuse_changed_inputs(finished: Run, inputs: Inputs) -> None:
    """A finished run answers for the same rows, base and texts only, not for the same names."""
    then = (
        finished.run.data_fingerprint,
        finished.run.base_fingerprint,
        tuple(probe.data_sha256 for probe in finished.forgetting),
        finished.run.texts_sha256,
        finished.run.start_sha256,
    )
    now = (
        inputs.data_fingerprint,
        inputs.base_fingerprint,
        inputs.probe_sha256,
        inputs.texts_sha256,
        inputs.start_sha256,
    )
    names = ("rows", "base", "probe texts", "texts read in training", "starting points")
    changed = [name for name, old, new in zip(names, then, now, strict=True) if old != new]
    if changed:
        message = (
            f"'{finished.folder}' holds this run, but its {' and '.join(changed)} have changed since. "
            "Choose another output folder with --output, or remove it."
        )
        raise OutputFolderError(message)
