"""A recipe's forgetting budget: which checkpoint is kept, what is found, and which texts may decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bases import teach, write_base

import peftune
from peftune.cli.main import _exit_code
from peftune.errors import LeakageError, RecipeError
from peftune.experiments.run_inputs import read_inputs
from peftune.recipe import read_recipe, resolve

WATCHED = ("Rain again. The river stood high.", "Half a page about bread, and a long wait.")
REPORTED = ("Snow at last, and the roads were shut.", "Nobody knew why the committee met.")
RECIPE = """\
version: 1
name: budgeted
model: {name_or_path: base, max_length: 32}
data:
  dataset_name: bundled:posts
  max_train_examples: 32
  max_validation_examples: 16
  max_test_examples: 16
strategy: {name: full}
training:
  max_steps: 4
  eval_strategy: steps
  eval_steps: 1
  per_device_train_batch_size: 8
  learning_rate: 0.01
  lr_scheduler_type: constant
  metric_for_best_model: loss
  use_cpu: true
forgetting:
  probes:
    - {type: lm-loss, file: reported.txt}
  during_training:
    probe: {type: lm-loss, file: watched.txt}
output_dir: run
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a base that knows two texts by heart, the texts and the recipe, into one folder."""
    folder = tmp_path_factory.mktemp("shelf")
    teach(write_base(folder / "base"), (*WATCHED, *REPORTED))
    (folder / "watched.txt").write_text("\n\n".join(WATCHED), encoding="utf-8")
    (folder / "reported.txt").write_text("\n\n".join(REPORTED), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture
def run(shelf: Path, tmp_path: Path) -> Callable[..., peftune.Run]:
    """Run the recipe with some keys set; also one that the gate fails for its reported text."""

    def run_with(*overrides: str) -> peftune.Run:
        try:
            return peftune.run(shelf / "recipe.yaml", overrides=overrides, output=tmp_path / "run")
        except peftune.GateError as error:
            made: peftune.Run = error.run
            return made

    return run_with


@pytest.fixture(scope="module")
def free(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> peftune.Run:
    """Run the recipe without a budget: each of its four checkpoints scores better, and forgot more."""
    result = peftune.run(shelf / "recipe.yaml", output=tmp_path_factory.mktemp("free") / "run")
    losses = [point["validation_loss"] for point in result.learning.curve if is_scored(point)]
    assert losses == sorted(losses, reverse=True)
    assert watched(result) == sorted(watched(result))
    assert len(losses) == len(watched(result)) == 4
    return result


def is_scored(point: dict[str, Any] | Any) -> bool:  # noqa: ANN401 - a point of the curve
    """Say whether a point of the curve is an evaluation."""
    return "validation_loss" in point


def watched(result: peftune.Run) -> list[float]:
    """Return what was forgotten at every evaluation."""
    key = "forgetting_watched"
    return [point[key] for point in result.learning.curve if key in point]


def kept(result: peftune.Run, shelf: Path) -> float:
    """Measure the saved artifact on the text that was watched."""
    probe = peftune.probes.LanguageModelLoss(file=str(shelf / "watched.txt"))
    [found] = peftune.forget(
        result.artifact, [probe], base=str(shelf / "base"), use_cpu=True
    ).probes
    return found.forgetting


def codes(result: peftune.Run) -> list[str]:
    """Name the findings."""
    return [finding.code for finding in result.findings]


def between(free: peftune.Run, step: int, following: int) -> float:
    """Give a budget that one step keeps and the following one does not."""
    return (watched(free)[step - 1] + watched(free)[following - 1]) / 2


@pytest.mark.slow
def test_without_a_budget_the_checkpoint_that_scores_best_is_kept(
    free: peftune.Run, shelf: Path
) -> None:
    """Watching alone decides nothing."""
    assert kept(free, shelf) == pytest.approx(watched(free)[3], abs=1e-9)
    assert "over-budget" not in codes(free)


@pytest.mark.slow
def test_the_best_checkpoint_under_the_budget_is_saved(
    run: Callable[..., peftune.Run], free: peftune.Run, shelf: Path
) -> None:
    """Of four, each better than the one before, the second is the last that keeps the budget."""
    result = run(f"forgetting.budget={between(free, 2, 3)}")

    assert watched(result) == watched(free)
    assert kept(result, shelf) == pytest.approx(watched(free)[1], abs=1e-9)
    assert "over-budget" not in codes(result)


@pytest.mark.slow
def test_training_stops_over_the_budget_where_the_recipe_says_so(
    run: Callable[..., peftune.Run], free: peftune.Run, shelf: Path
) -> None:
    """The third step is over it: none follows, and the second is saved."""
    result = run(
        f"forgetting.budget={between(free, 2, 3)}",
        "forgetting.during_training.over_budget=stop-training",
    )

    assert watched(result) == watched(free)[:3]
    assert kept(result, shelf) == pytest.approx(watched(free)[1], abs=1e-9)
    assert "over-budget" not in codes(result)


@pytest.mark.costly
@pytest.mark.parametrize(("over_budget", "steps"), [("skip-checkpoint", 4), ("stop-training", 1)])
def test_a_run_that_is_always_over_its_budget_says_so_and_keeps_its_last_weights(
    over_budget: str, steps: int, run: Callable[..., peftune.Run], free: peftune.Run, shelf: Path
) -> None:
    """The finding names the least that was forgotten, and what can be done."""
    result = run("forgetting.budget=0.1", f"forgetting.during_training.over_budget={over_budget}")

    assert watched(result) == watched(free)[:steps]
    assert kept(result, shelf) == pytest.approx(watched(free)[steps - 1], abs=1e-9)
    [finding] = [finding for finding in result.findings if finding.code == "over-budget"]
    assert finding.severity == "warning"
    assert finding.message == (
        "Every checkpoint forgot more than the budget of 0.1 bits per byte on the text measured "
        f"during training, at least {watched(free)[0]:+.4f}. None could be chosen, so the weights "
        "are those of the last step."
    )
    assert finding.advice == (
        "Hold forgetting down with forgetting.regularizers, lower training.learning_rate, "
        "evaluate more often, or raise forgetting.budget."
    )


@pytest.mark.costly
@pytest.mark.parametrize("name", ["retrieval_text", "eval_prose", "x_runtime"])
def test_the_finding_does_not_depend_on_the_probes_name(
    name: str, run: Callable[..., peftune.Run], free: peftune.Run
) -> None:
    """A name that holds a part of one of Trainer's own is a name like any other."""
    result = run(
        "forgetting.budget=0.1",
        "forgetting.during_training.over_budget=stop-training",
        f"forgetting.during_training.probe.name={name}",
    )

    found = [p[f"forgetting_{name}"] for p in result.learning.curve if f"forgetting_{name}" in p]
    assert found == watched(free)[:1]
    assert "over-budget" in codes(result)


