"""Forgetting: every token scored once, zero where nothing changed, intervals that cover."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from bases import write_base
from numpy.typing import NDArray
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from peftune.artifacts import save
from peftune.errors import ArtifactError, BaseModelError, PeftuneError, UsageError
from peftune.forgetting import intervals
from peftune.forgetting.intervals import forgetting_interval
from peftune.forgetting.measure import (
    ProbeResult,
    ProbeText,
    adapter_off_forgetting,
    forgetting_of,
    measure,
    measure_with,
    read_probe_texts,
)
from peftune.forgetting.scorer import LanguageModelScorer, windows
from peftune.forgetting.verdict import verdict
from peftune.models.parts import trainable_parameters, trunk_of
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.probes import LanguageModelLoss, Measurement
from peftune.runs.forget import forget
from peftune.runs.report import Forgetting
from peftune.strategies import STRATEGIES, Full, HeadOnly, LoRA, Strategy

LABELS = ("bad", "good")
DOCUMENTS = (
    "A short one.",
    "The committee met on Tuesday, and nobody could say afterwards why it had met at all.",
    "Half a page about bread: flour, water, salt, and a long wait. " * 2,
    "é",
    "Rain again. The river stood at the second step and the ducks walked along the road.",
)
"""Of 2 to 124 bytes, so of 1 to 3 windows of the small base's 64 positions."""

PROBE = LanguageModelLoss(dataset_name="bundled:general-text", max_documents=4)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> LanguageModelLoss:
    """Write the documents to a file, and return the probe that reads them."""
    path = tmp_path_factory.mktemp("probe") / "prose.txt"
    path.write_text("\f".join(DOCUMENTS))
    return LanguageModelLoss(file=str(path))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small random base."""
    return write_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def language_model(base: Path) -> GPT2LMHeadModel:
    """Load the base with transformers' own language-model head, as the independent reference."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(base)
    model.eval()
    return model


@pytest.fixture(scope="module")
def texts() -> list[ProbeText]:
    """Return one probe over the documents above."""
    return [ProbeText(PROBE, DOCUMENTS)]


def _prepared(base: Path, strategy: Strategy) -> nn.Module:
    return prepare_model(str(base), strategy, labels=LABELS, max_length=32, seed=0, use_cpu=True)


def _batch(model: nn.Module) -> dict[str, torch.Tensor]:
    tokenizer = preparation_of(model).tokenizer
    encoded = encode_texts(tokenizer, ["so good", "so bad, so very bad"], max_length=32)
    return dict(tokenizer.pad({"input_ids": encoded}, return_tensors="pt"))


def _train(model: nn.Module, steps: int = 2, rate: float = 0.5) -> None:
    """Take steps large enough to move every learning weight far."""
    optimizer = torch.optim.SGD(trainable_parameters(model).values(), lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**_batch(model), labels=torch.tensor([1, 0])).loss.backward()
        optimizer.step()
    optimizer.zero_grad()


# Windows


@pytest.mark.parametrize("window", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 12, 13, 14, 40, 101])
def test_the_windows_cover_every_target_exactly_once(length: int, window: int) -> None:
    """No token is scored twice or left out, none sees beyond the window, and none too little."""
    for stride in range(1, window + 1):
        scored: list[int] = []
        for begin, done, end in windows(length, window, stride):
            assert end - begin <= window
            assert begin <= done < end
            # The first scored target has at least this much behind it: text, or all there is.
            assert done - begin >= min(done, window - stride)
            scored += range(done, end)
        assert scored == list(range(length))


# The scorer against brute force


def _one_at_a_time(
    model: GPT2LMHeadModel, ids: Sequence[int], *, window: int, stride: int
) -> float:
    """Score each token by a forward pass of its own, with the context that its window gives."""
    fed = [0, *ids]
    total = 0.0
    for target, token in enumerate(ids):
        if target < window:
            begin = 0
        else:
            strides = (target - window) // stride + 1
            begin = min(len(ids), window + strides * stride) - window
        with torch.inference_mode():
            logits = model(torch.tensor([fed[begin : target + 1]])).logits[0, -1]
        total -= float(torch.log_softmax(logits.double(), -1)[token])
    return total


