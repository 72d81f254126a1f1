"""The run folder: its files, and which process owns it."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from peftune.data.in_memory import DATA
from peftune.errors import OutputFolderError, RecipeError, UsageError, out_of_memory
from peftune.experiments.report import Run, Unfinished
from peftune.experiments.report_file import run_from_json
from peftune.experiments.run_inputs import Inputs
from peftune.files.lock import LOCK, owned
from peftune.files.publishing import (
    failed_write,
    is_staged,
    make_writable,
    replace_file,
    replaced,
    sweep,
)
from peftune.files.reading import given_path
from peftune.recipe import Recipe, read_recipe, recipe_sha256, write_recipe
from peftune.recipe.resolve import written_recipe
from peftune.training.checkpoints import holds_other_run

RECIPE = "recipe.yaml"
REPORT = "report.json"
PREDICTIONS = "predictions.jsonl"
CHECKPOINTS = "checkpoints"
BASE = "base"
"""Where the backbone of `model.init_from` lies, if the strategy was put on it as its base."""


@contextlib.contextmanager
def owned_run(folder: Path) -> Iterator[None]:
    """Own a run folder; one that holds a finished run is read by any number of processes.

    Raises:
        OutputFolderError: another process runs there, the folder holds something else than a run,
            or it cannot be written.
    """
    if folder.is_dir():
        _refuse_other_content(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(owned(folder))
        except OutputFolderError:
            if not _is_finished(folder):
                raise
        yield


def claim_folder(folder: Path, recipe: Recipe, inputs: Inputs) -> Run | None:
    """Take a folder for a run, or recognize the run that is already in it.

    Args:
        folder: the run folder, which this process owns; the rows that the recipe reads may lie in
            it already.
        recipe: the resolved recipe.
        inputs: hashes of all that the run reads.

    Returns:
        The run, if this very run has finished there; None if it is to be started or resumed.

    Raises:
        OutputFolderError: the folder holds another run, or something else; nothing is touched.
        StorageError: the recipe could not be written.
    """
    if folder.exists() and not folder.is_dir():
        message = f"'{folder}' is a file. Choose another output folder with --output."
        raise OutputFolderError(message)
    if folder.is_dir() and any(
        str(path) != recipe.data.dataset_name and not _is_passing(path)
        for path in folder.resolve().iterdir()
    ):
        _refuse_other_run(folder, recipe, inputs)
        finished = finished_run(folder)
        if finished is not None:
            _refuse_changed_inputs(finished, inputs)
            return finished
    make_writable(folder)
    sweep(folder)
    write_recipe(recipe, folder / RECIPE)
    return None


def finished_run(folder: Path) -> Run | None:
    """Return the run of a folder if it is complete.

    Raises:
        OutputFolderError: the folder's report is damaged, or none of this version.
    """
    values = _read_report(folder)
    if values.get("status") != "complete":
        return None
    try:
        return run_from_json(values, folder)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, OutputFolderError):
            raise
        raise _no_report(folder, error) from error


def reason_of(folder: Path) -> str | None:
    """Return why the run of a folder did not finish, if it recorded a reason."""
    try:
        reason = _read_report(folder).get("reason")
    except OutputFolderError:
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
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(path, f"{text}\n")


def write_lines(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write one JSON line each, all of them or none."""
    with replaced(path) as file:
        for values in lines:
            file.write(json.dumps(values, ensure_ascii=False).encode("utf-8") + b"\n")


@contextlib.contextmanager
def failure_reported(folder: Path) -> Iterator[None]:
    """Leave a word in the report of a run that did not finish; the error goes on.

    Raises:
        OutOfMemoryError: in the place of what a library says of memory that it did not get.
        StorageError: in the place of what one says of a write that failed.
    """
    try:
        yield
    except BaseException as error:
        explained = out_of_memory(error) or failed_write(error, folder)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            ending = Unfinished("interrupted", "interrupted; run the same command again to go on")
        else:
            ending = Unfinished("failed", str(explained or error) or type(error).__name__)
        with contextlib.suppress(OSError):  # which must not stand in the place of the first fault
            write_json(ending.as_json(), folder / REPORT)
        if explained is not None:
            raise explained from error
        raise


def read_own_text(path: Path) -> str:
    """Read a text file that peftune wrote; a pipe or a device in its place is not waited for.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a plain file", str(path))
    return path.read_text(encoding="utf-8")


def read_own_json(path: Path) -> Any:  # noqa: ANN401 - any JSON
    """Read a JSON file that peftune wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, of finite numbers.
        RecursionError: it is nested as nothing that peftune writes.
    """
    return json.loads(read_own_text(path), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    message = f"{name} is not a number"
    raise ValueError(message)


def _read_report(folder: Path) -> dict[str, Any]:
    """Read the report of a folder; nothing where there is none.

    Raises:
        OutputFolderError: it is damaged.
    """
    try:
        values = read_own_json(folder / REPORT)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _no_report(folder, error) from error
    if not isinstance(values, dict):
        raise _no_report(folder, TypeError("no JSON object"))
    return values


def _no_report(folder: Path, error: BaseException) -> OutputFolderError:
    return OutputFolderError(
        f"'{folder / REPORT}' is not a report of this version of peftune ({type(error).__name__}: {error}). Choose another folder, or remove this one."
    )


def _is_passing(path: Path) -> bool:
    """Say whether a file of a folder is there for as long as something works, or was killed."""
    return path.name == LOCK or is_staged(path.name)


def _is_finished(folder: Path) -> bool:
    try:
        return _read_report(folder).get("status") == "complete"
    except OutputFolderError:
        return False


def _refuse_other_content(folder: Path) -> None:
    """Refuse a folder of something else, before anything is written there or read for it."""
    content = [path for path in folder.iterdir() if not _is_passing(path)]
    if any(path.name != DATA for path in content) and not (folder / RECIPE).is_file():
        message = f"'{folder}' is not empty and holds no run. Choose another output folder with --output, or empty it."
        raise OutputFolderError(message)


def _refuse_other_run(folder: Path, recipe: Recipe, inputs: Inputs) -> None:
    if not (folder / RECIPE).is_file():
        message = f"'{folder}' is not empty and holds no run. Choose another output folder with --output, or empty it."
        raise OutputFolderError(message)
    try:
        same = recipe_sha256(read_recipe(folder / RECIPE)) == recipe_sha256(recipe)
    except RecipeError as error:
        if _is_torn(folder, recipe, inputs):
            return
        message = f"'{folder}' holds a run whose recipe cannot be read ({error}). Choose another output folder with --output."
        raise OutputFolderError(message) from error
    if not same:
        message = f"'{folder}' already holds another run (its {RECIPE} differs from this one). Choose another folder with --output, or remove it."
        raise OutputFolderError(message)


def _is_torn(folder: Path, recipe: Recipe, inputs: Inputs) -> bool:
    """Say whether a recipe that cannot be read is the beginning of this one.

    Versions that wrote it in place left that when they were killed. Another run's may begin the
    same, so a finished run or a whole checkpoint of another one speaks against it.
    """
    path = folder / RECIPE
    return (
        written_recipe(recipe, path).startswith(path.read_bytes())
        and _read_report(folder).get("status") != "complete"
        and not holds_other_run(folder / CHECKPOINTS, inputs.sha256)
    )


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
