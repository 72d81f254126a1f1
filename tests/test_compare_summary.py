"""From the evidence of runs to a summary, and to one sentence that claims no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from comparisons import baseline, evidence, labels_of
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from peftune.baselines.baseline import Baseline
from peftune.errors import UsageError
from peftune.experiments.compare.clean_rows import clean_rows
from peftune.experiments.compare.comparison import few_seeds
from peftune.experiments.compare.figures import against_baseline, pitfalls_ahead, pitfalls_found
from peftune.experiments.compare.pairs import differences
from peftune.experiments.compare.summarize import summarize
from peftune.experiments.compare.summary import LEGEND, LeakedRows, Summary, legend, standing_rows
from peftune.experiments.run_evidence import Evidence
from peftune.findings import CheckReport
from peftune.findings.finding import Finding, LeakedScore
from peftune.recipe import read_recipe, resolve, with_strategy
from peftune.reporting.contents import estimate
from peftune.stats.intervals import share_change_interval

ROWS, DOCUMENTS = 400, 30


def right(share: float, *, shift: int = 0) -> NDArray[np.float64]:
    """Answer that share of rows right; a shift moves which ones."""
    answers = (np.arange(ROWS) * 37 % ROWS < share * ROWS).astype(np.float64)
    return np.roll(answers, shift)


MAJORITY = baseline("majority", "majority class", right(0.4))
TFIDF = baseline("tfidf_logistic_regression", "TF-IDF", right(0.6))


def lost(mean: float) -> NDArray[np.float64]:
    """Lose that much on average over documents."""
    return mean + 0.01 * np.sin(np.arange(DOCUMENTS))


def runs(
    strategy: str,
    accuracy: float,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    forgot: float = 0.2,
    by_accuracy: float = 0.1,
    artifact_bytes: int = 2**20,
    examples_seen: int = 3200,
) -> list[Evidence]:
    """Build the runs of a strategy, whose seeds differ by a row or two.

    Its path is a straight line to `forgot` at its end; `by_accuracy` is how much one seed forgot
    more than the other, in hundredths.
    """
    return [
        evidence(
            strategy,
            seed,
            right(accuracy + seed / ROWS, shift=seed),
            lost=lost(forgot),
            path=[(0.3, 0.0), (accuracy + seed / ROWS, forgot + seed * by_accuracy / 100)],
            artifact_bytes=artifact_bytes,
            examples_seen=examples_seen,
        )
        for seed in seeds
    ]


def unread(strategy: str) -> list[Evidence]:
    """Build the runs of a strategy that gives every row the most frequent label."""
    return [
        dataclasses.replace(
            one, rows=dataclasses.replace(one.rows, predicted=np.zeros_like(one.rows.predicted))
        )
        for one in runs(strategy, 0.4)
    ]


def summary_of(
    *strategies: list[Evidence],
    baselines: Sequence[Baseline] = (MAJORITY, TFIDF),
    budgets: Mapping[str, int] | None = None,
    tuned: bool = False,
) -> Summary:
    """Summarize runs, their rows held equal."""
    return summarize(
        [one for of in strategies for one in of],
        baselines=baselines,
        held_equal="tuned" if tuned else "examples_seen",
        budgets=budgets,
    )


# The summary


def test_standings_are_ordered_by_accuracy_with_their_figures() -> None:
    """Every figure is the mean over seeds; the seeds stand in order whatever order they came in."""
    low, high = runs("lora", 0.7), runs("full", 0.8, forgot=0.3)

    summary = summary_of(low[::-1], high)

    first, second = summary.standings
    assert (first.strategy, second.strategy) == ("full", "lora")
    assert second.seeds == [0, 1, 2]
    assert second.figures["accuracy"].values == [0.7, 0.7025, 0.705]
    assert second.figures["accuracy"].mean == pytest.approx(0.7025)
    assert first.figures["forgetting.text"].mean == pytest.approx(
        float(np.average(lost(0.3), weights=1 + np.arange(DOCUMENTS) % 3))
    )
    assert first.figures["artifact_bytes"].ci95 == (2**20, 2**20)
    assert (first.examples_seen, first.steps, first.learned) == (3200, 200, True)
    assert list(first.figures) == [
        "accuracy",
        "macro_f1",
        "forgetting.text",
        "train_seconds",
        "peak_memory_bytes",
        "artifact_bytes",
        "trainable_parameters",
    ]


def test_pairs_are_told_apart_by_rows_and_letters_say_so() -> None:
    """Eighty rows of 400 make a significant difference, two rows do not."""
    summary = summary_of(runs("a", 0.8), runs("b", 0.795), runs("c", 0.6))

    accuracy = {(d.first, d.second): d for d in summary.differences if d.key == "accuracy"}
    assert [pair.significant for pair in accuracy.values()] == [False, True, True]
    assert accuracy["a", "c"].mean == pytest.approx(0.2)
    assert set(accuracy["a", "c"].mcnemar) == {0, 1, 2}
    assert [standing.ties["accuracy"] for standing in summary.standings] == ["a", "a", "b"]
    assert [standing.ties["forgetting.text"] for standing in summary.standings] == ["a", "a", "a"]


def test_forgetting_is_positive_where_a_value_to_have_much_of_fell() -> None:
    """The sign is that of the report, for every probe."""
    fell = [
        evidence("a", seed, right(0.8), lost=lost(0.3), higher_is_better=True) for seed in (0, 1)
    ]

    [standing] = summary_of(fell).standings

    forgetting = standing.figures["forgetting.text"]
    assert forgetting.mean == pytest.approx(fell[0].run.forgetting["text"].forgetting)
    assert (forgetting.mean or 0) > 0.29


def test_an_interval_stays_within_what_a_figure_can_be() -> None:
    """No accuracy lies above 1, whatever Student's t says of three seeds."""
    near_one = [evidence("a", seed, right(0.9 + seed / 20)) for seed in (0, 1, 2)]

    [standing] = summary_of(near_one).standings

    interval = standing.figures["accuracy"].ci95
    assert interval is not None
    assert interval[1] == 1.0


