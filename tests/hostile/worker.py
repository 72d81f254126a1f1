"""The process that loads: it answers each line of its input, a request, with a line of its output."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import peftune
from hostile.audit import Audit
from hostile.misbehaviour import misbehave
from peftune.adapters import Classifier
from peftune.errors import PeftuneError

TRIES = 3
SLOW = 0.9
"""A load that took longer is repeated: a busy machine is slow now and then, a bomb always."""
ROOM = 3 * 2**30
"""Address space that a load may reserve beyond what the process has; more is refused by the system."""
TEXTS = ("what a lovely day", "no", "", "the soup was cold and nobody said sorry " * 3)


def _load(request: dict[str, Any]) -> str:
    classifier = peftune.load(
        request["folder"], base=request["base"], labels=request["labels"], use_cpu=True
    )
    return _digest(classifier.logits(TEXTS).tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _forget(request: dict[str, Any]) -> str:
    probe = peftune.probes.LanguageModelLoss(dataset_name="bundled:general-text", max_documents=1)
    found = peftune.forget(request["folder"], [probe], base=request["base"], use_cpu=True)
    return str(found)


def _init_from(request: dict[str, Any]) -> str:
    model, _ = peftune.prepare(
        request["base"],
        strategy=peftune.LoRA(r=4),
        labels=["yes", "no"],
        init_from=request["folder"],
        max_length=48,
        use_cpu=True,
    )
    state = model.state_dict()
    return _digest(b"".join(np.ascontiguousarray(state[name]).tobytes() for name in sorted(state)))


def _rescale(request: dict[str, Any]) -> str:
    output = Path(request["folder"]).parent / "rescaled"
    return str(
        peftune.adapters.rescale(request["folder"], alpha=0.5, output=output, base=request["base"])
    )


def _verify(request: dict[str, Any]) -> str:
    return str(peftune.adapters.verify(request["folder"], base=request["base"], use_cpu=True))


def _merge(request: dict[str, Any]) -> str:
    output = Path(request["folder"]).parent / "merged"
    return str(
        peftune.adapters.merge(request["folder"], output, base=request["base"], use_cpu=True)
    )


def _load_many(request: dict[str, Any]) -> str:
    found = peftune.load_many({"a": request["folder"]}, base=request["base"], use_cpu=True)
    return _digest(found.logits(TEXTS, adapter="a").tobytes())


def _inspect(request: dict[str, Any]) -> str:
    return str(peftune.adapters.inspect(request["folder"], base=request["base"], use_cpu=True))


def _diff(request: dict[str, Any]) -> str:
    return str(peftune.adapters.diff(request["folder"], request["folder"]))


def _diff_on_rows(request: dict[str, Any]) -> str:
    folder = request["folder"]
    return str(
        peftune.adapters.diff(
            folder, folder, file=_rows(folder), base=request["base"], use_cpu=True
        )
    )


def _rows(folder: str) -> Path:
    return Path(folder).parent / "rows.csv"


def _predict(request: dict[str, Any]) -> str:
    from peftune.cli.predict import predict

    predict(request["folder"], ["a day of rain"], base=request["base"])
    return "predicted"


def _evaluate(request: dict[str, Any]) -> str:
    folder = request["folder"]
    return str(peftune.evaluate(folder, file=_rows(folder), base=request["base"]))


_REMEMBERED: dict[str, Classifier] = {}


def _remembered(request: dict[str, Any]) -> str:
    """Classify with what was loaded the first time, whatever was loaded since."""
    folder = request["folder"]
    if folder not in _REMEMBERED:
        _REMEMBERED[folder] = peftune.load(
            folder, base=request["base"], labels=request["labels"], use_cpu=True
        )
    return _digest(_REMEMBERED[folder].logits(TEXTS).tobytes())


def _misbehave(request: dict[str, Any]) -> str:
    """Do what no load may do; to see that it would be seen."""
    return misbehave(request["base"], Path(request["folder"]))


DOORS: dict[str, Callable[[dict[str, Any]], str]] = {
    "load": _load,
    "forget": _forget,
    "init_from": _init_from,
    "rescale": _rescale,
    "verify": _verify,
    "merge": _merge,
    "load_many": _load_many,
    "inspect": _inspect,
    "diff": _diff,
    "diff_on_rows": _diff_on_rows,
    "predict": _predict,
    "evaluate": _evaluate,
    "remembered": _remembered,
    "misbehave": _misbehave,
}
"""The public ways by which an artifact comes in, and two that test the tests."""


def main() -> None:
    """Answer requests until the input ends."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # what a library prints is no answer
    _import_heavily()
    audit = Audit(package=Path(peftune.__file__).parent)
    _limit_address_space()
    _say(output, {"ready": True})
    for line in sys.stdin:
        _say(output, answer(json.loads(line), audit))


def answer(request: dict[str, Any], audit: Audit) -> dict[str, Any]:
    """Load once, or a few times if that was slow, and say what became of it."""
    answers = []
    for _ in range(TRIES):
        answers.append(_attempt(request, audit))
        if answers[-1]["seconds"] < SLOW:
            break
    return min(answers, key=lambda one: one["seconds"])


def _attempt(request: dict[str, Any], audit: Audit) -> dict[str, Any]:
    _give_back()
    before = _reset_peak()
    with audit.listening(request["allowed"]) as events:
        start = time.process_time()
        try:
            with _switched_off(request["without"]):
                outcome, message = "loaded", DOORS[request["door"]](request)
        except PeftuneError as error:
            outcome, message = "refused", str(error)
        except BaseException as error:  # noqa: BLE001 - whatever escapes is the finding
            outcome, message = "raised", f"{type(error).__name__}: {error}"
        seconds = time.process_time() - start
    return {
        "outcome": outcome,
        "message": message,
        "seconds": seconds,
        "megabytes": max(0.0, (_peak() - before) / 2**20),
        "events": events,
    }


@contextmanager
def _switched_off(guards: list[str]) -> Iterator[None]:
    """Replace functions that refuse by ones that do not."""
    kept = []
    for guard in guards:
        module_name, _, name = guard.partition(":")
        module = import_module(module_name)
        kept.append((module, name, getattr(module, name)))
        setattr(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def _import_heavily() -> None:
    """Import what a load imports, so that its time and its memory are its own."""
    import bitsandbytes  # noqa: F401
    import torch
    from transformers import AutoTokenizer, GPT2ForSequenceClassification  # noqa: F401

    import peftune.adapters.classifier_set
    import peftune.adapters.difference
    import peftune.adapters.initialization
    import peftune.adapters.inspection
    import peftune.adapters.merged_checkpoint
    import peftune.adapters.verification
    import peftune.cli.predict
    import peftune.experiments.evaluate
    import peftune.experiments.forget
    import peftune.experiments.rescale  # noqa: F401

    torch.set_num_threads(1)


def _limit_address_space() -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - no file of anyone's
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))


def _give_back() -> None:
    """Return freed memory to the system, so that its use by the next load shows."""
    ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> float:
    """Let the kernel count the peak of resident memory anew, and return what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    message = f"the kernel does not say {name}"
    raise RuntimeError(message)


def _say(output: Any, values: dict[str, Any]) -> None:  # noqa: ANN401 - a text file
    output.write(json.dumps(values) + "\n")
    output.flush()


if __name__ == "__main__":
    main()
