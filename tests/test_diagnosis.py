"""Pitfalls are found in real runs that have them, and not in one that has none."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import peftune
from peftune.adapters.saving import Rounding
from peftune.errors import GateError, UsageError
from peftune.experiments import Run
from peftune.findings import FINDING_TYPES, find_in_run
from peftune.findings.evidence import (
    Collapse,
    collapsed_seeds,
    find_collapsed_seeds,
    rows_needed,
    unstable_across_seeds,
)
from peftune.findings.facts import RunFacts
from peftune.findings.finding import Finding
from peftune.findings.learning import (
    below_linear_probe,
    frequency_loss,
    learning_rate_at_edge,
    planned_steps,
    shared_learning_rate,
    warmup_ahead,
)
from peftune.recipe import read_recipe
from peftune.tasks import methods_of
from peftune.tasks.scores import Significance
from peftune.training.train import TrainingResult

IntArray = NDArray[np.int64]

RECIPE = """\
version: 1
name: diagnosed
model: {{name_or_path: {base}, max_length: 32}}
data: {{train_file: train.csv, validation_file: validation.csv}}
strategy: {{name: full}}
training:
  per_device_train_batch_size: 16
  logging_steps: 5
  use_cpu: true
forgetting:
  probes:
    - {{type: lm-loss, dataset_name: "bundled:general-text", max_documents: 12}}
output_dir: out
"""

Row = tuple[str, str]
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprstvw" for b in "aeiou" for c in "dlnrst"]


def ordered(count: int, seed: int) -> list[Row]:
    """Make texts whose label is the color that comes last: word counts cannot tell it."""
    draw, rows = np.random.default_rng(seed), []
    for index in range(count):
        first, last = ("red", "blue") if index % 2 else ("blue", "red")
        middle = " ".join(draw.choice(WORDS, size=4))
        rows.append((f"{draw.choice(WORDS)} {first} {middle} {last}", last))
    return rows


def named(count: int, seed: int, *, rare: int = 2) -> list[Row]:
    """Make texts that name their label in a word; every so many is of the second label."""
    draw = np.random.default_rng(seed)
    labels = ["blue" if index % rare == 0 else "red" for index in range(count)]
    return [(f"{' '.join(draw.choice(WORDS, size=5))} {label}", label) for label in labels]


def senseless(count: int, seed: int) -> list[Row]:
    """Make texts whose label has nothing to do with them."""
    draw = np.random.default_rng(seed)
    labels = ["red" if index % 2 else "blue" for index in range(count)]
    return [(" ".join(draw.choice(WORDS, size=8)), label) for label in labels]


def run_on(
    folder: Path, base: Path | str, splits: Mapping[str, Sequence[Row]], *overrides: str
) -> Run:
    """Train on such rows."""
    for split, rows in splits.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=base))
    if "test" in splits:
        overrides = (f"data.test_file={folder / 'test.csv'}", *overrides)
    with contextlib.suppress(GateError):  # a budget that is exceeded is among the findings
        peftune.run(recipe, overrides=overrides, output=folder / "out")
    return peftune.read_run(folder / "out")


@pytest.fixture(scope="module")
def sound(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Learn a head on a frozen backbone: enough steps, rows enough, nothing to forget."""
    splits = {"train": ordered(160, 0), "validation": ordered(60, 1), "test": ordered(200, 2)}
    return run_on(
        tmp_path_factory.mktemp("sound"),
        tiny_base,
        splits,
        "strategy={name: head-only}",
        "training.num_train_epochs=8",
        "training.learning_rate=1.0e-2",
    )