def test_a_figure_that_some_runs_lack_is_averaged_over_the_others_and_says_so() -> None:
    """A resumed run does not know its seconds."""
    known = [evidence("a", seed, right(0.8), train_seconds=float(10 + seed)) for seed in (0, 1, 2)]
    resumed = evidence("a", 3, right(0.8), train_seconds=None)

    [standing] = summary_of([*known, resumed]).standings

    seconds = standing.figures["train_seconds"]
    assert (seconds.mean, seconds.values) == (11.0, [10.0, 11.0, 12.0, None])
    assert seconds.reason == "not measured in 1 of 4 runs"
    [two] = summary_of([*known[:2], resumed]).standings
    assert two.figures["train_seconds"].ci95 is None
    assert two.figures["train_seconds"].reason == (
        "not measured in 1 of 3 runs; two seeds cannot tell; three can"
    )
    [none] = summary_of([resumed]).standings
    assert none.figures["train_seconds"].mean is None
    assert none.figures["train_seconds"].reason == "not measured in any run"


def test_a_pair_that_was_trained_unequally_is_shown_and_not_ranked() -> None:
    """The difference stands there with its reason, and the answer names no strategy."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.7, examples_seen=1600))

    reason = "not ranked: full had 3,200 rows read in training and lora 1,600 (seed 0)"
    assert {(pair.ranked, pair.reason) for pair in summary.differences} == {(False, reason)}
    assert [pair.ranked for pair in summary.matched[0].differences] == [False]


@pytest.mark.parametrize(
    ("budgets", "reason"),
    [
        (None, "not ranked: no tuning budget is known for full and lora"),
        ({"full": 20}, "not ranked: no tuning budget is known for lora"),
        ({"full": 20, "lora": 1000}, "not ranked: full was tuned with 20 trials and lora with 1,000"),
        ({"full": 20, "lora": 20}, None),
    ],
)  # fmt: skip
def test_tuned_strategies_are_ranked_on_an_equal_budget(
    budgets: Mapping[str, int] | None, reason: str | None
) -> None:
    """Rows read may differ where tuning chose them; the number of trials may not."""
    summary = summary_of(
        runs("full", 0.8), runs("lora", 0.7, examples_seen=1600), budgets=budgets, tuned=True
    )

    assert {one.reason for one in summary.differences if one.key == "accuracy"} == {reason}
    assert {pair.ranked for pair in summary.differences} == {reason is None}


def test_fronts_set_accuracy_against_every_cost() -> None:
    """The smaller file of the less accurate strategy keeps it on the front of bytes."""
    summary = summary_of(runs("full", 0.8, artifact_bytes=2**24), runs("lora", 0.7))

    fronts = {front.key: front.strategies for front in summary.fronts}
    assert fronts["artifact_bytes"] == ["full", "lora"]
    assert fronts["peak_memory_bytes"] == ["full"]
    assert list(fronts) == ["forgetting.text", "train_seconds", "peak_memory_bytes", "artifact_bytes", "trainable_parameters"]  # fmt: skip


def test_the_baselines_stands_lowest_first() -> None:
    """A baseline that could not be measured stands before all."""
    absent = Baseline("few_shot_4", "4 examples", reason="too long")

    summary = summary_of(runs("a", 0.8), baselines=(TFIDF, MAJORITY, absent))

    assert [baseline.name for baseline in summary.baselines] == [
        "few_shot_4",
        "majority",
        TFIDF.name,
    ]


def test_runs_that_cannot_be_paired_are_refused() -> None:
    """Other rows, other documents, and two runs of one name: each with its message."""
    first = evidence("a", 0, right(0.8), lost=lost(0.1))
    with pytest.raises(UsageError) as refused:
        summary_of([first, evidence("b", 0, right(0.8)[:-1], lost=lost(0.1))])
    assert str(refused.value) == (
        "'runs/a-seed0' and 'runs/b-seed0' do not have the same rows, so they cannot be compared. Run them on the same data."
    )
    with pytest.raises(UsageError) as refused:
        summary_of([first, evidence("b", 0, right(0.8), lost=lost(0.1)[:-1])])
    assert str(refused.value) == (
        "'runs/a-seed0' and 'runs/b-seed0' did not measure 'text' on the same documents, so they cannot be compared. Run them with the same probes."
    )
    with pytest.raises(UsageError) as refused:
        summary_of([first, first])
    assert str(refused.value) == (
        "'runs/a-seed0' and 'runs/a-seed0' are both runs of 'a' with seed 0. Leave one of them out."
    )


def test_a_probe_that_one_strategy_lacks_is_no_figure_of_it() -> None:
    """Its figure is None with a reason, and no pair of it is compared."""
    summary = summary_of(runs("a", 0.8), [evidence("b", seed, right(0.7)) for seed in range(3)])

    figure = summary.standings[1].figures["forgetting.text"]
    assert (figure.mean, figure.reason) == (None, "not measured in every run")
    assert [pair.key for pair in summary.differences] == ["accuracy"]
    assert "forgetting.text" not in summary.standings[1].ties


def test_identical_strategies_tie_in_everything() -> None:
    """The same answers and documents: differences of zero, one letter, both on every front."""
    summary = summary_of(runs("a", 0.8), runs("b", 0.8))

    assert {(pair.mean, pair.p_value, pair.significant) for pair in summary.differences} == {
        (0.0, 1.0, False)
    }
    assert [standing.ties["accuracy"] for standing in summary.standings] == ["a", "a"]
    assert all(front.strategies == ["a", "b"] for front in summary.fronts)
    scores = {name: dict.fromkeys(range(3), right(0.8)) for name in "ab"}
    assert differences("accuracy", scores, unit="rows", not_ranked={})[0].p_adjusted == 1.0


# The answer


def test_the_answer_names_a_clear_winner_and_what_forgets_less() -> None:
    """Accuracy decides; who forgets less at matched accuracy is said beside it."""
    summary = summary_of(
        runs("full", 0.8, forgot=0.9, artifact_bytes=20 * 2**20), runs("lora", 0.7, forgot=0.2)
    )

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.761, 0.839], is clearly above that of lora (0.703), and its file takes 20 MiB; but at an equal accuracy of 0.703 lora forgets less (text: full +0.722, lora +0.201)."
    )


def test_the_answer_says_that_a_winner_also_forgets_least() -> None:
    """Most accurate, and at the accuracy of the others forgot less."""
    summary = summary_of(runs("full", 0.8, forgot=0.1), runs("lora", 0.7, forgot=0.5))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.761, 0.839], is clearly above that of lora (0.703), and its file takes 1 MiB; at an equal accuracy of 0.703 it also forgets least (text: full +0.081, lora +0.501)."
    )


def test_the_answer_does_not_praise_a_strategy_that_only_learned_less() -> None:
    """On one line from the base, the nearer end forgot less, and at matched accuracy it did not."""
    summary = summary_of(runs("full", 0.8, forgot=0.5), runs("lora", 0.7, forgot=0.4))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.761, 0.839], is clearly above that of lora (0.703), and its file takes 1 MiB; at an equal accuracy of 0.703 none is shown to forget less (text: full +0.401, lora +0.401)."
    )


def test_the_answer_breaks_a_tie_by_forgetting_at_matched_accuracy() -> None:
    """Equal in accuracy, unequal in what it cost."""
    summary = summary_of(
        runs("full", 0.8, forgot=0.9), runs("lora", 0.795, forgot=0.2, artifact_bytes=500_000)
    )

    assert summary.answer == (
        "full is the most accurate, 0.802 [0.761, 0.839], but lora 0.797 [0.755, 0.834] is not significantly different from it; with 3 seeds a difference in accuracy of 0.009 would mostly be seen, and no number of seeds would show a difference this small, but more rows might; at an equal accuracy of 0.797 lora forgets less than full (text: full +0.892, lora +0.201), so use lora (a file of 488 KiB)."
    )


def test_the_answer_leaves_a_tie_a_tie() -> None:
    """Neither accuracy nor forgetting differs significantly; the file sizes are said."""
    summary = summary_of(
        runs("full", 0.8, artifact_bytes=20 * 2**20, by_accuracy=9),
        runs("lora", 0.7975, by_accuracy=1),
        runs("lora-8bit", 0.795, by_accuracy=5),
    )

    assert summary.answer == (
        "full is the most accurate, 0.802 [0.761, 0.839], but lora 0.800 [0.758, 0.836] and lora-8bit 0.797 [0.755, 0.834] are not significantly different from it; with 3 seeds a difference in accuracy of 0.010 between full and lora would mostly be seen, and no number of seeds would show a difference this small, but more rows might; what they forget at an equal accuracy of 0.797 does not differ significantly either (text: full +0.287, lora +0.209, lora-8bit +0.250); the smallest files are those of lora and lora-8bit, 1 MiB (full 20 MiB)."
    )


def test_the_answer_with_one_seed_recommends_nothing() -> None:
    """However far apart two models are, one seed each says nothing of the strategies."""
    summary = summary_of(runs("full", 0.9, seeds=[0]), runs("lora", 0.7, seeds=[0]))

    assert summary.answer == (
        "One seed speaks of these models, not of their strategies: accuracy full 0.900 [0.867, 0.926] and lora 0.700 [0.653, 0.743], forgetting at an equal accuracy of 0.700 (text: full +0.133, lora +0.200); compare three seeds or more."
    )


TWO = [
    *[
        evidence("full", seed, right(accuracy), lost=lost(forgot))
        for seed, accuracy, forgot in ((0, 0.8, 0.785), (1, 0.79, 1.012))
    ],
    *[
        evidence("lora", seed, right(accuracy), lost=lost(forgot))
        for seed, accuracy, forgot in ((0, 0.7, 0.053), (1, 0.71, 0.046))
    ],
    *[evidence("head-only", seed, right(0.65), lost=0 * lost(0.0)) for seed in (0, 1)],
]
"""Two seeds whose forgetting differs as seeds of `full` do."""


def test_the_answer_with_two_seeds_gives_each_and_recommends_nothing() -> None:
    """Forgetting stands beside accuracy, each seed for itself, and what would tell is said."""
    summary = summary_of(TWO)

    assert summary.answer == (
        "Two seeds cannot show a significant difference; three can: accuracy full 0.800/0.790, lora 0.700/0.710 and head-only 0.650/0.650; forgetting on text full +0.785/+1.012, lora +0.053/+0.046 and head-only +0.000/+0.000; add a third seed; the finished runs are kept."
    )


def test_two_seeds_have_neither_intervals_nor_letters() -> None:
    """Nothing is claimed of a third seed: no interval, no test, no tie; the rows' test stays."""
    summary = summary_of(TWO)

    assert {figure.ci95 for one in summary.standings for figure in one.figures.values()} == {None}
    assert [standing.ties for standing in summary.standings] == [{}, {}, {}]
    assert {(pair.ci95, pair.p_value, pair.significant) for pair in summary.differences} == {
        (None, None, False)
    }
    assert summary.differences[0].mcnemar[0].p_value < 0.001


