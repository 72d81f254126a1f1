"""The baselines `few_shot_<k>`: the untuned base, asked with k labelled examples in its prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from transformers import PreTrainedTokenizerBase

from peftune.baselines.calibration import CONTENT_FREE, calibrated, log_prior
from peftune.baselines.prompt import (
    TEMPLATE,
    Prompt,
    draw_examples,
    first_tokens,
    fit_prompts,
    token_count,
    write_prompt,
)
from peftune.baselines.scores import Baseline, judged_baseline, scores_of
from peftune.data.rows import Rows
from peftune.probes import LanguageModel


@dataclass(frozen=True, slots=True)
class Asked:
    """The base's answers with one choice of examples.

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
        """Of each label, the names' likelihoods made to sum to one, (rows, labels)."""
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


class NoRoomError(ValueError):
    """The base has too few positions for the prompt that was asked for."""


def few_shot(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Rows,
    judged: Rows,
    labels: Sequence[str],
    shots: int,
    seeds: Sequence[int],
    window: int,
    max_length: int,
    bootstrap_seed: int,
) -> Baseline:
    """Prompt the untuned base with examples, once for each seed, and score what it answers.

    The figures are those after calibration; the ones before it stand in the details.

    Args:
        model: the base as a language model.
        tokenizer: its tokenizer.
        train: rows that examples are drawn from.
        judged: rows to ask about.
        labels: label names in the order of their ids.
        shots: examples in a prompt; fewer where there is no room, none cut.
        seeds: each draws other examples; without examples there is nothing to draw.
        window: positions of the base.
        max_length: tokens kept of each text, as in training.
        bootstrap_seed: seed of the interval.

    References:
        Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165.
    """
    started = time.perf_counter()
    answers: list[Asked] = []
    refused: list[dict[str, Any]] = []
    for seed in seeds if shots else seeds[:1]:
        try:
            answers.append(
                ask(
                    model,
                    tokenizer,
                    train=train,
                    judged=judged,
                    labels=labels,
                    shots=shots,
                    seed=seed,
                    window=window,
                    max_length=max_length,
                )
            )
        except NoRoomError as error:
            refused.append({"seed": seed, "reason": str(error)})
    name, title = f"few_shot_{shots}", f"base prompted, {shots} examples"
    details = {"shots": shots, "template": TEMPLATE, "content_free": list(CONTENT_FREE)}
    seconds = time.perf_counter() - started
    if not answers:
        details["choices"] = refused
        reason = refused[0]["reason"]
        return Baseline(name, title, judged.ids, None, None, None, None, seconds, details, reason)
    choices = [_choice(answer, judged, len(labels)) for answer in answers]
    return judged_baseline(
        name,
        title,
        judged=judged,
        predicted=[answer.calibrated.argmax(-1).tolist() for answer in answers],
        labels=len(labels),
        seed=bootstrap_seed,
        seconds=seconds,
        details={**details, "uncalibrated": _mean_before(choices), "choices": choices + refused},
    )


def ask(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Rows,
    judged: Rows,
    labels: Sequence[str],
    shots: int,
    seed: int,
    window: int,
    max_length: int,
) -> Asked:
    """Prompt the base with one choice of examples.

    A label's score is the log-likelihood of its name after a space, summed over its tokens.

    Args:
        model: see `few_shot`.
        tokenizer: see `few_shot`.
        train: see `few_shot`.
        judged: see `few_shot`.
        labels: see `few_shot`.
        shots: see `few_shot`.
        seed: chooses the examples.
        window: see `few_shot`.
        max_length: see `few_shot`.

    Raises:
        NoRoomError: there is no room for a single example, or not even for an empty text.
    """
    room = window + 1 - max(token_count(tokenizer, f" {label}") for label in labels)
    least = token_count(tokenizer, write_prompt((), ""))
    if least > room:
        message = f"the template and a label do not fit into the base's {window} positions"
        raise NoRoomError(message)

    def shortened(text: str) -> str:
        return first_tokens(tokenizer, text, max_length)

    drawn = draw_examples(train, shots, seed=seed)
    examples = [(shortened(train.texts[row]), labels[train.labels[row]]) for row in drawn]
    questions = [shortened(text) for text in judged.texts]
    prompts = fit_prompts(tokenizer, examples, questions, room=room)
    if shots and not any(prompt.shots for prompt in prompts):
        message = f"not one example fits beside a text into the base's {window} positions"
        raise NoRoomError(message)
    likelihood = np.zeros((len(judged), len(labels)))
    content_free: dict[int, NDArray[np.float64]] = {}
    for count in sorted({prompt.shots for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if prompt.shots == count]
        likelihood[rows] = _label_scores(model, [prompts[row].text for row in rows], labels)
        # What a content-free text lacks in length only makes its prompt shorter.
        empty = fit_prompts(tokenizer, examples[:count], CONTENT_FREE, room=room)
        content_free[count] = _label_scores(model, [prompt.text for prompt in empty], labels)
    ids = tuple(train.ids[row] for row in drawn)
    return Asked(seed, ids, tuple(prompts), likelihood, content_free)


def _label_scores(
    model: LanguageModel, prompts: Sequence[str], labels: Sequence[str]
) -> NDArray[np.float64]:
    """Score every label's name after every prompt: (prompts, labels), nats."""
    pairs = [(prompt, f" {label}") for prompt in prompts for label in labels]
    return -model.score_continuations(pairs).nats.reshape(len(prompts), len(labels))


def _choice(answer: Asked, judged: Rows, labels: int) -> dict[str, Any]:
    """Say what one choice of examples gave, before and after calibration."""
    shots = [prompt.shots for prompt in answer.prompts]
    before, after = (
        scores_of(judged.labels, probabilities.argmax(-1).tolist(), classes=range(labels))
        for probabilities in (answer.probabilities, answer.calibrated)
    )
    return {
        "seed": answer.seed,
        **after,
        "uncalibrated": before,
        "examples": list(answer.examples),
        "examples_fitted": {
            "fewest": min(shots),
            "mean": float(np.mean(shots)),
            "most": max(shots),
        },
        "texts_cut": sum(prompt.cut for prompt in answer.prompts),
        "content_free_probabilities": {
            str(count): np.exp(log_prior(scores)).tolist()
            for count, scores in answer.content_free.items()
        },
    }


def _mean_before(choices: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        name: float(np.mean([choice["uncalibrated"][name] for choice in choices]))
        for name in ("accuracy", "macro_f1")
    }
