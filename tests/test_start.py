"""How much is imported before a word is printed: counted, for seconds differ from day to day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"bitsandbytes", "datasets", "numpy", "peft", "sklearn", "torch", "transformers"}
"""Each takes longer to import than a listing may take in all."""


def imported(*arguments: str) -> list[str]:
    """Run Python with arguments, and list the modules that it imported, by `-X importtime`."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return [line.rsplit("|", 1)[1].strip() for line in lines[1:]]


@pytest.fixture(scope="module")
def bare() -> set[str]:
    """List what Python imports of itself."""
    return set(imported("-c", "pass"))


@pytest.mark.parametrize(
    ("arguments", "most", "without"),
    [
        (["-c", "import peftune"], 8, {"pydantic", "rich", "typer"}),
        (["-m", "peftune", "--help"], 330, {"pydantic", "ruamel"}),
        (["-m", "peftune", "validate", "recipes/quickstart.yaml"], 345, {"rich"}),
        (["-m", "peftune", "strategies"], 320, {"ruamel"}),
        (["-m", "peftune", "recipes"], 400, set()),
    ],
    ids=["import", "help", "validate", "strategies", "recipes"],
)
def test_little_is_imported_before_anything_heavy_is_needed(
    arguments: list[str], most: int, without: set[str], bare: set[str]
) -> None:
    """No numeric library, nothing that the verb does not use, and not many modules in all."""
    found = [name for name in imported(*arguments) if name not in bare]
    packages = {name.partition(".")[0] for name in found}

    assert packages & (HEAVY | without) == set()
    assert len(found) <= most