@pytest.fixture(scope="module")
def memorized(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Learn senseless labels by heart."""
    splits = {"train": senseless(64, 0), "validation": senseless(60, 1), "test": senseless(60, 2)}
    return run_on(
        tmp_path_factory.mktemp("memorized"),
        tiny_base,
        splits,
        "training.num_train_epochs=15",
        "training.learning_rate=2.0e-3",
        "forgetting.probes=[]",
    )


@pytest.fixture(scope="module")
def hurried(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Take a few short steps on texts that are cut off, without a test split."""
    splits = {"train": senseless(64, 0), "validation": senseless(60, 1)}
    return run_on(
        tmp_path_factory.mktemp("hurried"),
        tiny_base,
        splits,
        "model.max_length=6",
        "training.num_train_epochs=2",
        "training.learning_rate=1.0e-6",
        "forgetting.probes=[]",
    )


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Move every weight of a base that knows English far, for a word and a rare label."""
    splits = {
        "train": named(132, 0, rare=12),
        "validation": named(48, 1, rare=4),
        "test": named(8, 2),
    }
    watch = '{probe: {type: lm-loss, name: watched, dataset_name: "bundled:general-text", split: validation, max_documents: 10}}'
    return run_on(
        tmp_path_factory.mktemp("forgetful"),
        "bundled:tiny-gpt2",
        splits,
        "training.num_train_epochs=3",
        "training.learning_rate=2.0e-3",
        "forgetting.budget=0.0",
        f"forgetting.during_training={watch}",
    )


@pytest.fixture(scope="module")
def plain(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Learn what a count of words tells as well."""
    splits = {"train": named(160, 0), "validation": named(60, 1), "test": named(200, 2)}
    return run_on(
        tmp_path_factory.mktemp("plain"),
        tiny_base,
        splits,
        "strategy={name: head-only}",
        "training.num_train_epochs=8",
        "training.learning_rate=1.0e-2",
        "forgetting.probes=[]",
    )


def codes(run: Run) -> set[str]:
    """Collect what was found in a run."""
    return {finding.code for finding in run.findings}


def finding(run: Run, code: str) -> Finding:
    """Return the one finding of a kind."""
    [found] = [each for each in run.findings if each.code == code]
    return found


def curve(*points: tuple[int, float | None, float | None]) -> list[dict[str, float]]:
    """Make a curve of step, loss of training rows and validation loss, beside the running loss."""
    made: list[dict[str, float]] = []
    for step, train, validation in points:
        made.append({"step": step, "train_loss": 9.0 - step / 100})
        scores = {"train_sample_loss": train, "validation_loss": validation}
        made.append({"step": step, **{k: v for k, v in scores.items() if v is not None}})
    return made


def beaten(*, gained: int, lost: int, macro_f1: float = 0.5) -> dict[str, dict[str, float]]:
    """Make a majority of 0.5 and word counts of 0.6 that a model is compared with row by row."""
    counts = {"wrong_alone": gained, "right_alone": lost, "macro_f1_p_value": macro_f1}
    return {
        "majority": {"accuracy": 0.5, "wrong_alone": 45, "right_alone": 5},
        "tfidf_logistic_regression": {"accuracy": 0.6, **counts},
    }


@pytest.fixture(scope="module")
def facts() -> RunFacts:
    """Give the facts of a run without a fault: 90 of 100 rows right, against 50 and 60."""
    labels = [0, 1] * 50
    logits = np.array([[2.0, 0.0] if label == 0 else [0.0, 2.0] for label in labels])
    logits[:10] = logits[:10, ::-1]
    learning = methods_of("single-label").score(
        logits,
        tuple(labels),
        names=["bad", "good"],
        split="test",
        baselines=beaten(gained=35, lost=5),
    )
    training = TrainingResult(
        seconds=1.0,
        examples=100,
        steps=30,
        order_sha256=None,
        peak_memory_bytes=None,
        curve=curve((10, 0.6, 0.5), (20, 0.4, 0.36), (30, 0.35, 0.35)),
        best_step=30,
        best_value=0.9,
        resumed_from=None,
        bf16=False,
        truncated=0,
    )
    return RunFacts(
        recipe=read_recipe("quickstart"),
        learning=learning,
        probes=(),
        control=0.0,
        training=training,
        train_labels={"bad": 50, "good": 50},
        validation_rows=100,
    )


def found_in(facts: RunFacts) -> list[str]:
    """List the codes that are found in such facts."""
    return [finding.code for finding in find_in_run(facts)]


def trained(facts: RunFacts, **changes: object) -> RunFacts:
    """Change what is known of the training."""
    training = dataclasses.replace(facts.training, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(facts, training=training)


def scored(facts: RunFacts, **changes: object) -> RunFacts:
    """Change what is known of the score."""
    learning = dataclasses.replace(facts.learning, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(facts, learning=learning)


@pytest.mark.slow
def test_a_run_without_a_fault_has_no_findings(sound: Run) -> None:
    """What is said of every run is read by nobody."""
    assert sound.findings == []
    assert sound.forgetting.verdict == "retained"


@pytest.mark.slow
def test_the_pitfalls_of_a_run_are_exactly_those_that_it_has(
    memorized: Run, hurried: Run, forgetful: Run, plain: Run
) -> None:
    """Each of the other runs has its own faults, and no other run's."""
    by_chance = {"small-test-set"}  # a gain that guessing may give

    assert codes(memorized) - by_chance == {"nothing-learned", "overfitting"}
    assert codes(hurried) - by_chance == {
        "nothing-learned",
        "scored-on-validation",
        "truncation",
        "underfitting",
    }
    # Eight rows, all of them right, show no gain over anything.
    assert codes(forgetful) == {
        "below-baseline",
        "class-imbalance",
        "forgetting",
        "over-budget",
        "small-test-set",
    }
    assert codes(plain) == {"below-baseline"}


def test_overfitting_names_the_step_where_it_began(memorized: Run) -> None:
    """That is the step of the lowest validation loss; both losses are the curve's."""
    points = [point for point in memorized.learning.curve if "validation_loss" in point]
    lowest = min(points, key=lambda point: point["validation_loss"])
    found = finding(memorized, "overfitting")

    assert found.message.startswith(
        f"Overfitting began at step {lowest['step']}: from there to step 60 the loss of validation rows rose from {lowest['validation_loss']:.3f} to {points[-1]['validation_loss']:.3f} nats, while that of training rows fell from {lowest['train_sample_loss']:.3f} to {points[-1]['train_sample_loss']:.3f}. "
    )
    assert found.step == lowest["step"]


def test_forgetting_says_how_much_and_which_dials_are_left(forgetful: Run) -> None:
    """The loss with its margin, and advice for this strategy."""
    probe = forgetful.forgetting["general-text"]
    found = finding(forgetful, "forgetting")

    assert found.message == (
        f"The model forgot: 'general-text' {probe.before:.3f} to {probe.after:.3f} bits/byte ({probe.forgetting:+.4f}, allowed 0.01)."
    )
    assert found.advice == (
        "Lower training.learning_rate, train for fewer epochs, add a regularizer (forgetting.regularizers: kl-to-base or replay), try lora or head-only, "
        "or scale the change down after training with 'peftune adapter rescale'. Each may cost accuracy: compare."
    )


def test_an_imbalance_says_whether_the_rare_label_is_found(forgetful: Run) -> None:
    """Counts are those of the training rows, the recall that of the scored ones."""
    found = finding(forgetful, "class-imbalance")
    recall = forgetful.learning.per_label["blue"]["recall"]

    assert found.message == (
        f"The label 'blue' has 11 of 132 training rows (8.3%) and 'red' 121; of its 4 test rows {recall:.0%} were found."
    )
    assert found.severity == ("note" if recall >= 0.5 else "warning")


def test_the_facts_of_the_tables_below_have_no_fault(facts: RunFacts) -> None:
    """What the tables find comes from what they change."""
    assert found_in(facts) == []


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([(9, 0.6, 0.50), (18, 0.4, 0.61)], True, id="rises"),
        pytest.param([(9, 0.6, 0.50), (18, 0.4, 0.59)], False, id="within two standard errors"),
        pytest.param([(9, 0.6, 2.50), (18, 0.4, 2.61)], False, id="within 5% of the minimum"),
        pytest.param([(9, 0.6, 0.50), (18, 0.6, 0.61)], False, id="training does not fall"),
        pytest.param([(9, None, 0.5), (18, 0.4, 0.61)], False, id="training is not known"),
        pytest.param([(9, 0.6, 0.61), (18, 0.4, 0.5)], False, id="falls"),
        pytest.param([(9, 0.6, 0.5), (12, 0.5, 0.9), (18, 0.4, 0.5)], False, id="came down again"),
        pytest.param([(9, 0.6, 0.5)], False, id="one evaluation"),
        pytest.param([], False, id="no curve"),
    ],
)
def test_overfitting_is_a_clear_rise_while_training_falls(
    points: list[tuple[int, float | None, float | None]], expected: bool, facts: RunFacts
) -> None:
    """With 100 validation rows the noise is 2 x 0.5 / 10 = 0.1 nats."""
    assert ("overfitting" in found_in(trained(facts, curve=curve(*points)))) == expected


@pytest.mark.parametrize(("kept", "severity"), [(9, "note"), (18, "warning"), (None, "warning")])
def test_overfitting_after_the_kept_checkpoint_is_a_note(
    kept: int | None, severity: str, facts: RunFacts
) -> None:
    """The weights of the minimum were kept, so only the time was lost."""
    points = curve((9, 0.6, 0.5), (18, 0.4, 0.9))

    [found] = find_in_run(trained(facts, curve=points, best_step=kept))

    assert (found.code, found.severity) == ("overfitting", severity)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([(10, 0.7, 0.69), (30, 0.68, 0.67)], True, id="neither moved"),
        pytest.param([(10, 0.7, 0.69), (30, 0.2, 0.69)], False, id="training moved"),
        pytest.param([(10, 0.6, 0.60), (30, 0.5, 0.50)], True, id="both fall to the end"),
        pytest.param([(10, 0.5, 0.50), (30, 0.5, 0.40)], False, id="training rests"),
        pytest.param([(10, 0.6, 0.40), (30, 0.5, 0.38)], False, id="validation rests"),
        pytest.param([(25, 0.6, 0.60), (30, 0.5, 0.50)], False, id="seen too late"),
        pytest.param([(30, 0.5, 0.50)], False, id="one evaluation"),
        pytest.param([(30, 0.7, None)], False, id="no evaluation"),
    ],
)
def test_underfitting_is_no_movement_or_no_rest(
    points: list[tuple[int, float | None, float | None]], expected: bool, facts: RunFacts
) -> None:
    """Two labels of equal frequency: a model that knows only that has a loss of ln 2 = 0.693."""
    assert ("underfitting" in found_in(trained(facts, curve=curve(*points)))) == expected


