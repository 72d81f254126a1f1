"""Few-shot prompting of the untuned base: prompts, contextual calibration, answers and their scores."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax
from transformers import PreTrainedTokenizerBase

from peftune.baselines.baseline import Baseline, Scores, scored_baseline, scores_of
from peftune.data.rows import Rows
from peftune.models.tokenizer import encode_texts
from peftune.probes import LanguageModel
from peftune.stats.scores import expected_calibration_error, reliability_bins

TEMPLATE = "Text: {text}\nLabel: {label}\n\n"
"""An example; a question is the same without its label and what follows."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text before a label's name.

    Args:
        text: the whole prompt.
        shots: examples in it.
        cut: whether its question has lost its end.
    """

    text: str
    shots: int
    cut: bool


def write_prompt(examples: Sequence[tuple[str, str]], text: str) -> str:
    """Write examples, texts with label names, and a question; the first example stands nearest to it.

    The label's name follows after a space.
    """
    shown = [TEMPLATE.format(text=known, label=label) for known, label in reversed(examples)]
    return "".join(shown) + TEMPLATE.partition(" {label}")[0].format(text=text)


def draw_examples(train: Rows, shots: int, *, seed: int) -> list[int]:
    """Draw rows in rounds: each has one row of every label that has any left, in random order.

    So the labels are balanced as far as their number allows, and the first of many examples are
    the examples that fewer would be.

    Args:
        train: rows to draw from, without replacement.
        shots: rows to draw; all rows where there are fewer.
        seed: decides which, and their order.

    Returns:
        Indices of the rows, the first drawn first.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(train.labels)
    waiting = {
        label: generator.permutation(np.flatnonzero(labels == label)).tolist()
        for label in sorted(set(train.labels))
    }
    drawn: list[int] = []
    while len(drawn) < min(shots, len(train)):
        left = [label for label, rows in waiting.items() if rows]
        drawn += [waiting[label].pop() for label in generator.permutation(left).tolist()]
    return drawn[:shots]


def fit_prompts(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[tuple[str, str]],
    texts: Sequence[str],
    *,
    room: int,
) -> list[Prompt]:
    """Write a prompt for each text, with as many of the first examples as there is room for.

    A text that has no room even alone loses its end.

    Args:
        tokenizer: from `load_tokenizer`.
        examples: texts with label names, the first drawn first.
        texts: texts to ask about.
        room: most tokens of a prompt; enough for an empty text.
    """
    prompts = []
    for text in texts:
        kept = _with_room(tokenizer, text, room)

        def size(shots: int, text: str = kept) -> int:
            return token_count(tokenizer, write_prompt(examples[:shots], text))

        shots = bisect_right(range(1, len(examples) + 1), room, key=size)
        prompts.append(Prompt(write_prompt(examples[:shots], kept), shots, kept != text))
    return prompts


def _with_room(tokenizer: PreTrainedTokenizerBase, text: str, room: int) -> str:
    """Cut the end off a text whose prompt without examples would be too long."""
    kept, limit = text, token_count(tokenizer, text)
    while (excess := token_count(tokenizer, write_prompt((), kept)) - room) > 0:
        limit -= excess
        kept = first_tokens(tokenizer, text, limit)
    return kept


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> str:
    """Keep the first tokens of a text; a character that is cut apart goes as a whole."""
    [ids] = encode_texts(tokenizer, [text], max_length=None)
    if len(ids) <= limit:
        return text
    kept = tokenizer.decode(ids[: max(0, limit)], clean_up_tokenization_spaces=False)
    return str(kept).rstrip("\N{REPLACEMENT CHARACTER}")