def test_the_table_of_two_seeds_shows_each() -> None:
    """In the place of an interval from below zero to twice the figure stand the two figures."""
    summary = summary_of(TWO)

    table = {row[""]: row["full, 2 seeds"] for row in standing_rows(summary)}

    assert table["accuracy"] == "0.795 (0.800, 0.790)"
    assert table["forgetting, text"] == "+0.8989 (+0.7854, +1.0124)"
    assert not any("ties" in name for name in table)
    assert legend(summary) == (
        f"{LEGEND} Parentheses: the figure of each of two seeds, which have no interval."
    )
    assert estimate(summary.standings[0].figures["forgetting.text"], "forgetting.text") == (
        "+0.8989",
        "+0.7854, +1.0124",
    )
    assert estimate(summary.standings[2].figures["artifact_bytes"], "artifact_bytes") == (
        "1 MiB",
        "both seeds",
    )


def test_a_strategy_of_which_two_seeds_are_left_has_no_letter_and_the_others_keep_theirs() -> None:
    """A failed run does not turn two seeds into evidence, and takes none from the others."""
    summary = summary_of(
        runs("full", 0.8), runs("lora", 0.7), runs("head-only", 0.65, seeds=(0, 2))
    )

    assert [one.ties.get("accuracy") for one in summary.standings] == ["a", "b", None]
    assert summary.answer.endswith("; head-only cannot be ranked beside it.")
    table = next(row for row in standing_rows(summary) if row[""] == "  ties in accuracy")
    assert list(table.values()) == ["  ties in accuracy", "a", "b", "-"]