def test_underfitting_counts_labels_as_the_loss_weighs_them(facts: RunFacts) -> None:
    """Weights of 9 and 1 on equal labels: knowing only that gives 0.325, and a loss of 0.32 is no better."""
    weights = {next(iter(facts.train_labels)): 9.0}
    training = facts.recipe.training.model_copy(update={"class_weights": weights})
    weighted = dataclasses.replace(
        facts, recipe=facts.recipe.model_copy(update={"training": training})
    )
    flat = curve((10, 0.32, 0.32), (20, 0.32, 0.32), (30, 0.32, 0.32))

    assert "underfitting" not in found_in(trained(facts, curve=flat))
    assert "underfitting" in found_in(trained(weighted, curve=flat))


def test_the_loss_of_the_frequencies_is_the_entropy() -> None:
    """Closed forms: ln 4 for four equal labels, 0 for one alone; an absent label adds nothing."""
    assert frequency_loss([5, 5, 5, 5]) == pytest.approx(math.log(4))
    assert frequency_loss([7, 0]) == 0
    assert frequency_loss([3, 1]) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


@pytest.mark.parametrize(
    ("gained", "lost", "macro_f1", "expected"),
    [
        (35, 5, 0.5, []),
        (6, 0, 0.5, []),  # by chance 1 in 64
        (5, 0, 0.5, ["below-baseline", "small-test-set"]),  # by chance 1 in 32
        (5, 0, 0.025, ["small-test-set"]),
        (20, 9, 0.5, ["below-baseline", "small-test-set"]),  # by chance 0.031
        (20, 8, 0.5, []),  # by chance 0.018
        (9, 9, 0.5, ["below-baseline"]),
        (3, 9, 0.5, ["below-baseline"]),
        (3, 9, 0.01, []),
    ],
)
def test_a_gain_is_told_from_the_baselines_row_by_row(
    gained: int, lost: int, macro_f1: float, expected: list[str], facts: RunFacts
) -> None:
    """Only rows that one alone has right count: as a coin, one-sided at 2.5%."""
    baselines = beaten(gained=gained, lost=lost, macro_f1=macro_f1)

    assert found_in(scored(facts, baselines=baselines)) == expected


