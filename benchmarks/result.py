"""The file of a run: every raw figure, and the ratios that are made of them.

schema      number of this layout
shape       key of `SHAPES`, with the base's kind and size
rows        source, hash and token lengths of the texts; tokens of a pass at each batch
parts       what was measured, by part; each with the machine, the commit and the time
ratios      from `benchmarks.ratios`
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

SCHEMA = 1
_SAME_WORK = ("schema", "shape", "base", "rows")

Result = dict[str, Any]


def begun(about: Result, out: Path) -> Result:
    """Begin a result, with what the file holds of the same work."""
    parts: dict[str, Any] = {}
    if out.is_file():
        earlier = read_result(out)
        if all(earlier.get(key) == about[key] for key in _SAME_WORK):
            parts = earlier["parts"]
    return {**about, "parts": parts}


def stamped(part: Result, machine: Result) -> Result:
    """Say when and on what a part was measured."""
    at = datetime.now(timezone.utc).isoformat(timespec="minutes")
    return {**part, "at": at, "machine": machine}


def write_result(result: Result, out: Path) -> None:
    """Write the file whole, so that a run that is cut off leaves what was there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    being_written = out.with_name(f"{out.name}-being-written")
    being_written.write_text(json.dumps(result, indent=1), encoding="utf-8")
    being_written.replace(out)


def read_result(path: Path) -> Result:
    """Read a file that `write_result` wrote.

    Raises:
        ValueError: it is of another layout.
    """
    found: Result = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        message = f"'{path}' has schema {found.get('schema')}; this version reads {SCHEMA}. Measure again."
        raise ValueError(message)
    return found
