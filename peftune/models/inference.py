"""Logits for many texts: sorted by length, batched, without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from peftune.models.parts import BAR, evaluating, label_count
from peftune.models.tokenizer import encode_texts


def predict_logits(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Classify texts.

    Args:
        model: a sequence classifier.
        tokenizer: pads on the right.
        texts: any strings; an empty one counts as the end token alone.
        max_length: tokens kept of each text.
        batch_size: texts in one forward pass. Batches hold texts of like length; in int8 a text's
            logits depend a little on its batch, which is the same for the same texts.

    Returns:
        Logits in the order of the texts, (texts, labels), float32.
    """
    encoded = encode_texts(tokenizer, list(texts), max_length=max_length)
    order = sorted(range(len(encoded)), key=lambda index: (len(encoded[index]), index))
    labels = label_count(model)
    logits = np.zeros((len(encoded), labels), dtype=np.float32)
    device = next(model.parameters()).device
    with evaluating(model):
        starts = range(0, len(order), batch_size)
        for start in tqdm(starts, desc="classifying", **BAR):
            chosen = order[start : start + batch_size]
            batch: Any = tokenizer.pad(
                {"input_ids": [encoded[index] for index in chosen]}, return_tensors="pt"
            )
            output = model(
                input_ids=batch["input_ids"].to(device),
                attention_mask=batch["attention_mask"].to(device),
            )
            logits[chosen] = output.logits.float().cpu().numpy()  # (batch, labels)
    if not np.isfinite(logits).all():
        message = f"the model gives a logit that is not finite for {int((~np.isfinite(logits)).any(-1).sum())} texts"
        raise FloatingPointError(message)
    return logits
