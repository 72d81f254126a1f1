"""Tuning: equal effort for each strategy, decided by the validation rows, kept through interrupts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from bases import write_base
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import peftune
from peftune.cli.main import _exit_code
from peftune.cli.signals import INTERRUPTED
from peftune.data.task_data import load_task
from peftune.errors import OutputFolderError, RecipeError, TrainingError, UsageError
from peftune.experiments.tune import Edge, Tuning, tune
from peftune.experiments.tune import study as study_module
from peftune.experiments.tune.study import JOURNAL, Search, Worker, open_storage
from peftune.experiments.tune.tuning_results import edges_of, write_comparison
from peftune.recipe import read_recipe, resolve, with_strategy
from peftune.recipe.schema import Dimension
from peftune.recipe.search_space import space_of, with_parameters

RECIPE = """\
version: 1
name: search
model: {name_or_path: ./base, max_length: 24}
data:
  train_file: train.jsonl
  validation_file: validation.jsonl
  test_file: test.jsonl
strategy: {name: lora, r: 2}
training:
  num_train_epochs: 2
  per_device_train_batch_size: 8
  learning_rate: 1.0e-3
  metric_for_best_model: loss
  use_cpu: true
tune:
  trials: 3
  space:
    training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
    strategy.r: {choices: [2, 4]}
  strategies:
    full: {space: {training.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}}
