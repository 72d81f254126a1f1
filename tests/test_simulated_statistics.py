"""What the statistics promise holds in simulations, and faults that were once there do not."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from peftune.experiments.compare.pairs import differences
from peftune.stats.crossed import Mean, Unit, crossed_mean
from peftune.stats.intervals import Interval

Array = NDArray[np.float64]

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> Iterator[Any]:
    """Load the program that makes the tables of docs/statistics.md."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location(
            "simulate_statistics", ROOT / "tools/simulate_statistics.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "tools"))
        sys.modules.pop("simulate_statistics", None)
        sys.modules.pop("simulated_runs", None)


def some(cells: Iterator[Any], *patterns: str) -> list[Any]:
    """Choose cells by parts of their names, of which each names at least one."""
    found = list(cells)
    chosen = [[cell for cell in found if pattern in cell.scenario] for pattern in patterns]
    assert all(chosen)
    return list(itertools.chain(*chosen))


# Faults that were once there


def summed_variances(values: Array, unit: Unit) -> Mean:
    """Test as `crossed_mean` did: one Student's t with Satterthwaite's degrees of freedom."""
    seeds, units = values.shape
    if seeds < 3:
        return crossed_mean(values, unit=unit)
    mean = values.mean()
    of_seeds = values.mean(axis=1, keepdims=True)
    of_units = values.mean(axis=0, keepdims=True)
    rest = values - of_seeds - of_units + mean
    free = np.array([seeds - 1, units - 1, (seeds - 1) * (units - 1)])
    squares = np.array([((of_seeds - mean) ** 2).sum() * units, ((of_units - mean) ** 2).sum() * seeds, (rest**2).sum()])  # fmt: skip
    by_seed, by_unit, by_rest = squares / free
    by_seed, by_unit = max(by_seed, by_rest), max(by_unit, by_rest)
    variance = by_seed + by_unit - by_rest
    degrees = variance**2 / (np.array([by_seed, by_unit, by_rest]) ** 2 / free).sum()
    error = (variance / (seeds * units)) ** 0.5
    return Mean(float(mean), None, float(2 * stats.t.sf(abs(mean) / error, degrees)))


