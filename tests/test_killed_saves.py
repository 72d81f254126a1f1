"""A save that is killed at any moment leaves the old artifact or the new one, never half of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peftune.strategies import STRATEGIES

SCRIPT = Path(__file__).parent / "kill_points.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
def test_a_kill_at_any_file_operation_leaves_a_whole_artifact(
    name: str, base: Path, tmp_path: Path
) -> None:
    """SIGKILL before each operation, and amid each write: old, new or nothing yet; then all is well.

    The save that comes after the killed one succeeds, and nothing is left beside the artifact.
    """
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(base), str(tmp_path), name],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert ended.returncode == 0, ended.stderr[-2000:]
    fresh, replaced = json.loads(ended.stdout.splitlines()[-1])
    assert fresh["faults"] == []
    assert replaced["faults"] == []
    # It has seen the steps that matter: every file, the disk, the place.
    assert {"os.mkdir", "open", "fsync", "os.rename"} <= set(fresh["operations"])
    assert {"os.mkdir", "open", "fsync", "exchange", "os.remove"} <= set(replaced["operations"])
    assert len(replaced["operations"]) > 20
