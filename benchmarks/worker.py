"""One piece of work in a process of its own: `python -m benchmarks.worker JOB RESULT`.

JOB holds `kind`, a module of `benchmarks.jobs`, and `arguments`, what its `run` takes. RESULT gets
what it returned, or why it could not.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any


def main(job: Path, result: Path) -> None:
    """Do the work and write the result, a failure too."""
    asked = json.loads(job.read_text(encoding="utf-8"))
    result.write_text(json.dumps(_done(asked["kind"], asked["arguments"])), encoding="utf-8")


def _done(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    module = import_module(f"benchmarks.jobs.{kind}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    try:
        found: dict[str, Any] = module.run(**arguments)
    except Exception as error:  # noqa: BLE001 - a contender's failure is a result
        traceback.print_exc()  # into the log
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return {"status": "failed", "reason": reason}
    return {"status": "measured", "load_before": load, **found}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
