"""Our probes say what lm-evaluation-harness says, figure by figure and document by document."""

from __future__ import annotations

import importlib.util
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from peftune.forgetting.scorer import LanguageModelScorer
from peftune.probes import Cloze, LanguageModelLoss, MinimalPairs, MultipleChoice
from peftune.probes.minimal_pairs import MinimalPair
from peftune.probes.multiple_choice import Question

with warnings.catch_warnings():
    # What its many dependencies deprecate is not a concern of ours.
    warnings.simplefilter("ignore")
    pytest.importorskip("lm_eval.tasks", reason="needs peftune[lm-eval]")
    pytest.importorskip("lm_eval.models.huggingface")

TOLERANCE = 1e-4
"""Nats per token, or per word."""

PROSE = (
    "The harbour lay empty. Two boats had gone out before dawn and one had come back by noon, "
    "with a torn sail and nothing in the hold. Nobody asked its master what he had seen. He sat "
    "on the wall with his back to the water, cutting a piece of rope into smaller pieces, and "
    "when the children came down from the school he told them to go home. By evening a wind had "
    "got up from the north. The women took in the washing, and the priest went round the houses "
    "with a lantern although it was not yet dark. In the third house an old man said: 'It was "
    "like this in the year of the comet, and that time also they said it would be nothing.' The "
    "priest sat down. He had been young in that year, and had forgotten most of it, or had "
    "believed so. They talked until the lamp burned low; of prices, of the road that was to be "
    "built along the coast, of a cousin in America who had a shop with four windows. Towards "
    "midnight someone ran past outside. Then others, and a bell. When they opened the door the "
    "whole street was full of people who walked down to the harbour without a word, and out "
    "beyond the mole, very small, there was a light that rose and sank. 'One boat,' said the "
    "priest. 'One boat was missing.' The old man counted the lights again, for his eyes were "
    "better than he liked to say. 'There are two,' he said, and put on his coat."
)
"""More than the bundled base's 256 positions, and no part of it twice."""

TEXTS = (
    PROSE,
    "A short one.",
    "é — naïve, 1,024 tokens\n\n\tdon't  stop…",
    PROSE + " " + PROSE[300:] + " " + PROSE[:300],
    "The cat sat on the mat. " * 80,  # windows that repeat each other
)
CLOZES = (
    PROSE + " In the end they all went back to the",
    "He was one of the",
    "She looked at him and said that she would never come back to the United States",
    "line one\nline two of the Xylophonistan",
    "It was a matter of life and death",
)
PAIRS = (
    ("The cats sleep.", "The cats sleeps."),
    ("These books are old.", "This books are old."),
    ("He saw himself in the mirror.", "Himself saw he in the mirror."),
    ("The the the of of.", "She went to the house."),
)
QUESTIONS = (
    ("The sun rises in the", ("east", "spoon", "of"), 0),
    ("She looked", ("at him", "at"), 0),
    ("She put the letter in her", ("pocket and went away", "pocket", "zebra"), 1),
    ("", ("Once upon a time", "Upon time once a"), 0),
    (PROSE + " The boats came", ("home", "xylophone", "of", "green"), 2),
    ("The king of ", ("France", "of"), 0),
)


@pytest.fixture(scope="module")
def compare() -> Any:  # noqa: ANN401 - a module of no package
    """Load the program that asks both, which is what a reader runs on data of their own."""
    path = Path(__file__).parents[1] / "tools/compare_with_lm_eval.py"
    spec = importlib.util.spec_from_file_location("compare_with_lm_eval", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(compare: Any) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:  # noqa: ANN401 - a module
    """Load the bundled base as both tools read it."""
    loaded: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase] = compare.load("bundled:tiny-gpt2")
    return loaded


def _nats(
    model: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase],
    pairs: Sequence[tuple[str, str]],
) -> tuple[Any, Any]:
    scores = LanguageModelScorer(model[0].transformer, model[1]).score_continuations(pairs)
    return scores.nats, scores.tokens