def test_strategies_that_share_but_two_seeds_have_no_letters() -> None:
    """Three seeds each do not test each other where only two are the same."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.7, seeds=(1, 2, 3)))

    assert [one.ties for one in summary.standings] == [{}, {}]
    assert summary.answer.startswith("Two seeds cannot show a significant difference; three can: ")


def test_one_seed_has_no_letters_and_no_significance() -> None:
    """Its interval over rows stays, and says of which models it speaks."""
    summary = summary_of(runs("full", 0.9, seeds=[0]), runs("lora", 0.6, seeds=[0]))

    assert [one.ties for one in summary.standings] == [{}, {}]
    assert [pair.significant for pair in summary.differences] == [False, False]
    assert {pair.reason for pair in summary.differences} == {
        "one seed: the interval speaks of this seed alone"
    }
    assert legend(summary) == (
        "Brackets: 95% intervals over rows or documents, of one model each; another seed makes others. Forgetting: bits per byte of general text, after minus before; positive is worse."
    )


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "one seed speaks of its models, not of their strategies. The figures will stand there without a verdict; add seeds (such as 0,1,2), now or later: finished runs are kept."),
        (2, "two seeds cannot tell; three can. The figures will stand there without a verdict; add seeds (such as 0,1,2), now or later: finished runs are kept."),
        (3, None),
    ],
)  # fmt: skip
def test_too_few_seeds_are_said_before_the_runs(count: int, said: str | None) -> None:
    """While it costs nothing to add one."""
    assert few_seeds(count) == said


def test_the_answer_says_where_a_comparison_is_unequal() -> None:
    """No strategy is named, and why."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.7, examples_seen=1600))

    assert summary.answer == (
        "No strategy is named, for the comparison is not an equal one: full had 3,200 rows read in training and lora 1,600 (seed 0); the accuracies are full 0.802 [0.761, 0.839] and lora 0.703 [0.656, 0.745]; forgetting on text full +0.200 [+0.197, +0.204] and lora +0.200 [+0.197, +0.204]."
    )


def test_the_answer_leaves_aside_what_cannot_be_ranked() -> None:
    """Two of three are equal in training; the third failed in all seeds but one."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.7), runs("head-only", 0.65, seeds=[0]))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.761, 0.839], is clearly above that of lora (0.703), and its file takes 1 MiB; at an equal accuracy of 0.650 it also forgets least (text: full +0.140, lora +0.175); head-only cannot be ranked beside it."
    )


def test_the_answer_says_that_nothing_was_learned() -> None:
    """Forgetting nothing is no merit of a model that learned nothing."""
    summary = summary_of(unread("full"), unread("lora"))

    assert summary.answer == (
        "Nothing was learned: no strategy does clearly better than can be done without reading a row (always giving the most frequent label has an accuracy of 0.400), so there is none to use, and what they forgot says nothing."
    )


def test_the_answer_says_that_the_baseline_is_not_beaten() -> None:
    """Counting words does as well, so there is no strategy to recommend."""
    summary = summary_of(runs("full", 0.62), runs("lora", 0.58))

    assert summary.answer == (
        "No strategy clearly beats the baseline TF-IDF (accuracy 0.600): the most accurate, full, reaches 0.623 [0.574, 0.669], so the baseline is the cheaper choice until there is more to learn from; forgetting on text full +0.200 [+0.197, +0.204] and lora +0.200 [+0.197, +0.204]."
    )


def test_one_seed_that_does_not_beat_the_baseline_speaks_of_these_models() -> None:
    """Another seed might; with two it is as little known."""
    one, two = (
        summary_of(runs("full", 0.58, seeds=seeds), runs("lora", 0.55, seeds=seeds)).answer
        for seeds in ([0], [0, 1])
    )

    assert one == (
        "None of these models clearly beats the baseline TF-IDF (accuracy 0.600): the most accurate, full, reaches 0.580 [0.531, 0.627], so the baseline is the cheaper choice until there is more to learn from; forgetting on text full +0.200 [+0.197, +0.204] and lora +0.200 [+0.197, +0.204]; one seed speaks of these models, not of their strategies."
    )
    assert two.startswith("None of these models clearly beats the baseline TF-IDF")
    assert two.endswith("; two seeds cannot show a significant difference; three can.")


def test_the_answer_names_who_does_not_beat_the_baseline_and_who_learned_nothing() -> None:
    """Beside a clear winner."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.61), unread("head-only"))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.761, 0.839], is clearly above that of lora (0.613), and its file takes 1 MiB; at an equal accuracy of 0.612 it also forgets least (text: full +0.125, lora +0.201); lora does not clearly beat the baseline TF-IDF (0.600); head-only learned nothing."
    )


