"""Rows that an artifact was trained on are known again, others are not, and the scores stand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import peftune
from peftune.adapters.manifest import read_manifest
from peftune.cli.main import app
from peftune.data.text_hashes import SIZE, RowSketch
from peftune.errors import ArtifactError
from peftune.experiments import Run
from peftune.experiments.evaluate import seen_by
from peftune.files.reading import local_folder
from peftune.findings.evidence import seen_rows
from peftune.findings.finding import Finding
from peftune.recipe.schema import DataSection, ModelSection
from peftune.recipe.training import TrainingSection
from peftune.strategies import HeadOnly


def texts(first: int, count: int) -> list[str]:
    """Make texts by number."""
    return [f"text number {number}" for number in range(first, first + count)]


def test_a_sketch_of_few_texts_knows_each_of_them() -> None:
    """Whatever their case and white space; and it survives its way through a file."""
    sketch = RowSketch.parse(RowSketch.of(texts(0, 100)).written)

    assert sketch.whole
    assert sketch.share_of(["TEXT  number 7", "text number 99 ", "text number 100"]) == 2 / 3
    assert sketch == RowSketch.of(texts(0, 100))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_sketch_of_many_texts_estimates_the_share(share: float) -> None:
    """Of 20,000 texts 128 hashes are kept: the share is known within three standard errors."""
    sketch = RowSketch.of(texts(0, 20_000))
    seen = round(8000 * share)

    estimate = sketch.share_of([*texts(0, seen), *texts(10**6, 8000 - seen)])

    assert not sketch.whole
    assert len(sketch.written) < 900
    assert abs(estimate - share) <= 3 * 0.5 / (SIZE * 8000 / 20_000) ** 0.5 * (0 < share < 1)


@pytest.mark.parametrize("written", ["", "all", "some:AAAA", "all:A", "all:!!!!", "all:AAAAAA==", "sample:" + "AAAAAAA=" * 2])  # fmt: skip
def test_what_is_no_sketch_is_refused(written: str) -> None:
    """A manifest comes from anyone."""
    with pytest.raises(ValueError, match=r"sketch|padding|base64|Excess data|Only base64"):
        RowSketch.parse(written)


@pytest.mark.parametrize(
    ("seen", "others", "expected"),
    [(100, 0, True), (10, 90, True), (9, 91, False), (2, 10, False), (2, 0, True), (0, 50, False)],
    ids=["all", "a tenth", "less than a tenth", "two of a few", "two alone", "none"],
)
def test_rows_are_called_seen_from_a_tenth_on(seen: int, others: int, expected: bool) -> None:
    """Two short texts that also stand in train give no reason for a word."""
    trained_on = RowSketch.of(texts(0, 100))

    found = seen_rows(
        [*texts(0, seen), *texts(10**6, others)], trained_on, None, what="rows", consequence="…"
    )

    assert (found is not None) == expected


def test_an_artifact_that_knows_nothing_of_its_rows_says_nothing() -> None:
    """Such as one that was trained in a script."""
    assert seen_rows(texts(0, 9), None, None, what="rows", consequence="…") is None


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train for a step on rows whose validation rows are taken from the same file."""
    folder = tmp_path_factory.mktemp("run")
    rows("train", 0, 50, folder)
    rows("test", 1000, 20, folder)
    return peftune.run(
        peftune.Recipe(
            version=1,
            name="seen",
            model=ModelSection(name_or_path=str(base), max_length=24),
            data=DataSection(
                train_file=str(folder / "train.csv"),
                test_file=str(folder / "test.csv"),
                validation_split=0.2,
            ),
            strategy=HeadOnly(),
            training=TrainingSection(max_steps=1, use_cpu=True),
            output_dir=str(folder / "out"),
        )
    )


def rows(name: str, first: int, count: int, folder: Path) -> Path:
    """Write rows of two labels."""
    lines = [f"{text},{'ab'[number % 2]}" for number, text in enumerate(texts(first, count))]
    path = folder / f"{name}.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


SEEN = Finding(
    "seen-rows",
    "warning",
    "Of the 50 rows of 'train.csv' 80% were trained on and 20% chose the checkpoint, so the score says nothing of other rows.",
    "Score rows that took no part in training, such as those of data.test_file.",
)


def test_scoring_the_training_file_is_said_and_scored(
    run: Run, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a finding, and in one line of the log; the test file has neither."""
    folder = run.folder.parent
    with caplog.at_level(logging.WARNING, logger="peftune.experiments.evaluate"):
        learning = peftune.evaluate(run.artifact, folder / "train.csv", base=str(base))
        unseen = peftune.evaluate(run.artifact, folder / "test.csv", base=str(base))

    assert (learning.n, learning.findings) == (50, [SEEN])
    assert (unseen.n, unseen.findings) == (20, [])
    assert caplog.messages == [f"warning: {SEEN.message} {SEEN.advice}"]
    assert learning.accuracy is not None


def test_the_same_rows_in_another_file_are_known_again(
    run: Run, base: Path, tmp_path: Path
) -> None:
    """Not the file is remembered but what stands in it: other format, other order, other case."""
    lines = [f'{{"text": "{text.upper()}", "label": "a"}}' for text in reversed(texts(0, 50))]
    path = tmp_path / "again.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")

    [found] = peftune.evaluate(run.artifact, path, base=str(base)).findings

    assert found.message == SEEN.message.replace("train.csv", "again.jsonl")


def test_the_verbs_say_it_once_and_print_what_they_print(run: Run, base: Path) -> None:
    """In --json as a finding; predict and forget have a line each, on the error stream."""
    folder, runner = run.folder.parent, CliRunner()
    probe = folder / "probe.txt"
    probe.write_text("\n\n".join(texts(0, 50)), encoding="utf-8")
    arguments = [str(run.artifact), "--base", str(base)]

    scored = runner.invoke(app, ["evaluate", *arguments, "--file", str(folder / "train.csv"), "--json"])  # fmt: skip
    said = runner.invoke(app, ["predict", *arguments, "--file", str(folder / "train.csv")])
    measured = runner.invoke(app, ["forget", *arguments, "--probe", str(probe), "--json"])

    assert (scored.exit_code, said.exit_code, measured.exit_code) == (0, 0, 0)
    assert '"code": "seen-rows"' in scored.stdout
    assert len(said.stdout.splitlines()) == 50
    assert "documents of probe 'probe' 80% were trained on and 20% chose the checkpoint, so the probe shows what was learned of them, not what was forgotten." in measured.stdout  # fmt: skip


def test_a_sketch_that_is_none_is_a_damaged_manifest(run: Run) -> None:
    """It is refused in one line, not with a traceback."""
    manifest, _ = read_manifest(local_folder(run.artifact))
    values: dict[str, Any] = {**(manifest.task or {}), "trained_on": {"sketches": {"train": "x"}}}

    with pytest.raises(ArtifactError) as refused:
        seen_by(manifest.model_copy(update={"task": values}), ["a"], what="rows", consequence="…")
    assert str(refused.value) == (
        "The manifest is damaged: task.trained_on.sketches.train is not a sketch of texts. Fetch the artifact again."
    )