def test_text_has_the_same_word_and_byte_perplexity_and_bits_per_byte(
    compare: Any,  # noqa: ANN401 - a module
    model: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase],
) -> None:
    """`loglikelihood_rolling` is our `lm-loss` with windows that follow each other."""
    probe = LanguageModelLoss(file="prose.txt", windows="disjoint")

    theirs = compare.harness(*model, compare.ROLLING, [{"text": text} for text in TEXTS])
    ours = compare.measured(*model, probe, TEXTS)

    assert ours.tokens[0] > 256
    nats = ours.total * math.log(2)
    expected = np.array([nats for [nats] in theirs.nats])
    np.testing.assert_array_less(abs(nats - expected) / ours.tokens, TOLERANCE)
    assert ours.value == pytest.approx(theirs.metrics["bits_per_byte"], abs=TOLERANCE)
    assert 2**ours.value == pytest.approx(theirs.metrics["byte_perplexity"], rel=TOLERANCE)
    word_perplexity = probe.details(ours, ours)["word_perplexity_before"]
    assert word_perplexity == pytest.approx(theirs.metrics["word_perplexity"], rel=TOLERANCE)


def test_windows_that_overlap_read_a_long_text_better(
    compare: Any,  # noqa: ANN401 - a module
    model: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase],
) -> None:
    """Our default gives each token more context, so it is another figure, and a lower one."""
    overlapping, disjoint = (
        compare.measured(
            *model, LanguageModelLoss(file="a.txt", windows=windows), TEXTS[3:4]
        ).value
        for windows in ("overlapping", "disjoint")
    )

    assert disjoint - overlapping > 10 * TOLERANCE


def test_last_words_have_the_same_accuracy_and_perplexity(
    compare: Any,  # noqa: ANN401 - a module
    model: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase],
) -> None:
    """`lambada_openai` is our `cloze`, a context longer than the window among them."""
    probe = Cloze(file="lambada.jsonl")

    theirs = compare.harness(*model, compare.LAMBADA, [{"text": text} for text in CLOZES])
    ours = compare.measured(*model, probe, CLOZES)

    expected = [nats for [nats] in theirs.nats]
    np.testing.assert_allclose(ours.extra["nats"], expected, rtol=0, atol=TOLERANCE)
    assert 0 < ours.value < 1
    assert ours.value == theirs.metrics["acc"]
    perplexity = probe.details(ours, ours)["perplexity_before"]
    assert perplexity == pytest.approx(theirs.metrics["perplexity"], rel=TOLERANCE)


def test_minimal_pairs_have_the_same_accuracy(
    compare: Any,  # noqa: ANN401 - a module
    model: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase],
) -> None:
    """`blimp` reads each sentence after an end token and a space, as our `minimal-pairs` does."""
    rows = [{"sentence_good": good, "sentence_bad": bad} for good, bad in PAIRS]

    theirs = compare.harness(*model, compare.BLIMP, rows)
    pairs = [MinimalPair(*pair) for pair in PAIRS]
    ours = compare.measured(*model, MinimalPairs(file="blimp.jsonl"), pairs)

    nats, tokens = _nats(model, [("", f" {sentence}") for pair in PAIRS for sentence in pair])
    np.testing.assert_array_less(abs(nats - np.ravel(theirs.nats)) / tokens, TOLERANCE)
    assert 0 < ours.value < 1
    assert ours.value == theirs.metrics["acc"]


@pytest.mark.parametrize(
    ("normalization", "metric"), [("none", "acc"), ("characters", "acc_norm")]
)
def test_multiple_choice_has_the_same_accuracy(
    normalization: Any,  # noqa: ANN401 - one of the two words
    metric: str,
    compare: Any,  # noqa: ANN401 - a module
    model: tuple[GPT2LMHeadModel, PreTrainedTokenizerBase],
) -> None:
    """An option follows its context and a space; characters are those of the option alone."""
    rows: list[Mapping[str, Any]] = [
        {"context": context, "options": list(options), "answer": answer}
        for context, options, answer in QUESTIONS
    ]
    questions = [Question(*question) for question in QUESTIONS]

    theirs = compare.harness(*model, compare.CHOICE, rows)
    probe = MultipleChoice(file="questions.jsonl", normalization=normalization)
    ours = compare.measured(*model, probe, questions)

    pairs = [(context, f" {option}") for context, options, _ in QUESTIONS for option in options]
    nats, tokens = _nats(model, pairs)
    np.testing.assert_array_less(abs(nats - np.concatenate(theirs.nats)) / tokens, TOLERANCE)
    assert 0 < ours.value < 1
    assert ours.value == theirs.metrics[metric]
    assert theirs.metrics["acc"] != theirs.metrics["acc_norm"]