@pytest.mark.parametrize(("accuracy", "expected"), [(0.55, ["nothing-learned"]), (0.9, [])])
def test_without_counts_of_rows_nothing_is_said_of_the_baselines(
    accuracy: float, expected: list[str], facts: RunFacts
) -> None:
    """Reports of older versions hold scores alone, which no paired test can be made of."""
    alone = {"majority": {"accuracy": 0.5}, "tfidf_logistic_regression": {"accuracy": 0.89}}
    intervals = {"accuracy": (accuracy - 0.06, accuracy + 0.06), "macro_f1": None}

    old = scored(facts, accuracy=accuracy, ci95=intervals, baselines=alone, significance=None)
    assert found_in(old) == expected


def test_no_better_than_word_counts_is_said_with_the_rows(facts: RunFacts) -> None:
    """The p-value is the coin's: of 29 rows 20 or more with a chance of 0.031."""
    found = {f.code: f for f in find_in_run(scored(facts, baselines=beaten(gained=20, lost=9)))}

    assert found["below-baseline"].message == (
        "The accuracy of 0.900 is not significantly above the 0.600 of TF-IDF with logistic regression: of 100 rows 20 are right that it has wrong, and 9 wrong that it has right (p = 0.031)."
    )


def test_a_small_test_set_says_how_many_rows_it_takes(forgetful: Run) -> None:
    """All 8 right against 4 of 8 by majority: 4 discordant rows of 8, all for the model.

    Connor: (1.96 sqrt(0.5) + 0.84 sqrt(0.5 - 0.25))^2 / 0.25 = 13.04 rows, and 1 / 0.5 more.
    """
    found = finding(forgetful, "small-test-set")

    assert forgetful.learning.accuracy == 1.0
    assert found.message == (
        "A gain of 0.500 over the 0.500 of the baseline 'majority' may be chance with 8 test rows: 4 are right that it has wrong, 0 wrong that it has right."
    )
    assert found.advice == (
        "Telling a gain of this size takes about 16 rows; it may also be none."
    )


