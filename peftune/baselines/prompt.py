"""The prompt: how examples and a text are written, which examples, and how many fit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from peftune.data.rows import Rows
from peftune.models.tokenizer import encode_texts

TEMPLATE = "Text: {text}\nLabel: {label}\n\n"
"""An example; a question is the same without its label and what follows."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is read before a label's name.

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