output_dir: runs/search
"""
WORDS = {"good": "sunny day", "bad": "rainy night"}


def _rows(count: int, first: int = 0) -> str:
    rows = []
    for number in range(first, first + count):
        label = ("good", "bad")[number % 2]
        rows.append({"text": f"{number} {WORDS[label]}", "label": label})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose trials take a moment each."""
    folder = tmp_path_factory.mktemp("search")
    write_base(folder / "base")
    for name, first, count in (("train", 0, 24), ("validation", 24, 12), ("test", 36, 12)):
        (folder / f"{name}.jsonl").write_text(_rows(count, first), encoding="utf-8")
    (folder / "search.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "search.yaml"


@pytest.fixture(scope="module")
def tuning(recipe: Path) -> Tuning:
    """Two strategies, searched."""
    return tune(recipe, strategies=["lora", "full"], output=recipe.parent / "out")


def _trials(tuning: Tuning) -> list[Any]:
    return [tuned.trials for tuned in tuning.strategies]


def _with_tune(recipe: Path, folder: Path, changes: Mapping[str, str]) -> Path:
    """Write the recipe with other text in it, its files where they were."""
    text = RECIPE
    for old, new in {**changes, ": ./base": f": {recipe.parent / 'base'}"}.items():
        assert old in text
        text = text.replace(old, new)
    for name in ("train", "validation", "test"):
        text = text.replace(f": {name}.jsonl", f": {recipe.parent / name}.jsonl")
    path = folder / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _study(out: Path) -> optuna.Study:
    """Read a study as Optuna's own tools do."""
    storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    return optuna.load_study(study_name="lora", storage=storage)


RATES = "training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}"


# What may be searched


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "training.learning_rate: {low: 1.0e-4",
            "training.lerning_rate: {low: 1.0e-4",
            "tune.space.training.lerning_rate: unknown key. Did you mean 'training.learning_rate'? Available: strategy.freeze_layers, ",
        ),
        (
            "strategy.r: {choices: [2, 4]}",
            "training.seed: {choices: [2, 4]}",
            "tune.space.training.seed: this key is not tuned: it decides how a trial is scored, not how well it learns.",
        ),
        (
            "strategy.r: {choices: [2, 4]}",
            "strategy.r: {choices: [2, 4000]}",
            "tune.space.strategy.r.choices[1]: must be less than or equal to 1024 (got 4000).",
        ),
        (
            "strategy.r: {choices: [2, 4]}",
            "strategy.r: {low: 0.5, high: 4}",
            "tune.space.strategy.r.low: must be an integer (got 0.5).",
        ),
        (
            "{low: 1.0e-4, high: 1.0e-2, log: true}",
            "{low: 1.0e-2, high: 1.0e-4, log: true}",
            "tune.space.training.learning_rate: 'low' must be below 'high' (got 0.01 and 0.0001).",
        ),
        (
            "{low: 1.0e-4, high: 1.0e-2, log: true}",
            "{low: 1.0e-4, hihg: 1.0e-2}",
            "tune.space.training.learning_rate.hihg: unknown key. Did you mean 'high'? Available: choices, high, log, low, step.",
        ),
        (
            "    full: {space: {training.learning_rate",
            "    full: {space: {strategy.r",
            "tune.strategies.full.space.strategy.r: unknown key. Did you mean 'strategy.freeze_layers'? Available: strategy.freeze_layers, ",
        ),
        (
            "    full: {space",
            "    ful: {space",
            "tune.strategies.ful: unknown strategy 'ful'. Did you mean 'full'? Available: full, head-only, lora, lora-8bit.",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_place_and_remedy(
    recipe: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    """Keys and the ends of ranges are checked against the schema when the recipe is read."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(_with_tune(recipe, tmp_path, {old: new}))

    first = str(caught.value).splitlines()[0]
    place, _, message = first.partition(": ")
    assert place.startswith(f"{tmp_path / 'changed.yaml'}:")
    assert message.startswith(told)
    if told.endswith("."):
        assert message == told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"low": 1.0}, "needs 'low' and 'high', or 'choices'"),
        (
            {"low": 1, "choices": [1, 2]},
            "needs either 'choices', or 'low' and 'high', and not both",
        ),
        ({"choices": [1, 2, 1]}, "'choices' names a value twice"),
        ({"low": 0.0, "high": 1.0, "log": True}, "'log' needs 'low' above 0 (got 0.0)"),
        ({"low": 1, "high": 4, "log": True, "step": 1}, "'log' and 'step' exclude each other"),
        (
            {"low": 0.0, "high": 1.0, "step": 0.3},
            "'high' must be whole steps above 'low' (got 0.0, 1.0 and a step of 0.3)",
        ),
    ],
)
def test_a_dimension_is_a_range_or_a_list(values: dict[str, Any], told: str) -> None:
    """What is neither, or both, is refused."""
    with pytest.raises(ValueError, match="Value error") as caught:
        Dimension.model_validate(values)

    assert f"Value error, {told} [" in str(caught.value)


def test_a_strategy_is_searched_where_it_has_the_key_and_its_own_range_wins(recipe: Path) -> None:
    """`strategy.r` is nothing to `full`, and its learning rates are its own."""
    chosen = read_recipe(recipe)

    spaces = {}
    for name in ("lora", "full", "head-only"):
        own = resolve(with_strategy(chosen, name)).model_copy(update={"tune": chosen.tune})
        spaces[name] = {key: (d.low, d.choices) for key, d in space_of(own).items()}

    assert spaces == {
        "lora": {"training.learning_rate": (1e-4, None), "strategy.r": (None, (2, 4))},
        "full": {"training.learning_rate": (1e-5, None)},
        "head-only": {"training.learning_rate": (1e-4, None)},
    }


def test_without_a_space_the_search_is_around_the_recipes_own_learning_rate() -> None:
    """A decade on either side, with batch size, and rank where there is one."""
    chosen = read_recipe("quickstart")

    spaces = {
        name: {
            key: d.choices or (d.low, d.high, d.log)
            for key, d in space_of(resolve(with_strategy(chosen, name))).items()
        }
        for name in ("lora", "full")
    }

    assert spaces == {
        "lora": {
            "training.learning_rate": (1e-4, 1e-2, True),
            "training.per_device_train_batch_size": (8, 16, 32),
            "strategy.r": (4, 8, 16, 32),
        },
        "full": {
            "training.learning_rate": (5e-5, 5e-3, True),
            "training.per_device_train_batch_size": (8, 16, 32),
        },
    }


def test_tuning_needs_something_to_search(recipe: Path, tmp_path: Path) -> None:
    """A strategy that has none of the keys is refused before anything is trained."""
    changed = _with_tune(recipe, tmp_path, {f"    {RATES}\n": ""})

    with pytest.raises(UsageError) as caught:
        tune(changed, strategies=["lora", "head-only"], output=tmp_path / "out")

    assert str(caught.value) == (
        "tune.space names no key that 'head-only' has. Add one, such as training.learning_rate, "
        "or leave 'head-only' out."
    )
    assert not (tmp_path / "out").exists()


def test_what_is_searched_is_no_part_of_a_run(recipe: Path) -> None:
    """A `tune` block leaves the identity of every run as it is, so that finished runs stay theirs."""
    with_block = resolve(read_recipe(recipe))
    without = resolve(read_recipe(recipe, ["tune={}"]))

    assert with_block == without


# What a search does


@pytest.mark.slow
def test_every_strategy_has_the_same_budget_on_the_same_rows(tuning: Tuning) -> None:
    """Trials and examples are counted and recorded."""
    for name in ("lora", "full"):
        tuned = tuning[name]
        assert [trial.number for trial in tuned.trials] == [0, 1, 2]
        assert {trial.examples for trial in tuned.trials} == {2 * 24}
        assert (tuned.count("complete"), tuned.examples_seen) == (3, 3 * 48)


def test_the_first_trial_is_the_recipe_as_written(tuning: Tuning) -> None:
    """So a winner is never worse on the validation rows than what was there before."""
    first = tuning["lora"].trials[0]

    assert first.parameters == {"training.learning_rate": 1e-3, "strategy.r": 2}
    best, value = tuning["lora"].value, first.value
    assert best is not None
    assert value is not None
    assert best <= value


def test_values_lie_in_their_ranges_and_differ(tuning: Tuning) -> None:
    """Each trial tries something else."""
    for name, low, high in (("lora", 1e-4, 1e-2), ("full", 1e-5, 1e-3)):
        rates = [trial.parameters["training.learning_rate"] for trial in tuning[name].trials]
        assert all(low <= rate <= high for rate in rates)
        assert len(set(rates)) == len(rates)


@pytest.mark.slow
def test_the_same_search_twice_gives_the_same_trials(
    recipe: Path, tuning: Tuning, tmp_path: Path
) -> None:
    """Values and what was tried are equal, bit for bit."""
    again = tune(recipe, strategies=["lora", "full"], output=tmp_path / "again")

    assert _trials(again) == _trials(tuning)


def test_another_seed_of_the_search_tries_other_values(
    recipe: Path, tuning: Tuning, tmp_path: Path
) -> None:
    """`tune.seed` decides what is tried."""
    other = tune(recipe, overrides=["tune.seed=1"], trials=2, output=tmp_path / "other")

    assert other["lora"].trials[0] == tuning["lora"].trials[0]
    assert other["lora"].trials[1].parameters != tuning["lora"].trials[1].parameters


@pytest.mark.costly
@pytest.mark.parametrize("content", [None, "no json\n", "labels turned round"])
def test_the_test_rows_take_no_part(
    recipe: Path, tuning: Tuning, tmp_path: Path, content: str | None
) -> None:
    """Without them, with a file that nobody can read, or with wrong labels, the search is the same."""
    changed = _with_tune(recipe, tmp_path, {"trials: 3": "trials: 2"})
    text = changed.read_text("utf-8")
    assert f"{recipe.parent / 'test'}.jsonl" in text
    changed.write_text(text.replace(f"{recipe.parent / 'test'}.jsonl", "test.jsonl"), "utf-8")
    if content == "labels turned round":
        rows = _rows(12, 36)
        content = rows.replace("good", "?").replace("bad", "good").replace("?", "bad")
    if content is not None:
        (tmp_path / "test.jsonl").write_text(content, encoding="utf-8")

    found = tune(changed, strategies=["lora"], output=tmp_path / "out")

    assert found["lora"].trials == tuning["lora"].trials[:2]


def test_the_other_rows_are_the_same_without_the_test_rows(tmp_path: Path) -> None:
    """What is held out of train for the test is learned by no trial."""
    (tmp_path / "rows.jsonl").write_text(_rows(60), encoding="utf-8")
    text = "version: 1\nname: a\ndata: {train_file: rows.jsonl, test_split: 0.2, max_train_examples: 20}\nstrategy: {name: full}\noutput_dir: a\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    section = read_recipe(tmp_path / "recipe.yaml").data

    whole, rest = load_task(section), load_task(section, with_test=False)

    assert (rest.train, rest.validation, rest.test) == (whole.train, whole.validation, None)
    assert whole.test is not None
    assert not set(whole.test.texts) & {*rest.train.texts, *rest.validation.texts}


def test_a_trial_leaves_nothing_but_its_record(tuning: Tuning) -> None:
    """No checkpoint and no artifact stays."""
    assert sorted(path.name for path in tuning.folder.iterdir()) == [
        "compare.yaml",
        "full.yaml",
        "lora.yaml",
        "study.journal",
        "tuning.json",
    ]
    values = json.loads((tuning.folder / "tuning.json").read_text(encoding="utf-8"))
    assert values == tuning.as_json()


# The winners


def test_a_winner_run_reaches_the_value_of_its_trial(tuning: Tuning, tmp_path: Path) -> None:
    """The recipe of the winner finds its files, and its best validation loss is the trial's."""
    path = tuning["lora"].recipe
    assert path == tuning.folder / "lora.yaml"

    run = peftune.run(path, output=tmp_path / "run")

    losses = [
        point["validation_loss"] for point in run.learning.curve if "validation_loss" in point
    ]
    assert min(losses) == tuning["lora"].value
    assert run.learning.split == "test"
    written = read_recipe(path)
    assert written.training.seed == 0
    assert written.output_dir == "runs/search-tuned-lora"
    assert {
        "training.learning_rate": written.training.learning_rate,
        "strategy.r": getattr(written.strategy, "r", None),
    } == tuning["lora"].parameters


def test_the_comparison_gives_every_strategy_its_own_winner(tuning: Tuning) -> None:
    """A strategy of `compare.yaml` trains with what the winner's own recipe says."""
    assert tuning.compare == tuning.folder / "compare.yaml"
    chosen = read_recipe(tuning.compare)

    assert chosen.compare.held_equal == "tuned"
    assert chosen.compare.tuning_budget == {"lora": 3, "full": 3}
    for name in ("lora", "full"):
        resolved = resolve(with_strategy(chosen, name))
        winner = read_recipe(tuning.folder / f"{name}.yaml")
        assert (resolved.strategy, resolved.training) == (winner.strategy, winner.training)
        assert (resolved.data, resolved.model) == (winner.data, winner.model)


def test_a_comparison_that_cannot_have_the_winners_is_not_written(
    recipe: Path, tmp_path: Path
) -> None:
    """Two ranks do not fit into one `strategy` block, and the reason says so."""
    chosen = read_recipe(recipe)
    winners = {
        name: with_parameters(resolve(with_strategy(chosen, name)), {"strategy.r": rank})
        for name, rank in (("lora", 2), ("lora-8bit", 4))
    }
    equal = {**winners, "lora-8bit": with_parameters(winners["lora-8bit"], {"strategy.r": 2})}

    written = write_comparison(chosen, equal, trials=3, folder=tmp_path)
    refused = write_comparison(chosen, winners, trials=3, folder=tmp_path)

    assert written == (tmp_path / "compare.yaml", None)
    assert refused == (
        None,
        "the best values of two strategies differ in a key of 'strategy' that both have, and a comparison takes such a key from one strategy; run the recipes one by one",
    )
    assert not (tmp_path / "compare.yaml").exists()


def test_a_learning_rate_at_the_edge_of_its_range_is_told(tuning: Tuning) -> None:
    """A better one may lie beyond; the winner of this search is the recipe's own, at the end."""
    (edge,) = tuning["full"].edges

    assert edge == Edge("training.learning_rate", 1e-3, 1e-5, 1e-3, "high")
    assert str(edge) == (
        "the best training.learning_rate, 0.001, lies at the high end of [1e-05, 0.001]; "
        "a better one may lie beyond. Widen its range in tune.space."
    )


@pytest.mark.parametrize(
    ("value", "dimension", "side"),
    [
        (1.2e-4, Dimension(low=1e-4, high=1e-2, log=True), "low"),
        (1.3e-4, Dimension(low=1e-4, high=1e-2, log=True), None),
        (9e-3, Dimension(low=1e-4, high=1e-2, log=True), "high"),
        (9e-3, Dimension(low=1e-4, high=1e-2), None),
        (1e-3, Dimension(choices=(1e-4, 1e-3, 1e-2)), None),
        (1e-2, Dimension(choices=(1e-4, 1e-3, 1e-2)), "high"),
    ],
)
def test_an_edge_is_a_twentieth_of_the_range_at_either_end(
    value: float, dimension: Dimension, side: str | None
) -> None:
    """In orders of magnitude where those are searched; of a list, its first and last value."""
    found = edges_of({"rate": value}, "rate", dimension)

    assert [edge.side for edge in found] == ([side] if side else [])


# Trials that end early


def test_a_trial_below_the_median_is_given_up_and_counts(recipe: Path, tmp_path: Path) -> None:
    """It stops at its first evaluation, uses its place in the budget, and wins nothing."""
    out = tmp_path / "out"
    tune(recipe, trials=1, output=out)
    study = _study(out)
    (begun,) = study.get_trials()
    for place in range(1, 5):
        study.add_trial(
            optuna.trial.create_trial(
                params=begun.params,
                distributions=begun.distributions,
                value=-1.0,  # a loss that no training reaches
                intermediate_values={24: -1.0, 48: -1.0},
                user_attrs={"place": place},
            )
        )

    tuned = tune(recipe, trials=6, output=out)["lora"]

    last = tuned.trials[-1]
    assert (last.state, last.value, last.examples) == ("pruned", None, 24)
    assert (tuned.count("complete"), tuned.count("pruned")) == (5, 1)
    assert tuned.value == -1.0


def test_a_failed_trial_stops_no_other(recipe: Path, tmp_path: Path) -> None:
    """It counts, with its reason, and the best of the others wins."""
    changed = _with_tune(
        recipe, tmp_path, {RATES: "training.learning_rate: {choices: [1.0e-3, 1.0e+30]}"}
    )

    tuned = tune(changed, trials=3, output=tmp_path / "out")["lora"]

    states = {trial.parameters["training.learning_rate"]: trial.state for trial in tuned.trials}
    assert states == {1e-3: "complete", 1e30: "failed"}
    assert len(tuned.trials) == 3
    assert tuned.parameters["training.learning_rate"] == 1e-3
    messages = {trial.message for trial in tuned.trials if trial.state == "failed"}
    assert all(str(message).endswith("or check the data.") for message in messages)


def test_when_every_trial_fails_the_last_reason_is_told(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 1, and what was tried is kept."""
    changed = _with_tune(
        recipe, tmp_path, {RATES: "training.learning_rate: {choices: [1.0e+29, 1.0e+30]}"}
    )
    out = tmp_path / "out"

    code = _exit_code(["tune", str(changed), "--trials", "2", "--output", str(out)])

    assert code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "peftune: No trial of 'lora' finished, of 2. The last failure: The model's outputs are not "
        "finite: training has diverged. Lower training.learning_rate, or check the data."
    )
    values = json.loads((out / "tuning.json").read_text(encoding="utf-8"))
    assert (values["strategies"][0]["failed"], values["compare"]) == (2, None)
    with pytest.raises(TrainingError):
        tune(changed, trials=2, output=out)


# Going on, and sharing


def test_more_trials_go_on_from_those_that_are_there(
    recipe: Path, tuning: Tuning, tmp_path: Path
) -> None:
    """The first ones are not run again, and fewer than are there is refused."""
    out = tmp_path / "out"
    shutil.copytree(tuning.folder, out)

    more = tune(recipe, trials=4, output=out)

    assert more["lora"].trials[:3] == tuning["lora"].trials
    assert len(more["lora"].trials) == 4
    with pytest.raises(OutputFolderError) as caught:
        tune(recipe, trials=2, output=out)
    assert str(caught.value) == (
        f"'{out}' holds 4 trials of 'lora', more than the 2 asked for. Ask for 4 with --trials, or "
        "choose another folder with --output."
    )


@pytest.mark.parametrize("change", ["training.weight_decay=0.1", "tune.seed=3", "rows"])
def test_a_study_of_something_else_is_refused(
    recipe: Path, tuning: Tuning, tmp_path: Path, change: str
) -> None:
    """Another recipe, another search or other rows would mix what cannot be compared."""
    out, copy = tmp_path / "out", tmp_path / "copy"
    shutil.copytree(tuning.folder, out)
    shutil.copytree(recipe.parent, copy, ignore=shutil.ignore_patterns("out"))
    before = (out / JOURNAL).read_bytes()
    if change == "rows":
        (copy / "train.jsonl").write_text(_rows(26, 100), encoding="utf-8")

    with pytest.raises(OutputFolderError) as caught:
        tune(
            copy / "search.yaml",
            trials=4,
            overrides=[] if change == "rows" else [change],
            output=out,
        )

    assert str(caught.value) == (
        f"'{out}' holds the study of another recipe, or of other rows. Choose another folder with "
        "--output, or remove it."
    )
    assert (out / JOURNAL).read_bytes() == before


def test_a_folder_of_something_else_is_not_written_into(recipe: Path) -> None:
    """A winner would overwrite the `lora.yaml` that may lie there."""
    with pytest.raises(OutputFolderError) as caught:
        tune(recipe, output=recipe.parent)

    assert str(caught.value) == (
        f"'{recipe.parent}' is not empty and holds no study. Choose another output folder with "
        "--output, or empty it."
    )


@pytest.mark.parametrize("lines", [1, 99])
def test_a_file_that_is_not_a_journal_is_told(recipe: Path, tmp_path: Path, lines: int) -> None:
    """One line, no traceback."""
    (tmp_path / JOURNAL).write_text("not a journal\n" * lines)

    with pytest.raises(OutputFolderError) as caught:
        tune(recipe, output=tmp_path)

    assert str(caught.value) == (
        f"'{tmp_path / JOURNAL}' cannot be used as a study (Expecting value: line 1 column 1 (char 0)). "
        "Choose another output folder with --output, or remove it."
    )
    assert (tmp_path / JOURNAL).read_text() == "not a journal\n" * lines


def test_the_study_of_an_older_version_is_not_read(recipe: Path, tmp_path: Path) -> None:
    """It is a SQLite file, and one line says so."""
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\0")

    with pytest.raises(OutputFolderError) as caught:
        tune(recipe, output=tmp_path)

    assert str(caught.value) == (
        f"'{tmp_path / 'study.db'}' is the study of an older version of peftune, which is not read. "
        "Choose another output folder with --output, or remove it."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def _start(recipe: Path, out: Path, trials: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "peftune", "tune", str(recipe)]
    return subprocess.Popen(
        [*command, "--trials", str(trials), "--output", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs deaf to SIGINT, and their children inherit that.
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 - no threads matter before exec
    )


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _finished(out: Path) -> int:
    if not (out / JOURNAL).is_file():
        return 0
    try:
        study = _study(out)
    except KeyError:  # the other process has not created it yet
        return 0
    return sum(trial.state.is_finished() for trial in study.get_trials())


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(
    recipe: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Finished trials are kept, the one that was running is made up for, and no other is tried."""
    out = tmp_path / "out"
    process = _start(recipe, out, trials=8)
    _wait(lambda: _finished(out) >= 1)
    process.send_signal(how)
    process.communicate()
    kept = _finished(out)

    rest = tune(recipe, trials=8, output=out)
    whole = tune(recipe, trials=8, output=tmp_path / "whole")

    assert process.returncode == (INTERRUPTED if how == signal.SIGINT else -how)
    assert 1 <= kept < 8
    assert rest["lora"].trials == whole["lora"].trials


def test_a_line_that_a_crash_left_unfinished_is_cut(
    recipe: Path, tuning: Tuning, tmp_path: Path
) -> None:
    """What stands before it is kept; a trial that it ended is repeated."""
    out = tmp_path / "out"
    shutil.copytree(tuning.folder, out)
    with (out / JOURNAL).open("a", encoding="utf-8") as file:
        file.write('{"op_code":6,"worker_id":"6c')

    trials = tune(recipe, trials=4, output=out)["lora"].trials

    assert [trial.state for trial in trials] == ["complete"] * 4
    assert trials[:3] == tuning["lora"].trials


def _search(out: Path, *, trials: int) -> Search:
    return Search(
        open_storage(out),
        "lora",
        identity="any",
        maximize=False,
        trials=trials,
        seed=0,
        start={},
        prune=False,
    )


def test_a_place_that_two_processes_claim_at_once_is_that_of_the_first(tmp_path: Path) -> None:
    """The second one in the journal takes the next place, and begins none beyond the budget."""
    first, second = _search(tmp_path, trials=2), _search(tmp_path, trials=2)
    free = [0, 0, 1, None]  # the second one asks before it has read what the first one writes

    with Worker(tmp_path) as one, Worker(tmp_path) as other, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Search, "_free_place", lambda _: free.pop(0))
        begun = [first.begin(one), second.begin(other), second.begin(other)]

    assert [trial and trial.user_attrs["place"] for trial in begun] == [0, 1, None]
    assert [trial.user_attrs["worker"] for trial in first.counted()] == [one.name, other.name]


@pytest.mark.parametrize(
    ("change", "lives"),
    [
        ({}, True),
        ({"process": 2**22 + 1}, False),
        ({"began": 1.0}, False),
        ({"process": 2**22 + 1, "host": "elsewhere"}, True),
        ({"process": 2**22 + 1, "host": "elsewhere", "silent": 300}, False),
        (None, False),
    ],
    ids=["here", "ended", "another of its number", "elsewhere", "silent", "left"],
)
def test_a_trial_is_repeated_when_its_process_does_not_live(
    change: dict[str, Any] | None, lives: bool, tmp_path: Path
) -> None:
    """Of this machine it is known; of another one the file tells that it touches while it lives."""
    search = _search(tmp_path, trials=1)
    with Worker(tmp_path) as other, Worker(tmp_path) as worker:
        assert search.begin(other) is not None
        path = tmp_path / other.name
        if change is None:
            path.unlink()
        else:
            silent = change.pop("silent", 0)
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
            os.utime(path, (time.time() - silent,) * 2)

        again = search.begin(worker)

    assert (again is None) == lives
    assert len(search.counted()) == 1


def test_a_worker_touches_its_file_while_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while nothing else happens; afterwards the file is gone."""
    monkeypatch.setattr(study_module, "_BEAT_SECONDS", 0.01)
    with Worker(tmp_path) as worker:
        path = tmp_path / worker.name
        os.utime(path, (0, 0))
        _wait(lambda: path.stat().st_mtime > 0)

    assert not path.exists()


@pytest.mark.slow
def test_two_processes_share_the_trials(recipe: Path, tmp_path: Path) -> None:
    """Together they run the budget once, both do some of it, and both tell all of it."""
    out = tmp_path / "out"
    processes = [_start(recipe, out, trials=6) for _ in range(2)]
    told = [process.communicate() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], told
    assert told[0][0] == told[1][0]
    counted = [trial for trial in _study(out).get_trials() if trial.state.name != "FAIL"]
    assert sorted(trial.user_attrs["place"] for trial in counted) == list(range(6))
    assert len({trial.user_attrs["worker"] for trial in counted}) == 2
    rates = [trial.params["training.learning_rate"] for trial in counted]
    assert len(set(rates)) == len(rates)


# The command line


def test_the_table_says_what_was_found_and_what_to_run(
    recipe: Path, tuning: Tuning, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row a strategy; then the edge, and the recipes of the winners."""
    arguments = ["tune", str(recipe), "--strategies", "lora,full", "--output", str(tuning.folder)]

    assert _exit_code(arguments) == 0
    out = capsys.readouterr().out
    assert _exit_code([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tuning.as_json()

    lines = out.splitlines()
    headings = [
        "strategy",
        "loss",
        "parameters",
        "complete",
        "pruned",
        "failed",
        "examples",
        "seen",
    ]
    assert lines[0].split() == headings
    loss = f"{tuning['full'].value:.4f}"
    assert lines[2].split() == ["full", loss, "learning_rate", "0.001", "3", "0", "0", "144"]
    assert f"full: {tuning['full'].edges[0]}" in lines
    assert f"lora: peftune run {tuning.folder / 'lora.yaml'}" in lines
    assert lines[-1] == (
        f"To compare: peftune compare {tuning.folder / 'compare.yaml'} --strategies lora,full"
    )


def test_without_optuna_one_line_says_how_to_get_it(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an extra: everything else works without it."""
    monkeypatch.setitem(sys.modules, "optuna", None)

    assert _exit_code(["tune", str(recipe)]) == 3
    assert capsys.readouterr().err == (
        "peftune: Tuning needs optuna, which is not installed. Run: pip install 'peftune[tune]'\n"
    )
