"""What a measurement of forgetting must pass before it is believed: its numbers (checks 1 to 5).

Each check is a function that raises AssertionError. It holds for the code as it is, and it fails
on faults that are planted by hand; most of them have been published somewhere.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from tuned import DOCUMENTS, LABELS, PROBE, TEXTS, prepared, train

from peftune.experiments.report import summarized
from peftune.forgetting import before_and_after as runs_measured
from peftune.forgetting import results, scorer
from peftune.forgetting.before_and_after import Before, Measured, measure_before
from peftune.forgetting.measurement import (
    ProbeText,
    measure,
    measure_base,
    measure_with,
    read_probe_texts,
)
from peftune.forgetting.results import Quantization, forgetting_of
from peftune.forgetting.scorer import (
    LanguageModelScorer,
    Output,
    Piece,
    TokenScores,
    read_out,
    windows,
)
from peftune.models import prepare as prepare_module
from peftune.models.architecture import backbone_of
from peftune.models.base_files import find_base
from peftune.models.interpolation import at_strength
from peftune.models.loading import load_backbone, load_classifier
from peftune.models.prepare import acting_as_base, preparation_of
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.probes import KLDivergence, LanguageModel, LanguageModelLoss, Measurement, Probe
from peftune.strategies import STRATEGIES, Full, HeadOnly, LoRA, LoRA8bit

Fault = Callable[[pytest.MonkeyPatch], None]
CPU = torch.device("cpu")


class LastLetter(Probe):
    """Ask whether a document's last letter is likelier than chance; each counts 0 or 1."""

    name: ClassVar[str] = "last-letter"
    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "share"
    higher_is_better: ClassVar[bool] = True
    right_or_wrong: ClassVar[bool] = True

    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Compare with a guess among 257 tokens."""
        scores = model.score_continuations([(text[:-1], text[-1]) for text in documents])
        right = (scores.nats / scores.tokens < math.log(257)).astype(np.float64)
        return Measurement(right, np.ones(len(documents)), scores.tokens)


EVERY_KIND = [
    *TEXTS,
    ProbeText(KLDivergence(dataset_name="bundled:general-text"), DOCUMENTS),
    ProbeText(LastLetter(dataset_name="bundled:general-text"), DOCUMENTS),
]


@pytest.fixture(scope="module")
def language_model(base: Path) -> GPT2LMHeadModel:
    """Load the base with transformers' own language-model head, as the independent reference."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(base)
    model.eval()
    return model


# 1. Zero by identity


def check_zero(before: Sequence[Measurement], after: Sequence[Measurement]) -> None:
    """Nothing changed, so nothing is forgotten: not nearly zero but zero."""
    for text, first, last in zip(EVERY_KIND, before, after, strict=True):
        result = forgetting_of(text, before=first, after=last, scoring={})
        assert result.forgetting == 0.0
        assert result.kl in (None, 0.0)
        assert result.mcnemar is None or (result.mcnemar.n10, result.mcnemar.n01) == (0, 0)
        assert last.total.tolist() == first.total.tolist()


@contextlib.contextmanager
def _scaled_to_nothing(model: nn.Module) -> Iterator[nn.Module]:
    with rescale_adapter_scale(model, 0.0):
        yield model


@contextlib.contextmanager
def _switched_off_by_peft(model: nn.Module) -> Iterator[nn.Module]:
    assert isinstance(model, PeftModel)
    with model.disable_adapter():
        yield model


@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
def test_forgetting_is_exactly_zero_where_nothing_was_learned(name: str, base: Path) -> None:
    """Before any step, and after steps of size zero: in float and in int8."""
    model = prepared(base, STRATEGIES.get(name)())
    before = measure_base(model, EVERY_KIND)
    check_zero(before, measure(model, EVERY_KIND))

    train(model, rate=0.0)

    check_zero(before, measure(model, EVERY_KIND))


@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
def test_forgetting_is_exactly_zero_with_the_adapter_off(name: str, base: Path) -> None:
    """After training too the reference is the base; with the adapter on a backbone has moved."""
    strategy = STRATEGIES.get(name)()
    model = prepared(base, strategy)
    before = measure(model, EVERY_KIND)

    train(model)

    with acting_as_base(model):
        check_zero(before, measure(model, EVERY_KIND))
    if strategy.trains_backbone:
        with pytest.raises(AssertionError):
            check_zero(before, measure(model, EVERY_KIND))


