"""The baselines `few_shot_<k>`: the untuned base, asked with k labelled examples in its prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from peftune.baselines.asking import Answers, NoRoom, Questions, ask
from peftune.baselines.calibration import CONTENT_FREE, log_prior
from peftune.baselines.prompt import TEMPLATE
from peftune.baselines.scores import Baseline, Scores, judged_baseline, scores_of
from peftune.probes import LanguageModel
from peftune.training.calibration import expected_calibration_error, reliability_bins

_LEAST = float(np.finfo(np.float64).tiny)
"""A probability of which the logarithm is finite."""


def few_shot(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    *,
    seeds: Sequence[int],
) -> Baseline:
    """Prompt the untuned base with examples, once for each seed, and score what it answers.

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
    shots, judged, labels = questions.shots, questions.judged, questions.labels
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
        "n": len(judged),
        "template": TEMPLATE,
        "content_free": list(CONTENT_FREE),
        "uncalibrated": _uncalibrated(choices),
        "choices": choices,
    }
    if not answers:
        reason = str(choices[0]["reason"])
        return Baseline(
            name, title, tuple(judged.ids), None, None, None, None, seconds, details, reason
        )
    return judged_baseline(
        name,
        title,
        judged=judged,
        predicted=[answer.calibrated.argmax(-1).tolist() for answer in answers],
        labels=len(labels),
        seconds=seconds,
        details=details,
    )


def _title(shots: int) -> str:
    examples = "no examples" if not shots else "1 example" if shots == 1 else f"{shots} examples"
    return f"base prompted, {examples}"


def _choice(answers: Answers, questions: Questions) -> dict[str, Any]:
    """Say what one choice of examples gave, before and after calibration."""
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
    labels = np.asarray(questions.judged.labels)
    right = probabilities[np.arange(len(labels)), labels]
    bins = reliability_bins(probabilities, labels)
    return {
        **scores_of(
            questions.judged.labels,
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
