"""What the C library's heap holds beside the tensors of a pass: holes between them, and machine code."""

from __future__ import annotations

_HOLES, _OF_LENGTH, _MOST_HOLES = 1.2, 0.05, 2.2
_HOLES_OF_MODEL = 2.0
_HOLES_OF_INTEGERS = 3.0
"""Memory that passes take from the system for each byte that their tensors need at once.

The C library cannot always reuse what a tensor left, the less so the more machine code of other
lengths lies between. Found as peaks of runs less what else was there, for four strategies on bases
of 5, 45 and 124 million weights: 1.1 to 1.4 with three lengths, 1.8 to 2.6 with 19 and more. Where
the model's own forward is used, 1.7 to 2.1 while training; bitsandbytes, which evaluates a model of
integers, makes tensors that are not seen here: 2 to 6."""

_CODE = 575_000
"""Bytes of machine code that oneDNN makes for a product of sizes that it has not met, and keeps.

Measured as the growth of the heap's allocations: 540,000 to 595,000 at widths of 256 to 3,072, in
float32 and bfloat16."""

_MOST_PRODUCTS = 1024
"""Products whose machine code oneDNN keeps."""


def holes(*, lean: bool, lengths: int) -> float:
    """Return the memory that training takes for each byte of a pass's tensors.

    Args:
        lean: whether peftune computes, and not the model's own forward.
        lengths: different sizes of a batch so far.
    """
    return min(_MOST_HOLES, _HOLES + _OF_LENGTH * lengths) if lean else _HOLES_OF_MODEL


def holes_of_evaluation(*, lean: bool, integers: bool) -> float:
    """Return the memory that an evaluation takes for each byte of a pass's tensors.

    Args:
        lean: whether peftune computes, and not the model's own forward.
        integers: whether the base is held in 8-bit integers.
    """
    own = _HOLES_OF_INTEGERS if integers else _HOLES_OF_MODEL
    return _HOLES + _OF_LENGTH if lean else own


def code_bytes(products: int) -> int:
    """Return the bytes of machine code for so many products of different sizes."""
    return _CODE * min(products, _MOST_PRODUCTS)
