"""Numbers as text: as many digits as they are worth, with their intervals.

The functions of one value write a real minus sign, for pages; `with_interval` writes plain ASCII,
for terminals, cards and sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

NOT_MEASURED = "–"
_KIB = 1024
_SMALL_P = 0.001

Form: TypeAlias = Callable[[float | None], str]
"""Writes one value, or that it was not measured."""


def share(value: float | None) -> str:
    """Write a share of rows, such as an accuracy: `0.620`."""
    return NOT_MEASURED if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Write a change, whose sign matters: `+0.0523`; one that is exactly zero is `0`."""
    if value == 0:
        return "0"
    return NOT_MEASURED if value is None else _minus(f"{value:+.4f}")


def plain(value: float | None) -> str:
    """Write a measurement: `1.2345`."""
    return NOT_MEASURED if value is None else _minus(f"{value:.4f}")


def seconds(value: float | None) -> str:
    """Write a duration: `0.8 s`, `213 s`."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"  # noqa: PLR2004 - two digits


def milliseconds(value: float | None) -> str:
    """Write a time in milliseconds with two or three digits: `3.1 ms`, `142 ms`."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"  # noqa: PLR2004 - three digits


def size(value: float | None, *, absent: str = NOT_MEASURED) -> str:
    """Write a number of bytes: `525 KiB`, `1.77 GiB`."""
    if value is None:
        return absent
    amount, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < _KIB or unit == "GiB":
            break
        amount /= _KIB
    whole = unit in {"B", "KiB"} or amount >= 100  # noqa: PLR2004 - three digits
    return f"{amount:.0f} {unit}" if whole else f"{amount:.3g} {unit}"


def count(value: float | None) -> str:
    """Write a whole number: `131,840`."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def probability(value: float | None) -> str:
    """Write a p value: `0.031`, `< 0.001`."""
    if value is None:
        return NOT_MEASURED
    return f"< {_SMALL_P}" if value < _SMALL_P else f"{value:.3f}"


def between(interval: Sequence[float] | None, form: Form, *, without: str = "") -> str:
    """Write an interval for a page: `0.606 to 0.633`."""
    return without if interval is None else f"{form(interval[0])} to {form(interval[1])}"


def with_interval(
    value: float | None, interval: Sequence[float] | None, form: str, *, absent: str = "-"
) -> str:
    """Write a value and its interval for a terminal: `0.620 [0.606, 0.633]`.

    Args:
        value: the value; None gives `absent`.
        interval: the interval; None writes the value alone.
        form: format specification of both, such as `.3f` or `+.4f`.
        absent: text of a value that was not measured.
    """
    if value is None:
        return absent
    around = f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    return f"{value:{form}}{around}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Join words as a sentence does: `full, lora and head-only`."""
    *first, end = words or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