@pytest.mark.parametrize("window", [2, 7, 16])
def test_the_scorer_equals_one_token_at_a_time(
    window: int, language_model: GPT2LMHeadModel, base: Path
) -> None:
    """Batched windows give what a loop over single tokens gives; with window 2 the stride is 1."""
    tokenizer = load_tokenizer(base)
    scorer = LanguageModelScorer(language_model.transformer, tokenizer, window=window)

    nats, tokens = scorer.nats(DOCUMENTS)

    encoded = encode_texts(tokenizer, list(DOCUMENTS), max_length=None)
    expected = [
        _one_at_a_time(language_model, ids, window=window, stride=window // 2) for ids in encoded
    ]
    np.testing.assert_allclose(nats, expected, rtol=1e-5)
    assert tokens.tolist() == [len(document.encode()) for document in DOCUMENTS]


def test_the_scorer_equals_the_language_models_own_loss(
    language_model: GPT2LMHeadModel, base: Path
) -> None:
    """Transformers shifts targets itself: its mean loss times the tokens is the sum in nats."""
    short = [document for document in DOCUMENTS if len(document.encode()) < 64]
    tokenizer = load_tokenizer(base)

    nats, tokens = LanguageModelScorer(language_model.transformer, tokenizer).nats(short)

    assert len(short) >= 2
    for document, total, count in zip(short, nats, tokens, strict=True):
        [ids] = encode_texts(tokenizer, [document], max_length=None)
        inputs = torch.tensor([[0, *ids]])
        with torch.inference_mode():
            loss = float(language_model(inputs, labels=inputs).loss)
        assert total / count == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_score_does_not_depend_on_batches_order_or_padding(
    batch_size: int, language_model: GPT2LMHeadModel, base: Path
) -> None:
    """In float32 a document's nats are its own, whatever is scored beside it."""
    tokenizer = load_tokenizer(base)
    alone = [
        LanguageModelScorer(language_model.transformer, tokenizer).nats([d])[0][0]
        for d in DOCUMENTS
    ]
    order = [3, 0, 4, 2, 1]

    scorer = LanguageModelScorer(language_model.transformer, tokenizer, batch_size=batch_size)
    together, _ = scorer.nats([DOCUMENTS[index] for index in order])

    np.testing.assert_allclose(together, np.array(alone)[order], rtol=0, atol=1e-5 * 64)
    np.testing.assert_allclose(together, np.array(alone)[order], rtol=1e-6)


def test_a_model_that_knows_nothing_needs_ln_vocabulary_nats_a_token(base: Path) -> None:
    """With the last layer norm at zero all logits are zero, and every token costs ln 257."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(base)
    nn.init.zeros_(model.transformer.ln_f.weight)
    nn.init.zeros_(model.transformer.ln_f.bias)

    nats, tokens = LanguageModelScorer(model.transformer, load_tokenizer(base)).nats(DOCUMENTS)

    np.testing.assert_allclose(nats / tokens, math.log(257), rtol=1e-7)


def test_bits_per_byte_are_nats_over_ln_2_over_utf8_bytes(base: Path) -> None:
    """With single bytes as tokens and no knowledge, a byte costs log2 257 bits, é two of them."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(base)
    nn.init.zeros_(model.transformer.ln_f.weight)
    nn.init.zeros_(model.transformer.ln_f.bias)

    [measured] = measure_with(
        model.transformer, load_tokenizer(base), [ProbeText(PROBE, ("é", "abc"))]
    )

    assert measured.value == pytest.approx(math.log2(257), rel=1e-7)
    assert measured.weight.tolist() == [2, 3]
    assert measured.tokens.tolist() == [2, 3]


def test_a_special_token_spelled_in_the_text_is_scored_as_characters(base: Path) -> None:
    """Text about tokenizers is text: the end token cannot be smuggled in."""
    scorer = LanguageModelScorer(
        GPT2LMHeadModel.from_pretrained(base).transformer, load_tokenizer(base)
    )

    _, tokens = scorer.nats(["<|endoftext|>"])

    assert tokens.tolist() == [len("<|endoftext|>")]


def test_the_protocol_is_hashed(base: Path, language_model: GPT2LMHeadModel) -> None:
    """Another window or batch is another protocol; the window is at most the model's positions."""
    tokenizer = load_tokenizer(base)
    protocols = [
        LanguageModelScorer(language_model.transformer, tokenizer, **options).protocol()
        for options in ({}, {"window": 32}, {"batch_size": 4})
    ]

    assert (protocols[0]["window"], protocols[0]["stride"]) == (64, 32)
    assert len({protocol["sha256"] for protocol in protocols}) == 3


def test_planted_noise_raises_bits_per_byte_step_by_step() -> None:
    """The more a trained trunk is disturbed, the worse it predicts: no sign is swapped."""
    texts = read_probe_texts([PROBE])
    values = []
    for scale in (0.0, 0.03, 0.1, 0.3):
        model = prepare_model("bundled:tiny-gpt2", HeadOnly(), labels=LABELS, use_cpu=True)
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in trunk_of(model).parameters():
                weight.add_(scale * weight.square().mean().sqrt() * torch.randn_like(weight))
        values.append(measure(model, texts)[0].value)

    assert values == sorted(values)
    assert values[1] - values[0] > 1e-4
    # The bundled model knows English: far from log2(257) bits, and noise costs it a lot.
    assert values[0] < 2.0
    assert values[3] - values[0] > 0.1


# Zero by identity


def _forgetting(before: Sequence[Measurement], after: Sequence[Measurement]) -> float:
    [value] = [
        float((a.total - b.total).sum() / b.weight.sum())
        for b, a in zip(before, after, strict=True)
    ]
    return value


@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
def test_forgetting_is_exactly_zero_where_nothing_was_learned(
    name: str, base: Path, texts: list[ProbeText]
) -> None:
    """Before any step, the model and its reference are one, in float and in int8."""
    model = _prepared(base, STRATEGIES.get(name)())

    before, after = measure(model, texts, strength=0.0), measure(model, texts)

    assert _forgetting(before, after) == 0.0
    assert adapter_off_forgetting(before, after) == 0.0


@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
def test_forgetting_is_exactly_zero_with_the_adapter_off(
    name: str, base: Path, texts: list[ProbeText]
) -> None:
    """After training too the reference is the base; with the adapter on a trunk has moved."""
    strategy = STRATEGIES.get(name)()
    model = _prepared(base, strategy)
    before = measure(model, texts)
    _train(model)

    off, after = measure(model, texts, strength=0.0), measure(model, texts)

    assert adapter_off_forgetting(before, off) == 0.0
    assert (_forgetting(before, after) != 0.0) is strategy.trains_trunk


def test_the_control_shows_a_change_that_cancels_out() -> None:
    """One document better and one worse by the same is no zero: changes count without sign."""
    before = Measurement(np.array([4.0, 4.0]), np.array([2.0, 2.0]), np.array([1, 1]))
    off = Measurement(np.array([5.0, 3.0]), np.array([2.0, 2.0]), np.array([1, 1]))

    assert adapter_off_forgetting([before], [off]) == 0.5
    assert adapter_off_forgetting([], []) == 0.0


@pytest.mark.parametrize("strategy", [LoRA(lora_dropout=0.5), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_measuring_between_two_steps_leaves_no_trace(
    strategy: Strategy, strength: float, base: Path, texts: list[ProbeText]
) -> None:
    """Modes, gradients, weights and random state are as before; the next loss is bit-identical."""

    def next_loss(*, measured: bool) -> tuple[torch.Tensor, dict[str, Any]]:
        torch.manual_seed(0)
        model = _prepared(base, strategy)
        _train(model, rate=0.1)
        model(**_batch(model), labels=torch.tensor([1, 0])).loss.backward()
        if measured:
            measure(model, texts, strength=strength)
        traces = {
            "modes": [module.training for module in model.modules()],
            "random": torch.get_rng_state(),
            "weights": {
                name: weight.detach().clone() for name, weight in model.named_parameters()
            },
            "gradients": {name: weight.grad for name, weight in model.named_parameters()},
            "learning": [weight.requires_grad for weight in model.parameters()],
        }
        return model(**_batch(model), labels=torch.tensor([1, 0])).loss, traces

    (plain, expected), (loss, traces) = next_loss(measured=False), next_loss(measured=True)

    assert torch.equal(loss, plain)
    assert any(traces["modes"])
    torch.testing.assert_close(traces, expected, rtol=0, atol=0)


def test_dropout_is_off_while_measuring(base: Path, texts: list[ProbeText]) -> None:
    """Two measurements of a model in train mode agree bit for bit."""
    model = _prepared(base, LoRA(lora_dropout=0.5)).train()
    _train(model)

    [first], [second] = measure(model, texts), measure(model, texts)

    assert first.total.tolist() == second.total.tolist()


# Intervals


def _measured(total: NDArray[np.float64], weight: NDArray[np.float64]) -> Measurement:
    return Measurement(total, weight, np.ones(len(total), dtype=np.int64))


def test_the_interval_is_of_the_ratio_of_sums() -> None:
    """A long document counts as long as it is: a mean of ratios would lie elsewhere.

    Nine documents of one byte that lost 1 bit each, and 51 of 100 bytes that lost none: the ratio
    of sums is 9/5109; a mean of ratios would be 0.15.
    """
    weight = np.r_[np.ones(9), np.full(51, 100.0)]
    before = _measured(weight, weight)
    after = _measured(weight + np.r_[np.ones(9), np.zeros(51)], weight)

    interval = forgetting_interval(before, after, seed=0)

    assert interval is not None
    assert 0.0005 < interval[0] < 9 / 5109 < interval[1] < 0.004


@pytest.mark.parametrize("count", [20, 80])
def test_the_interval_repeats_for_a_seed(count: int) -> None:
    """Below 50 documents (BCa) and above (percentile), the seed decides the resamples."""
    generator = np.random.default_rng(0)
    weight = np.full(count, 100.0)
    before, after = (
        _measured(weight, weight),
        _measured(weight + generator.normal(5, 20, count), weight),
    )

    first, again, other = (forgetting_interval(before, after, seed=seed) for seed in (0, 0, 1))

    assert first is not None
    assert first == again
    assert first != other
    assert first[0] < float((after.total - before.total).mean() / 100) < first[1]


def test_one_document_has_no_interval_and_the_report_says_why(
    base: Path, language_model: GPT2LMHeadModel
) -> None:
    """A single document has no spread: null with a reason, never a width of zero."""
    one = _measured(np.array([1.0]), np.array([1.0]))

    result = forgetting_of(
        language_model.transformer,
        load_tokenizer(base),
        ProbeText(PROBE, ("one",)),
        before=one,
        after=one,
        seed=0,
    )

    assert forgetting_interval(one, one, seed=0) is None
    assert result.ci95 is None
    assert result.reason == (
        "kl: this probe does not measure it; ci95: one document has no spread"
    )


@pytest.mark.parametrize("count", [2, 20, 80])
def test_the_same_loss_everywhere_has_a_width_of_zero(count: int) -> None:
    """Where every byte lost the same there is nothing to be unsure of."""
    weight = np.arange(1.0, count + 1)

    interval = forgetting_interval(
        _measured(weight, weight), _measured(1.25 * weight, weight), seed=0
    )

    assert interval == pytest.approx((0.25, 0.25), abs=1e-12)


def test_the_interval_over_documents_covers_and_one_over_tokens_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In 300 repetitions the 95% interval holds the planted loss 90 to 98 times in 100.

    Tokens of a document share its fate (correlation 0.15 here, 30 tokens a document), so an
    interval over tokens is too narrow by sqrt(1 + 29 * 0.15) = 2.3 and holds it 60 times in 100:
    normal distribution, 2 * Phi(1.96 / 2.3) - 1 = 0.60.
    """
    monkeypatch.setattr(intervals, "RESAMPLES", 999)
    generator = np.random.default_rng(0)
    documents, tokens, truth = 60, 30, 0.02
    covered = {"documents": 0, "tokens": 0}
    for repetition in range(300):
        shared = generator.normal(0, math.sqrt(0.15), (documents, 1))
        own = generator.normal(0, math.sqrt(0.85), (documents, tokens))
        losses = truth + shared + own  # (documents, tokens)
        weight = np.full(documents, float(tokens))
        interval = forgetting_interval(
            _measured(weight, weight), _measured(weight + losses.sum(-1), weight), seed=repetition
        )
        half = 1.96 * losses.std(ddof=1) / math.sqrt(losses.size)
        assert interval is not None
        covered["documents"] += interval[0] <= truth <= interval[1]
        covered["tokens"] += abs(losses.mean() - truth) <= half

    assert 0.90 <= covered["documents"] / 300 <= 0.98
    assert 0.50 <= covered["tokens"] / 300 <= 0.70


# Verdicts


def _result(interval: tuple[float, float] | None) -> ProbeResult:
    return ProbeResult(
        name="prose",
        type="lm-loss",
        metric="bits_per_byte",
        unit="bits/byte",
        before=1.0,
        after=1.0,
        forgetting=0.0,
        ci95=interval,
        kl=None,
        n_documents=2,
        n_tokens=2,
        data_sha256="",
        protocol={},
        reason=None,
    )


@pytest.mark.parametrize(
    ("found", "learned", "expected"),
    [
        ([(-0.001, 0.004)], True, "retained"),
        ([(0.001, 0.004)], True, "retained"),
        ([(-0.02, -0.01)], True, "retained"),
        ([(0.001, 0.02)], True, "forgot"),
        ([(0.001, 0.010)], True, "forgot"),
        ([(0.5, 0.6)], True, "forgot"),
        ([(0.5, 0.6)], False, "nothing learned"),
        ([(-0.001, 0.004)], False, "nothing learned"),
        ([(-0.001, 0.010)], True, "inconclusive"),
        ([(-0.01, 0.03)], True, "inconclusive"),
        ([None], True, "inconclusive"),
        ([(-0.001, 0.004), None], True, "inconclusive"),
        ([(-0.001, 0.004), (0.02, 0.03)], True, "forgot"),
        ([None, (0.02, 0.03)], True, "forgot"),
        ([(-0.001, 0.004), (-0.001, 0.02)], True, "inconclusive"),
        ([(-0.001, 0.004), (0.0, 0.009)], True, "retained"),
        ([], True, None),
        ([], False, None),
    ],
)
def test_the_verdict_follows_from_the_intervals_and_from_what_was_learned(
    found: list[tuple[float, float] | None],
    learned: bool,
    expected: Literal["retained", "forgot", "inconclusive", "nothing learned"] | None,
) -> None:
    """Below 0.010 bits per byte is retained; above zero and not below that is forgot."""
    assert verdict([_result(interval) for interval in found], learned=learned) == expected


def test_a_probe_in_another_unit_has_no_say_in_the_verdict() -> None:
    """The margin is in bits per byte; a probe in another unit is not held against it."""
    lost, kept = _result((0.1, 0.3)), _result((-0.001, 0.002))
    points = dataclasses.replace(lost, unit="points")

    assert verdict([lost], learned=True) == "forgot"
    assert verdict([points], learned=True) is None
    assert verdict([points, kept], learned=True) == "retained"


@pytest.mark.parametrize("documents", [2, 49, 50])
def test_a_constant_change_has_an_interval_of_no_width_and_no_warning(documents: int) -> None:
    """A frozen trunk changes no document: the interval is that one value, said in silence."""
    before = Measurement(
        total=np.arange(documents, dtype=np.float64),
        weight=np.ones(documents),
        tokens=np.ones(documents, dtype=np.int64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert forgetting_interval(before, before, seed=0) == (0.0, 0.0)


# Any artifact


@pytest.fixture(scope="module")
def adapter(
    base: Path, probe: LanguageModelLoss, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Forgetting]:
    """Train and save a small adapter, with its forgetting as a run measures it."""
    model = _prepared(base, LoRA(r=4))
    texts = read_probe_texts([probe])
    before = measure(model, texts, strength=0.0)
    _train(model)
    [after] = measure(model, texts)
    result = forgetting_of(
        model, preparation_of(model).tokenizer, texts[0], before=before[0], after=after, seed=0
    )
    folder = save(model, tmp_path_factory.mktemp("adapter") / "adapter")
    return folder, Forgetting([result], {}, None)


def test_forgetting_of_an_adapter_folder_is_the_runs_own(
    adapter: tuple[Path, Forgetting], base: Path, probe: LanguageModelLoss
) -> None:
    """Saved, loaded and measured against a base loaded by itself: the same number, control zero."""
    folder, expected = adapter

    found = forget(folder, [probe], base=str(base), use_cpu=True)

    assert found["prose"] == expected["prose"]
    assert found["prose"].forgetting != 0
    assert found.controls == {"adapter_off_forgetting": 0.0}
    assert (found.verdict, found.reason) == (None, "no verdict without a task score beside it")


@pytest.fixture
def plain(adapter: tuple[Path, Forgetting], tmp_path: Path) -> Path:
    """Copy the adapter folder as PEFT itself would have written it."""
    folder = tmp_path / "plain"
    shutil.copytree(adapter[0], folder)
    (folder / "peftune.json").unlink()
    (folder / "README.md").unlink()
    return folder


def test_forgetting_of_a_plain_peft_folder_is_the_same(
    adapter: tuple[Path, Forgetting], plain: Path, base: Path, probe: LanguageModelLoss
) -> None:
    """The adapter alone, without the manifest, gives the same numbers and the same control."""
    _, expected = adapter

    found = forget(plain, [probe], base=str(base), use_cpu=True)

    assert found["prose"].forgetting == pytest.approx(expected["prose"].forgetting, abs=1e-9)
    assert found.controls == {"adapter_off_forgetting": 0.0}


@pytest.mark.parametrize("task_type", [TaskType.SEQ_CLS, TaskType.CAUSAL_LM])
def test_forgetting_of_an_adapter_that_peft_saved_is_measured(
    task_type: TaskType, base: Path, probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """A LoRA of another tool, for classes or for text, is measured on its own base."""
    kind = GPT2ForSequenceClassification if task_type == TaskType.SEQ_CLS else GPT2LMHeadModel
    model = get_peft_model(
        kind.from_pretrained(base),
        LoraConfig(task_type=task_type, r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    )
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.5)
    model.save_pretrained(str(tmp_path / "lora"))

    found = forget(tmp_path / "lora", [probe], use_cpu=True)["prose"]

    texts = read_probe_texts([probe])
    [expected] = measure_with(model.eval(), load_tokenizer(base), texts)
    assert found.after == pytest.approx(expected.value, rel=1e-6)
    assert found.after != found.before


def test_forgetting_of_a_full_checkpoint_is_measured_with_and_without_its_manifest(
    base: Path, probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """Full fine-tuning leaves a checkpoint; it has no adapter to switch off, so no control."""
    model = _prepared(base, Full())
    texts = read_probe_texts([probe])
    before = measure(model, texts, strength=0.0)
    _train(model, rate=0.1)
    expected = _forgetting(before, measure(model, texts))
    folder = save(model, tmp_path / "model")

    own = forget(folder, [probe], base=str(base), use_cpu=True)
    (folder / "peftune.json").unlink()
    plain = forget(folder, [probe], base=str(base), use_cpu=True)

    assert expected != 0
    for found in (own, plain):
        assert found["prose"].forgetting == pytest.approx(expected, abs=1e-9)
        assert found.controls == {"adapter_off_forgetting": None}
    with pytest.raises(UsageError) as caught:
        forget(folder, [probe], use_cpu=True)
    assert str(caught.value) == (
        f"'{folder}' is a plain checkpoint, which does not say what it was made from. Pass --base."
    )


def test_forgetting_against_another_base_is_refused(
    adapter: tuple[Path, Forgetting], probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """Of the same shape or not, a base with other weights gives no number."""
    folder, _ = adapter
    other = write_base(tmp_path / "other", seed=1)
    manifest = json.loads((folder / "peftune.json").read_text())

    with pytest.raises(ArtifactError) as caught:
        forget(folder, [probe], base=str(other), use_cpu=True)
    assert str(caught.value).startswith(
        f"'{folder}' belongs to the base 'tiny' with fingerprint "
        f"{manifest['base']['fingerprint'][:12]}…; '{other}' has "
    )
    assert str(caught.value).endswith(
        "… and is another model. Pass the base that it was trained on."
    )
    with pytest.raises(BaseModelError, match="cannot be found under that name"):
        forget(folder, [probe], use_cpu=True)


def _change_config(folder: Path, **values: Any) -> None:  # noqa: ANN401 - values of a JSON file
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _refusal(folder: Path, base: Path, probe: LanguageModelLoss) -> str:
    with pytest.raises(PeftuneError) as caught:
        forget(folder, [probe], base=str(base), use_cpu=True)
    return str(caught.value).replace(f"{folder.parent}/", "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"target_modules": ".*c_attn"},
            "adapter_config.json: r must be 1 to 1024, lora_alpha positive, target_modules a list of module names.",
        ),
        (
            {"r": 10**9},
            "adapter_config.json: r must be 1 to 1024, lora_alpha positive, target_modules a list of module names.",
        ),
        (
            {"bias": "all"},
            "'plain/adapter_config.json': bias 'all' is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"init_lora_weights": "pissa"},
            "'plain/adapter_config.json': init_lora_weights 'pissa' is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"rank_pattern": {"c_attn": 2}},
            "'plain/adapter_config.json': rank_pattern {'c_attn': 2} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"alpha_pattern": {"c_attn": 2}},
            "'plain/adapter_config.json': alpha_pattern {'c_attn': 2} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"peft_type": "IA3"},
            "'plain/adapter_config.json' is no LoRA adapter; peftune measures plain LoRA adapters of other tools.",
        ),
    ],
)
def test_a_foreign_adapter_that_is_no_plain_lora_is_refused(
    values: dict[str, Any],
    message: str,
    plain: Path,
    base: Path,
    probe: LanguageModelLoss,
) -> None:
    """What rewrites the base, or cannot be checked, gives an error and never a number."""
    _change_config(plain, **values)

    assert _refusal(plain, base, probe) == message


def test_a_foreign_adapter_with_broken_tensors_is_refused(
    plain: Path, base: Path, probe: LanguageModelLoss
) -> None:
    """NaN, a missing or an unexpected tensor, and garbage in the file: one line each."""
    path = plain / "adapter_model.safetensors"
    tensors = load_file(path)
    *others, first = sorted(tensors)

    save_file({**tensors, first: torch.full_like(tensors[first], math.nan)}, path)
    assert _refusal(plain, base, probe) == (
        f"'plain/adapter_model.safetensors': tensor '{first}' has another shape than 'tiny' asks for, or values that are not finite."
    )
    save_file({name: tensors[name] for name in others}, path)
    assert _refusal(plain, base, probe) == (
        f"'plain/adapter_model.safetensors' does not fit 'tiny': tensor '{first}' is missing or unexpected (1 in all)."
    )
    save_file({**tensors, "spare": torch.zeros(1)}, path)
    assert _refusal(plain, base, probe) == (
        "'plain/adapter_model.safetensors' does not fit 'tiny': tensor 'spare' is missing or unexpected (1 in all)."
    )
    path.write_bytes(b"not tensors")
    assert _refusal(plain, base, probe).startswith(
        "'plain/adapter_model.safetensors' is no readable safetensors file: "
    )


def test_a_pickled_adapter_is_never_opened(
    plain: Path, base: Path, probe: LanguageModelLoss
) -> None:
    """`adapter_model.bin` can run code when it is opened, so it is not."""
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")

    assert _refusal(plain, base, probe) == (
        "'plain' holds no adapter_model.safetensors; pickled adapters are never opened. "
        "Save it again with safetensors."
    )


def test_a_foreign_adapter_without_a_base_asks_for_one(
    plain: Path, probe: LanguageModelLoss
) -> None:
    """An adapter that names no base is measured against the one that is passed."""
    with pytest.raises(ArtifactError) as caught:
        forget(plain, [probe], use_cpu=True)
    assert str(caught.value) == (
        f"'{plain}' does not name its base. Pass it: --base on the command line, base=… in Python."
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, probe: LanguageModelLoss) -> None:
    """A wrong path is no hub id and no traceback."""
    with pytest.raises(ArtifactError) as caught:
        forget(tmp_path / "nothing", [probe])
    assert str(caught.value) == (
        f"There is no folder '{tmp_path / 'nothing'}'. Name an adapter folder, or a checkpoint folder."
    )
