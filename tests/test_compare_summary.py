"""From the evidence of runs to a summary, and to one sentence that claims no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from comparisons import evidence
from numpy.typing import NDArray

from peftune.compare.grid import few_seeds
from peftune.compare.pairs import differences
from peftune.compare.pitfalls import pitfalls_ahead, pitfalls_found
from peftune.compare.summarise import summarise
from peftune.compare.summary import Rung, Summary
from peftune.compare.table import LEGEND, legend, standing_rows
from peftune.diagnosis import Finding
from peftune.errors import UsageError
from peftune.recipe import read_recipe, resolve, with_strategy
from peftune.reporting.numbers import estimate
from peftune.runs.evidence import Evidence

ROWS, DOCUMENTS = 400, 30
MAJORITY = Rung("majority", "majority class", 0.4, 0.2, (0.35, 0.45))
TFIDF = Rung("tfidf_logistic_regression", "TF-IDF", 0.6, 0.6, (0.55, 0.65))


def right(share: float, *, shift: int = 0) -> NDArray[np.float64]:
    """Answer that share of rows right; a shift moves which ones."""
    answers = (np.arange(ROWS) * 37 % ROWS < share * ROWS).astype(np.float64)
    return np.roll(answers, shift)


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


def summary_of(
    *strategies: list[Evidence],
    ladder: Sequence[Rung] = (MAJORITY, TFIDF),
    budgets: Mapping[str, int] | None = None,
    tuned: bool = False,
) -> Summary:
    """Summarise runs, their rows held equal."""
    return summarise(
        [one for of in strategies for one in of],
        ladder=ladder,
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
    """Eighty rows of 400 tell two strategies apart, two rows do not."""
    summary = summary_of(runs("a", 0.8), runs("b", 0.795), runs("c", 0.6))

    accuracy = {(d.first, d.second): d for d in summary.differences if d.key == "accuracy"}
    assert [pair.told_apart for pair in accuracy.values()] == [False, True, True]
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


def test_the_ladder_stands_lowest_first() -> None:
    """A baseline that could not be measured stands before all."""
    absent = Rung("few_shot_4", "4 examples", None, None, None, reason="too long")

    summary = summary_of(runs("a", 0.8), ladder=(TFIDF, MAJORITY, absent))

    assert [rung.name for rung in summary.ladder] == ["few_shot_4", "majority", TFIDF.name]


def test_runs_that_cannot_be_paired_are_refused() -> None:
    """Other rows, other documents, and two runs of one name: each with its message."""
    first = evidence("a", 0, right(0.8), lost=lost(0.1))
    with pytest.raises(UsageError) as refused:
        summary_of([first, evidence("b", 0, right(0.8)[:-1], lost=lost(0.1))])
    assert str(refused.value) == (
        "'runs/a-seed0' and 'runs/b-seed0' did not score the same rows, so they cannot be compared. Run them on the same data."
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

    assert {(pair.mean, pair.p_value, pair.told_apart) for pair in summary.differences} == {
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
        "Use full: its accuracy, 0.802 [0.769, 0.836], is clearly above that of lora (0.703), and its file takes 20.0 MiB; but at an equal accuracy of 0.703 lora forgets less (text: full +0.722, lora +0.201)."
    )


def test_the_answer_says_that_a_winner_also_forgets_least() -> None:
    """Most accurate, and at the accuracy of the others forgot less."""
    summary = summary_of(runs("full", 0.8, forgot=0.1), runs("lora", 0.7, forgot=0.5))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.769, 0.836], is clearly above that of lora (0.703), and its file takes 1.0 MiB; at an equal accuracy of 0.703 it also forgets least (text: full +0.081, lora +0.501)."
    )


def test_the_answer_does_not_praise_a_strategy_that_only_learned_less() -> None:
    """On one line from the base, the nearer end forgot less, and at matched accuracy it did not."""
    summary = summary_of(runs("full", 0.8, forgot=0.5), runs("lora", 0.7, forgot=0.4))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.769, 0.836], is clearly above that of lora (0.703), and its file takes 1.0 MiB; at an equal accuracy of 0.703 none is shown to forget less (text: full +0.401, lora +0.401)."
    )


def test_the_answer_breaks_a_tie_by_forgetting_at_matched_accuracy() -> None:
    """Equal in accuracy, unequal in what it cost."""
    summary = summary_of(
        runs("full", 0.8, forgot=0.9), runs("lora", 0.795, forgot=0.2, artifact_bytes=500_000)
    )

    assert summary.answer == (
        "full is the most accurate, 0.802 [0.769, 0.836], but lora 0.797 [0.764, 0.831] cannot be told apart from it; at an equal accuracy of 0.797 lora forgets less than full (text: full +0.892, lora +0.201), so use lora (a file of 488 KiB)."
    )


def test_the_answer_leaves_a_tie_a_tie() -> None:
    """Neither accuracy nor forgetting tells them apart; the file sizes are said."""
    summary = summary_of(
        runs("full", 0.8, artifact_bytes=20 * 2**20, by_accuracy=9),
        runs("lora", 0.795, by_accuracy=1),
        runs("lora-8bit", 0.79, by_accuracy=5),
    )

    assert summary.answer == (
        "full is the most accurate, 0.802 [0.769, 0.836], but lora 0.797 [0.764, 0.831] and lora-8bit 0.792 [0.759, 0.826] cannot be told apart from it; what they forget at an equal accuracy of 0.792 does not tell them apart either (text: full +0.284, lora +0.208, lora-8bit +0.250); the smallest file is that of lora, 1.0 MiB (full 20.0 MiB, lora-8bit 1.0 MiB)."
    )


def test_the_answer_with_one_seed_recommends_nothing() -> None:
    """However far apart two models are, one seed each says nothing of the strategies."""
    summary = summary_of(runs("full", 0.9, seeds=[0]), runs("lora", 0.7, seeds=[0]))

    assert summary.answer == (
        "One seed speaks of these models, not of their strategies: accuracy full 0.900 [0.870, 0.930] and lora 0.700 [0.655, 0.745], forgetting at an equal accuracy of 0.700 (text: full +0.133, lora +0.200); compare three seeds or more."
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
        "Two seeds cannot tell strategies apart; three can: accuracy full 0.800/0.790, lora 0.700/0.710 and head-only 0.650/0.650; forgetting on text full +0.785/+1.012, lora +0.053/+0.046 and head-only +0.000/+0.000; add a third seed; the finished runs are kept."
    )


def test_two_seeds_have_neither_intervals_nor_letters() -> None:
    """Nothing is claimed of a third seed: no interval, no test, no tie; the rows' test stays."""
    summary = summary_of(TWO)

    assert {figure.ci95 for one in summary.standings for figure in one.figures.values()} == {None}
    assert [standing.ties for standing in summary.standings] == [{}, {}, {}]
    assert {(pair.ci95, pair.p_value, pair.told_apart) for pair in summary.differences} == {
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
    """Three seeds each are no test of each other where only two are the same."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.7, seeds=(1, 2, 3)))

    assert [one.ties for one in summary.standings] == [{}, {}]
    assert summary.answer.startswith("Two seeds cannot tell strategies apart; three can: ")


def test_one_seed_has_no_letters_and_no_significance() -> None:
    """Its interval over rows stays, and says of which models it speaks."""
    summary = summary_of(runs("full", 0.9, seeds=[0]), runs("lora", 0.6, seeds=[0]))

    assert [one.ties for one in summary.standings] == [{}, {}]
    assert [pair.told_apart for pair in summary.differences] == [False, False]
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
        "No strategy is named, for the comparison is not an equal one: full had 3,200 rows read in training and lora 1,600 (seed 0); the accuracies are full 0.802 [0.769, 0.836] and lora 0.703 [0.665, 0.740]; forgetting on text full +0.200 [+0.197, +0.204] and lora +0.200 [+0.197, +0.204]."
    )


def test_the_answer_leaves_aside_what_cannot_be_ranked() -> None:
    """Two of three are equal in training; the third failed in all seeds but one."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.7), runs("head-only", 0.65, seeds=[0]))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.769, 0.836], is clearly above that of lora (0.703), and its file takes 1.0 MiB; at an equal accuracy of 0.650 it also forgets least (text: full +0.140, lora +0.175); head-only cannot be ranked beside it."
    )


