"""The probe `multiple-choice`: the likeliest option should be the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from peftune.probes.base import LanguageModel, Measurement, Probe, above_chance


class Question(NamedTuple):
    """What is asked, what can be answered, and what is right.

    Args:
        context: read before each option.
        options: two or more.
        answer: index of the right one.
    """

    context: str
    options: tuple[str, ...]
    answer: int


class MultipleChoice(Probe):
    """Count questions whose answer the model finds likelier than the other options.

    Most benchmarks of this form leave a small model at chance, where nothing can be lost: the
    details give the base's head-room, and the losses and gains that are not luck.

    References:
        Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165. Harmon et al.
        2025, Mapping Post-Training Forgetting, arXiv:2510.17776.
    """

    columns: ClassVar[tuple[str, ...]] = ("context", "options", "answer")
    plain: ClassVar[bool] = False

    name: ClassVar[str] = "multiple-choice"
    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "share"
    higher_is_better: ClassVar[bool] = True
    right_or_wrong: ClassVar[bool] = True

    margin: float | None = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="Share of the questions whose loss still counts as retained.",
    )
    normalization: Literal["none", "characters"] = Field(
        "none",
        description="What an option's log-likelihood is divided by: nothing, or its characters, so that short options are not favored; acc and acc_norm of lm-evaluation-harness.",
    )

    def document(self, row: dict[str, Any]) -> Question:
        """Take the question of a row; `options` may be a list, or a list written in JSON.

        Raises:
            ValueError: a field does not hold what it must.
        """
        context = row["context"]
        if not isinstance(context, str):
            message = "'context' must be text; it may be empty"
            raise ValueError(message)  # noqa: TRY004 - what a row may raise
        options = _options(row["options"])
        return Question(context, options, _answer(row["answer"], options))

    def measure(self, model: LanguageModel, documents: Sequence[Question]) -> Measurement:
        """Score every option after its context, and compare those of a question."""
        import numpy as np

        pairs = [
            (question.context, option if option[0].isspace() else f" {option}")
            for question in documents
            for option in question.options
        ]
        scores = model.score_continuations(pairs)
        nats = scores.nats
        if self.normalization == "characters":
            nats = nats / [len(option) for question in documents for option in question.options]
        counts = [len(question.options) for question in documents]
        borders = np.cumsum(counts)[:-1]
        likeliest = [int(options.argmin()) for options in np.split(nats, borders)]
        right = [float(q.answer == chosen) for q, chosen in zip(documents, likeliest, strict=True)]
        tokens = [options.sum() for options in np.split(scores.tokens, borders)]
        return Measurement(
            np.array(right),
            np.ones(len(documents)),
            np.array(tokens, dtype=np.int64),
            {"chance": 1.0 / np.array(counts)},
        )

    def protocol(self) -> dict[str, Any]:
        """Say what is scored after what, and what counts as right."""
        return {
            "continuation": "a space, unless there is one, and the option",
            "context": "cut at its beginning where it is longer than the window",
            "normalization": self.normalization,
            "right": "the answer has the largest log-likelihood",
            "aggregation": "right documents / documents",
        }

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:
        """Return chance, the base's head-room above it, and what was lost and gained beyond luck."""
        chance = float(before.extra["chance"].sum() / before.weight.sum())
        return above_chance(before, after, chance=chance)


def _options(value: object) -> tuple[str, ...]:
    """Read the options; a .jsonl, csv or tsv file gives a list as its JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    texts = value if isinstance(value, list) else []
    if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts):  # noqa: PLR2004 - a choice
        message = "'options' must be a list of two or more texts, none of them blank"
        raise ValueError(message)
    if len(set(texts)) < len(texts):
        message = "'options' has the same text twice"
        raise ValueError(message)
    return tuple(texts)


def _answer(value: object, options: tuple[str, ...]) -> int:
    """Find the right option; a .jsonl, csv or tsv file gives an index as its digits."""
    found: set[int] = set()
    if isinstance(value, str):
        found |= {index for index, option in enumerate(options) if option == value}
        # An index that was written as a number has become text on the way here.
        found |= {index for index in range(len(options)) if str(index) == value}
    elif isinstance(value, int) and not isinstance(value, bool):
        found |= {value} & set(range(len(options)))
    if not found:
        message = f"'answer' must be one of the options, or an index from 0 to {len(options) - 1} (got {value!r})"
        raise ValueError(message)
    if len(found) > 1:
        message = f"'answer' {value!r} is the text of one option and the index of another; a .parquet file tells numbers from text"
        raise ValueError(message)
    return found.pop()
