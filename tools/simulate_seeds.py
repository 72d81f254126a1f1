"""Simulate what seeds show: the power that a comparison states, and false findings about seeds.

    python tools/simulate_seeds.py

Prints how often a difference that is called detectable is seen, how much of that power three, five and
ten seeds keep when the spread is only known from them, and how often seeds that are equally good are
called unstable or collapsed.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from peftune.findings.evidence import collapsed_seeds, unstable_across_seeds
from peftune.stats.crossed import CrossedError, crossed_error

Values = NDArray[np.float64]

# Seeds, rows, standard deviations of seeds, rows and what is neither, level, and shape of the rows.
DESIGNS = (
    (3, 200, 1.0, 0.01, 0.01, 0.05, "normal"),
    (3, 200, 0.05, 1.0, 1.0, 0.05 / 3, "normal"),
    (5, 200, 0.1, 1.0, 1.0, 0.05 / 3, "normal"),
    (3, 60, 0.3, 1.0, 0.5, 0.05 / 6, "normal"),
    (5, 30, 0.3, 1.0, 0.5, 0.05, "normal"),
    (10, 1000, 0.02, 0.3, 0.3, 0.05 / 3, "normal"),
    (3, 60, 0.3, 1.0, 0.5, 0.05 / 6, "log-normal"),
    (5, 200, 0.1, 1.0, 1.0, 0.05 / 3, "log-normal"),
)


def errors(rng: np.random.Generator, design: tuple[int, int, float, float, float, str]) -> Values:
    """Draw what seeds, rows and the rest add to a mean, (seeds, rows)."""
    seeds, rows, of_seeds, of_rows, of_rest, shape = design
    row = rng.standard_normal((1, rows))
    if shape == "log-normal":
        row = (np.exp(row) - np.e**0.5) / ((np.e - 1) * np.e) ** 0.5
    seed, rest = rng.standard_normal((seeds, 1)), rng.standard_normal((seeds, rows))
    return np.asarray(of_seeds * seed + of_rows * row + of_rest * rest)


def true_error(
    seeds: int, rows: int, of_seeds: float, of_rows: float, rest: float
) -> CrossedError:
    """Return how the mean errs, from the standard deviations that are drawn from."""
    by_seed = (of_seeds**2 / seeds + rest**2 / (seeds * rows)) ** 0.5
    return CrossedError(by_seed, seeds - 1, of_rows / rows**0.5, 0.0, rows)


def power(rng: np.random.Generator, repetitions: int) -> None:
    """Print how often a detectable difference is seen, of either sign."""
    for *sizes, level, shape in DESIGNS:
        seeds, rows, of_seeds, of_rows, rest = sizes
        found = true_error(int(seeds), int(rows), of_seeds, of_rows, rest).detectable(level=level)
        seen = np.zeros(2)
        for _ in range(repetitions):
            values = errors(rng, (int(seeds), int(rows), of_seeds, of_rows, rest, shape))
            error, mean = crossed_error(values), float(values.mean())
            seen += [error.p_value(mean + sign * found) < level for sign in (1, -1)]
        shown = " and ".join(f"{share:.3f}" for share in seen / repetitions)
        print(f"{seeds} seeds, {rows} {shape} rows, level {level:.4f}: seen {shown}")


def power_of_named(rng: np.random.Generator, repetitions: int) -> None:
    """Print the true power of the differences that seeds name by their own spread."""
    for seeds in (3, 5, 10):
        true = true_error(seeds, 200, 0.1, 1.0, 1.0)
        powers = []
        for _ in range(repetitions):
            drawn = crossed_error(errors(rng, (seeds, 200, 0.1, 1.0, 1.0, "normal")))
            powers.append(true.power(drawn.detectable(level=0.05), level=0.05))
        low, high = np.quantile(powers, [0.25, 0.75])
        print(f"{seeds} seeds: mean power {np.mean(powers):.3f}, half in {low:.2f} to {high:.2f}")


def unstable(rng: np.random.Generator, repetitions: int) -> None:
    """Print how often equally good seeds are called unstable, by how much their mistakes share."""
    for seeds in (2, 3, 5):
        for shared in (0.0, 0.5):
            found = 0
            for _ in range(repetitions):
                own = rng.standard_normal((seeds, 400))
                hard = rng.standard_normal((1, 400)) * shared**0.5 + own * (1 - shared) ** 0.5
                found += unstable_across_seeds(list((hard < 0.5244).mean(axis=1)), 400) is not None  # fmt: skip  # noqa: PLR2004 - 0.7
            print(f"{seeds} seeds, {shared:.0%} shared: unstable in {found / repetitions:.4f}")
        found = 0
        for _ in range(repetitions):
            first = rng.binomial(400, 0.5) / 400
            says = rng.integers(0, 2, seeds)
            found += unstable_across_seeds(list(np.where(says, first, 1 - first)), 400) is not None
        print(f"{seeds} constant seeds: unstable in {found / repetitions:.4f}")


def collapsed(rng: np.random.Generator, repetitions: int) -> None:
    """Print how often a seed is called collapsed where none reads the rows, and where one did."""
    names = ("a", "b", "c")
    for seeds, rows in ((3, 150), (3, 1500), (5, 150), (5, 1500), (10, 150), (10, 1500)):
        false, seen = 0, 0
        for _ in range(repetitions):
            labels = rng.integers(0, 3, rows)
            said = {}
            for seed, often in enumerate(rng.integers(0, 3, seeds)):
                kept = 1.0 if rng.random() < 0.5 else 0.96  # noqa: PLR2004 - half of the seeds
                guesses = rng.integers(0, 3, rows)
                said[seed] = np.where(rng.random(rows) < kept, often, guesses)
            false += bool(collapsed_seeds(said, labels, names))
            hard = rng.standard_normal(rows)
            for seed in range(seeds):
                easy = (hard + rng.standard_normal(rows)) / 2**0.5 < 0.2533  # noqa: PLR2004 - 0.6
                said[seed] = np.where(easy, labels, (labels + rng.integers(1, 3, rows)) % 3)
            said[0] = np.full(rows, rng.integers(0, 3))
            seen += [one.seed for one in collapsed_seeds(said, labels, names)] == [0]
        print(f"{seeds} seeds, {rows} rows: false {false / repetitions:.4f}, planted {seen / repetitions:.4f}")  # fmt: skip


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=4000)
    repetitions = parser.parse_args().repetitions
    for simulate in (power, power_of_named, unstable, collapsed):
        simulate(np.random.default_rng(0), repetitions)


if __name__ == "__main__":
    main()