@pytest.mark.parametrize(
    ("gained", "lost"), [(0.25, 0.15), (0.18, 0.02), (0.07, 0.05), (0.4, 0.0)]
)
def test_as_many_rows_as_said_show_the_gain_in_80_of_100(gained: float, lost: float) -> None:
    """The power of the exact test, summed over all tables by scipy's distributions."""
    count = rows_needed(gained + lost, gain=gained - lost)
    power = 0.0
    for changed in range(count + 1):
        ways = stats.binom.pmf(changed, count, gained + lost)
        wins = np.arange(changed + 1)
        shown = stats.binom.sf(wins - 1, changed, 0.5) <= 0.025
        power += ways * stats.binom.pmf(wins, changed, gained / (gained + lost))[shown].sum()

    assert 0.78 < power < 0.88


@pytest.mark.parametrize(
    ("counts", "recall", "support", "expected"),
    [
        ((50, 50), 0.9, 50, None),
        ((99, 10), 0.1, 50, None),
        ((100, 10), 0.5, 50, "note"),
        ((100, 10), 0.49, 50, "warning"),
        ((100, 0), 0.0, 0, "warning"),
    ],
)
def test_a_tenth_of_the_commonest_label_is_rare(
    counts: tuple[int, int], recall: float, support: int, expected: str | None, facts: RunFacts
) -> None:
    """From ten to one on; worse where most of its rows are missed, or nobody knows."""
    labels = dict(zip(("good", "bad"), counts, strict=True))
    per_label = {"bad": {"recall": recall, "support": support}}
    changed = dataclasses.replace(scored(facts, per_label=per_label), train_labels=labels)

    found = [each for each in find_in_run(changed) if each.code == "class-imbalance"]

    assert [each.severity for each in found] == ([expected] if expected else [])


@pytest.mark.parametrize(("cut", "expected"), [(5, []), (6, ["truncation"])])
def test_more_than_a_twentieth_cut_is_many(cut: int, expected: list[str], facts: RunFacts) -> None:
    """Of 100 training texts."""
    assert found_in(trained(facts, truncated=cut)) == expected


@pytest.mark.parametrize(
    ("control", "expected"),
    [(None, []), (0.0, []), (1e-9, ["control-failed"]), (-0.1, ["control-failed"])],
)
def test_a_control_is_exactly_zero_or_failed(
    control: float | None, expected: list[str], facts: RunFacts
) -> None:
    """However small the change that is left; a model without an adapter has none."""
    assert found_in(dataclasses.replace(facts, control=control)) == expected


@pytest.mark.parametrize(
    ("value", "log", "end"),
    [
        (1e-5, True, "lower"),
        (1.25e-5, True, "lower"),
        (1.27e-5, True, None),
        (7.9e-4, True, None),
        (8e-4, True, "upper"),
        (1e-3, True, "upper"),
        (5e-5, False, "lower"),
        (7e-5, False, None),
        (9.3e-4, False, None),
        (9.6e-4, False, "upper"),
    ],
)
def test_a_learning_rate_near_the_end_of_its_range_is_at_the_edge(
    value: float, log: bool, end: str | None
) -> None:
    """Within 5% of 1e-5 to 1e-3: two decades, so a factor of 10^0.1 = 1.259 at either end."""
    found = learning_rate_at_edge(value, 1e-5, 1e-3, log=log)

    if end is None:
        assert found is None
    else:
        assert found == Finding(
            "learning-rate-at-edge",
            "warning",
            f"The best learning rate, {value:g}, lies at the {end} end of the range that was searched, 1e-05 to 0.001.",
            f"Search {'lower' if end == 'lower' else 'higher'} learning rates too: the best one may lie outside.",
        )


@pytest.mark.parametrize(
    ("value", "low", "high", "log"),
    [(2.0, 0.1, 1.0, True), (0.5, 0.5, 0.5, False), (0.5, 0.0, 1.0, True)],
)
def test_an_impossible_range_is_refused(value: float, low: float, high: float, log: bool) -> None:
    """A value outside, an empty range, a logarithm of nothing."""
    with pytest.raises(UsageError) as caught:
        learning_rate_at_edge(value, low, high, log=log)
    assert str(caught.value) == (
        f"A learning rate lies in a range from a lower to a higher value, above 0 for a logarithm (got {value:g} in {low:g} to {high:g})."
    )


@pytest.mark.parametrize(
    ("accuracies", "n", "expected"),
    [
        ([0.8, 0.81, 0.79], 1000, False),
        ([0.8, 0.5, 0.82], 1000, True),
        ([0.8, 0.5, 0.82], 10, False),
        ([0.9, 0.91], 100_000, False),
        ([0.9], 1000, False),
        ([1.0, 1.0], 1000, False),
    ],
    ids=["noise", "one failed", "few rows", "too small to matter", "one seed", "all right"],
)
def test_seeds_are_unstable_where_the_rows_do_not_explain_the_spread(
    accuracies: list[float], n: int, expected: bool
) -> None:
    """A seed that failed is seen, and the noise of few rows is not."""
    assert (unstable_across_seeds(accuracies, n) is not None) == expected


