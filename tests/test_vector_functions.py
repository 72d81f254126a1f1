"""What MKL chooses at a function's first call is chosen in one thread."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import json
import torch
from torch.utils._python_dispatch import TorchDispatchMode

calls = {}

class Noted(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__.rstrip("_")
        if args and isinstance(args[0], torch.Tensor) and args[0].is_cpu:
            calls.setdefault(name, []).append(args[0].numel())
        return found

with Noted():
    import peftune
    model, _ = peftune.prepare("bundled:tiny-gpt2", strategy=peftune.LoRA(), labels=["no", "yes"])
print(json.dumps(calls))
"""


def test_the_first_call_of_each_function_is_of_one_number() -> None:
    """Several threads at a first call may get code for low accuracy: pytorch/pytorch#188792."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    calls: dict[str, list[int]] = json.loads(done.stdout)

    settled = ("tanh", "exp", "log", "sqrt", "sin", "cos", "erf")
    assert {name: calls.get(name, [0])[0] for name in settled} == dict.fromkeys(settled, 1)
    assert max(calls["tanh"]) > 2048  # more than one thread's share: the guards' passes