def test_the_answer_says_that_nothing_was_learned() -> None:
    """Forgetting nothing is no merit of a model that learned nothing."""
    summary = summary_of(runs("full", 0.4), runs("lora", 0.39))

    assert summary.answer == (
        "Nothing was learned: no strategy is clearly more accurate than always giving the most frequent label (0.400), so there is none to use, and what they forgot says nothing."
    )


def test_the_answer_says_that_the_baseline_is_not_beaten() -> None:
    """Counting words does as well, so there is no strategy to recommend."""
    summary = summary_of(runs("full", 0.62), runs("lora", 0.58))

    assert summary.answer == (
        "No strategy clearly beats the baseline TF-IDF (accuracy 0.600): the most accurate, full, reaches 0.623 [0.582, 0.663], so the baseline is the cheaper choice until there is more to learn from; forgetting on text full +0.200 [+0.197, +0.204] and lora +0.200 [+0.197, +0.204]."
    )


def test_the_answer_names_who_does_not_beat_the_baseline_and_who_learned_nothing() -> None:
    """Beside a clear winner."""
    summary = summary_of(runs("full", 0.8), runs("lora", 0.61), runs("head-only", 0.4))

    assert summary.answer == (
        "Use full: its accuracy, 0.802 [0.769, 0.836], is clearly above that of lora (0.613), and its file takes 1.0 MiB; at an equal accuracy of 0.612 it also forgets least (text: full +0.125, lora +0.201); lora does not clearly beat the baseline TF-IDF (0.600); head-only learned nothing."
    )


def test_the_answer_for_one_strategy_alone() -> None:
    """There is nothing to compare it with."""
    assert summary_of(runs("full", 0.8)).answer == (
        "Only full was run: its accuracy is 0.802 [0.769, 0.836], and its file takes 1.0 MiB; forgetting on text full +0.200 [+0.197, +0.204]; a comparison takes two strategies."
    )
    assert summary_of(runs("full", 0.8), runs("lora", 0.4)).answer == (
        "Use full, the only one that learned the task: its accuracy is 0.802 [0.769, 0.836], and its file takes 1.0 MiB; forgetting on text full +0.200 [+0.197, +0.204]; lora learned nothing."
    )
    assert summary_of([]).answer == "No run finished, so there is nothing to compare."


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
    probe = Rung("linear_probe", "linear probe of the frozen base", 0.47, 0.47, None)
    evidence_ = [*runs("head-only", 0.22, seeds=[0]), *runs("lora", 0.2, seeds=[0])]

    [found] = pitfalls_found(evidence_, [MAJORITY, probe])

    assert found.code == "below-linear-probe"
    assert pitfalls_found(evidence_, [MAJORITY]) == []
    assert pitfalls_found(runs("head-only", 0.46, seeds=[0]), [probe]) == []
    assert pitfalls_found(runs("lora", 0.2, seeds=[0]), [probe]) == []