def test_the_answer_for_one_strategy_alone() -> None:
    """There is nothing to compare it with."""
    assert summary_of(runs("full", 0.8)).answer == (
        "Only full was run: its accuracy is 0.802 [0.761, 0.839], and its file takes 1 MiB; forgetting on text full +0.200 [+0.197, +0.204]; a comparison takes two strategies."
    )
    assert summary_of(runs("full", 0.8), unread("lora")).answer == (
        "Use full, the only one that learned the task: its accuracy is 0.802 [0.761, 0.839], and its file takes 1 MiB; forgetting on text full +0.200 [+0.197, +0.204]; lora learned nothing."
    )
    assert summary_of([]).answer == "No run finished, so there is nothing to compare."


# Rows that were read in training

LEAKED = np.arange(200) < 60
"""Of the planted case: 60 of 200 rows."""


def planted(first: int, clean: int) -> NDArray[np.float64]:
    """Answer so many of the 60 leaked rows right, and so many of the 140 clean ones."""
    row = np.arange(200)
    return ((row < first) | ((row >= 60) & (row < 60 + clean))).astype(np.float64)


def learned_by_heart(
    strategy: str, first: int, clean: int, *, points: Sequence[float] = (), forgot: float = 0.2
) -> list[Evidence]:
    """Build three seeds of a strategy on rows of which 60 leaked."""
    right_ = planted(first, clean)
    return [
        evidence(
            strategy,
            seed,
            right_,
            lost=lost(forgot),
            path=[(0.3, 0.0), (float(right_.mean()), forgot)],
            leaked=LEAKED,
            path_without_leaked=points,
        )
        for seed in (0, 1, 2)
    ]


HEART = baseline("tfidf_logistic_regression", "TF-IDF", planted(59, 118))
"""Right in 59 of the 60 leaked rows and 118 of the others: 177 / 200 = 0.885, 118 / 140 = 0.843."""
FREQUENT = baseline("majority", "majority class", planted(20, 50))
LEFT_OUT = "60 of 200 test rows were read in training and are left out here."


def test_the_answer_rests_on_the_rows_that_were_not_read_in_training() -> None:
    """TF-IDF has 177 of all 200 rows and lora 174, for it learned the leaked ones by heart.

    Of the 140 others lora has 134 (0.957) and TF-IDF 118 (0.843): 16 more, 0.114.
    """
    summary = summary_of(
        learned_by_heart("lora", 40, 134, points=[0.3, 0.957]),
        learned_by_heart("full", 60, 120, points=[0.3, 0.857]),
        baselines=(FREQUENT, HEART),
    )

    lora, full = summary.standings
    assert (lora.strategy, lora.figures["accuracy"].values) == ("lora", [134 / 140] * 3)
    assert full.figures["accuracy"].mean == pytest.approx(120 / 140)
    assert [(baseline.name, baseline.accuracy, baseline.n) for baseline in summary.baselines] == [
        ("majority", 50 / 140, 140),
        ("tfidf_logistic_regression", 118 / 140, 140),
    ]
    [of_lora, of_full] = summary.against_baseline
    assert (of_lora.strategy, of_lora.baseline, of_lora.n, of_lora.beats) == (
        "lora",
        "tfidf_logistic_regression",
        140,
        True,
    )
    assert of_lora.mean == pytest.approx(16 / 140)
    assert of_full.mean == pytest.approx(2 / 140)
    assert not of_full.beats
    difference = next(pair for pair in summary.differences if pair.key == "accuracy")
    assert difference.mean == pytest.approx(14 / 140)
    assert (difference.mcnemar[0].n10, difference.mcnemar[0].n01) == (14, 0)
    assert summary.leaked == LeakedRows("test", 200, 60)
    assert summary.answer.startswith("Use lora: its accuracy, 0.957 [")
    assert "; full does not clearly beat the baseline TF-IDF (0.843). " in summary.answer
    assert summary.answer.endswith(LEFT_OUT)


