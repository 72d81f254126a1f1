"""Versions and hardware of a measurement."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from typing_extensions import TypedDict

PACKAGES = (
    "peftune",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "safetensors",
    "tokenizers",
    "huggingface-hub",
    "numpy",
    "scikit-learn",
    "scipy",
)


class Environment(TypedDict):
    """Versions and hardware.

    Args:
        versions: Python and the libraries that a number can depend on; None where not installed.
        platform: system and processor kind.
        device: name of the GPU, or `cpu`.
        cuda: CUDA version; None without CUDA.
        bf16: whether the GPU has bfloat16; None without CUDA.
        cpu_capability: vector instructions that torch uses.
        threads: threads that torch uses.
    """

    versions: dict[str, str | None]
    platform: str
    device: str
    cuda: str | None
    bf16: bool | None
    cpu_capability: str
    threads: int


class RunEnvironment(Environment):
    """The environment of a run.

    Args:
        seed_streams: the seeds derived from the run's.
        dropped_rows: rows left out for an empty text, by split.
        dropped_tokens: tokens at the end of a packed training text, too few for a window.
    """

    seed_streams: dict[str, int]
    dropped_rows: dict[str, int]
    dropped_tokens: int


def environment() -> Environment:
    """Describe versions, device and threads; no user, host or path."""
    cuda = torch.cuda.is_available()
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "bf16": bool(torch.cuda.is_bf16_supported()) if cuda else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
