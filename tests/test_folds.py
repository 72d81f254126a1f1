"""Cross-validation: every row scored by the run that did not see it, and the folds together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report_schema import faults

import peftune
from peftune.data.rows import Rows
from peftune.data.splits import fold_of
from peftune.data.task_data import load_task
from peftune.errors import DataError, RecipeError, UsageError
from peftune.experiments import Run, read_run
from peftune.experiments.run_evidence import read_evidence, read_lines
from peftune.recipe import read_recipe
from peftune.reporting import write_reports

RECIPE = """\
version: 1
name: crossed
model: {{name_or_path: {base}, max_length: 24}}
data:
  dataset_name: bundled:posts
  cross_validation: 3
  max_train_examples: 36
  max_validation_examples: 12
  max_test_examples: 15
strategy: {{name: lora, r: 2}}
training:
  max_steps: 2
  per_device_train_batch_size: 8
  learning_rate: 1.0e-2
  use_cpu: true
  logging_steps: 1
forgetting:
  probes: [{{type: lm-loss, dataset_name: "bundled:general-text", max_documents: 10}}]
output_dir: out
"""


def _rows(labels: list[int], *, groups: list[str] | None = None) -> Rows:
    texts = tuple(f"text number {index}" for index in range(len(labels)))
    return Rows(tuple(map(str, range(len(labels)))), texts, tuple(labels), groups)


@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_is_in_one_fold_and_every_fold_has_its_share(folds: int, seed: int) -> None:
    """Forty, twenty and ten rows of three labels: no fold has a row more than another of any."""
    rows = _rows([0] * 40 + [1] * 20 + [2] * 10)

    held = [fold_of(rows, folds, number, seed=seed) for number in range(folds)]

    assert sorted(row for _, fold in held for row in fold.ids) == sorted(rows.ids)
    for kept, fold in held:
        assert sorted([*kept.ids, *fold.ids]) == sorted(rows.ids)
        counts = Counter(fold.labels)
        assert all(abs(counts[i] - n / folds) <= 1 for i, n in enumerate((40, 20, 10)))
    again = fold_of(rows, folds, 1, seed=seed)[1]
    assert again.ids == held[1][1].ids
    assert fold_of(rows, folds, 1, seed=seed + 7)[1].ids != again.ids


def test_rows_of_one_group_and_equal_texts_are_in_one_fold() -> None:
    """An author is learned from or scored on, as where one split is held out."""
    groups = [f"author {index // 3}" for index in range(60)]
    rows = _rows([index % 2 for index in range(60)], groups=groups)
    texts = list(rows.texts)
    texts[0] = "Text NUMBER 59"  # ties the first author to the last
    rows = Rows(rows.ids, tuple(texts), rows.labels, groups)

    folds = [set(fold_of(rows, 4, number, seed=0)[1].ids) for number in range(4)]

    for fold in folds:
        authors = {groups[int(row)] for row in fold}
        assert all((str(row) in fold) == (groups[row] in authors) for row in range(60))
        assert ("0" in fold) == ("59" in fold)


def test_a_class_with_fewer_rows_than_folds_is_refused() -> None:
    """A fold without a class could not be scored on it, and the others would learn it by luck."""
    with pytest.raises(DataError) as caught:
        fold_of(_rows([0] * 20 + [1] * 4), 5, 0, seed=0)

    assert str(caught.value) == (
        "data.cross_validation: 5 folds need every class in each of them (the smallest class has 4). "
        "Ask for fewer folds, or add rows to it."
    )


def test_too_few_rows_are_told_before_the_first_fold(tmp_path: Path) -> None:
    """The check of the data says what the run would refuse, and nothing is written."""
    rows = tmp_path / "rows.csv"
    lines = [f"word{index} number{index * 7},{'ab'[index % 8 == 0]}" for index in range(30)]
    rows.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(base="bundled:tiny-gpt2"))
    overrides = [f"data={{train_file: {rows}, cross_validation: 5}}"]
    message = "data.cross_validation: 5 folds need every class in each of them (the smallest class has 4). Ask for fewer folds, or add rows to it."

    with pytest.raises(DataError) as caught:
        peftune.run(path, overrides=overrides, output=tmp_path / "out")

    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
    checked = peftune.check(path, overrides=overrides)
    assert [one.message for one in checked.with_status("fail")] == [message]


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Cross-validate a small recipe."""
    folder = tmp_path_factory.mktemp("crossed")
    (folder / "recipe.yaml").write_text(RECIPE.format(base=tiny_base))
    return peftune.run(folder / "recipe.yaml", output=folder / "out")


