"""Measure what the checks of `peftune.load` cost beside a plain load with PEFT, on any base.

    python tools/measure_load.py BASE [--pairs 15] [--threads 2]

Both load tokenizer, base and adapter, in turns, in one process, with the files in the system's
cache. The first prediction is timed too: a plain load maps the base's weights without reading
them, so that its first prediction pays for what the replay of two texts has paid for already.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import peftune
from peftune.files.hash_cache import cache_folder
from peftune.models.architecture import trainable_parameters
from peftune.models.fingerprint import base_fingerprint

LABELS = ["negative", "neutral", "positive"]
TEXT = "what a lovely day"


def write_adapter(base: str, folder: Path) -> None:
    """Save an adapter whose every weight has moved."""
    model, _ = peftune.prepare(base, strategy=peftune.LoRA(), labels=LABELS, use_cpu=True)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.02 * torch.randn(weight.shape))
    peftune.save(model, folder)


def plain_load(base: str, adapter: Path) -> Callable[[], Any]:
    """Load as a user of PEFT does; return what predicts."""
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(LABELS),
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
        local_files_only=True,
    )
    tuned = PeftModel.from_pretrained(model, str(adapter)).eval()

    def predict() -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = tuned(**tokenizer([TEXT], return_tensors="pt")).logits
        return logits

    return predict


def checked_load(base: str, adapter: Path) -> Callable[[], Any]:
    """Load with every check; return what predicts."""
    classifier = peftune.load(adapter, base=base, use_cpu=True)
    return lambda: classifier.logits([TEXT])


def timed(
    load: Callable[[str, Path], Callable[[], Any]], base: str, adapter: Path
) -> tuple[float, float]:
    """Return the seconds of a load, and of a load with its first prediction."""
    gc.collect()
    gc.disable()  # a collection falls upon either by chance
    start = time.perf_counter()
    predict = load(base, adapter)
    loaded = time.perf_counter() - start
    predict()
    predicted = time.perf_counter() - start
    gc.enable()
    return loaded, predicted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        adapter = Path(place) / "adapter"
        write_adapter(chosen.base, adapter)
        for load in (plain_load, checked_load):
            timed(load, chosen.base, adapter)  # the first of each imports
        pairs = [
            (timed(plain_load, chosen.base, adapter), timed(checked_load, chosen.base, adapter))
            for _ in range(chosen.pairs)
        ]
    for index, what in enumerate(("load", "load and first prediction")):
        plain = [pair[0][index] for pair in pairs]
        more = [pair[1][index] - pair[0][index] for pair in pairs]
        low, _, high = statistics.quantiles(more, n=4)
        print(
            f"{what}: plain {1000 * statistics.median(plain):.0f} ms, peftune {1000 * statistics.median(more):+.0f} ms (quartiles {1000 * low:+.0f} to {1000 * high:+.0f})"
        )
    print(f"hashing the base, once: {_hashing(chosen.base):.2f} s (then in {cache_folder()})")


def _hashing(base: str) -> float:
    from peftune.models.base_files import find_base
    from peftune.models.fingerprint import _hash_backbone

    folder = find_base(base).folder
    base_fingerprint(folder)
    start = time.perf_counter()
    _hash_backbone(folder)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