def test_what_bfloat16_would_change_is_said(facts: RunFacts) -> None:
    """The file is twice as large as the recipe asks for; where no label changes there is no word."""
    kept = dataclasses.replace(facts, rounding=Rounding(150, flips=2, largest_difference=0.01))
    rounded = dataclasses.replace(facts, rounding=Rounding(150, flips=0, largest_difference=0.01))

    assert find_in_run(rounded) == []
    assert find_in_run(kept) == [
        Finding(
            "kept-float32",
            "note",
            "In bfloat16 the labels of 2 of 150 validation rows would change, so the artifact is stored in float32.",
            "Nothing is lost but bytes; set save.dtype: float32 to ask for no more.",
        )
    ]


@pytest.mark.parametrize("seeds", [2, 5])
def test_equal_models_are_rarely_called_unstable(seeds: int) -> None:
    """Simulated: of equally good models on rows of their own, one comparison in a hundred."""
    draws = np.random.default_rng(0).binomial(400, 0.7, size=(10_000, seeds)) / 400

    found = [unstable_across_seeds(list(accuracies), 400) is not None for accuracies in draws]

    assert 0.007 < np.mean(found) < 0.013


def test_seeds_that_share_rows_are_called_unstable_even_less_often() -> None:
    """Simulated: equal models that err on the same rows differ less than on rows of their own.

    Half of what decides a row is the row's, half the seed's, which is how the accuracies of two
    seeds come to correlate. The stated chance is 1%.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        hard = rng.standard_normal(400) + rng.standard_normal((3, 400))
        accuracies = (hard < 0.74).mean(axis=1)  # 0.7 of them: a normal of variance 2 below 0.74
        found.append(unstable_across_seeds(list(accuracies), 400) is not None)

    assert np.mean(found) < 0.005


def read(accuracy: float, labels: IntArray, rng: np.random.Generator) -> IntArray:
    """Answer that share of rows right, and give the others one of the wrong labels."""
    wrong = (labels + rng.integers(1, 3, len(labels))) % 3
    return np.where(rng.random(len(labels)) < accuracy, labels, wrong)


NAMES = ("negative", "neutral", "positive")


def test_a_seed_that_collapsed_is_found_with_its_label_and_the_accuracy_of_the_others() -> None:
    """Planted: one of four seeds says "positive" of every row, one of all rows but two."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    constant = np.full(600, 2)
    nearly = np.where(np.arange(600) < 2, 1, 0)
    seeds = {3: read(0.65, labels, rng), 5: constant, 7: nearly, 9: read(0.6, labels, rng)}

    found = collapsed_seeds(seeds, labels, NAMES)

    others = [float((seeds[seed] == labels).mean()) for seed in (3, 9)]
    assert found == [
        Collapse(5, "positive", 1.0, 200 / 600, others),
        Collapse(7, "negative", 598 / 600, 200 / 600, others),
    ]
    assert find_collapsed_seeds("lora", 4, found) == Finding(
        "collapsed-seed",
        "warning",
        f"2 of 4 seeds of lora collapsed: seed 5 gives every row the label 'positive' (accuracy 0.333); seed 7 gives 99.7% of the rows the label 'negative' (accuracy 0.333); the others reach {min(others):.3f} to {max(others):.3f}.",
        "No mean or interval speaks of both kinds of runs: report how many seeds collapse, beside the figures of the others. training.warmup_steps and a lower training.learning_rate make it rarer; more seeds tell how often it happens.",
    )
    one = find_collapsed_seeds("lora", 2, [Collapse(0, "positive", 1.0, 0.4, [0.6])])
    assert one is not None
    assert one.message == (
        "1 of 2 seeds of lora collapsed: seed 0 gives every row the label 'positive' (accuracy 0.400); the other reaches 0.600."
    )
    assert find_collapsed_seeds("lora", 2, []) is None


@pytest.mark.parametrize("off", [6, 7])
def test_a_seed_is_constant_up_to_two_in_a_hundred_of_the_rows_with_other_labels(off: int) -> None:
    """Of 450 rows 300 have another label: six may be given another, seven may not."""
    labels = np.arange(450) % 3
    nearly = np.where(np.arange(450) < off, 2, 0)

    found = collapsed_seeds({0: labels, 1: nearly}, labels, NAMES)

    assert [one.seed for one in found] == ([1] if off == 6 else [])


