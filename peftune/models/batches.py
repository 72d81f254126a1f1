"""Which texts share a forward pass, and how they are padded for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

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
