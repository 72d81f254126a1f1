"""Numbers as people read them: as many digits as they are worth, and a real minus sign."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peftune.experiments.compare.summary import Estimate, each_of_two

NOT_MEASURED = "–"
_KIB = 1024
_SMALL_P = 0.001


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


def size(value: float | None) -> str:
    """Write a number of bytes: `525 KiB`, `1.77 GiB`."""
    if value is None:
        return NOT_MEASURED
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


def milliseconds(value: float | None) -> str:
    """Write a time of milliseconds with two or three digits: `3.1 ms`, `142 ms`."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"  # noqa: PLR2004 - three digits


def between(
    interval: Sequence[float] | None, form: Callable[[float | None], str], *, without: str = ""
) -> str:
    """Write an interval: `0.606 to 0.633`."""
    return without if interval is None else f"{form(interval[0])} to {form(interval[1])}"


_FORMS = {
    "accuracy": share,
    "macro_f1": share,
    "train_seconds": seconds,
    "peak_memory_bytes": size,
    "artifact_bytes": size,
    "trainable_parameters": count,
}


def form_of(key: str) -> Callable[[float | None], str]:
    """Return how a figure of a summary is written."""
    return signed if key.startswith("forgetting.") else _FORMS.get(key, plain)


def estimate(value: Estimate | None, key: str) -> tuple[str, str]:
    """Write an estimate and what stands below it: its interval, each of two seeds, or a reason."""
    if value is None:
        return NOT_MEASURED, ""
    form = form_of(key)
    if value.mean is None:
        return NOT_MEASURED, value.reason or ""
    if two := each_of_two(value):
        shown = [form(one) for one in two]
        return form(value.mean), "both seeds" if len(set(shown)) == 1 else ", ".join(shown)
    why = "" if len(value.values) == 1 else value.reason or ""  # one seed is said once, beside it
    return form(value.mean), between(value.ci95, form) or why


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
