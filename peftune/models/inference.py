"""Logits and states for many texts: texts of like length together, without gradients."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.models.batches import MOST_ROWS, padded, plan_batches
from peftune.models.parts import evaluating, head_of, label_count, trunk_of, unwrapped
from peftune.models.tokenizer import encode_texts
from peftune.progress import counted


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
            width=int(trunk_of(model).config.n_embd),
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