def test_a_rare_label_that_is_seldom_given_is_no_collapse() -> None:
    """One row of a hundred is rare; a model that finds most of them gives 99% of rows one label."""
    labels = (np.arange(2000) % 100 == 0).astype(np.int64)
    fewer = np.where(np.arange(2000) < 800, 0, labels)  # it finds 12 of 20
    never = np.zeros(2000, dtype=np.int64)

    found = collapsed_seeds({0: labels, 1: fewer, 2: never}, labels, ("no", "yes"))

    assert [(one.seed, one.label) for one in found] == [(2, "no")]


def test_a_strategy_that_learned_nothing_has_no_collapsed_seed() -> None:
    """Simulated: seeds that are constant or guess, all of one accuracy; the stated chance is 1%.

    Guesses give 96 rows of 100 the same label, so that some seeds are constant and some are not.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        labels = rng.integers(0, 3, 300)
        often = rng.integers(0, 3, 3)
        seeds = {
            seed: np.where(rng.random(300) < 0.96, often[seed], rng.integers(0, 3, 300))
            for seed in (0, 1)
        }
        seeds[2] = np.full(300, often[2])
        found.append(bool(collapsed_seeds(seeds, labels, NAMES)))

    assert np.mean(found) < 0.016  # 1% and two and a half standard errors of 2000 draws
    assert collapsed_seeds({0: seeds[2], 1: seeds[2]}, labels, NAMES) == []
    assert collapsed_seeds({}, labels, NAMES) == []


def test_what_is_unstable_is_said_with_its_noise() -> None:
    """Mean 0.7: sqrt(0.7 * 0.3 / 100) = 0.046."""
    assert unstable_across_seeds([0.9, 0.5, 0.7], 100) == Finding(
        "unstable-across-seeds",
        "warning",
        "The accuracy of 3 seeds runs from 0.500 to 0.900 (standard deviation 0.200); the noise of 100 rows explains 0.046 at most.",
        "Report all seeds and take more of them; a lower training.learning_rate, training.warmup_steps or more epochs make runs agree.",
    )


def scheduled(facts: RunFacts, **training: object) -> RunFacts:
    """Change the recipe's training; the run took 30 steps at a learning rate of 1e-3."""
    section = facts.recipe.training.model_copy(update=training)
    recipe = facts.recipe.model_copy(update={"training": section})
    return dataclasses.replace(facts, recipe=recipe)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("linear", 0.0, []),
        ("linear", 0.9, []),
        ("linear", 29.0, []),
        ("linear", 30.0, ["warmup-longer-than-training"]),
        ("cosine", 500.0, ["warmup-longer-than-training"]),
        ("constant_with_warmup", 500.0, ["warmup-longer-than-training"]),
        ("constant_with_warmup", 5.0, []),
        ("constant", 0.0, []),
        ("constant", 5.0, ["warmup-ignored"]),
        ("constant", 0.1, ["warmup-ignored"]),
        ("constant", 500.0, ["warmup-ignored"]),
    ],
)
def test_a_warmup_that_does_not_do_what_it_says_is_found(
    schedule: str, warmup: float, expected: list[str], facts: RunFacts
) -> None:
    """Thirty steps: with a warm-up of 29 the last step has the peak, with 30 none has."""
    changed = scheduled(facts, lr_scheduler_type=schedule, warmup_steps=warmup)

    assert found_in(changed) == expected
    ahead = changed.recipe.training.model_copy(update={"max_steps": 30})
    assert [finding.code for finding in warmup_ahead(ahead, None)] == expected


def test_what_is_wrong_with_a_warmup_is_said_with_its_key(facts: RunFacts) -> None:
    """The highest rate is 29 / 500 of the peak: the first of 30 steps has none."""
    [too_long] = find_in_run(scheduled(facts, warmup_steps=500.0))
    [ignored] = find_in_run(scheduled(facts, warmup_steps=0.1, lr_scheduler_type="constant"))

    assert too_long == Finding(
        "warmup-longer-than-training",
        "warning",
        "The warm-up of 500 steps does not end within the training of 30, so the learning rate rises to 5.8e-05 and never reaches 0.001.",
        "Lower training.warmup_steps (a number below 1 is a share of all steps, such as 0.1), or train for longer.",
    )
    assert ignored == Finding(
        "warmup-ignored",
        "warning",
        "training.warmup_steps is 0.1, but lr_scheduler_type: constant has no warm-up: the learning rate is 0.001 from the first step on.",
        "Set training.lr_scheduler_type: constant_with_warmup, or leave training.warmup_steps out.",
    )


@pytest.mark.parametrize(
    ("rows", "section", "steps"),
    [(36, (32, 1, 1), 2), (36, (32, 2, 1), 1), (100, (10, 3, 2), 8), (100, (10, 1, 0.5), 5), (7, (8, 4, 3), 3)],
)  # fmt: skip
def test_the_steps_of_a_training_are_known_before_it(
    rows: int, section: tuple[int, int, float], steps: int, facts: RunFacts
) -> None:
    """As Trainer counts: batches of an epoch rounded up, then updates, then epochs."""
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs")
    training = facts.recipe.training.model_copy(update=dict(zip(keys, section, strict=True)))

    assert planned_steps(training, rows) == steps


