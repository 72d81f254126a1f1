"""Whether peftune computes what the hand-tuned contender computes: without that a speed is void."""

from __future__ import annotations

import dataclasses
import gc
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import peftune
from benchmarks.clock import FirstStep
from benchmarks.contenders import RIVALS, contender
from benchmarks.contenders.int8 import int8_kwargs
from benchmarks.contenders.setup import Setup
from benchmarks.contenders.stock import load_classifier, tokenizer_of
from benchmarks.rows import MAX_LENGTH
from peftune.fastpath.attention import settle_vector_functions

_UNCLIPPED = 1.0e9
_SCALE = 0.02
LIMITS = {"loss": 1.0e-4, "gradients": 1.0e-4, "gradients in bfloat16": 0.999}
"""Relative differences at most; for bfloat16 the cosine at least."""


def run(
    setup: dict[str, Any], *, without_dropout: str, texts: Sequence[str], trained_steps: int
) -> dict[str, Any]:
    """Compare first steps from the same weights, and what stock peft makes of the saved artifact.

    Args:
        setup: fields of `Setup`, on the base as it is.
        without_dropout: folder of the same base with its dropout off.
        texts: what both loads of the artifact classify, one at a time.
        trained_steps: steps before it is saved.
    """
    settle_vector_functions()  # the rival's first pass too is exact
    plain = Setup(**setup)
    still = dataclasses.replace(
        plain,
        base=without_dropout,
        count=plain.batch,
        steps=1,
        adapter_dropout=0.0,
        max_grad_norm=_UNCLIPPED,
        log_every_step=True,
    )
    expected = _first_step(RIVALS[plain.strategy], dataclasses.replace(still, precision="fp32"))
    found = _first_step("P-fp32", still)
    rounded = _first_step("P", still)
    gates = [*same_step(found, expected), same_direction(rounded, expected)]
    learned = dataclasses.replace(plain, steps=trained_steps, count=trained_steps * plain.batch)
    return {"gates": [*gates, _reloads(learned, texts)]}


def _first_step(name: str, setup: Setup) -> FirstStep:
    """Take one step from weights that are the same for everyone."""
    session, seen = contender(name).build(setup), FirstStep()
    _start_from_the_same_weights(session.model, whole=setup.strategy == "full")
    session.train([seen])
    del session
    gc.collect()
    return seen


@torch.no_grad()
def _start_from_the_same_weights(model: nn.Module, *, whole: bool) -> None:
    """Give what is new the same numbers: the head, and the adapter, none of which stays zero.

    An update that is zero, as a new adapter's is, would hide half of the gradients.
    """
    new = dict(model.score.named_parameters()) if whole else dict(model.named_parameters())  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    for name in sorted(name for name, weight in new.items() if weight.requires_grad):
        drawn = torch.randn(new[name].shape, generator=generator)
        new[name].copy_(_SCALE * drawn)


def same_step(found: FirstStep, expected: FirstStep) -> list[dict[str, Any]]:
    """Compare two first steps by loss and by all gradients together, relative to the second."""
    if found.gradients.keys() != expected.gradients.keys():
        odd = sorted(found.gradients.keys() ^ expected.gradients.keys())
        return [
            _gate("gradients", None, passed=False, note=f"other weights are trained: {odd[0]}")
        ]
    loss = abs((found.loss or 0.0) - (expected.loss or 0.0)) / abs(expected.loss or 1.0)
    error = _norm(
        {name: found.gradients[name] - value for name, value in expected.gradients.items()}
    )
    gradients = error / _norm(expected.gradients)
    return [
        _gate("loss", loss, passed=loss < LIMITS["loss"]),
        _gate("gradients", gradients, passed=gradients < LIMITS["gradients"]),
    ]


def same_direction(found: FirstStep, expected: FirstStep) -> dict[str, Any]:
    """Hold peftune's default against float32; where the default is float32, the cosine is 1."""
    name = "gradients in bfloat16"
    if found.gradients.keys() != expected.gradients.keys():
        return _gate(name, None, passed=False, note="other weights are trained")
    product = sum(
        float((found.gradients[key].double() * value.double()).sum())
        for key, value in expected.gradients.items()
    )
    cosine = product / (_norm(found.gradients) * _norm(expected.gradients))
    return _gate(name, cosine, passed=cosine > LIMITS[name])


def _norm(gradients: Mapping[str, torch.Tensor]) -> float:
    squares = [float(value.double().square().sum()) for value in gradients.values()]
    return math.sqrt(sum(squares))


def _reloads(setup: Setup, texts: Sequence[str]) -> dict[str, Any]:
    """Save what peftune trained, and classify with it and with stock peft, text by text.

    One at a time, since in int8 a text's logits depend on its batch.
    """
    session = contender("P").build(setup)
    session.train([])
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        saved = Path(folder) / "saved"
        session.save(saved)
        del session
        gc.collect()
        classifier = peftune.load(saved, base=setup.base, use_cpu=setup.device == "cpu")
        own = torch.cat([torch.from_numpy(classifier.logits([text])) for text in texts])
        stock = _stock_logits(saved, setup, texts)
    differ = int((own.argmax(-1) != stock.argmax(-1)).sum())
    return _gate(
        "predictions in stock peft",
        float((own - stock).abs().max()),
        passed=differ == 0,
        note=f"{differ} of {len(texts)} labels differ",
    )


@torch.inference_mode()
def _stock_logits(saved: Path, setup: Setup, texts: Sequence[str]) -> torch.Tensor:
    """Load without peftune, as the artifact's card says: (texts, labels)."""
    from peft import PeftModel

    tokenizer = tokenizer_of(setup.base)
    int8 = int8_kwargs(setup) if setup.strategy == "lora-8bit" else {}
    source = dataclasses.replace(setup, base=str(saved)) if setup.strategy == "full" else setup
    model = load_classifier(source, tokenizer, dtype=torch.float32, use_cache=False, **int8)
    if setup.strategy != "full":
        model = PeftModel.from_pretrained(model, str(saved))
    model = model.to(setup.device).eval() if not int8 else model.eval()
    rows = []
    for text in texts:
        inputs = tokenizer([text], truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        rows.append(model(**inputs.to(setup.device)).logits.float().cpu())  # (1, labels)
    return torch.cat(rows)


def _gate(name: str, value: float | None, *, passed: bool, note: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "passed": passed, "note": note}