def test_leaked_rows_have_no_say_in_any_figure() -> None:
    """The comparison is that of the same runs on the 140 clean rows alone.

    Macro F1, which the runs made up here do not have, is that of scikit-learn.
    """
    shares = {"lora": (40, 134, 0.2), "full": (60, 120, 0.9), "head-only": (10, 70, 0.0)}
    with_them = [
        learned_by_heart(name, *counts[:2], points=[0.3, counts[1] / 140], forgot=counts[2])
        for name, counts in shares.items()
    ]
    alone = [
        [
            evidence(
                name,
                seed,
                planted(first, clean)[60:],
                lost=lost(forgot),
                path=[(0.3, 0.0), (clean / 140, forgot)],
            )
            for seed in (0, 1, 2)
        ]
        for name, (first, clean, forgot) in shares.items()
    ]

    summary = summary_of(*with_them, baselines=(FREQUENT, HEART))
    expected = summary_of(
        *alone,
        baselines=(
            baseline("majority", "majority class", planted(20, 50)[60:]),
            baseline("tfidf_logistic_regression", "TF-IDF", planted(59, 118)[60:]),
        ),
    )

    assert summary.answer == f"{expected.answer} {LEFT_OUT}"
    assert summary.differences == expected.differences
    assert summary.matched == expected.matched
    assert summary.fronts == expected.fronts
    assert summary.against_baseline == expected.against_baseline
    for found, wanted in zip(summary.standings, expected.standings, strict=True):
        assert (found.strategy, found.learned, found.ties) == (
            wanted.strategy,
            wanted.learned,
            wanted.ties,
        )
        for key, figure in found.figures.items():
            assert key == "macro_f1" or figure == wanted.figures[key]
    [lora] = [one for one in summary.standings if one.strategy == "lora"]
    rows = with_them[0][0].rows
    f1 = f1_score(rows.labels[60:], rows.predicted[60:], average="macro")
    assert lora.figures["macro_f1"].mean == pytest.approx(f1)


def test_the_table_says_which_rows_are_left_out() -> None:
    """Below it, in one sentence, and the difference to the best baseline stands in it."""
    summary = summary_of(
        learned_by_heart("lora", 40, 134, points=[0.3, 0.957]), baselines=(FREQUENT, HEART)
    )

    assert legend(summary).endswith(LEFT_OUT)
    [row] = [row for row in standing_rows(summary) if row[""] == "  minus TF-IDF"]
    assert row["lora, 3 seeds"].startswith("+0.114 [+0.0")


def test_paths_that_count_the_leaked_rows_are_not_read() -> None:
    """The points of an earlier version's paths have one accuracy each, on all rows."""
    summary = summary_of(
        learned_by_heart("lora", 40, 134), learned_by_heart("full", 60, 120), baselines=(HEART,)
    )

    assert summary.matched == []
    assert summary.answer.endswith(
        "60 of 200 test rows were read in training and are left out here; forgetting at equal accuracy is not read, for the points of the paths count them."
    )


def test_where_all_rows_leaked_nothing_is_said_of_any_strategy() -> None:
    """There is one sentence, no figure and no verdict."""
    everything = [
        evidence("lora", seed, planted(60, 140), leaked=np.ones(200, dtype=np.bool_))
        for seed in (0, 1, 2)
    ]

    summary = summary_of(everything, baselines=(FREQUENT, HEART))

    assert summary.answer == (
        "All 200 test rows were read in training, so they say nothing of other rows: there is no accuracy to compare, and none is named. Score rows that were not read in training."
    )
    assert (summary.standings, summary.differences, summary.baselines) == ([], [], [])
    assert standing_rows(summary) == []


def test_a_baseline_whose_answers_are_not_kept_has_no_accuracy_on_the_clean_rows() -> None:
    """Its figure counts the leaked rows; one that was asked about no clean row has none either."""
    bare = dataclasses.replace(HEART, rows=(), predicted=None)
    asked = baseline("few_shot_4", "4 examples", planted(59, 118), rows=range(30))

    summary = summary_of(
        learned_by_heart("lora", 40, 134, points=[0.3, 0.957]), baselines=(FREQUENT, bare, asked)
    )

    reasons = {
        baseline.name: baseline.reason
        for baseline in summary.baselines
        if baseline.accuracy is None
    }
    assert reasons == {
        "tfidf_logistic_regression": "which rows it answers right is not kept",
        "few_shot_4": "all rows that it was asked about were read in training",
    }
    assert {one.baseline for one in summary.against_baseline} == {"majority"}


def test_a_sample_of_rows_is_scored_on_its_clean_part() -> None:
    """Of 80 rows that the base was asked about 20 leaked; what the details say of all goes."""
    asked = dataclasses.replace(
        baseline("few_shot_4", "4 examples", planted(59, 118), rows=range(40, 120)),
        details={
            "shots": 4,
            "n": 80,
            "uncalibrated": {"accuracy": 1.0},
            "choices": [{"seed": 0, "accuracy": 1.0, "log_loss": 0.1}],
        },
    )

    summary = summary_of(
        learned_by_heart("lora", 40, 134, points=[0.3, 0.957]), baselines=(FREQUENT, asked)
    )

    found = next(one for one in summary.baselines if one.name == "few_shot_4")
    assert (found.n, found.accuracy) == (60, 1.0)  # rows 60 to 119, of which TF-IDF has all
    assert found.details == {"shots": 4, "n": 60, "choices": [{"seed": 0}]}
    assert [one.n for one in summary.against_baseline] == [60]


