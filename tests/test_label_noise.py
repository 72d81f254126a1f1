"""Wrong labels are found in rows where they were planted, and not where there are none."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint, num_label_issues
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray
from planted import sound_splits, write_recipe, write_splits
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

import peftune
from peftune.cli.main import _exit_code
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.errors import UsageError
from peftune.findings import label_noise as module
from peftune.findings.cross_validation import (
    confident_learning,
    even_noise,
    folds_of,
    one_way_noise,
    probe_rows,
)
from peftune.findings.label_noise import LabelNoise, label_noise_of, result_of
from peftune.stats.tests import mcnemar

NAMES = ("a", "b", "c")
Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


def features(count: int, seed: int, apart: float = 0.35) -> tuple[Matrix, Labels]:
    """Draw rows of three classes, normal around means that are apart."""
    means = np.random.default_rng(9).normal(size=(len(NAMES), 40)) * apart
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, len(NAMES), count)
    return means[labels] + draw.normal(size=(count, 40)), labels


def plant(labels: Labels, rate: float, seed: int) -> Labels:
    """Give a share of rows another label, any alike."""
    draw, planted = np.random.default_rng(seed), labels.copy()
    chosen = draw.permutation(len(labels))[: round(rate * len(labels))]
    planted[chosen] = (labels[chosen] + draw.integers(1, len(NAMES), len(chosen))) % len(NAMES)
    return np.asarray(planted)


def rows(labels: Labels) -> Rows:
    """Make rows with texts of their own, called by their number."""
    ids = tuple(map(str, range(len(labels))))
    return Rows(ids, tuple(f"text number {row}" for row in ids), tuple(labels.tolist()))


def found_in(given: Labels, train: Matrix, names: tuple[str, ...] = NAMES) -> LabelNoise:
    """Look for wrong labels in rows with these features; the labels of validation are right."""
    validation, truth = features(200, seed=77)
    task = Task(names, rows(given), rows(truth), None, {})
    return label_noise_of(task, train, validation, seed=0)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4])
def test_planted_noise_is_found_with_its_share_and_its_rows(rate: float) -> None:
    """The interval holds the planted share, and most of the rows that are named were planted."""
    train, right = features(900, seed=1, apart=0.5)
    given = plant(right, rate, seed=2)

    found = found_in(given, train)

    wrong = np.flatnonzero(given != right)
    named = np.array([suspect.row for suspect in found.rows])
    assert found.verdict == "found"
    assert found.interval[0] <= rate <= found.interval[1]
    assert abs(found.share - rate) < 0.03
    assert np.isin(named, wrong).mean() > 0.8
    assert np.isin(wrong, named).mean() > 0.75
    first = found.rows[0]
    assert first.given == NAMES[given[first.row]]
    assert first.likely == NAMES[right[first.row]]
    assert [suspect.probability for suspect in found.rows] == sorted(
        suspect.probability for suspect in found.rows
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sound_labels_are_left_alone(seed: int) -> None:
    """No row is named, and the interval says that next to none can be wrong."""
    train, right = features(900, seed=seed)

    found = found_in(right, train)

    result = result_of(found)
    assert (found.verdict, found.suspects, found.left_out) == ("not-found", 0, None)
    assert found.interval[0] == 0
    assert found.interval[1] < 0.02
    assert (result.status, result.count, result.rows) == ("pass", 0, {})
    assert result.message == (
        f"No wrong labels were found. A linear probe of the base gives {found.probe_accuracy:.0%} of the labels of rows that it was not fitted on; "
        f"if wrong labels are spread evenly, 0.0% to {found.interval[1]:.1%} of 900 are wrong."
    )


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_a_weak_probe_does_not_take_its_own_errors_for_wrong_labels(rate: float) -> None:
    """Where two in five labels are missed by the probe itself, cleanlab names hundreds of rows and the check none."""
    train, right = features(900, seed=4, apart=0.1)
    given = plant(right, rate, seed=5)

    found = found_in(given, train)

    assert found.probe_accuracy < 0.6
    assert found.confident_joint_share > 0.3
    assert (found.verdict, found.suspects) == ("cannot-tell", 0)
    assert result_of(found).message.startswith("Cannot tell: a linear probe of the base gives ")


def test_labels_that_are_wrong_one_way_are_named_with_their_pair_and_a_doubt() -> None:
    """The same is seen of texts that the probe misreads, so the rows are named and nothing is claimed."""
    train, right = features(900, seed=6)
    given = right.copy()
    given[np.flatnonzero(right == 0)[:90]] = 1  # a tenth of all rows

    found = found_in(given, train)

    way = found.one_way
    assert way is not None
    assert (found.verdict, way.given, way.likely) == ("cannot-tell", "b", "a")
    assert way.interval[0] <= 0.1 <= way.interval[1]
    assert {(suspect.given, suspect.likely) for suspect in found.rows} == {("b", "a")}
    result = result_of(found)
    assert (result.status, result.count) == ("warn", found.suspects)
    assert "have the label 'b' where the probe is sure of 'a'" in result.message


def test_the_even_share_is_the_one_that_the_labels_were_drawn_with() -> None:
    """The classifier's logits are exact here, so the estimate is off by chance alone."""
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20_000, 3)) * 3
    right = np.array([draw.choice(3, p=row) for row in softmax(logits, axis=1)])
    given = np.where(draw.random(20_000) < 0.3, draw.integers(0, 3, 20_000), right)

    found = even_noise(logits / 5, given)  # a scale that it has to find

    # Any label at all replaces 30%, and a third of those are right by luck: 20%.
    assert found.share == pytest.approx(0.2, abs=0.01)
    assert found.interval[0] < 0.2 < found.interval[1]
    assert found.accuracy == pytest.approx(softmax(logits, axis=1).max(axis=1).mean(), abs=0.01)