DEFAULTS = {"full": 2e-5, "lora": 2e-4, "lora-8bit": 2e-4, "head-only": 1e-3}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"full": 1e-3, "lora": 1e-3, "head-only": 1e-3}, True),
        ({"full": 5e-4, "lora": 1e-3, "head-only": 1e-3}, True),
        ({"lora": 1e-3, "lora-8bit": 1e-3}, False),
        ({"full": 5e-4, "lora": 1e-3, "lora-8bit": 1e-3, "head-only": 1e-2}, False),
        (DEFAULTS, False),
        ({"full": 1e-3}, False),
        ({}, False),
    ],
    ids=["all", "two of three", "alike", "own", "defaults", "one", "none"],
)
def test_one_learning_rate_for_unlike_strategies_is_found(
    rates: Mapping[str, float], expected: bool
) -> None:
    """Only where what the strategies want differs: lora and lora-8bit may well share one."""
    assert (shared_learning_rate(rates, DEFAULTS) is not None) == expected


def test_a_shared_learning_rate_is_said_with_what_each_wants() -> None:
    """And with the keys that give each its own."""
    assert shared_learning_rate(
        {"full": 1e-3, "lora": 1e-3, "head-only": 1e-3}, DEFAULTS
    ) == Finding(
        "shared-learning-rate",
        "warning",
        "full, lora and head-only share one learning rate, 0.001, although their defaults differ (full 2e-05, lora 0.0002, head-only 0.001): what suits one may make another learn nothing, or forget.",
        "Leave training.learning_rate out, so that each has its default, or give each its own: compare.training.full.learning_rate; peftune tune finds them.",
    )


@pytest.mark.parametrize(
    ("apart", "expected"),
    [((-0.31, -0.19), True), ((-0.08, 0.02), False), ((0.01, 0.15), False), (None, False)],
)
def test_a_head_below_the_probe_of_its_base_was_trained_too_little(
    apart: tuple[float, float] | None, expected: bool
) -> None:
    """Clearly below: the interval of the difference, on the same rows, ends under zero."""
    assert (below_linear_probe([0.22, 0.24], 0.47, apart) is not None) == expected


def test_a_head_below_its_probe_is_said_with_both() -> None:
    """The two are one head on one base."""
    found = below_linear_probe([0.22], 0.47, (-0.31, -0.19))

    assert found == Finding(
        "below-linear-probe",
        "warning",
        "head-only reaches an accuracy of 0.220, the linear probe of the same frozen base 0.470, 0.190 to 0.310 more on the same rows: the two are the same head on the same features and should agree, so head-only was trained too little.",
        "Raise compare.training.head-only.learning_rate (ten times what lora has is usual) or training.num_train_epochs.",
    )


def test_macro_f1_above_the_word_counts_is_not_below_the_baseline(facts: RunFacts) -> None:
    """With balanced weights and a rare label, accuracy is what was given for it."""
    baselines = {
        "majority": {"accuracy": 0.95, "macro_f1": 0.487},
        "tfidf_logistic_regression": {
            "accuracy": 0.95,
            "macro_f1": 0.487,
            "wrong_alone": 15,
            "right_alone": 39,
            "macro_f1_p_value": 0.0005,
        },
    }
    intervals = {"accuracy": (0.85, 0.92), "macro_f1": (0.66, 0.80)}
    weighted = scored(
        facts, accuracy=0.89, macro_f1=0.73, baselines=baselines, ci95=intervals, n=400
    )

    assert found_in(weighted) == []
    unread = Significance("macro_f1", 0.5, 0.2, learned=False)
    assert found_in(scored(weighted, significance=unread)) == ["nothing-learned"]


def test_every_type_of_finding_is_listed_once_with_its_reason() -> None:
    """Codes are stable: programs and pages name them."""
    types = [each for each in FINDING_TYPES if each.scope != "data"]

    assert sorted(each.code for each in types) == [
        "below-baseline",
        "below-linear-probe",
        "class-imbalance",
        "collapsed-seed",
        "control-failed",
        "forgetting",
        "kept-float32",
        "learning-rate-at-edge",
        "nothing-learned",
        "over-budget",
        "overfitting",
        "scored-on-validation",
        "seen-rows",
        "shared-learning-rate",
        "small-test-set",
        "truncation",
        "underfitting",
        "unstable-across-seeds",
        "warmup-ignored",
        "warmup-longer-than-training",
    ]
    assert all(each.looks_for.endswith(".") for each in FINDING_TYPES)
    assert all(each.threshold.endswith(".") for each in FINDING_TYPES)
