"""The scorer: what it reads is what the language model itself would say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel
from tuned import DOCUMENTS, PROBE, TEXTS, prepared, train

from peftune.errors import DataError
from peftune.forgetting import scorer as scorer_module
from peftune.forgetting.measurement import ProbeText, measure, measure_with
from peftune.forgetting.results import sealed_protocol
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.probes import KLDivergence, LanguageModel, LanguageModelLoss, Measurement, Probe
from peftune.strategies import Full, LoRA

Scorer = Callable[..., LanguageModelScorer]


@pytest.fixture(scope="module")
def language_model(base: Path) -> GPT2LMHeadModel:
    """Load the base with transformers' own language-model head, as the independent reference."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(base)
    model.eval()
    return model


@pytest.fixture(scope="module")
def scorer(base: Path, language_model: GPT2LMHeadModel) -> Scorer:
    """Make scorers of the base, with other options where asked."""
    tokenizer = load_tokenizer(base)

    def make(**options: Any) -> LanguageModelScorer:  # noqa: ANN401 - the scorer's own
        return LanguageModelScorer(language_model.transformer, tokenizer, **options)

    return make


def _logits(model: GPT2LMHeadModel, *ids: int) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits.double()  # (time, vocabulary)


def test_the_scorer_equals_the_language_models_own_loss(
    language_model: GPT2LMHeadModel, base: Path, scorer: Scorer
) -> None:
    """Transformers shifts targets itself: its mean loss times the tokens is the sum in nats."""
    short = [document for document in DOCUMENTS if len(document.encode()) < 64]

    scores = scorer().score_text(short)

    assert len(short) >= 2
    for document, total, count in zip(short, scores.nats, scores.tokens, strict=True):
        [ids] = encode_texts(load_tokenizer(base), [document], max_length=None)
        inputs = torch.tensor([[0, *ids]])
        with torch.inference_mode():
            loss = float(language_model(inputs, labels=inputs).loss)
        assert total / count == pytest.approx(loss, abs=1e-5)


def test_disjoint_windows_are_those_of_lm_evaluation_harness(
    language_model: GPT2LMHeadModel, base: Path, scorer: Scorer
) -> None:
    """A window follows the last without overlap; the last one is filled up from before.

    Written after `get_rolling_token_windows` with context_len=1: `input = tokens[end - 17 : end - 1]`,
    with the prefix in front, for the last `len(targets)` of it.
    """
    [ids] = encode_texts(load_tokenizer(base), [DOCUMENTS[2]], max_length=None)
    fed, expected = [0, *ids], 0.0
    assert len(ids) % 16
    for start in range(0, len(ids), 16):
        targets = ids[start : start + 16]
        end = start + len(targets)
        logits = _logits(language_model, *fed[max(0, end - 16) : end])[-len(targets) :]
        expected -= float(logits.log_softmax(-1)[range(len(targets)), targets].sum())

    scores = scorer(window=16).score_text([DOCUMENTS[2]], disjoint_windows=True)
    overlapping = scorer(window=16).score_text([DOCUMENTS[2]])

    assert scores.nats[0] == pytest.approx(expected, rel=1e-5)
    assert overlapping.nats[0] != pytest.approx(expected, rel=1e-4)


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


def test_a_special_token_spelled_in_the_text_is_scored_as_characters(scorer: Scorer) -> None:
    """Text about tokenizers is text: the end token cannot be smuggled in."""
    assert scorer().score_text(["<|endoftext|>"]).tokens.tolist() == [len("<|endoftext|>")]


def test_the_protocol_is_hashed(scorer: Scorer) -> None:
    """Another window, batch or way through a document is another protocol."""
    options: list[tuple[dict[str, int], dict[str, Any]]] = [
        ({}, {}),
        ({"window": 32}, {}),
        ({"batch_size": 4}, {}),
        ({}, {"windows": "disjoint"}),
    ]

    protocols = [
        sealed_protocol(
            ProbeText(LanguageModelLoss(file="a.txt", **fields), DOCUMENTS),
            scorer(**chosen).protocol(),
        )
        for chosen, fields in options
    ]

    assert (protocols[0]["window"], protocols[0]["windows"]) == (64, "overlapping")
    assert len({protocol["sha256"] for protocol in protocols}) == 4


