"""Ask the base: the likelihood of each label's name after each row's prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from transformers import PreTrainedTokenizerBase

from peftune.baselines.calibration import CONTENT_FREE, calibrated
from peftune.baselines.prompt import (
    Prompt,
    draw_examples,
    first_tokens,
    fit_prompts,
    token_count,
    write_prompt,
)
from peftune.data.rows import Rows
from peftune.probes import LanguageModel


@dataclass(frozen=True, slots=True)
class Questions:
    """What the base is asked, whichever examples are chosen.

    Args:
        train: rows that examples are drawn from.
        judged: rows to ask about.
        labels: label names in the order of their ids.
        shots: examples in a prompt; fewer where there is no room, none of them cut.
        window: positions of the base.
        max_length: tokens kept of each text, as in training.
    """

    train: Rows
    judged: Rows
    labels: Sequence[str]
    shots: int
    window: int
    max_length: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing was asked, since the prompts do not fit into the base's positions."""

    seed: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What the base answers with one choice of examples.

    Args:
        seed: chose the examples.
        examples: ids of the train rows that were drawn, the first drawn first.
        prompts: what each row was asked, with how many of them.
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
        """The names' likelihoods made to sum to one, (rows, labels)."""
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
    texts = [shortened(text) for text in questions.judged.texts]
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