@pytest.mark.slow
def test_every_row_of_train_is_scored_by_the_run_that_did_not_see_it(run: Run) -> None:
    """The rows of the folds are all rows, each once, and none is learned or chosen by in its fold."""
    lines = read_lines(run.folder / "predictions.jsonl")
    plain = read_recipe(run.folder / "recipe.yaml").data.model_copy(
        update={"cross_validation": None, "test_split": None, "validation_split": 0.1}
    )
    everything = load_task(plain).train

    assert (run.learning.split, run.learning.n, len(lines)) == ("cross-validation", 36, 36)
    assert sorted(line["id"] for line in lines) == sorted(everything.ids)
    right = sum(line["label"] == line["predicted"] for line in lines)
    assert run.learning.accuracy == pytest.approx(right / 36)
    assert run.learning.ci95["accuracy"] is not None
    for number in range(3):
        task = load_task(read_recipe(run.folder / f"folds/{number}/recipe.yaml").data)
        mine = [line["id"] for line in lines if line["fold"] == number]
        assert task.test is not None
        assert list(task.test.ids) == mine
        assert not {*mine} & {*task.train.ids, *task.validation.ids}
        assert len(task.train) == 24


def test_the_report_has_each_fold_and_their_mean(run: Run) -> None:
    """Accuracy over all rows is the mean over folds by their rows; forgetting the mean of folds."""
    folds = [read_run(run.folder / fold.folder) for fold in run.folds]
    probe = run.forgetting["general-text"]
    apart = [fold.forgetting["general-text"] for fold in folds]

    assert [fold.folder for fold in run.folds] == ["folds/0", "folds/1", "folds/2"]
    assert [fold.n for fold in run.folds] == [12, 12, 12]
    assert [fold.accuracy for fold in run.folds] == [fold.learning.accuracy for fold in folds]
    assert run.learning.accuracy == pytest.approx(np.mean([fold.accuracy for fold in run.folds]))
    assert run.learning.loss == pytest.approx(np.mean([fold.loss for fold in run.folds]), rel=1e-5)
    assert probe.forgetting == pytest.approx(np.mean([one.forgetting for one in apart]))
    assert [fold.forgetting["general-text"] for fold in run.folds] == [
        one.forgetting for one in apart
    ]
    assert probe.before == apart[0].before
    assert probe.ci95 is not None
    assert probe.ci95[0] <= probe.forgetting <= probe.ci95[1]
    assert run.forgetting.controls == {"adapter_off_forgetting": 0.0}
    assert [fold.control for fold in run.folds] == [0.0] * 3
    assert run.learning.baselines["majority"]["accuracy"] == pytest.approx(
        np.mean([fold.learning.baselines["majority"]["accuracy"] for fold in folds])
    )
    for key in ("right_alone", "wrong_alone"):
        assert run.learning.baselines["majority"][key] == sum(
            fold.learning.baselines["majority"][key] for fold in folds
        )
    assert "macro_f1_p_value" not in run.learning.baselines["majority"]
    assert run.cost.steps == 6
    assert run.cost.examples_seen == sum(fold.cost.examples_seen for fold in folds)


def test_the_test_is_scored_by_the_mean_of_the_folds_logits(run: Run, tiny_base: Path) -> None:
    """No fold has a say in which test rows there are; each reads them, and logits are averaged."""
    task = load_task(
        read_recipe(run.folder / "recipe.yaml").data.model_copy(update={"cross_validation": None})
    )
    assert task.test is not None
    assert run.test is not None
    logits = np.mean(
        [
            peftune.load(
                run.folder / fold.folder / "adapter", base=str(tiny_base), use_cpu=True
            ).logits(list(task.test.texts))
            for fold in run.folds
        ],
        axis=0,
    )
    lines = read_lines(run.folder / "test-predictions.jsonl")

    assert (run.test.split, run.test.n) == ("test", 15)
    said = [task.labels[int(index)] for index in logits.argmax(-1)]
    assert [line["predicted"] for line in lines] == said
    assert [line["id"] for line in lines] == list(task.test.ids)
    assert run.test.accuracy == pytest.approx(
        np.mean(logits.argmax(-1) == np.array(task.test.labels))
    )