def percentile_bootstrap(total: Array, weight: Array) -> Interval:
    """Resample documents and take percentiles, as forgetting's interval was made."""
    generator = np.random.default_rng(len(total))
    drawn = generator.integers(0, len(total), (999, len(total)))
    ratios = total[drawn].sum(axis=1) / weight[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


# Promises


FALSE = (
    "3 seeds, scaling 0.4, lognormal 1.2 documents, 4 strategies, 10 documents",
    "3 seeds, scaling 0.2, normal documents, 4 strategies, 60 documents",
    "5 seeds, adding, lognormal 1.2 documents, 3 strategies, 60 documents",
)


def test_equal_strategies_are_seldom_called_different(tool: Any) -> None:  # noqa: ANN401 - a module
    """Whatever the seeds and documents, at most 5 in 100 and what chance adds; with two seeds never."""
    rows = [tool.simulate(cell, 400) for cell in some(tool.false_forgetting(), *FALSE, "2 seeds, scaling 0.4, lognormal 1.2")]  # fmt: skip

    assert [row.scenario for row in rows if not row.kept] == []
    assert {row.observed for row in rows if row.promised == 0} == {0.0}


def test_summed_variances_call_equal_strategies_different(tool: Any) -> None:  # noqa: ANN401 - a module
    """The former test breaks the promise that the present one keeps on the same data."""
    [cell] = some(tool.false_forgetting(summed_variances), FALSE[1])

    assert not tool.simulate(cell, 400).kept


def test_equal_strategies_of_rare_errors_are_seldom_called_different(tool: Any) -> None:  # noqa: ANN401 - a module
    """Accuracies near 1, and seeds that agree to the row, do not pass for evidence."""
    cells = some(
        tool.false_accuracy(),
        "3 seeds that vary by 0.0, accuracy 0.97, 4 strategies, 50 rows",
        "3 seeds that vary by 0.03, accuracy 0.65, 4 strategies, 300 rows",
    )
    cells += some(
        tool.hostile(), "all seeds answer alike, 3 seeds", "no spread over seeds, 3 seeds"
    )

    assert [cell.scenario for cell in cells if not tool.simulate(cell, 400).kept] == []


SKEWED = "lognormal 0.7, 59 documents, unlike length"


def test_the_interval_of_one_run_holds_for_the_losses_that_it_is_promised_for(tool: Any) -> None:  # noqa: ANN401 - a module
    """Documents of unlike length that lose unevenly."""
    cells = some(tool.run_intervals(), SKEWED, "1 in 20 loses 20 times, 150 documents", "heavy-tailed (t, 3 degrees), 10 documents")  # fmt: skip

    rows = [tool.simulate(cell, 1000) for cell in cells]

    assert None not in {row.promised for row in rows}
    assert [row.scenario for row in rows if not row.kept] == []


def test_the_percentile_bootstrap_misses_what_documents_lose(tool: Any) -> None:  # noqa: ANN401 - a module
    """The former interval breaks the promise that the present one keeps on the same data."""
    [cell] = some(tool.run_intervals(percentile_bootstrap), SKEWED)

    assert not tool.simulate(cell, 1000).kept


@pytest.mark.costly
@pytest.mark.parametrize(
    ("group", "patterns"),
    [
        ("crossed_intervals", ["a difference, 3 seeds, normal documents, 10 documents", "one strategy, 5 seeds, heavy-tailed (t, 3 degrees) documents, 60"]),
        ("accuracy_intervals", ["one strategy, 5 seeds, accuracy 0.97, 50 rows, seeds that vary by 0.0", "3 points, 3 seeds, accuracy 0.65, 50 rows, seeds that vary by 0.03"]),
        ("seed_intervals", ["3 seeds, normal"]),
        ("right_or_wrong", ["base 0.97, 5 points lost, 50 documents", "base 0.08, 0 points lost, 50 documents"]),
        ("matched_accuracy", ["3 seeds, one goes 0.55 as far, runs that vary by 0.1"]),
    ],
)  # fmt: skip
def test_intervals_and_readings_keep_their_promise(
    tool: Any,  # noqa: ANN401 - a module
    group: str,
    patterns: list[str],
) -> None:
    """For few seeds, few rows, rare errors and the smallest numbers of documents."""
    cells = some(getattr(tool, group)(), *patterns)

    rows = [tool.simulate(dataclasses.replace(cell, costly=False), 400) for cell in cells]

    assert None not in {row.promised for row in rows}
    assert [row.scenario for row in rows if not row.kept] == []


@pytest.mark.parametrize("shape", ["lognormal 1.2", "1 in 50 loses 20 times"])
@pytest.mark.parametrize("documents", [20, 100])
def test_retained_is_not_said_where_the_loss_is_the_margin(
    tool: Any,  # noqa: ANN401 - a module
    shape: str,
    documents: int,
) -> None:
    """Also where few documents bear it, which few documents would not show."""
    cells = [
        cell
        for cell in tool.verdicts()
        if cell.promise.startswith('"Retained" where the loss')
        and cell.scenario == f"{shape}, {documents} documents"
    ]

    [row] = [tool.simulate(cell, 500) for cell in cells]

    assert row.kept


# The program itself


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_strategies_are_compared_as_a_comparison_compares_them(
    tool: Any,  # noqa: ANN401 - a module
    seeds: int,
) -> None:
    """The program's shortcut to the p-value tells apart what `differences` does."""
    generator = np.random.default_rng(seeds)
    draw = tool.Losses(seeds, 60, (0.3,) * 3, (1.0, 2.0, 4.0), "lognormal 0.7")
    for _ in range(20):
        scores = draw(generator)
        named = {name: dict(enumerate(score)) for name, score in zip("abc", scores, strict=True)}

        short = tool.compared(scores, "documents", tool.tested)

        whole = differences("figure", named, unit="documents", not_ranked={})
        assert [(pair.mean, pair.p_adjusted, pair.significant) for pair in short] == [
            (pair.mean, pair.p_adjusted, pair.significant) for pair in whole
        ]


def test_an_interval_misses_what_its_test_rejects(tool: Any) -> None:  # noqa: ANN401 - a module
    """The truth lies outside of the interval exactly where its p-value is below 5%."""
    generator = np.random.default_rng(0)
    draw = tool.Losses(3, 20, (0.8,), (1.0,), "lognormal 1.2")
    outside = []
    for _ in range(200):
        [values] = draw(generator)
        low, high = crossed_mean(values, unit="documents").ci95 or (0.0, 0.0)
        outside.append(not low <= 0.15 <= high)
        assert outside[-1] == ((tool.tested(values - 0.15, "documents").p_value or 0.0) < 0.05)

    assert 0 < sum(outside) < 200


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("seed_shape", ["normal", "shared", "collapse"])
def test_what_is_drawn_has_the_mean_that_is_taken_for_the_truth(
    tool: Any,  # noqa: ANN401 - a module
    seed_shape: str,
    scales: bool,
) -> None:
    """Over very many seeds and documents the ratio of sums is the factor times the margin."""
    draw = tool.Losses(2000, 2000, (0.2,), (2.0,), "lognormal 0.7", scales, seed_shape)

    [values] = draw(np.random.default_rng(0))

    # Standard error: the seeds' 0.4 (collapse: 1.2) and the documents' 1.0 of the mean, over 2,000.
    assert values.mean() == pytest.approx(0.2, rel=0.12)


@pytest.mark.parametrize("shape", ["exponential", "lognormal 1.2", "1 in 20 loses 20 times", "1 in 50 loses 20 times"])  # fmt: skip
def test_documents_of_unlike_length_lose_the_margin_together(tool: Any, shape: str) -> None:  # noqa: ANN401 - a module
    """Longer ones lose more per byte, and the ratio of sums is what a closed form makes it."""
    total, weight = tool.Documents(400_000, shape, unlike=True)(np.random.default_rng(0))

    assert total.sum() / weight.sum() == pytest.approx(0.1, rel=0.02)
    assert np.corrcoef(weight, total / weight)[0, 1] > 0.05


def test_answers_are_right_as_often_as_they_say(tool: Any) -> None:  # noqa: ANN401 - a module
    """Over many seeds and rows the accuracy is the one named, and its spread over seeds about so."""
    [values] = tool.Answers(2000, 2000, (0.65,), 0.03)(np.random.default_rng(0))

    assert values.mean() == pytest.approx(0.65, abs=0.02)
    assert values.mean(axis=1).std() == pytest.approx(0.03, rel=0.1)


def test_right_or_wrong_documents_change_by_what_they_say(tool: Any) -> None:  # noqa: ANN401 - a module
    """A base of 0.75 that loses five points, of 400,000 documents."""
    before, after = tool.RightOrWrong(400_000, 0.75, 0.05)(np.random.default_rng(0))

    assert before.mean() == pytest.approx(0.75, abs=0.003)
    assert (after - before).mean() == pytest.approx(-0.05, abs=0.003)


@pytest.mark.parametrize(
    ("promised", "repetitions", "expected"),
    # 0.05 + 3 sqrt(0.05 * 0.95 / n) + 0.01; never is never
    [(0.05, 1900, 0.075), (0.05, 475, 0.09), (0.0, 100, 0.0)],
)
def test_the_bound_is_the_promise_with_three_standard_errors_and_a_point(
    tool: Any,  # noqa: ANN401 - a module
    promised: float,
    repetitions: int,
    expected: float,
) -> None:
    """Few repetitions can tell little."""
    assert tool.bound(promised, repetitions) == pytest.approx(expected)


def test_a_broken_promise_is_marked_and_ends_the_program_with_1(
    tool: Any,  # noqa: ANN401 - a module
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The cells of the former interval, asked for as a user asks."""
    monkeypatch.setattr(tool, "cells", lambda: list(tool.run_intervals(percentile_bootstrap)))
    file = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["simulate_statistics.py", "--repetitions", "500", "--only", SKEWED, "--json", str(file)])  # fmt: skip

    with pytest.raises(SystemExit) as ended:
        tool.main()

    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert re.search(r"^\| lognormal 0\.7, 59 documents \|.* BROKEN\*\* \|", shown, re.MULTILINE)
    assert shown.endswith("1 cells, 1 promises broken\n")
    assert '"kept": false' in file.read_text(encoding="utf-8")


def test_a_cell_repeats_whatever_ran_before_it(tool: Any) -> None:  # noqa: ANN401 - a module
    """Its random numbers are those of its name, and no two cells have one name."""
    [cell] = some(tool.run_intervals(), SKEWED)
    first = tool.simulate(cell, 50)

    tool.simulate(some(tool.run_intervals(), "exponential, 10 documents, one length")[0], 5)

    assert dataclasses.asdict(tool.simulate(cell, 50)) == dataclasses.asdict(first)
    names = [(one.promise, one.scenario) for one in tool.cells()]
    assert len(names) == len(set(names))


def test_the_page_has_every_line_of_the_tables(tool: Any) -> None:  # noqa: ANN401 - a module
    """Every promise and every family of scenarios, in the order of the program, and none is broken."""
    page = (ROOT / "docs/statistics.md").read_text(encoding="utf-8")
    rows = [tool.simulate(dataclasses.replace(cell, repeat=_nothing), 1) for cell in tool.cells()]

    shown = _lines(page.partition("## What was observed")[2])

    assert shown == _lines(tool.tables(rows))
    assert len(shown) > 100
    assert "BROKEN" not in page


def _nothing(_: np.random.Generator) -> dict[str, bool]:
    return {"": False}


def _lines(text: str) -> list[str]:
    """Take headings, and of each line of a table the scenario, its cells and what is promised."""
    lines = [line for line in text.splitlines() if line.startswith(("### ", "| "))]
    return [
        " | ".join(line.split(" | ")[:3]) for line in lines if not line.startswith("| scenario")
    ]
