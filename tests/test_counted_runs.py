"""What the runs of a comparison read, counted: each text tokenized once a use, the base read once.

The strategies run one after another, as the cells of a comparison do, with one cache.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import STRATEGIES, recipe
from torch import nn

import peftune
from peftune.experiments.run_scores import TIMED_TEXTS
from peftune.forgetting import before_and_after
from peftune.models.tokenizer import encode_texts, load_tokenizer

IN_A_ROW = ("full", "lora", "lora-8bit")


@dataclass
class Counts:
    """What was counted in one run.

    Args:
        read: tokens that went through backbones of the base's vocabulary, by what was done.
        tokenized: how often each text was turned into tokens.
    """

    read: Counter[str] = field(default_factory=Counter)
    tokenized: Counter[str] = field(default_factory=Counter)


@dataclass
class Compared:
    """The counts of each strategy's run, and the texts of all.

    Args:
        counts: by strategy, in the order in which they ran.
        rows: texts of the training rows.
        documents: texts of the probe.
        once: tokens of a pass over the documents, padding included.
    """

    counts: dict[str, Counts]
    rows: list[str]
    documents: list[str]
    once: int


def _compare(base: Path, folder: Path) -> Compared:
    """Run the strategies on the same rows, and count."""
    tokenizer = load_tokenizer(base)
    found = Compared({}, [], [], 0)
    for name in IN_A_ROW:
        chosen = recipe(folder, base, STRATEGIES[name])
        found.counts[name] = counts = Counts()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PEFTUNE_CACHE", str(folder / "cache"))
            _count(counts, type(tokenizer), len(tokenizer), patch)
            peftune.run(chosen, output=folder / name)
        rows, probe = chosen.data.train_file, chosen.forgetting.probes[0]
        found.rows = _texts(str(rows))
        found.documents = _texts(str(getattr(probe, "file")))  # noqa: B009 - of this kind of probe
    lengths = map(len, encode_texts(tokenizer, found.documents, max_length=None))
    found.once = len(found.documents) * max(lengths)  # one batch
    return found


def _count(
    counts: Counts, tokenizer: type[Any], vocabulary: int, patch: pytest.MonkeyPatch
) -> None:
    now = ["elsewhere"]
    for name in ("measure_before", "measure_tuned"):
        module = import_module(
            "peftune.experiments.run_execution"
        )  # the package has a function of this name
        patch.setattr(module, name, _noted(getattr(module, name), name, now))
    call, embed = tokenizer.__call__, nn.Embedding.forward

    def tokenized(self: Any, text: list[str], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - transformers' signature
        counts.tokenized.update(text)
        return call(self, text, *args, **kwargs)

    def embedded(self: nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if self.num_embeddings == vocabulary:
            counts.read[now[0]] += tokens.numel()
        return embed(self, tokens)

    patch.setattr(tokenizer, "__call__", tokenized)
    patch.setattr(nn.Embedding, "forward", embedded)


def _noted(act: Callable[..., Any], name: str, now: list[str]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as what it stands for
        now[0] = name
        try:
            return act(*args, **kwargs)
        finally:
            now[0] = "elsewhere"

    return noted


def _texts(path: str) -> list[str]:
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines()]


@pytest.fixture(scope="module")
def compared(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Run three strategies."""
    return _compare(tiny_base, tmp_path_factory.mktemp("compared"))


@pytest.mark.slow
def test_the_base_is_read_once_for_all_strategies(compared: Compared) -> None:
    """Its scores are kept; a base in 8 bits is another one, whose float scores are kept as well."""
    before = [counts.read["measure_before"] for counts in compared.counts.values()]
    assert before == [compared.once, 0, compared.once]


def test_a_tuned_model_is_read_once_beside_its_base(compared: Compared) -> None:
    """One pass reads the model, its control and what the divergence is taken from."""
    after = [counts.read["measure_tuned"] for counts in compared.counts.values()]
    assert after == [2 * compared.once] * len(IN_A_ROW)


def test_a_text_is_tokenized_once_for_each_use(compared: Compared) -> None:
    """A row: to be checked and to be trained on or judged. A document: before and after.

    A sample of the judged rows is timed as well, each row once, and one of them before that.
    """
    for name, counts in compared.counts.items():
        more = [max(0, counts.tokenized[text] - 3) for text in compared.rows]
        assert sum(more) <= TIMED_TEXTS + 1
        assert sorted(more)[-2] <= 1
        kept = name == "lora"
        assert {counts.tokenized[text] for text in compared.documents} == {1 if kept else 2}


@pytest.mark.slow
def test_a_cache_that_forgets_is_noticed(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slip: scores of the base that are never found again."""
    monkeypatch.setattr(before_and_after, "_read", lambda *_: None)

    compared = _compare(tiny_base, tmp_path)

    assert compared.counts["lora"].read["measure_before"] == compared.once
    assert compared.counts["lora-8bit"].read["measure_before"] == 2 * compared.once