@pytest.mark.slow
def test_every_float_strategy_is_measured_from_the_same_base() -> None:
    """Bit for bit, whatever it put around which map: the cache gives one's base to another."""
    base = find_base("bundled:tiny-gpt2")
    text = LanguageModelLoss(dataset_name="bundled:general-text", max_documents=12)
    texts = read_probe_texts([text])
    [alone] = measure_with(load_backbone(base, CPU), load_tokenizer(base.folder), texts)
    assert alone.tokens.sum() > 1000

    for strategy in (LoRA(), LoRA(target_modules=("c_fc",)), Full(), HeadOnly()):
        [found] = measure_base(prepared(base.folder, strategy), texts)
        assert found.total.tolist() == alone.total.tolist()


@pytest.mark.parametrize("off", [_switched_off_by_peft, _scaled_to_nothing])
@pytest.mark.parametrize("name", ["lora", "lora-8bit"])
def test_pefts_own_ways_to_the_base_lead_to_the_same(
    name: str, off: Callable[[nn.Module], Any], base: Path
) -> None:
    """`disable_adapter` and an update scaled by zero give the same bits as our reference."""
    model = prepared(base, STRATEGIES.get(name)())
    before = measure_base(model, EVERY_KIND)

    train(model)

    with off(model):
        check_zero(before, measure_with(model, load_tokenizer(base), EVERY_KIND))


def _reference_with_dropout(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scorer, "evaluating", lambda _model: torch.inference_mode())


def _nearly_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        prepare_module, "at_strength", lambda model, before, _: at_strength(model, before, 1e-3)
    )


