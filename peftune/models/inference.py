"""Compute logits and pooled states of many texts in batches, and fit a head to the states."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from peftune.errors import UsageError
from peftune.models.architecture import backbone_of, evaluating, head_of, label_count, unwrapped
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import encode_texts
from peftune.progress import counted

MOST_ROWS = 256
"""Texts in one forward pass at most, where a caller does not say."""

_TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens in one forward pass, padding counted. A CPU is fastest while what a pass writes fits its
caches; measured in tools/measure_predict.py. A GPU wants more work at once."""


def plan_batches(
    lengths: Sequence[int], device: torch.device, *, rows: int = MOST_ROWS
) -> list[list[int]]:
    """Put texts of like length together, the longest first, so that what fits once fits always.

    Args:
        lengths: tokens of each text.
        device: where the model lives; it decides how many tokens a pass takes, padding counted.
        rows: texts in one pass at most.

    Returns:
        The places of the texts, batch by batch; the same for the same lengths.
    """
    budget = _TOKENS.get(device.type, _TOKENS["cuda"])
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    batches, start = [], 0
    while start < len(order):
        fitting = max(1, min(rows, budget // lengths[order[start]]))
        batches.append(order[start : start + fitting])
        start += fitting
    return batches


def padded(
    encoded: Sequence[Sequence[int]], *, pad_token_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Pad token ids on the right: `input_ids` and `attention_mask`, (batch, time), int64."""
    ids = [torch.tensor(text) for text in encoded]
    mask = [torch.ones_like(text) for text in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token_id).to(device),
        "attention_mask": pad_sequence(mask, batch_first=True).to(device),
    }


def predict_logits(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    batch_size: int = MOST_ROWS,
) -> NDArray[np.float32]:
    """Classify texts.

    Args:
        model: a sequence classifier.
        tokenizer: pads on the right.
        texts: any strings; an empty one counts as the end token alone.
        max_length: tokens kept of each text.
        batch_size: texts in one forward pass at most; fewer where they are long. Batches hold texts
            of like length; in int8 a text's logits depend a little on its batch, which is the same
            for the same texts.

    Returns:
        Logits in the order of the texts, (texts, labels), float32.
    """
    logits = _outputs(
        model,
        tokenizer,
        texts,
        width=label_count(model),
        max_length=max_length,
        batch_size=batch_size,
    )
    if not np.isfinite(logits).all():
        message = f"the model gives a logit that is not finite for {int((~np.isfinite(logits)).any(-1).sum())} texts"
        raise FloatingPointError(message)
    return logits


def seconds_of_each(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    limit: float,
) -> list[float]:
    """Time how long each text takes by itself, from the string to its logits.

    Args:
        model: a sequence classifier.
        tokenizer: pads on the right.
        texts: any strings; the first is read once before, so that nothing is loaded in its time.
        max_length: tokens kept of each text.
        limit: seconds after which no further text is begun.

    Returns:
        Seconds of each text that was read, in order.
    """
    device = next(model.parameters()).device
    found: list[float] = []
    with evaluating(model):
        began = time.perf_counter()
        for text in (*texts[:1], *texts):
            started = time.perf_counter()
            ids = encode_texts(tokenizer, [text], max_length=max_length)
            output = model(**padded(ids, pad_token_id=int(tokenizer.pad_token_id), device=device))
            output.logits.float().cpu()  # waits for the device
            ended = time.perf_counter()
            found.append(ended - started)
            if ended - began > limit:
                break
    return found[1:] or found


def pooled_states(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    batch_size: int = MOST_ROWS,
) -> NDArray[np.float32]:
    """Return what the classification head reads of each text: the state of its last token.

    Args:
        model: a sequence classifier.
        tokenizer: pads on the right.
        texts: any strings.
        max_length: tokens kept of each text.
        batch_size: texts in one forward pass at most.

    Returns:
        States in the order of the texts, (texts, hidden), float32.
    """
    inner = unwrapped(model)
    head = head_of(model)
    # The model itself picks the token, so the states are those of its logits.
    inner.score = nn.Identity()
    try:
        return _outputs(
            model,
            tokenizer,
            texts,
            width=int(backbone_of(model).config.n_embd),
            max_length=max_length,
            batch_size=batch_size,
        )
    finally:
        inner.score = head


def _outputs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    width: int,
    max_length: int,
    batch_size: int,
) -> NDArray[np.float32]:
    encoded = encode_texts(tokenizer, list(texts), max_length=max_length)
    outputs = np.zeros((len(encoded), width), dtype=np.float32)
    device = next(model.parameters()).device
    batches = plan_batches([len(ids) for ids in encoded], device, rows=batch_size)
    with evaluating(model):
        for chosen in counted(batches, "classifying", unit="texts", count=len):
            output = model(
                **padded(
                    [encoded[place] for place in chosen],
                    pad_token_id=int(tokenizer.pad_token_id),
                    device=device,
                )
            )
            outputs[chosen] = output.logits.float().cpu().numpy()  # (batch, width)
    return outputs


def fit_head(model: nn.Module, texts: Sequence[str], labels: Sequence[int]) -> torch.Tensor:
    """Fit a classification head to the backbone as it is: a logistic regression on what the head reads.

    Every state is divided by its root mean square before the fit, and the head by the same after
    it, so that one penalty suits all of them. GPT-2's head has no bias, so none is fitted.

    Args:
        model: a prepared model; it is not changed.
        texts: texts of the task.
        labels: their label ids.

    Returns:
        The head's weight, (labels, hidden), float32.

    Raises:
        UsageError: a label has no rows, or the head is not a single matrix.
    """
    preparation = preparation_of(model)
    shape = _head_weight(model).shape
    counts = np.bincount(np.asarray(labels), minlength=len(preparation.labels))
    if (counts == 0).any():
        name = preparation.labels[int(counts.argmin())]
        message = f"The head cannot be refitted: no row has the label '{name}'. Every label needs rows to fit on."
        raise UsageError(message)
    states = pooled_states(
        model, preparation.tokenizer, texts, max_length=preparation.max_length
    ).astype(np.float64)  # (texts, hidden)
    fitted = _fit(states, np.asarray(labels)).astype(np.float32)
    return torch.from_numpy(fitted).reshape(shape)


def set_head(model: nn.Module, weight: torch.Tensor) -> None:
    """Put a head's weight, (labels, hidden), into a prepared model."""
    with torch.no_grad():
        _head_weight(model).copy_(weight)


@contextlib.contextmanager
def with_head(model: nn.Module, weight: torch.Tensor) -> Iterator[None]:
    """Let a prepared model have another head, (labels, hidden), inside the context."""
    kept = _head_weight(model).detach().clone()
    set_head(model, weight)
    try:
        yield
    finally:
        set_head(model, kept)


def _fit(states: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    scale = np.sqrt((states**2).mean(axis=0))
    scale[scale == 0] = 1.0
    fitted = LogisticRegression(fit_intercept=False, max_iter=10_000).fit(states / scale, labels)
    weight = fitted.coef_ / scale  # (labels, hidden), or (1, hidden) of two labels
    return np.concatenate([-weight / 2, weight / 2]) if len(weight) == 1 else weight


def _head_weight(model: nn.Module) -> nn.Parameter:
    learning = [weight for weight in head_of(model).parameters() if weight.requires_grad]
    if len(learning) != 1 or learning[0].ndim != 2:  # noqa: PLR2004 - a matrix
        message = f"The head cannot be refitted: the strategy '{preparation_of(model).strategy.name}' makes it more than one matrix."
        raise UsageError(message)
    return learning[0]
