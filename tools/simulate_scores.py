"""Simulate how often the intervals of one run's scores hold the truth: the tables of docs/results.md.

    python tools/simulate_scores.py

Each table draws rows of a model whose true score is known, and counts the draws of 100 whose 95%
interval holds it, for the interval that peftune gives and for others. Every cell has its own
seed, so tables do not depend on their order. It takes about five minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from peftune.findings.evidence import rows_needed
from peftune.stats.intervals import Interval, mean_interval, share_interval
from peftune.stats.scores import (
    ONE_SIDED,
    better_p_value,
    correlation_interval,
    macro_f1_interval,
    roc_auc_interval,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Intervals = Mapping[str, Interval | None]

RESAMPLES = 400
IMBALANCE = 10.0
"""How much more frequent the most frequent label is than the rarest, in the unbalanced rows."""

SIZES = (20, 50, 100, 250, 1000)
MANY = 77
"""Labels of which few rows have no interval, and many are drawn less often."""


def percentile(values: Floats) -> Interval:
    """Return the ends of the middle 95% of resampled statistics."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def accuracy_intervals(accuracy: float, count: int, rng: np.random.Generator) -> Intervals:
    """Draw right and wrong answers, and give both intervals of their share."""
    right = rng.random(count) < accuracy
    return {
        "bootstrap": percentile(rng.binomial(count, right.mean(), RESAMPLES) / count),
        "Wilson": share_interval(float(right.mean()), count),
    }


def confusion(labels: int, accuracy: float, *, balanced: bool) -> Floats:
    """Return the probability of every true and predicted label, (labels, labels)."""
    shares = np.ones(labels) if balanced else np.geomspace(IMBALANCE, 1, labels)
    shares = shares / shares.sum()
    wrong = np.tile(shares, (labels, 1))
    np.fill_diagonal(wrong, 0)
    wrong *= (1 - accuracy) / wrong.sum(axis=1, keepdims=True)
    return np.asarray(shares[:, None] * (wrong + accuracy * np.eye(labels)))


def macro_f1(table: Floats | Ints) -> Floats:
    """Return macro F1 of confusion tables, (…, labels, labels)."""
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    mentions = table.sum(axis=-1) + table.sum(axis=-2)
    return np.asarray((2 * hits / np.maximum(mentions, 1e-12)).mean(axis=-1))