def test_the_likelihood_is_the_one_written_out_by_hand() -> None:
    """At its best rate the loss is the sum over rows, with scale and shifts found by a search."""
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(60, 2))
    given = (logits[:, 1] > logits[:, 0]).astype(np.int64)
    given[:12] = 1 - given[:12]

    found = even_noise(logits, given)

    def loss(rate: float, scale: float, shift: float) -> float:
        probabilities = softmax(scale * logits + np.array([shift, 0.0]), axis=1)
        mixed = (1 - rate) * probabilities[np.arange(60), given] + rate / 2
        return float(-np.log(mixed).sum())

    grid = itertools.product(
        np.linspace(0.2, 0.6, 21), np.geomspace(5, 1000, 21), np.linspace(-1, 1, 5)
    )
    by_hand = min(loss(*point) for point in grid)
    assert found.loss <= by_hand + 0.02
    assert found.loss >= by_hand - 1.5  # a grid is coarse where the scale is large
    assert found.share == pytest.approx(0.2, abs=0.02)  # 12 of 60


def test_one_way_noise_takes_the_likelier_of_the_ways() -> None:
    """Of all pairs the planted one."""
    draw = np.random.default_rng(2)
    logits = draw.normal(size=(3000, 3)) * 6
    given = np.array([draw.choice(3, p=row) for row in softmax(logits, axis=1)])
    given[(given == 2) & (draw.random(3000) < 0.3)] = 0

    ways = list(itertools.permutations(range(3), 2))
    found = one_way_noise(logits, given, ways)

    assert found is not None
    assert found[1] == (2, 0)
    assert found[0].share == pytest.approx(0.1, abs=0.02)  # 30% of a third
    assert one_way_noise(logits, given, []) is None


def test_the_confident_joint_is_cleanlabs_and_that_of_the_paper() -> None:
    """The same share and rows as cleanlab called directly, and counts as by hand."""
    train, right = features(400, seed=7, apart=0.25)
    given = plant(right, 0.2, seed=8)
    numbers, folds, _ = folds_of(rows(given), 0)
    probed = probe_rows(train, given, numbers, folds)

    share, confusions, flagged = confident_learning(probed, NAMES)

    probabilities = softmax(probed.logits, axis=1)
    # Northcutt et al. 2021, equation 1: a row counts for the likeliest label above its threshold,
    # the mean probability of the label among the rows that have it; then rows of each label are
    # scaled to as many as have it.
    thresholds = np.array([probabilities[given == label, label].mean() for label in range(3)])
    joint = np.zeros((3, 3))
    for row, label in zip(probabilities, given, strict=True):
        above = [each for each in range(3) if row[each] >= thresholds[each]]
        if above:
            joint[label, max(above, key=lambda each: row[each])] += 1
    joint *= (np.bincount(given) / joint.sum(axis=1))[:, None]
    assert share == pytest.approx(1 - np.trace(joint) / 400, abs=0.005)  # cleanlab rounds to rows
    calibrated = compute_confident_joint(given, probabilities)
    assert {(each.given, each.likely): each.rows for each in confusions} == {
        (NAMES[one], NAMES[other]): int(calibrated[one, other])
        for one, other in itertools.permutations(range(3), 2)
        if calibrated[one, other]
    }
    assert [each.rows for each in confusions] == sorted(each.rows for each in confusions)[::-1]
    assert flagged.tolist() == np.flatnonzero(find_label_issues(given, probabilities)).tolist()
    assert abs(len(flagged) - num_label_issues(given, probabilities)) <= 0.1 * len(flagged)


def test_the_probe_is_asked_about_rows_that_it_was_not_fitted_on() -> None:
    """With the penalty that was chosen, scikit-learn's own cross-validation gives the same logits."""
    train, right = features(200, seed=10)
    numbers, folds, inside = folds_of(rows(right), 0)

    probed = probe_rows(train, right, numbers, folds)

    scaled = train / np.sqrt((train**2).mean(axis=0))
    parts = [
        (np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)) for fold in range(5)
    ]
    model = LogisticRegression(C=probed.penalty, fit_intercept=False, max_iter=10_000)
    expected = cross_val_predict(model, scaled, right, cv=parts, method="decision_function")
    assert (folds, inside.tolist()) == (5, [True] * 3)
    # Each fold is scaled by its own rows here, and all by all of them there.
    assert np.corrcoef(probed.logits.ravel(), expected.ravel())[0, 1] > 0.999
    assert (probed.logits.argmax(1) == expected.argmax(1)).mean() > 0.98