def test_rows_that_a_run_counts_and_does_not_name_are_said_to_be_counted() -> None:
    """An earlier version kept how many rows leaked, and not which."""
    score = LeakedScore("test", 200, 60, {"accuracy": 0.87}, {"accuracy": 0.957})
    old = [
        dataclasses.replace(
            one,
            run=dataclasses.replace(
                one.run, checks=CheckReport("warn", {}, (), leaked_score=score)
            ),
        )
        for one in (evidence("lora", seed, planted(40, 134)) for seed in (0, 1, 2))
    ]

    summary = summary_of(old, baselines=(FREQUENT, HEART))

    assert summary.standings[0].figures["accuracy"].mean == pytest.approx(174 / 200)
    assert summary.answer.endswith(
        "60 of 200 test rows were read in training and are counted here, for these run folders do not say which they are."
    )


# Against the best baseline


def one_seed(strategy: str, answers: NDArray[np.float64]) -> list[Evidence]:
    """Build a run."""
    return [evidence(strategy, 0, answers)]


def wins_and_losses(
    rows: int, both: int, wins: int, losses: int
) -> tuple[NDArray[np.float64], ...]:
    """Answer rows as a strategy and a baseline: both right, the one alone, the other alone."""
    row = np.arange(rows)
    strategy = (row < both + wins).astype(np.float64)
    other = ((row < both) | ((row >= both + wins) & (row < both + wins + losses))).astype(
        np.float64
    )
    return strategy, other


def test_a_baseline_that_errs_on_other_rows_is_beaten_by_a_margin_alone() -> None:
    """Accuracy 0.680 with Wilson's interval from 0.633 lies above the number 0.630, and is not better.

    101 rows are won and 81 lost: 20 of 400, with a standard error of sqrt(182 - 1) / 400 = 0.034.
    """
    strategy, other = wins_and_losses(400, 171, 101, 81)
    summary = summary_of(
        one_seed("lora", strategy), baselines=(MAJORITY, baseline("tfidf", "TF-IDF", other))
    )

    interval = summary.standings[0].figures["accuracy"].ci95
    assert interval is not None
    assert interval[0] > 0.63 == other.mean()
    [found] = summary.against_baseline
    assert found.mean == pytest.approx(0.05)
    assert (found.beats, found.n) == (False, 400)
    error = (181 / 399) ** 0.5 / 20  # of the mean: 182 - 400 * 0.05^2 = 181
    assert found.ci95 == pytest.approx((0.05 - 1.966 * error, 0.05 + 1.966 * error), abs=2e-3)
    assert summary.answer.startswith("None of these models clearly beats the baseline TF-IDF")


def test_a_baseline_that_errs_on_the_same_rows_is_beaten_by_a_few() -> None:
    """Accuracy 0.620 [0.572, 0.666] does not lie above 0.600, but 8 rows are won and none is lost.

    McNemar's exact test gives 2 * 0.5^8 = 0.008.
    """
    strategy, other = wins_and_losses(400, 240, 8, 0)
    summary = summary_of(
        one_seed("lora", strategy), baselines=(MAJORITY, baseline("tfidf", "TF-IDF", other))
    )

    [found] = summary.against_baseline
    assert found.mean == pytest.approx(0.02)
    assert found.beats
    assert (
        found.reason == "fewer than three seeds: the interval speaks of these models on other rows"
    )


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_two_rows_are_no_proof_however_often_they_are_won(seeds: int) -> None:
    """McNemar's exact test gives 0.5, and the interval is that of Agresti and Min."""
    strategy, other = wins_and_losses(400, 240, 2, 0)
    runs_ = [evidence("lora", seed, strategy) for seed in range(seeds)]

    [found] = summary_of(runs_, baselines=(baseline("tfidf", "TF-IDF", other),)).against_baseline

    assert found.ci95 is not None
    assert found.ci95[0] == pytest.approx(share_change_interval(other, strategy)[0], abs=1e-5)
    assert not found.beats


def test_strategies_that_are_the_baseline_seldom_beat_it() -> None:
    """Of 100 comparisons of equals on 200 rows 2.5 may be wrong, where they seldom differ too.

    An interval by the spread of two rows or three is too sure of itself: 9 in 100 are.
    """
    rng = np.random.default_rng(0)
    for differ in (0.01, 0.05):
        wrong = 0
        for _ in range(500):
            gained = rng.choice([1.0, -1.0, 0.0], 200, p=[differ / 2, differ / 2, 1 - differ])
            strategy, other = (gained > 0).astype(float), (gained < 0).astype(float)
            found = against_baseline(
                "lora", {0: evidence("lora", 0, strategy)}, bare_baseline(other)
            )
            assert found is not None
            wrong += found.beats
        assert wrong / 500 <= 0.04


def bare_baseline(answers: NDArray[np.float64]) -> Baseline:
    """Measure a baseline without the bootstrap of its interval."""
    rows = tuple(map(str, range(len(answers))))
    accuracy = float(answers.mean())
    labels = labels_of(len(answers))
    predicted = (tuple(np.where(answers > 0, labels, (labels + 1) % 3).tolist()),)
    return Baseline("tfidf", "TF-IDF", accuracy, accuracy, rows=rows, predicted=predicted)


def test_choices_of_examples_count_by_the_share_that_is_right() -> None:
    """Asked about six rows, the base has 1, 1, 2/3, 1/3, 0 and 0 of them; the strategy five: 2 more.

    The other rows were not asked about, so that what the strategy says of them does not count.
    """
    share = np.array([1, 1, 2 / 3, 1 / 3, 0, 0] + [0] * 4)
    prompted = baseline("few_shot_4", "4 examples", share, rows=range(6))
    strategy = np.array([1, 1, 1, 1, 1, 0] + [1] * 4, dtype=np.float64)
    runs_ = [evidence("lora", seed, strategy) for seed in range(3)]

    [found] = summary_of(runs_, baselines=(prompted,)).against_baseline

    assert found.n == 6
    assert found.mean == pytest.approx(2 / 6)