@pytest.mark.parametrize("plant", [_reference_with_dropout, _nearly_off])
def test_a_reference_that_is_not_the_base_is_not_zero(
    plant: Fault, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the reference is read in train mode; the adapter is turned down and not off."""
    torch.manual_seed(0)
    model = prepared(base, LoRA())
    before = measure(model, EVERY_KIND)
    train(model)
    plant(monkeypatch)

    with acting_as_base(model), pytest.raises(AssertionError):
        check_zero(before, measure(model, EVERY_KIND))


def test_a_start_that_is_not_the_base_is_no_base(base: Path) -> None:
    """Planted: "before" is the wrapped model, whose update does not start at zero.

    As in the benchmark of peft until huggingface/peft#3419.
    """
    model = prepared(base, LoRA())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    before = measure(model, EVERY_KIND)

    with acting_as_base(model), pytest.raises(AssertionError):
        check_zero(before, measure(model, EVERY_KIND))


# 2. Known values


@pytest.fixture(scope="module")
def gpt2() -> GPT2Model:
    """Build GPT-2 of 124M parameters with its own random start."""
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config())
    model.eval()
    return model


@pytest.fixture(scope="module")
def knows_nothing(gpt2: GPT2Model) -> GPT2Model:
    """Take the last layer norm away, so that all logits are zero."""
    model = copy.deepcopy(gpt2)
    nn.init.zeros_(model.ln_f.weight)
    nn.init.zeros_(model.ln_f.bias)
    return model


PROSE = ("The sea was calm and the boats came home before the rain.", "A cat sat by the fire.")


def _perplexity(model: GPT2Model, *, window: int = 1024) -> float:
    tokenizer = load_tokenizer(find_base("bundled:tiny-gpt2").folder)
    scores = LanguageModelScorer(model, tokenizer, window=window).score_text(PROSE)
    return math.exp(float(scores.nats.sum()) / int(scores.tokens.sum()))


def check_random_perplexity(model: GPT2Model) -> None:
    """A random GPT-2 is a little worse than a guess among its vocabulary, and never better."""
    assert 1.00 <= _perplexity(model) / 50257 <= 1.25


def check_uniform_perplexity(model: GPT2Model) -> None:
    """With all logits zero every token is a guess, each counted once, in whichever window."""
    assert _perplexity(model) == pytest.approx(50257, rel=1e-5)
    assert _perplexity(model, window=4) == pytest.approx(50257, rel=1e-5)


def test_known_perplexities_are_found(gpt2: GPT2Model, knows_nothing: GPT2Model) -> None:
    """Random weights of the real shape, and no knowledge at all."""
    check_random_perplexity(gpt2)
    check_uniform_perplexity(knows_nothing)


def _cut(patch: pytest.MonkeyPatch, piece: Callable[..., tuple[Any, Any]]) -> None:
    """Cut documents into pieces by another rule: from fed tokens, begin, done, end."""

    def text_pieces(
        encoded: Sequence[Sequence[int]], *, prefix: int, window: int, stride: int
    ) -> Iterator[Piece]:
        for document, ids in enumerate(encoded):
            for begin, done, end in windows(len(ids), window, stride):
                inputs, targets = piece((prefix, *ids), begin, done, end)
                yield Piece(document, tuple(inputs), tuple(targets))

    patch.setattr(scorer, "text_pieces", text_pieces)


def _unshifted_targets(patch: pytest.MonkeyPatch) -> None:
    _cut(patch, lambda fed, begin, done, end: (fed[begin + 1 : end + 1], fed[done + 1 : end + 1]))


def _overlap_counted_twice(patch: pytest.MonkeyPatch) -> None:
    _cut(patch, lambda fed, begin, _, end: (fed[begin:end], fed[begin + 1 : end + 1]))


def _first_target_of_each_window_left_out(patch: pytest.MonkeyPatch) -> None:
    _cut(
        patch,
        lambda fed, begin, done, end: (
            fed[begin:end],
            fed[done + (2 if done and end - done > 1 else 1) : end + 1],
        ),
    )


def _no_end_token_before_the_text(patch: pytest.MonkeyPatch) -> None:
    _cut(
        patch,
        lambda fed, begin, done, end: (
            (fed[max(begin, 1) : end] or fed[1:2]),
            fed[max(done, 1) + 1 : end + 1] or fed[1:2],
        ),
    )


def test_unshifted_targets_are_out_of_range(
    gpt2: GPT2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: each token is predicted from itself, as in peft's benchmark until #3419."""
    _unshifted_targets(monkeypatch)
    with pytest.raises(AssertionError):
        check_random_perplexity(gpt2)


@pytest.mark.parametrize("plant", [_overlap_counted_twice, _first_target_of_each_window_left_out])
def test_a_token_counted_twice_or_never_changes_a_known_value(
    plant: Fault, knows_nothing: GPT2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the overlap of windows is scored twice; each window's first token is not scored."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_uniform_perplexity(knows_nothing)


# 3. Brute force


Windows = Callable[[int, int, int], Iterator[tuple[int, int, int]]]
LENGTHS = (0, 1, 2, 3, 7, 8, 9, 12, 13, 14, 40, 101)


def check_partition(cut: Windows, *, window: int) -> None:
    """No token is scored twice or left out, none sees beyond the window, and none too little."""
    for length in LENGTHS:
        for stride in range(1, window + 1):
            scored: list[int] = []
            for begin, done, end in cut(length, window, stride):
                assert end - begin <= window
                assert begin <= done < end
                # The first scored target has at least this much behind it: text, or all there is.
                assert done - begin >= min(done, window - stride)
                scored += range(done, end)
            assert scored == list(range(length))


@pytest.mark.parametrize("window", [1, 2, 3, 8, 13])
def test_the_windows_cover_every_target_exactly_once(window: int) -> None:
    """Of texts of all lengths, at every stride."""
    check_partition(windows, window=window)


def _whole_windows_scored(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    return ((begin, begin, end) for begin, _, end in windows(length, window, stride))


def _last_window_dropped(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    return (found for found in windows(length, window, stride) if found[2] - found[1] >= stride)


def _no_context(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    return ((done, done, end) for _, done, end in windows(length, window, stride))


@pytest.mark.parametrize("cut", [_whole_windows_scored, _last_window_dropped, _no_context])
def test_windows_that_do_not_cover_every_target_once_are_noticed(cut: Windows) -> None:
    """Planted: the overlap is scored again; the rest of a text is dropped; context is not fed."""
    with pytest.raises(AssertionError):
        check_partition(cut, window=8)


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


def check_brute_force(model: GPT2LMHeadModel, base: Path, *, window: int) -> None:
    """Batched windows give what a loop over single tokens gives."""
    tokenizer = load_tokenizer(base)
    scores = LanguageModelScorer(model.transformer, tokenizer, window=window).score_text(DOCUMENTS)
    encoded = encode_texts(tokenizer, list(DOCUMENTS), max_length=None)
    expected = [_one_at_a_time(model, ids, window=window, stride=window // 2) for ids in encoded]
    np.testing.assert_allclose(scores.nats, expected, rtol=1e-5)
    assert scores.tokens.tolist() == [len(document.encode()) for document in DOCUMENTS]


@pytest.mark.parametrize("window", [2, 7, 16])
def test_the_scorer_equals_one_token_at_a_time(
    window: int, language_model: GPT2LMHeadModel, base: Path
) -> None:
    """With window 2 the stride is 1."""
    check_brute_force(language_model, base, window=window)


def _left_padding(patch: pytest.MonkeyPatch) -> None:
    """Pad on the left with a mask, and let GPT-2 count positions from the pads."""

    def inputs(_: LanguageModelScorer, pieces: Sequence[Piece]) -> torch.Tensor:
        longest = max(len(piece.inputs) for piece in pieces)
        return torch.tensor(
            [[0] * (longest - len(piece.inputs)) + [*piece.inputs] for piece in pieces]
        )

    def output(model: nn.Module, ids: torch.Tensor, pieces: Sequence[Piece], *_: object) -> Output:
        lengths = torch.tensor([[len(piece.inputs)] for piece in pieces])
        mask = (torch.arange(ids.shape[1]) >= ids.shape[1] - lengths).long()
        hidden = backbone_of(model)(input_ids=ids, attention_mask=mask).last_hidden_state
        states = [hidden[row, -len(piece.targets) :] for row, piece in enumerate(pieces)]
        return Output(torch.cat(states), backbone_of(model).wte.weight.data)

    patch.setattr(LanguageModelScorer, "_inputs", inputs)
    patch.setattr(scorer, "_output", output)


SCORING_FAULTS = [
    _unshifted_targets,
    _overlap_counted_twice,
    _first_target_of_each_window_left_out,
    _no_end_token_before_the_text,
    _left_padding,
]


@pytest.mark.parametrize("plant", SCORING_FAULTS)
def test_a_wrong_way_to_score_differs_from_brute_force(
    plant: Fault, language_model: GPT2LMHeadModel, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: no shift, double count, a token a window lost, no prefix, left padding."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_brute_force(language_model, base, window=7)


def check_invariance(model: GPT2LMHeadModel, base: Path, *, batch_size: int) -> None:
    """In float32 a document's nats are its own, whatever is scored beside it."""
    tokenizer = load_tokenizer(base)
    order = [3, 0, 4, 2, 1]
    alone = [
        LanguageModelScorer(model.transformer, tokenizer).score_text([DOCUMENTS[index]]).nats[0]
        for index in order
    ]
    together = LanguageModelScorer(model.transformer, tokenizer, batch_size=batch_size).score_text(
        [DOCUMENTS[index] for index in order]
    )
    np.testing.assert_allclose(together.nats / together.tokens, alone / together.tokens, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_score_does_not_depend_on_batches_order_or_padding(
    batch_size: int, language_model: GPT2LMHeadModel, base: Path
) -> None:
    """Alone, or beside others of other lengths in another order."""
    check_invariance(language_model, base, batch_size=batch_size)


def _scores_in_the_order_of_length(patch: pytest.MonkeyPatch) -> None:
    plain = LanguageModelScorer._batches

    def batches(self: LanguageModelScorer, pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
        ordered = sorted(range(len(pieces)), key=lambda index: len(pieces[index].inputs))
        ranks = {index: rank for rank, index in enumerate(ordered)}
        count = 1 + max(piece.document for piece in pieces)
        for found in plain(self, pieces):
            yield [
                dataclasses.replace(piece, document=ranks[pieces.index(piece)] % count)
                for piece in found
            ]

    patch.setattr(LanguageModelScorer, "_batches", batches)


@pytest.mark.parametrize("plant", [_left_padding, _scores_in_the_order_of_length])
def test_a_score_that_depends_on_its_neighbors_is_noticed(
    plant: Fault, language_model: GPT2LMHeadModel, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: padding moves the positions; scores come back in the order of their batches."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_invariance(language_model, base, batch_size=100)


# 4. An 8-bit base


@pytest.fixture(scope="module")
def in_8_bits(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Before, list[Measurement]]:
    """Train on an 8-bit base; return the base, and what came after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = prepared(base, LoRA8bit(r=2))
        before = measure_before(model, TEXTS)
    train(model)
    return before, measure(model, TEXTS)


def check_additivity(before: Before, after: Sequence[Measurement]) -> None:
    """The cost of 8 bits and forgetting add up; the reference is the base in 8 bits."""
    assert before.exact is not None
    result = summarized(TEXTS, Measured(before, after, None), learned=True)[PROBE.label]
    against_float = forgetting_of(TEXTS[0], before=before.exact[0], after=after[0], scoring={})
    quantization = result.quantization
    assert quantization is not None
    assert quantization.before_float32 == before.exact[0].value
    assert quantization.cost != 0
    assert abs(quantization.total - quantization.cost - result.forgetting) <= 1e-12
    assert abs(against_float.forgetting - result.forgetting - quantization.cost) <= 1e-12
    assert abs(result.after - quantization.before_float32 - quantization.total) <= 1e-12


def check_8_bit_reference(before: Before, base: Path) -> None:
    """The base loaded in 8 bits by itself, in the same batches, is "before" to the last bit."""
    tokenizer = load_tokenizer(base)
    alone = load_classifier(
        find_base(str(base)), tokenizer, strategy=LoRA8bit(), labels=LABELS, device=CPU, seed=0
    )
    [expected] = measure_with(alone, tokenizer, TEXTS)
    assert before.measured[0].total.tolist() == expected.total.tolist()


def test_the_cost_of_8_bits_is_apart_from_forgetting(
    in_8_bits: tuple[Before, list[Measurement]], base: Path
) -> None:
    """Total = cost + forgetting, and forgetting is measured from the base in 8 bits."""
    before, after = in_8_bits

    check_additivity(before, after)
    check_8_bit_reference(before, base)


def test_a_float_reference_for_an_8_bit_model_is_noticed(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Planted: "before" is the float base, so the cost of 8 bits is booked as forgetting."""

    def measure_float(model: nn.Module, texts: Sequence[ProbeText]) -> list[Measurement]:
        source = preparation_of(model).base
        return measure_with(load_backbone(source, CPU), load_tokenizer(source.folder), texts)

    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(runs_measured, "measure_base", measure_float)
    model = prepared(base, LoRA8bit(r=2))
    before = measure_before(model, TEXTS)

    with pytest.raises(AssertionError):
        check_8_bit_reference(before, base)
    with pytest.raises(AssertionError):
        check_additivity(before, measure(model, TEXTS))


def test_a_total_that_leaves_out_the_cost_is_noticed(
    in_8_bits: tuple[Before, list[Measurement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the total is counted from the base in 8 bits."""

    def from_8_bits(
        exact: Measurement | None, first: Measurement, last: Measurement, _: float
    ) -> Quantization | None:
        if exact is None:
            return None
        return Quantization(exact.value, first.value - exact.value, last.value - first.value)

    monkeypatch.setattr(results, "_quantization", from_8_bits)
    with pytest.raises(AssertionError):
        check_additivity(*in_8_bits)


# 5. Planted forgetting


Planted = list[tuple[Measurement, Measurement]]


@pytest.fixture(scope="module")
def english() -> list[ProbeText]:
    """Read a little of the text that the bundled model was trained to read."""
    [text] = read_probe_texts(
        [LanguageModelLoss(dataset_name="bundled:general-text", max_documents=3)]
    )
    return [dataclasses.replace(text, documents=tuple(part[:250] for part in text.documents))]


def _disturbed(base: GPT2Model, scale: float) -> GPT2Model:
    """Add noise of a share of each weight's size."""
    model, generator = copy.deepcopy(base), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(scale * weight.square().mean().sqrt() * noise)
    return model


@pytest.fixture(scope="module")
def planted(english: list[ProbeText]) -> Planted:
    """Disturb the backbone of the bundled model by more and more."""
    source = find_base("bundled:tiny-gpt2")
    base, tokenizer = load_backbone(source, CPU), load_tokenizer(source.folder)
    [before] = measure_with(base, tokenizer, english)
    found = [
        measure_with(
            _disturbed(base, scale),
            tokenizer,
            english,
            reference=lambda: contextlib.nullcontext(base),
        )[0]
        for scale in (0.0, 0.01, 0.03, 0.1)
    ]
    return [(before, after) for after in found]


def check_planted_forgetting(planted: Planted, english: list[ProbeText]) -> None:
    """The more a trained backbone is disturbed, the more it forgets."""
    found = [
        forgetting_of(english[0], before=before, after=after, scoring={})
        for before, after in planted
    ]
    changes = [result.forgetting for result in found]
    divergences = [result.kl for result in found if result.kl is not None]
    assert changes[0] == divergences[0] == 0.0
    assert len(divergences) == len(planted)
    for values in (changes, divergences):
        assert all(less < more for less, more in itertools.pairwise(values))
    assert changes[-1] > 0.05


def test_planted_noise_raises_forgetting_step_by_step(
    planted: Planted, english: list[ProbeText]
) -> None:
    """DropoutMasks of 0, 1, 3 and 10 percent of the weights' size: no sign is swapped."""
    check_planted_forgetting(planted, english)


def _sign_swapped(patch: pytest.MonkeyPatch) -> None:
    """As in examples of peft: "Forgetting = final - initial (negative is worse)" of a score."""
    plain = results._change
    patch.setattr(results, "_change", lambda first, last: -plain(first, last))


def _reference_that_follows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "_change", lambda first, _: 0.0 * first.value)


@pytest.mark.parametrize("plant", [_sign_swapped, _reference_that_follows])
def test_a_sign_swapped_or_a_reference_that_follows_is_noticed(
    plant: Fault,
    planted: Planted,
    english: list[ProbeText],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: before minus after; "before" read from the tuned model."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_planted_forgetting(planted, english)


def check_divergence(base: Path, language_model: GPT2LMHeadModel) -> None:
    """The divergence is at least zero, and adds up with the base's entropy to a cross-entropy."""
    model = prepared(base, LoRA(r=2))
    train(model)
    model.eval()
    short = tuple(text for text in DOCUMENTS if len(text.encode()) < 64)
    text = ProbeText(KLDivergence(dataset_name="bundled:general-text"), short)
    [found] = measure(model, [text])
    expected = []
    for document in short:
        [ids] = encode_texts(load_tokenizer(base), [document], max_length=None)
        inputs = torch.tensor([[0, *ids]])[:, :-1]
        with torch.no_grad():
            shares = language_model(inputs).logits[0].double().softmax(-1)
            states = backbone_of(model)(inputs).last_hidden_state[0].double()
            own = (states @ language_model.lm_head.weight.double().T).log_softmax(-1)
        expected.append(-float((shares * own).sum()))
    np.testing.assert_allclose(found.extra["base_entropy"] + found.total, expected, rtol=1e-5)
    assert (found.total >= -1e-7).all()
    assert (found.total > 0.01).all()


def test_entropy_and_divergence_add_up_to_the_cross_entropy(
    base: Path, language_model: GPT2LMHeadModel
) -> None:
    """H(base) + KL(base || tuned) is the tuned model's loss with the base's shares as targets."""
    check_divergence(base, language_model)


def _direction_swapped(patch: pytest.MonkeyPatch) -> None:
    def swapped(
        tuned: Output, targets: torch.Tensor, *, base: Output | None = None, greedy: bool = False
    ) -> TokenScores:
        found = read_out(tuned, targets, base=base, greedy=greedy)
        assert base is not None
        return dataclasses.replace(found, kl=read_out(base, targets, base=tuned).kl)

    patch.setattr(scorer, "read_out", swapped)


def _divergence_of_the_texts_own_tokens(patch: pytest.MonkeyPatch) -> None:
    def sampled(
        tuned: Output, targets: torch.Tensor, *, base: Output | None = None, greedy: bool = False
    ) -> TokenScores:
        found = read_out(tuned, targets, base=base, greedy=greedy)
        assert found.base_nats is not None
        return dataclasses.replace(found, kl=found.nats - found.base_nats)

    patch.setattr(scorer, "read_out", sampled)


@pytest.mark.parametrize("plant", [_direction_swapped, _divergence_of_the_texts_own_tokens])
def test_another_divergence_is_noticed(
    plant: Fault, base: Path, language_model: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: KL(tuned || base); the change at the text's own tokens, which can be negative."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_divergence(base, language_model)