def token_count(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Count the tokens of a text, as the scorer reads it."""
    return len(encode_texts(tokenizer, [text], max_length=None)[0])


CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that contain no evidence for any label."""


def calibrated(
    log_likelihood: NDArray[np.float64], content_free: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Divide label probabilities by those of content-free texts, and let them sum to one again.

    Args:
        log_likelihood: of each label's name after each text, (texts, labels), nats.
        content_free: of each label's name after each content-free text, (inputs, labels), nats.

    Returns:
        Probabilities, (texts, labels).

    References:
        Zhao et al. 2021, Calibrate Before Use: Improving Few-Shot Performance of Language Models,
        arXiv:2102.09690: a diagonal weight 1 / p_cf, no bias.
    """
    return np.asarray(softmax(log_likelihood - log_prior(content_free), axis=-1))


def log_prior(content_free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the label probabilities of content-free texts: (inputs, labels) -> (labels,), in logs.

    In logs, a label that a prompt makes all but impossible divides by no zero.
    """
    shares = log_softmax(content_free, axis=-1)
    return np.asarray(logsumexp(shares, axis=0) - np.log(len(shares)))


@dataclass(frozen=True, slots=True)
class Questions:
    """Evaluation rows and the settings that all choices of examples share.

    Args:
        train: rows that examples are drawn from.
        evaluation: rows to ask about.
        labels: label names in the order of their ids.
        shots: examples in a prompt; fewer where there is no room, none of them cut.
        window: positions of the base.
        max_length: tokens kept of each text, as in training.
    """

    train: Rows
    evaluation: Rows
    labels: Sequence[str]
    shots: int
    window: int
    max_length: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """A choice of examples whose prompts do not fit into the base's positions."""

    seed: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The base's answers with one choice of examples.

    Args:
        seed: chose the examples.
        examples: ids of the train rows that were drawn, the first drawn first.
        prompts: the prompt of each row.
        log_likelihood: of each label's name after each prompt, (rows, labels), nats.
        content_free: the same after content-free texts, (inputs, labels), by number of examples.
    """

    seed: int
    examples: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    log_likelihood: NDArray[np.float64]
    content_free: Mapping[int, NDArray[np.float64]]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The likelihoods of the labels' names, normalized to sum to one, (rows, labels)."""
        return np.asarray(softmax(self.log_likelihood, axis=-1))

    @property
    def calibrated(self) -> NDArray[np.float64]:
        """The same after contextual calibration, each row by prompts with as many examples."""
        found = np.zeros_like(self.log_likelihood)
        shots = np.array([prompt.shots for prompt in self.prompts])
        for count, content_free in self.content_free.items():
            rows = shots == count
            found[rows] = calibrated(self.log_likelihood[rows], content_free)
        return found


def ask(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    *,
    seed: int,
) -> Answers | NoRoom:
    """Prompt the base with one choice of examples.

    A label's score is the log-likelihood of its name after a space, summed over its tokens.

    Args:
        model: the base as a language model.
        tokenizer: its tokenizer.
        questions: what is asked.
        seed: chooses the examples.
    """
    train, labels, window = questions.train, questions.labels, questions.window
    room = window + 1 - max(token_count(tokenizer, f" {label}") for label in labels)
    if max(token_count(tokenizer, write_prompt((), text)) for text in CONTENT_FREE) > room:
        return NoRoom(
            seed, f"the template and a label do not fit into the base's {window} positions"
        )

    def shortened(text: str) -> str:
        return first_tokens(tokenizer, text, questions.max_length)

    drawn = draw_examples(train, questions.shots, seed=seed)
    examples = [(shortened(train.texts[row]), labels[train.labels[row]]) for row in drawn]
    texts = [shortened(text) for text in questions.evaluation.texts]
    # A content-free text can be longer than a row's; what calibrates a prompt has to fit as well.
    empty = fit_prompts(tokenizer, examples, CONTENT_FREE, room=room)
    examples = examples[: min(prompt.shots for prompt in empty)]
    prompts = fit_prompts(tokenizer, examples, texts, room=room)
    if drawn and not any(prompt.shots for prompt in prompts):
        return NoRoom(seed, f"no example fits beside a text into the base's {window} positions")
    scores = np.zeros((len(prompts), len(labels)))
    content_free: dict[int, NDArray[np.float64]] = {}
    # Prompts with the same examples share their beginning, and what calibrates them.
    for count in sorted({prompt.shots for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if prompt.shots == count]
        scores[rows] = _label_scores(model, [prompts[row].text for row in rows], labels)
        prior = [write_prompt(examples[:count], text) for text in CONTENT_FREE]
        content_free[count] = _label_scores(model, prior, labels)
    ids = tuple(train.ids[row] for row in drawn)
    return Answers(seed, ids, tuple(prompts), scores, content_free)


def _label_scores(
    model: LanguageModel, prompts: Sequence[str], labels: Sequence[str]
) -> NDArray[np.float64]:
    """Score every label's name after every prompt: (prompts, labels), nats."""
    pairs = [(prompt, f" {label}") for prompt in prompts for label in labels]
    return -model.score_continuations(pairs).nats.reshape(len(prompts), len(labels))


_LEAST = float(np.finfo(np.float64).tiny)
"""A probability of which the logarithm is finite."""


def few_shot(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    *,
    seeds: Sequence[int],
) -> Baseline:
    """Prompt the untuned base with examples, once for each seed, and score its answers.

    The figures are those after contextual calibration; those before it stand in the details.

    Args:
        model: the base as a language model.
        tokenizer: its tokenizer.
        questions: rows to ask about, and rows and number of the examples.
        seeds: each draws other examples; without examples the first alone is asked.

    References:
        Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165. Zhao et al.
        2021, Calibrate Before Use, arXiv:2102.09690.
    """
    shots, evaluation, labels = questions.shots, questions.evaluation, questions.labels
    name, title = f"few_shot_{shots}", _title(shots)
    started = time.perf_counter()
    asked = [
        ask(model, tokenizer, questions, seed=seed) for seed in (seeds if shots else seeds[:1])
    ]
    seconds = time.perf_counter() - started
    answers = [answer for answer in asked if isinstance(answer, Answers)]
    choices = [
        {"seed": answer.seed, "reason": answer.reason}
        if isinstance(answer, NoRoom)
        else _choice(answer, questions)
        for answer in asked
    ]
    details: dict[str, Any] = {
        "shots": shots,
        "n": len(evaluation),
        "template": TEMPLATE,
        "content_free": list(CONTENT_FREE),
        "uncalibrated": _uncalibrated(choices),
        "choices": choices,
    }
    if not answers:
        reason = str(choices[0]["reason"])
        return Baseline(
            name,
            title,
            rows=tuple(evaluation.ids),
            seconds=seconds,
            details=details,
            reason=reason,
        )
    return scored_baseline(
        name,
        title=title,
        evaluation=evaluation,
        predicted=[answer.calibrated.argmax(-1).tolist() for answer in answers],
        labels=len(labels),
        seconds=seconds,
        details=details,
    )


def _title(shots: int) -> str:
    examples = "no examples" if not shots else "1 example" if shots == 1 else f"{shots} examples"
    return f"base prompted, {examples}"


def _choice(answers: Answers, questions: Questions) -> dict[str, Any]:
    """Describe one choice of examples: its scores before and after calibration, and its prompts."""
    shots = [prompt.shots for prompt in answers.prompts]
    before, after = (
        _scores(probabilities, questions)
        for probabilities in (answers.probabilities, answers.calibrated)
    )
    return {
        "seed": answers.seed,
        **after,
        "uncalibrated": before,
        "examples": list(answers.examples),
        "examples_fitted": {
            "fewest": min(shots),
            "mean": float(np.mean(shots)),
            "most": max(shots),
        },
        "texts_cut": sum(prompt.cut for prompt in answers.prompts),
        "prior": {
            str(count): np.exp(log_prior(scores)).tolist()
            for count, scores in answers.content_free.items()
        },
    }


def _scores(probabilities: NDArray[np.float64], questions: Questions) -> Scores:
    """Score probabilities of labels, (rows, labels), with how well they are calibrated."""
    labels = np.asarray(questions.evaluation.labels)
    right = probabilities[np.arange(len(labels)), labels]
    bins = reliability_bins(probabilities, labels)
    return {
        **scores_of(
            questions.evaluation.labels,
            probabilities.argmax(-1).tolist(),
            classes=range(len(questions.labels)),
        ),
        "log_loss": float(-np.log(np.maximum(right, _LEAST)).mean()),
        "ece": expected_calibration_error(bins),
    }


def _uncalibrated(choices: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Average the figures before calibration over the choices that were asked."""
    before = [choice["uncalibrated"] for choice in choices if "uncalibrated" in choice]
    if not before:
        return None
    return {name: float(np.mean([scores[name] for scores in before])) for name in before[0]}
