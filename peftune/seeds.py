"""One seed, many independent streams: changing how one part draws leaves the others as they were.

Light: importing it loads no torch.
"""

from __future__ import annotations

import hashlib

MAX_SEED = 2**32 - 1
STREAMS = ("head", "adapter", "training", "bootstrap", "regularizers", "train_sample")


def stream_seed(seed: int, stream: str) -> int:
    """Derive the seed of a named stream, 32 bits, from the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:4], "big")


def seed_streams(seed: int) -> dict[str, int]:
    """Return the seed of every stream, for the report."""
    return {stream: stream_seed(seed, stream) for stream in STREAMS}