def macro_f1_intervals(table: Floats, count: int, rng: np.random.Generator) -> Intervals:
    """Draw rows of a confusion table, and give the intervals of their macro F1."""
    labels = len(table)
    cells = rng.choice(labels**2, count, p=table.ravel())
    drawn = np.bincount(cells, minlength=labels**2)
    resampled = rng.multinomial(count, drawn / count, RESAMPLES).reshape(-1, labels, labels)
    values, value = macro_f1(resampled), float(macro_f1(drawn.reshape(labels, labels)))
    true, said = (np.eye(labels, dtype=bool)[ids] for ids in (cells // labels, cells % labels))
    moved = _moved(drawn.reshape(labels, labels))[cells // labels, cells % labels]
    return {
        "bootstrap": percentile(values),
        "BCa": _bca(values, value, moved),
        "logit": _logit(value, float((moved**2).sum()) ** 0.5),
        "peftune": macro_f1_interval(true, said),
    }


def _moved(table: Ints) -> Floats:
    """Return by how much a row of each cell moves macro F1, to first order."""
    mentions = np.maximum(table.sum(axis=1) + table.sum(axis=0), 1)
    f1 = 2 * np.diagonal(table) / mentions
    each = f1 / mentions
    return np.asarray((np.diag(2 / mentions) - each[:, None] - each[None, :]) / len(table))


def _bca(values: Floats, value: float, moved: Floats) -> Interval:
    """Correct the percentiles for bias and skewness (Efron 1987)."""
    spread = float((moved**2).sum())
    lean = float((moved**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    below = ((values < value).mean() + (values <= value).mean()) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / len(values), 1 - 1 / len(values)))
    ends = bias + stats.norm.ppf([0.025, 0.975])
    low, high = np.quantile(values, stats.norm.cdf(bias + ends / (1 - lean * ends)))
    return float(low), float(high)


def _logit(value: float, error: float) -> Interval:
    """Give the delta method on a logit scale (Takahashi et al. 2022)."""
    if error == 0 or not 0 < value < 1:
        return value, value
    margin = 1.96 * error / (value * (1 - value))
    return float(expit(logit(value) - margin)), float(expit(logit(value) + margin))


def several_labels_intervals(
    shares: Floats, right_share: float, together: float, count: int, rng: np.random.Generator
) -> Intervals:
    """Draw rows of several labels, whose errors fall on the same rows, and give macro F1's interval."""
    true = _correlated(shares, together, count, rng)
    right = _correlated(np.full(len(shares), right_share), together, count, rng)
    return {"peftune": macro_f1_interval(true, true ^ ~right)}


def _correlated(
    shares: Floats, together: float, count: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    common, own = rng.normal(size=(count, 1)), rng.normal(size=(count, len(shares)))
    mixed = together**0.5 * common + (1 - together) ** 0.5 * own
    return np.asarray(mixed < stats.norm.ppf(shares))


def area_intervals(
    area: float, positives: int, negatives: int, rng: np.random.Generator
) -> Intervals:
    """Draw scores, exponentially distributed, whose true area is known, and give its intervals."""
    high = rng.exponential(area / (1 - area), positives)
    low = rng.exponential(1.0, negatives)
    seen = float((high[:, None] > low).mean())
    above, below = seen / (2 - seen) - seen**2, 2 * seen**2 / (1 + seen) - seen**2
    variance = seen * (1 - seen) + (positives - 1) * above + (negatives - 1) * below
    error = max(0.0, variance / (positives * negatives)) ** 0.5
    return {
        "Hanley and McNeil": (max(0.0, seen - 1.96 * error), min(1.0, seen + 1.96 * error)),
        "logit": _logit(seen, error),
        "peftune": roc_auc_interval(seen, [positives], [negatives]),
    }


def error_intervals(
    draw: Callable[[np.random.Generator, int], Floats], count: int, rng: np.random.Generator
) -> Intervals:
    """Draw errors, and give the intervals of their mean square."""
    squares = draw(rng, count) ** 2
    resampled = squares[rng.integers(0, count, (RESAMPLES, count))].mean(axis=1)
    return {"bootstrap": percentile(resampled), "peftune": mean_interval(squares)}


def pairs(
    correlation: float, kind: str, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw pairs of numbers: normal, or with errors as large as the number, or with heavy tails."""
    first, error = rng.normal(size=count), rng.normal(size=count)
    if kind == "uneven errors":
        error *= np.abs(first)
    if kind == "heavy tails":
        scale = (5 / rng.chisquare(5, count)) ** 0.5
        first, error = first * scale, error * scale
    return first, correlation * first + (1 - correlation**2) ** 0.5 * error


def correlation_intervals(
    correlation: float, kind: str, count: int, rng: np.random.Generator
) -> Intervals:
    """Draw pairs, and give the intervals of Pearson's correlation."""
    first, second = pairs(correlation, kind, count, rng)
    drawn = rng.integers(0, count, (RESAMPLES, count))
    one, other = first[drawn], second[drawn]
    one, other = (v - v.mean(axis=1, keepdims=True) for v in (one, other))
    values = (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    center, margin = np.arctanh(np.corrcoef(first, second)[0, 1]), 1.96 / (count - 3) ** 0.5
    return {
        "bootstrap": percentile(values),
        "Fisher": (float(np.tanh(center - margin)), float(np.tanh(center + margin))),
        "peftune": correlation_interval(first, second),
    }


def coverage(
    draw: Callable[[np.random.Generator], Intervals],
    truth: float,
    *,
    draws: int,
    seed: Sequence[int],
) -> str:
    """Count the draws whose interval holds the truth, in 100 of those that have one."""
    rng = np.random.default_rng(list(seed))
    held: dict[str, list[bool]] = {}
    for _ in range(draws):
        for name, interval in draw(rng).items():
            seen = held.setdefault(name, [])
            if interval is not None:
                seen.append(interval[0] <= truth <= interval[1])
    cells = []
    for name, seen in held.items():
        share = f"{100 * np.mean(seen):.0f}" if len(seen) >= draws // 10 else "none"
        given = f" of the {len(seen) / draws:.0%} that have one" if len(seen) < draws else ""
        cells.append(f"{name} {share}{given}")
    return ", ".join(cells)


def accuracy_lines(draws: int) -> Iterator[str]:
    """Cover accuracies."""
    for accuracy in (0.6, 0.8, 0.9, 0.97, 0.98):
        for count in SIZES:
            seed = (1, int(100 * accuracy), count)
            found = coverage(
                partial(accuracy_intervals, accuracy, count), accuracy, draws=draws, seed=seed
            )
            yield f"{accuracy} | {count} | {found}"


def macro_f1_lines(draws: int) -> Iterator[str]:
    """Cover macro F1 by labels, balance, rows and accuracy."""
    for labels in (2, 3, 10, MANY):
        for balanced in (True, False):
            for count in SIZES if labels < MANY else SIZES[-2:]:
                for accuracy in (0.6, 0.8, 0.9, 0.97, 0.98):
                    table = confusion(labels, accuracy, balanced=balanced)
                    truth = float(macro_f1(table))
                    seed = (2, labels, int(balanced), count, int(100 * accuracy))
                    found = coverage(
                        partial(macro_f1_intervals, table, count),
                        truth,
                        draws=draws if labels < MANY else draws // 4,
                        seed=seed,
                    )
                    kind = "balanced" if balanced else "unbalanced"
                    yield f"{labels} {kind} | {count} | {accuracy} | {found}"


def several_labels_lines(draws: int) -> Iterator[str]:
    """Cover macro F1 of rows with several labels, whose labels and errors fall on the same rows."""
    for labels in (3, 10):
        shares = np.geomspace(0.5, 0.1, labels)
        for together in (0.0, 0.5, 0.9):
            for count in (100, 250, 1000):
                for right in (0.8, 0.95, 0.99):
                    hits = shares * right
                    truth = float((2 * hits / (shares + hits + (1 - shares) * (1 - right))).mean())
                    seed = (8, labels, int(10 * together), count, int(100 * right))
                    found = coverage(
                        partial(several_labels_intervals, shares, right, together, count),
                        truth,
                        draws=draws,
                        seed=seed,
                    )
                    yield f"{labels} labels | together {together} | {count} | {right} | {found}"


def area_lines(draws: int) -> Iterator[str]:
    """Cover areas by how rare positives are."""
    for area in (0.6, 0.9, 0.97, 0.99):
        for positives, negatives in ((10, 10), (25, 25), (12, 238), (238, 12), (125, 125)):
            seed = (3, int(100 * area), positives, negatives)
            found = coverage(
                partial(area_intervals, area, positives, negatives), area, draws=draws, seed=seed
            )
            yield f"{area} | {positives} of {positives + negatives} | {found}"


def error_lines(draws: int) -> Iterator[str]:
    """Cover mean squared errors."""
    kinds: Mapping[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
        "normal": (lambda rng, n: rng.normal(size=n), 1.0),
        "Laplace": (lambda rng, n: rng.laplace(size=n), 2.0),
        "t with 5 degrees": (lambda rng, n: rng.standard_t(5, n), 5 / 3),
    }
    for place, (kind, (draw, truth)) in enumerate(kinds.items()):
        for count in (20, 50, 250):
            found = coverage(
                partial(error_intervals, draw, count), truth, draws=draws, seed=(4, place, count)
            )
            yield f"{kind} | {count} | {found}"


def correlation_lines(draws: int) -> Iterator[str]:
    """Cover correlations."""
    for place, kind in enumerate(("normal", "uneven errors", "heavy tails")):
        for correlation in (0.5, 0.85, 0.97):
            for count in (20, 50, 250):
                found = coverage(
                    partial(correlation_intervals, correlation, kind, count),
                    correlation,
                    draws=draws,
                    seed=(5, place, int(100 * correlation), count),
                )
                yield f"{kind} | {correlation} | {count} | {found}"


def paired_lines(draws: int) -> Iterator[str]:
    """Count gains that are called real where there is none, and gains seen with as many rows as said."""
    many = 20 * draws
    for accuracy in (0.6, 0.8, 0.9):
        for correlation in (0.0, 0.35, 0.5, 0.7):
            rng = np.random.default_rng([6, int(100 * accuracy), int(100 * correlation)])
            cells = rng.multinomial(250, _answers(accuracy, accuracy, correlation), many)
            base = (cells[:, 0] + cells[:, 2]) / 250
            gain = (cells[:, 1] - cells[:, 2]) / 250
            unpaired = (gain > 0) & (gain**2 * 250 >= 1.96**2 * base * (1 - base))
            paired = [better_p_value(int(a), int(b)) <= ONE_SIDED for a, b in cells[:2000, 1:3]]
            yield f"no gain, both {accuracy}, correlation {correlation}, 250 rows | unpaired {100 * unpaired.mean():.1f}, McNemar {100 * np.mean(paired):.1f}"
    for model, other in ((0.65, 0.6), (0.8, 0.6), (0.9, 0.8), (0.97, 0.9)):
        answers = _answers(model, other, 0.3)
        count = rows_needed(float(answers[1] + answers[2]), gain=model - other)
        rng = np.random.default_rng([7, int(100 * model)])
        drawn = rng.multinomial(count, answers, 2000)
        seen = [better_p_value(int(a), int(b)) <= ONE_SIDED for a, b in drawn[:, 1:3]]
        yield f"{model} against {other}, correlation 0.3 | {count} rows | seen in {100 * np.mean(seen):.0f} of 100"


def _answers(model: float, base: float, correlation: float) -> Floats:
    """Return the probability of both right, the model alone, the baseline alone, and neither."""
    shared = correlation * (model * (1 - model) * base * (1 - base)) ** 0.5
    both = model * base + shared
    return np.array([both, model - both, base - both, 1 - model - base + both])


TABLES: Mapping[str, Callable[[int], Iterator[str]]] = {
    "accuracy": accuracy_lines,
    "macro-f1": macro_f1_lines,
    "several-labels": several_labels_lines,
    "roc-auc": area_lines,
    "squared-error": error_lines,
    "pearson": correlation_lines,
    "paired": paired_lines,
}


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], help="all without")
    parser.add_argument("--draws", type=int, default=400)
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        print(f"\n{name}")
        for line in TABLES[name](arguments.draws):
            print(line, flush=True)


if __name__ == "__main__":
    main()
