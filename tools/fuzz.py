"""Feed a reader of files with bytes that a coverage-guided fuzzer makes up.

    python -m pip install atheris
    python tools/fuzz.py recipe -max_total_time=600

The first argument names the reader; all others, such as folders of examples to begin with, are
libFuzzer's. The targets are those of `tests/test_fuzz.py`: a reader may refuse anything, in lines
that do nothing to a terminal, and raise nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    # What guides the fuzzer is the coverage of the package alone.
    watched = atheris.instrument_imports(include=["peftune"])
else:
    watched = contextlib.nullcontext()

with watched:
    from peftune.adapters.manifest import read_manifest
    from peftune.data.tables import read_file
    from peftune.errors import PeftuneError, visible_lines
    from peftune.experiments.run_evidence import read_evidence
    from peftune.experiments.run_folder import read_run
    from peftune.files.reading import SharedFolder
    from peftune.files.safetensors_header import read_header
    from peftune.models.base_contents import refuse_aliases, refuse_steering, refuse_values
    from peftune.recipe import read_recipe
    from peftune.recipe.overrides import read_overrides

Target = Callable[[bytes, Path], object]
"""Reads bytes, by way of a folder where it needs a file."""


def _through(name: str, read: Callable[[Path], object]) -> Target:
    def target(content: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return target


def _overrides(content: bytes, folder: Path) -> object:  # noqa: ARG001 - a target
    return read_overrides(content.decode("utf-8", "surrogateescape").split("\0"))


def _config(content: bytes, folder: Path) -> object:  # noqa: ARG001 - a target
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if isinstance(values, dict):
        for refuse in (refuse_steering, refuse_aliases, refuse_values):
            refuse(values, name="base")
    return None


TARGETS: dict[str, Target] = {
    "recipe": _through("recipe.yaml", read_recipe),
    "overrides": _overrides,
    "csv": _through("rows.csv", read_file),
    "tsv": _through("rows.tsv", read_file),
    "jsonl": _through("rows.jsonl", read_file),
    "json": _through("rows.json", read_file),
    "parquet": _through("rows.parquet", read_file),
    "report": _through("report.json", lambda path: read_run(path.parent)),
    "predictions": _through("predictions.jsonl", lambda path: read_evidence(path.parent)),
    "manifest": _through(
        "peftune.json",
        lambda path: read_manifest(SharedFolder(path.parent.name, {path.name: path}, path.parent)),
    ),
    "header": lambda content, _: read_header(content, source="weights"),
    "config": _config,
}


def refusal(target: Target, content: bytes, folder: Path) -> str | None:
    """Return in which words a reader refuses bytes; None where it reads them.

    Raises:
        ValueError: the words do something to a terminal.
    """
    try:
        target(content, folder)
    except PeftuneError as error:
        words = str(error)
        if visible_lines(words) != words:
            message = f"a refusal that does something to a terminal: {words!r}"
            raise ValueError(message) from error
        return words
    return None


def main() -> None:
    """Fuzz the reader that the command line names."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        one = functools.partial(refusal, TARGETS[name], folder=Path(folder))
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