# At the command line.


@pytest.fixture
def call(
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in this process, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call_with(*overrides: str) -> tuple[int, str, str]:
        code = _exit_code(["run", str(shelf / "recipe.yaml"), *overrides, "--output", "run"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call_with


@pytest.mark.slow
def test_a_run_over_its_budget_ends_with_2_and_is_kept(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """The gate is the reported text; the finding is on the screen and in the report."""
    code, out, err = call("forgetting.budget=0.1")

    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    [probe] = report["forgetting"]["probes"]
    assert code == 2
    assert err.splitlines()[-1] == (
        f"peftune: Forgetting on 'reported' is {probe['forgetting']:+.4f} bits per byte, over the "
        "budget of 0.1. The run is kept in 'run'."
    )
    [finding] = [finding for finding in report["findings"] if finding["code"] == "over-budget"]
    assert f"\nwarning: {finding['message']} {finding['advice']}\n" in out
    assert report["status"] == "complete"
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_run_that_was_held_under_its_budget_ends_with_0(
    call: Callable[..., tuple[int, str, str]], free: peftune.Run
) -> None:
    """The same budget fails the run that nobody watched."""
    budget = between(free, 2, 3)
    assert free.forgetting["reported"].forgetting > budget

    code, _, err = call(f"forgetting.budget={budget}")

    assert (code, "over the budget" in err) == (0, False)


def test_a_budget_is_held_in_its_own_unit(shelf: Path) -> None:
    """Nats of another probe cannot be set against bits per byte."""
    with pytest.raises(RecipeError) as refused:
        read_recipe(
            shelf / "recipe.yaml",
            [
                "forgetting.budget=0.1",
                "forgetting.during_training.probe={type: kl, file: watched.txt}",
            ],
        )

    assert str(refused.value) == (
        f"{shelf / 'recipe.yaml'}:19:1: forgetting: 'budget' is in bits per byte, but 'watched', "
        "measured during training, is in nats/token; measure an lm-loss there."
    )


# Which texts may decide.


def words(first: int, last: int) -> str:
    """Write a text in which no word comes twice."""
    return " ".join(f"w{number}" for number in range(first, last + 1))


JUDGED = words(1, 112)
"""Of 100 sequences of 13 words."""

TEXTS = """\
version: 1
name: leaking
model: {name_or_path: base, max_length: 32}
data: {train_file: rows.jsonl}
strategy: {name: lora}
forgetting:
  probes:
    - {type: lm-loss, file: reported.txt}
  regularizers:
    - {type: replay, text: {file: replayed.txt}}
    - {type: kl-to-base, text: {file: divergence.txt}}
  during_training:
    probe: {type: lm-loss, file: watched.txt}
output_dir: run
"""
PLACES = {
    "reported.txt": "probe 'reported'",
    "watched.txt": "'watched', measured during training,",
    "rows.jsonl": "the task's training rows",
    "replayed.txt": "the text of regularizer 'replay'",
    "divergence.txt": "the text of regularizer 'kl-to-base'",
}
PAIRS = [
    ("reported.txt", "watched.txt"),
    ("reported.txt", "rows.jsonl"),
    ("reported.txt", "replayed.txt"),
    ("reported.txt", "divergence.txt"),
    ("watched.txt", "rows.jsonl"),
    ("watched.txt", "replayed.txt"),
    ("watched.txt", "divergence.txt"),
]


def write_texts(folder: Path, texts: dict[str, str]) -> Path:
    """Write a recipe and every text it names: one of its own where none is given."""
    write_base(folder / "base")
    for number, name in enumerate(PLACES, start=1):
        text = texts.get(name, words(1000 * number, 1000 * number + 200))
        if name == "rows.jsonl":
            rows = [{"text": f"row {row}", "label": "ab"[row % 2]} for row in range(30)]
            lines = [json.dumps(row) for row in [*rows, {"text": text, "label": "a"}]]
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            (folder / name).write_text(text, encoding="utf-8")
    (folder / "recipe.yaml").write_text(TEXTS, encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.mark.costly
@pytest.mark.parametrize(("judged", "read"), PAIRS)
@pytest.mark.parametrize(
    ("quoted", "share"),
    [
        pytest.param(JUDGED, "100.0%", id="the same text"),
        pytest.param(f"so {words(51, 64)} so", "2.0%", id="two sequences of it"),
    ],
)
def test_what_is_judged_by_is_not_read_in_training(
    *, judged: str, read: str, quoted: str, share: str, tmp_path: Path
) -> None:
    """Equal texts and an overlap of 2% are refused before anything is written."""
    recipe = write_texts(tmp_path, {judged: JUDGED, read: quoted})

    with pytest.raises(LeakageError) as refused:
        peftune.run(recipe, output=tmp_path / "run")

    assert str(refused.value) == (
        f"{share} of the 13-word sequences of {PLACES[judged]} are in {PLACES[read]} too; at most "
        "1% may be. What is measured must share nothing with what training reads or decides by: "
        "give one of them another text."
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.costly
@pytest.mark.parametrize(("judged", "read"), PAIRS)
def test_one_sequence_in_a_hundred_may_be_shared(judged: str, read: str, tmp_path: Path) -> None:
    """Chance and quotation share a little."""
    recipe = write_texts(tmp_path, {judged: JUDGED, read: f"so {words(51, 63)} so"})

    _, [text], _, _ = read_inputs(resolve(read_recipe(recipe)))

    assert text.label == "reported"


def test_what_training_reads_twice_is_no_leak(tmp_path: Path) -> None:
    """Regularizers may learn from the task's own rows, and from one text together."""
    same = {"rows.jsonl": JUDGED, "replayed.txt": JUDGED, "divergence.txt": JUDGED}

    read_inputs(resolve(read_recipe(write_texts(tmp_path, same))))


def test_a_leak_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], call: object
) -> None:
    """A gate failed: the recipe is well formed, and what it asks for must not be done."""
    assert call is not None
    recipe = write_texts(tmp_path, {"reported.txt": JUDGED, "watched.txt": JUDGED})

    code = _exit_code(["run", str(recipe), "--output", "run"])

    assert code == 2
    assert capsys.readouterr().err == (
        "peftune: 100.0% of the 13-word sequences of probe 'reported' are in 'watched', measured "
        "during training, too; at most 1% may be. What is measured must share nothing with what "
        "training reads or decides by: give one of them another text.\n"
    )
    assert not (tmp_path / "run").exists()
