"""Score the same documents with lm-evaluation-harness and with peftune's probes, side by side.

    python tools/compare_with_lm_eval.py --text prose.txt --cloze lambada.jsonl --pairs blimp.jsonl

It needs `pip install 'peftune[lm-eval]'`, no network, and no cache: everything is local.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from peftune.data.documents import load_documents
from peftune.forgetting.measurement import ProbeText, measure_with
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.base_files import find_base
from peftune.models.tokenizer import load_tokenizer
from peftune.probes import Cloze, LanguageModelLoss, Measurement, MinimalPairs, Probe

ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [
        {"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")
    ],
}
"""As its task `wikitext`, without the detokenizer."""

LAMBADA = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
    "doc_to_target": "{{' '+text.split(' ')[-1]}}",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}
"""As its task `lambada_openai`."""

BLIMP = {
    "output_type": "multiple_choice",
    "doc_to_text": "",
    "doc_to_target": 0,
    "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
    "metric_list": [{"metric": "acc"}],
}
"""As its tasks `blimp_…`."""

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "context",
    "doc_to_target": "answer",
    "doc_to_choice": "options",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
"""As its tasks `sciq`, `arc_…` and others, with the columns that `multiple-choice` reads."""


@dataclass(frozen=True, slots=True)
class Harness:
    """What lm-evaluation-harness says.

    Args:
        metrics: its figures by name.
        nats: negative log-likelihoods of every document's requests.
    """

    metrics: Mapping[str, float]
    nats: Sequence[Sequence[float]]


def main() -> None:
    """Print a line for each figure: the harness's, ours, and the difference in nats."""
    options = _options()
    model, tokenizer = load(options.base)
    if options.text:
        _compare_text(model, tokenizer, options.text)
    if options.cloze:
        _compare_cloze(model, tokenizer, options.cloze)
    if options.pairs:
        _compare_pairs(model, tokenizer, options.pairs)


def _compare_text(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, file: str) -> None:
    probe = LanguageModelLoss(file=file, windows="disjoint")
    documents = load_documents(probe)
    theirs = harness(model, tokenizer, ROLLING, [{"text": text} for text in documents])
    found = measured(model, tokenizer, probe, documents)
    nats, tokens = found.total.sum() * math.log(2), found.tokens.sum()
    _tell("documents, tokens", len(documents), int(tokens))
    _tell("bits per byte", theirs.metrics["bits_per_byte"], found.value)
    _tell("byte perplexity", theirs.metrics["byte_perplexity"], 2**found.value)
    word_perplexity = probe.details(found, found)["word_perplexity_before"]
    _tell("word perplexity", theirs.metrics["word_perplexity"], word_perplexity)
    _tell("nats per token", sum(map(sum, theirs.nats)) / tokens, nats / tokens)


def _compare_cloze(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, file: str) -> None:
    probe = Cloze(file=file)
    documents = load_documents(probe)
    theirs = harness(model, tokenizer, LAMBADA, [{"text": text} for text in documents])
    found = measured(model, tokenizer, probe, documents)
    details = probe.details(found, found)
    _tell("texts, tokens", len(documents), int(found.tokens.sum()))
    _tell("accuracy", theirs.metrics["acc"], found.value)
    _tell("perplexity of a word", theirs.metrics["perplexity"], details["perplexity_before"])
    nats = math.log(theirs.metrics["perplexity"])
    _tell("nats per word", nats, details["nats_per_word_before"])


def _compare_pairs(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, file: str) -> None:
    probe = MinimalPairs(file=file)
    documents = load_documents(probe)
    rows = [dict(zip(probe.columns, pair, strict=True)) for pair in documents]
    theirs = harness(model, tokenizer, BLIMP, rows)
    found = measured(model, tokenizer, probe, documents)
    sentences = [("", f" {sentence}") for pair in documents for sentence in pair]
    scores = LanguageModelScorer(model.transformer, tokenizer).score_continuations(sentences)
    tokens = scores.tokens.sum()
    _tell("pairs, tokens", len(documents), int(tokens))
    _tell("accuracy", theirs.metrics["acc"], found.value)
    _tell("nats per token", sum(map(sum, theirs.nats)) / tokens, scores.nats.sum() / tokens)


def _tell(name: str, first: float, second: float) -> None:
    exact = isinstance(first, int)
    end = "" if exact else f"   difference {second - first:+.1e}"
    print(f"{name:24} {first:<12.8g} {second:<12.8g}{end}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default="bundled:tiny-gpt2", help="hub id, folder, or bundled")
    parser.add_argument("--text", help=".txt or .jsonl of documents")
    parser.add_argument("--cloze", help=".jsonl with `text`, as LAMBADA")
    parser.add_argument("--pairs", help=".jsonl with `sentence_good` and `sentence_bad`, as BLiMP")
    return parser.parse_args()


def harness(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> Harness:
    """Run one task of lm-evaluation-harness, in this process, on rows of our own.

    Args:
        model: transformers' own GPT-2.
        tokenizer: its tokenizer.
        task: configuration of the task, without the data.
        rows: the data.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = simple_evaluate(
            # Its logits cache takes two windows of the same tokens, cut at another border between
            # what is read and what is scored, for one; a text that repeats itself has such windows.
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, logits_cache=False),
            tasks=[
                {
                    **task,
                    "task": "rows",
                    "dataset_path": "json",
                    "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": folder},
                    "test_split": "test",
                }
            ],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
        )
    metrics = {
        name.removesuffix(",none"): float(value)
        for name, value in found["results"]["rows"].items()
        if name.endswith(",none") and isinstance(value, float | int)
    }
    samples = sorted(found["samples"]["rows"], key=lambda sample: sample["doc_id"])
    return Harness(metrics, [_nats(sample["filtered_resps"]) for sample in samples])


def measured(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    probe: Probe,
    documents: Sequence[Any],
) -> Measurement:
    """Measure a probe on a model by itself."""
    return measure_with(model.transformer, tokenizer, [ProbeText(probe, tuple(documents))])[0]


def load(base: str) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """Load a base as transformers does, in float32, with its tokenizer."""
    folder = find_base(base).folder
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model, load_tokenizer(folder)


def _nats(responses: Any) -> list[float]:  # noqa: ANN401 - a number, or pairs of one and a flag
    return [-float(r[0] if isinstance(r, (list, tuple)) else r) for r in responses]


if __name__ == "__main__":
    main()