def test_a_label_of_one_row_is_said_to_be_outside() -> None:
    """The others are looked at, in as many folds as the rarest of them has rows."""
    train, right = features(300, seed=11)
    given = right.copy()
    given[5] = 3
    given[[6, 7, 8]] = 4

    found = found_in(given, train, (*NAMES, "lone", "rare"))

    assert (found.outside, found.n, found.folds) == (["lone"], 299, 3)
    assert result_of(found).message.endswith(" Left out for having no two texts: lone.")


def test_equal_texts_are_in_one_fold() -> None:
    """A probe that was fitted on a text is not asked about it."""
    _, right = features(60, seed=12)
    own = rows(right)
    texts = list(own.texts)
    texts[10:20] = texts[0:10]

    numbers, _, _ = folds_of(dataclasses.replace(own, texts=tuple(texts)), 0)

    assert numbers[10:20].tolist() == numbers[0:10].tolist()


def test_the_score_without_the_suspects_is_that_of_a_probe_fitted_without_them() -> None:
    """On validation rows, with McNemar's exact test of the same rows."""
    train, right = features(900, seed=1)
    given = plant(right, 0.4, seed=2)
    validation, truth = features(200, seed=77)

    found = found_in(given, train)

    assert found.left_out is not None
    kept = np.setdiff1d(np.arange(900), [suspect.row for suspect in found.rows])
    rights = []
    for chosen in (np.arange(900), kept):
        scale = np.sqrt((train[chosen] ** 2).mean(axis=0))
        model = LogisticRegression(C=found.penalty, fit_intercept=False, max_iter=10_000)
        model.fit(train[chosen] / scale, given[chosen])
        rights.append((model.predict(validation / scale) == truth).astype(float))
    scores = found.left_out
    assert (scores.n, scores.accuracy) == (200, rights[0].mean())
    assert scores.accuracy_without == rights[1].mean()
    assert scores.p_value == mcnemar(*rights).p_value
    assert scores.ci95 is not None
    assert scores.ci95[0] <= scores.difference <= scores.ci95[1]
    assert scores.difference > 0


def test_other_tasks_are_refused_in_one_line(tmp_path: Path) -> None:
    """Nothing is read before that is said."""
    files = write_splits(sound_splits(), tmp_path, "csv")
    recipe = write_recipe(tmp_path, {**files, "label_column": "score"}, task="regression")

    with pytest.raises(UsageError) as refused:
        peftune.check(recipe, label_noise=True)

    assert str(refused.value) == (
        "Wrong labels are looked for in single-label tasks only (the recipe's task is regression). Leave --label-noise out."
    )


def test_without_cleanlab_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an extra: everything else works without it."""
    monkeypatch.setattr(
        module,
        "find_spec",
        lambda name: None if name == "cleanlab" else importlib.util.find_spec(name),
    )

    assert _exit_code(["check", "quickstart", "--label-noise"]) == 3
    assert capsys.readouterr().err == (
        "peftune: Looking for wrong labels needs cleanlab, which is not installed. Run: pip install 'peftune[label-noise]'\n"
    )


def test_the_command_line_tells_and_json_has_everything(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line of the check, the first rows by their number in the file, and the whole in JSON."""
    # A word for each label, so that even a random base tells them apart.
    draw, words = np.random.default_rng(0), ("cat", "moon")
    labels = np.arange(400) % 2
    given = labels.copy()
    given[draw.permutation(400)[:80]] ^= 1
    train = tmp_path / "train.jsonl"
    lines = [
        {"id": f"row-{row}", "text": f"{row} {words[labels[row]]}", "label": words[given[row]]}
        for row in range(400)
    ]
    train.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recipe = write_recipe(tmp_path, {"train_file": "train.jsonl"})
    command = ["check", str(recipe), "--label-noise", f"model.name_or_path={tiny_base}"]

    assert _exit_code(command) == 0
    printed = capsys.readouterr().out
    assert _exit_code([*command, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)

    noise = values["label_noise"]
    assert noise["verdict"] == "found"
    assert noise["interval"][0] <= 0.2 <= noise["interval"][1]
    named = [suspect["row"] for suspect in noise["rows"]]
    assert np.mean([given[row] != labels[row] for row in named]) > 0.9
    assert all(words[given[suspect["row"]]] == suspect["given"] for suspect in noise["rows"])
    result = values["results"][-1]
    assert (result["code"], result["status"]) == ("label-noise", "warn")
    assert result["rows"] == {"train": sorted(named)}
    assert f"WARN label-noise: {result['message']}\n     Read the rows" in printed
    assert f"The 10 likeliest of {noise['suspects']}; --json lists the others." in printed
    first = noise["rows"][0]
    assert [str(first["row"]), first["given"], first["likely"]] in [
        line.split() for line in printed.splitlines()
    ]
