"""What a result was measured on, and with which code."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import ROOT
from peftune.experiments.environment import environment

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def machine() -> dict[str, Any]:
    """Describe processor, memory, versions and commit; no user, host or path."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        **environment(),
        "processor": _processor().get("model name"),
        "flags": [flag for flag in _FLAGS if flag in _processor().get("flags", "").split()],
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "interop_threads": torch.get_num_interop_threads(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
    }


def _memory_bytes() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(names):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> dict[str, str]:
    """Read what Linux says of the first core."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    first = file.read_text(encoding="utf-8").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    ended = subprocess.run(  # noqa: S603 - git itself
        [git, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return ended.stdout.strip() if ended.returncode == 0 else None