# Continuations


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        pytest.param("The river stood", " high", id="a word"),
        pytest.param("The river stood ", "high", id="white space belongs to the continuation"),
        pytest.param("", "high", id="no context"),
        pytest.param(" ", "high", id="blank context"),
        pytest.param("x" * 100 + " The river stood", " high", id="a context longer than a window"),
    ],
)
def test_a_continuation_is_scored_given_its_context(
    context: str,
    continuation: str,
    language_model: GPT2LMHeadModel,
    base: Path,
    scorer: Scorer,
) -> None:
    """One forward pass at a time gives the same, also beside other pairs in one batch."""
    tokenizer = load_tokenizer(base)
    tail = continuation if not context.endswith(" ") else " " + continuation
    before = encode_texts(tokenizer, [context.rstrip()], max_length=None)[0] if context else []
    [ids] = encode_texts(tokenizer, [tail], max_length=None)
    fed = [*(before or [0]), *ids][:-1][-64:]
    logits = _logits(language_model, *fed)[-len(ids) :]

    scores = scorer().score_continuations([("Bread", " and salt"), (context, continuation)])

    expected = -float(logits.log_softmax(-1)[range(len(ids)), ids].sum())
    assert scores.nats[1] == pytest.approx(expected, rel=1e-5)
    assert scores.tokens[1] == len(ids)
    assert bool(scores.greedy[1]) is (logits.argmax(-1).tolist() == ids)


def test_a_continuation_is_greedy_if_every_token_is_the_likeliest(
    language_model: GPT2LMHeadModel, base: Path, scorer: Scorer
) -> None:
    """What the model itself would write next is greedy; with another last token it is not."""
    tokenizer = load_tokenizer(base)
    [context] = encode_texts(tokenizer, ["A map"], max_length=None)
    logits = _logits(language_model, *context)[-1]
    written = [str(tokenizer.decode([token])) for token in logits.argsort(descending=True)]
    likeliest, second = written[:2]

    scores = scorer().score_continuations([("A map", likeliest), ("A map", second)])

    assert scores.greedy.tolist() == [True, False]
    assert scores.nats[0] < scores.nats[1]


def test_a_continuation_longer_than_the_window_is_refused(base: Path) -> None:
    """The probe is named, and what to do."""

    class _Continuations(Probe):
        name = "continuations"

        def measure(self, model: LanguageModel, documents: Any) -> Measurement:  # noqa: ANN401 - pairs
            model.score_continuations(documents)
            raise NotImplementedError

    text = ProbeText(_Continuations(file="long.jsonl"), (("a", "b" * 65),))

    with pytest.raises(DataError) as caught:
        measure_with(GPT2LMHeadModel.from_pretrained(base), load_tokenizer(base), [text])
    assert str(caught.value) == (
        "The probe 'long' cannot be measured: a continuation of 65 tokens is longer than the "
        "window of 64; shorten it."
    )


