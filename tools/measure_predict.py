"""Measure how fast many short texts are classified: the table of docs/sharing.md.

    python tools/measure_predict.py BASE TEXTS.csv --texts 256 --rounds 5 --threads 2

BASE is a GPT-2 folder, TEXTS a table with a column `text`. All ways see the same texts and weights,
and take turns in every round, so that a busy machine slows all of them. The ratios are medians
over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import peftune
from peftune.adapters.saving import save
from peftune.data.text_column import read_texts
from peftune.models.architecture import trainable_parameters, unwrapped
from peftune.models.prepare import prepare_model
from peftune.strategies import HeadOnly, LoRA, Strategy

LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 128
SIZES = (8, 32, 128)
"""Texts in a call that mixes adapters."""

Way = Callable[[], object]


def main() -> None:
    """Measure, and print a table for one adapter, and one for each size of a mixed call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--texts", dest="count", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--adapters", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    texts = [text for text in read_texts(arguments.texts) if text.strip()][: arguments.count]
    with tempfile.TemporaryDirectory() as home:
        folder = _save(arguments.base, Path(home) / "head", HeadOnly())
        _table(_plain_ways(folder, arguments.base, texts), arguments.rounds, len(texts))
        folders = {
            f"a{seed}": _save(arguments.base, Path(home) / f"a{seed}", LoRA(r=8), seed=seed)
            for seed in range(arguments.adapters)
        }
        if folders:
            together = peftune.load_many(folders, base=arguments.base, use_cpu=True)
            for size in SIZES:
                _table(_mixed_ways(together, texts[:size]), arguments.rounds, size)


def _save(base: str, folder: Path, strategy: Strategy, *, seed: int = 0) -> Path:
    """Save an artifact whose weights are random: only their shapes matter here."""
    model = prepare_model(base, strategy, labels=LABELS, max_length=MAX_LENGTH, use_cpu=True)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.01 * torch.randn(weight.shape))
    return save(model, folder)


def _plain_ways(folder: Path, base: str, texts: Sequence[str]) -> dict[str, Way]:
    """Classify with a frozen backbone: a model that every library runs alike."""
    classifier = peftune.load(folder, base=base, use_cpu=True)
    tokenizer, model = classifier.tokenizer, unwrapped(classifier.model)

    def loop() -> list[int]:
        found = []
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            with torch.no_grad():
                found.append(int(model(**batch).logits.argmax()))
        return found

    build: Any = transformers.pipeline
    pipeline = build("text-classification", model=model, tokenizer=tokenizer, device="cpu")

    def piped(rows: int) -> Way:
        return lambda: pipeline(
            list(texts), batch_size=rows, truncation=True, max_length=MAX_LENGTH
        )

    return {
        "`peftune.load(…).predict`": lambda: classifier.predict(texts),
        "a loop over the texts": loop,
        "`transformers.pipeline`, `batch_size=1`": piped(1),
        "`transformers.pipeline`, `batch_size=32`": piped(32),
    }


def _mixed_ways(together: peftune.adapters.ClassifierSet, texts: Sequence[str]) -> dict[str, Way]:
    """Classify texts that belong to several adapters in turn."""
    names = [together.names[place % len(together)] for place in range(len(texts))]
    asked = tuple(dict.fromkeys(names))

    def by_adapter() -> None:
        for name in asked:
            own = [text for text, other in zip(texts, names, strict=True) if other == name]
            together.predict(own, adapter=name)

    return {
        f"{len(texts)} texts of {len(asked)} adapters in one call": lambda: together.predict(
            texts, adapters=names
        ),
        "a call for each adapter": by_adapter,
    }


def _table(ways: dict[str, Way], rounds: int, texts: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    # The first round warms up.
    taken = {name: values[1:] for name, values in seconds.items()}
    first = next(iter(taken.values()))
    print("\n| way | texts per second | time, relative to the first |\n|---|---|---|")
    for name, values in taken.items():
        ratio = statistics.median(b / a for a, b in zip(first, values, strict=True))
        print(f"| {name} | {texts / statistics.median(values):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