def test_of_two_seeds_the_mean_of_both_is_set_against_the_baseline() -> None:
    """One wins 10 rows and the other 30: 20 of 400, with an interval over rows."""
    first, other = wins_and_losses(400, 240, 10, 0)
    second, _ = wins_and_losses(400, 240, 30, 0)
    runs_ = [evidence("lora", seed, answers) for seed, answers in enumerate((first, second))]

    [found] = summary_of(runs_, baselines=(baseline("tfidf", "TF-IDF", other),)).against_baseline

    assert found.mean == pytest.approx(0.05)
    assert found.beats
    assert (
        found.reason == "fewer than three seeds: the interval speaks of these models on other rows"
    )


@pytest.mark.parametrize(("share", "beats"), [(0.66, False), (0.72, True)])
def test_an_accuracy_alone_is_beaten_where_the_intervals_do_not_overlap(
    share: float, beats: bool
) -> None:
    """Wilson's interval of 0.600 in 400 rows ends at 0.647, of 0.660 it begins at 0.612."""
    bare = dataclasses.replace(TFIDF, rows=(), predicted=None)

    summary = summary_of(one_seed("lora", right(share)), baselines=(MAJORITY, bare))

    [found] = summary.against_baseline
    assert (found.beats, found.ci95, found.n) == (beats, None, None)
    assert found.reason == (
        "which rows it answers right is not kept: it is beaten where the two intervals do not overlap"
    )


# What a comparison should have been told before


@pytest.mark.parametrize("name", ["quickstart", "local-csv", "tweets-lora"])
def test_the_shipped_recipes_give_unlike_strategies_unlike_rates(name: str) -> None:
    """Whatever strategies are compared: those that share a rate want the same."""
    assert ahead(name, strategies=("full", "lora", "lora-8bit", "head-only")) == []


@pytest.mark.parametrize(
    ("overrides", "strategies", "expected"),
    [
        (["compare.training={}"], ("full", "lora"), ["shared-learning-rate"]),
        (["compare.training={}"], ("lora", "lora-8bit"), []),
        (["compare.training={}", "compare.held_equal=tuned"], ("full", "lora"), []),
        (["compare.training={full: {learning_rate: 1.0e-3}}"], ("full", "lora"), []),
        (["training.warmup_steps=500"], ("lora", "head-only"), ["warmup-longer-than-training"] * 2),
        (["training.warmup_steps=200"], ("lora", "head-only"), []),
        (["training.warmup_steps=500", "training.max_steps=501"], ("lora",), []),
        (
            ["training.warmup_steps=0.1", "training.lr_scheduler_type=constant"],
            ("lora", "lora-8bit"),
            ["warmup-ignored"],
        ),
    ],
    ids=["one rate", "alike", "tuned", "own", "warm-up", "a whole epoch", "max_steps", "constant"],
)  # fmt: skip
def test_what_makes_a_comparison_unequal_is_said_before_it(
    overrides: Sequence[str], strategies: Sequence[str], expected: Sequence[str]
) -> None:
    """Of 800 rows in batches of 16 four epochs are 200 steps; a thing is said once.

    A strategy that was given the rate of the others by name was given it on purpose.
    """
    rows = 801 if "training.warmup_steps=200" in overrides else 800  # a step more in each epoch

    found = ahead("quickstart", *overrides, strategies=strategies, rows=rows)

    assert [finding.code for finding in found] == expected


def ahead(
    name: str, *overrides: str, strategies: Sequence[str], rows: int = 800
) -> Sequence[Finding]:
    """Look at the cells of a recipe before they run."""
    recipe = read_recipe(name, overrides)
    cells = [resolve(with_strategy(recipe, strategy)) for strategy in strategies]
    return pitfalls_ahead(cells, recipe.compare, rows=rows)


def test_a_head_below_the_probe_of_its_base_is_found_in_a_comparison() -> None:
    """In `head-only` alone, and only beside a probe that was measured."""
    probe = baseline("linear_probe", "linear probe of the frozen base", right(0.47))
    evidence_ = [*runs("head-only", 0.22, seeds=[0]), *runs("lora", 0.2, seeds=[0])]

    [found] = pitfalls_found(evidence_, [MAJORITY, probe])

    assert found.code == "below-linear-probe"
    assert (
        "reaches an accuracy of 0.220, the linear probe of the same frozen base 0.470"
        in found.message
    )
    assert pitfalls_found(evidence_, [MAJORITY]) == []
    assert pitfalls_found(runs("head-only", 0.46, seeds=[0]), [probe]) == []
    assert pitfalls_found(runs("lora", 0.2, seeds=[0]), [probe]) == []


def test_a_head_is_set_against_its_probe_on_the_same_clean_rows() -> None:
    """A probe of 0.630 lies in the interval of 0.600 over rows, and has 12 rows that the head lacks.

    Where both answer 0.600 and the probe 60 leaked rows besides, there is nothing to find.
    """
    probe, head = wins_and_losses(400, 240, 12, 0)
    found = pitfalls_found(
        one_seed("head-only", head), [baseline("linear_probe", "linear probe", probe)]
    )
    clean = clean_rows(
        [evidence("head-only", 0, planted(0, 84), leaked=LEAKED)],
        [baseline("linear_probe", "linear probe", planted(60, 84))],
    )

    assert [finding.code for finding in found] == ["below-linear-probe"]
    assert pitfalls_found(clean.evidence, clean.baselines) == []