@pytest.mark.parametrize("pairs", [1, 40])
def test_a_shared_beginning_is_read_once_and_changes_no_score(
    pairs: int, language_model: GPT2LMHeadModel, scorer: Scorer
) -> None:
    """One prompt with many endings, of one token and of several, in batches of 16 and the rest."""
    beginning = "Text: so so\nLabel: ok\n\nText: "
    asked = [(f"{beginning}{'x' * (i % 7)}\nLabel:", " good"[: 2 + i % 4]) for i in range(pairs)]
    fed: list[torch.Size] = []
    handle = language_model.transformer.wte.register_forward_hook(
        lambda module, inputs, output: fed.append(inputs[0].shape)  # noqa: ARG005 - a hook's own
    )

    with handle:
        sharing = scorer(share_prefix=True).score_continuations(asked)
    alone = scorer().score_continuations(asked)

    np.testing.assert_allclose(sharing.nats, alone.nats, rtol=1e-5)
    assert sharing.tokens.tolist() == alone.tokens.tolist()
    assert sharing.greedy.tolist() == alone.greedy.tolist()
    first, *batches = fed
    assert first[0] == 1
    assert first[1] >= len(beginning)
    assert all(time + first[1] <= 64 for _, time in batches)
    assert [rows for rows, _ in batches] == ([1] if pairs == 1 else [16, 16, 8])


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [("Rain", " again"), ("Bread", " and salt")],
        [("", "a" * 30), ("", "a" * 30 + "b")],
        [("a" * 80, " c"), ("a" * 79, " d")],
    ],
    ids=["nothing", "nothing shared", "only what is scored", "beyond the window"],
)
def test_without_a_shared_beginning_sharing_is_no_different(
    asked: list[tuple[str, str]], scorer: Scorer
) -> None:
    """What predicts a scored token is read with its own piece, and a cut context as it is cut."""
    sharing = scorer(share_prefix=True).score_continuations(asked)

    np.testing.assert_allclose(sharing.nats, scorer().score_continuations(asked).nats, rtol=1e-5)


# Features


def test_features_are_the_mean_over_a_texts_own_tokens(
    language_model: GPT2LMHeadModel, base: Path, scorer: Scorer
) -> None:
    """Padding and the texts beside it have no part in it; beyond the window nothing is read."""
    found = scorer().features(DOCUMENTS)

    for document, feature in zip(DOCUMENTS, found, strict=True):
        [ids] = encode_texts(load_tokenizer(base), [document], max_length=64)
        with torch.inference_mode():
            states = language_model.transformer(torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(feature, states.mean(0).numpy(), rtol=1e-4, atol=1e-5)


# Beside the base


def test_reading_the_base_beside_changes_no_bit_of_the_model_itself(base: Path) -> None:
    """The same batches, with and without a base to compare with."""
    model = prepared(base, LoRA(r=2))
    train(model)

    [beside] = measure(model, TEXTS)
    [alone] = measure_with(model, load_tokenizer(base), TEXTS)

    assert beside.total.tolist() == alone.total.tolist()
    assert set(alone.extra) == {"words"}


def test_the_head_is_applied_in_parts_without_a_trace(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many positions meet the vocabulary at a time bounds the memory, not the result."""
    model = prepared(base, Full())
    train(model, rate=0.1)
    [whole] = measure(model, TEXTS)

    monkeypatch.setattr(scorer_module, "POSITIONS", 7)
    [parts] = measure(model, TEXTS)

    assert set(whole.extra) == {"words", "base_entropy", "agreement"}
    for name in ("kl", "adapter_disabled", "base_head"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-5)
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-6)
    for name, values in whole.extra.items():
        np.testing.assert_allclose(parts.extra[name], values, rtol=1e-5)


def test_a_divergence_without_a_base_is_refused(base: Path) -> None:
    """There is no number to give: the probe says what it lacks."""
    scorer = LanguageModelScorer(GPT2LMHeadModel.from_pretrained(base), load_tokenizer(base))

    with pytest.raises(ValueError, match="given without its base") as caught:
        KLDivergence(file="a.txt").measure(scorer, DOCUMENTS)
    assert str(caught.value) == (
        "the model was given without its base, so no divergence can be measured"
    )


def test_the_divergence_of_a_model_from_itself_is_zero(base: Path) -> None:
    """Without another base a probe that needs one reads the model itself: exactly nothing."""
    text = ProbeText(KLDivergence(dataset_name="bundled:general-text"), DOCUMENTS)

    [measured] = measure_with(GPT2LMHeadModel.from_pretrained(base), load_tokenizer(base), [text])

    assert measured.total.tolist() == [0.0] * len(DOCUMENTS)
    assert measured.extra["agreement"].tolist() == measured.tokens.tolist()