def test_the_report_is_read_as_it_was_written_and_shown_to_people(
    run: Run, tmp_path: Path
) -> None:
    """By the schema, by `read_run`, and as a page of its own."""
    values: dict[str, Any] = json.loads((run.folder / "report.json").read_text())

    assert faults(values) == []
    assert json.loads(json.dumps(read_run(run.folder).as_json())) == values
    written = write_reports(None, [read_evidence(run.folder)], (), tmp_path)
    page, markdown = (
        path.read_text(encoding="utf-8") for path in (written.page, written.markdown)
    )
    page = page.replace("<wbr>", "")  # where a long name may be broken
    assert "36 cross-validation rows" in page
    for shown in ("folds/2", "15 rows, logits of the folds averaged"):
        assert shown in page
        assert shown in markdown


@pytest.mark.slow
def test_a_cross_validation_goes_on_where_it_was_left(run: Run) -> None:
    """Folds that have finished are read; a finished cross-validation is not run again."""
    reports = [run.folder / "report.json", *sorted(run.folder.glob("folds/*/report.json"))]
    (run.folder / "report.json").unlink()
    (run.folder / "folds/2/report.json").unlink()
    before = [path.stat().st_mtime_ns for path in reports[1:3]]

    again = peftune.run(run.folder / "recipe.yaml", output=run.folder)
    written = [path.stat().st_mtime_ns for path in reports]
    finished = peftune.run(run.folder / "recipe.yaml", output=run.folder)

    assert written[1:3] == before
    assert again.learning == run.learning
    assert again.forgetting["general-text"].forgetting == pytest.approx(
        run.forgetting["general-text"].forgetting, abs=1e-9
    )
    assert finished.learning.accuracy == run.learning.accuracy
    assert [path.stat().st_mtime_ns for path in reports] == written


def test_a_cross_validation_has_no_artifact_of_its_own(run: Run) -> None:
    """There are as many as folds; the one to share is trained on all rows."""
    with pytest.raises(UsageError) as caught:
        _ = run.artifact

    assert str(caught.value) == (
        f"'{run.folder}' is a cross-validation: each of its 3 folds has an artifact, in 'folds/0' and so on, "
        "and none is better than the others. Run the recipe without data.cross_validation for one to share."
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.fold=3"], "recipe.yaml:4:1: data: 'fold' counts from 0, and there are 3 folds; see 'cross_validation'."),
        (["data.fold=0", "data.cross_validation=null"], "recipe.yaml:4:1: data: 'fold' counts from 0, and there are no folds; see 'cross_validation'."),
        (["data.cross_validation=1"], "command line 'data.cross_validation=1': data.cross_validation: must be greater than or equal to 2 (got 1)."),
        (["data.max_train_examples=null", "data.train_examples_per_label=4"], "recipe.yaml:4:1: data: 'cross_validation' learns from all rows of train but one fold's, so 'train_examples_per_label' does not go with it."),
        (["task=regression"], "recipe.yaml: 'data.cross_validation' has no meaning in 'task: regression'; it belongs to single-label."),
        (["stages=[{name: first, data: {dataset_name: 'bundled:general-text'}}]"], "recipe.yaml: 'stages' would be learned anew for every fold of 'data.cross_validation'; run them first, and initialize from their artifact: model.init_from."),
    ],
)  # fmt: skip
def test_what_does_not_go_with_folds_is_refused_in_one_line(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    """Before anything is read."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(base="bundled:tiny-gpt2"))

    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)

    assert str(caught.value).replace(f"{tmp_path}/", "") == message


def test_what_has_one_split_of_its_own_takes_no_folds(tmp_path: Path) -> None:
    """A comparison and a learning curve would score other rows than the folds."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(base="bundled:tiny-gpt2"))
    from peftune.experiments.compare import compare

    with pytest.raises(UsageError) as of_comparison:
        compare(path, strategies=["lora"], seeds=[0], output=tmp_path / "compared")
    with pytest.raises(UsageError) as of_curve:
        peftune.learning_curve(path, output=tmp_path / "curve")

    rest = "has one split of the rows, not folds. Set data.cross_validation=null, or cross-validate each recipe with peftune run."
    assert str(of_comparison.value) == f"A comparison {rest}"
    assert str(of_curve.value) == f"A learning curve {rest}"
