"""The Python API: whatever a verb does, the function of that name does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import peftune
from peftune.cli.main import _exit_code
from peftune.display import Block, Displayed, text_table
from peftune.errors import UsageError

_BLOCK = """
import peftune

run = peftune.run("recipes/quickstart.yaml", strategy=peftune.LoRA(r=4))
run.learning.accuracy, run.forgetting["general-text"].forgetting, run.artifact

comparison = peftune.compare("quickstart", strategies=["full", "lora"], seeds=[0])

classifier = peftune.load(run.artifact)
predictions = classifier.predict(["what a lovely day"])
evaluation = peftune.evaluate(run.artifact, file="rows.csv")
again = peftune.predict(run.artifact, ["what a lovely day"])

import transformers
from datasets import Dataset

probe = peftune.probes.LanguageModelLoss(dataset_name="bundled:general-text", max_documents=2)
model, tokenizer = peftune.prepare(
    "gpt2", strategy=peftune.LoRA8bit(r=8), labels=["negative", "neutral", "positive"]
)
rows = Dataset.from_list(
    [{**tokenizer(text), "labels": label} for label, text in enumerate(["bad", "so", "good"])]
)
trainer = transformers.Trainer(
    model=model,
    callbacks=[peftune.ForgettingCallback(probe)],
    args=transformers.TrainingArguments("own", max_steps=1, report_to="none", use_cpu=True),
    train_dataset=rows,
    processing_class=tokenizer,
)
trainer.train()
peftune.save(model, "my-adapter")
"""
"""The block of the design, with a file of rows and a trainer of one's own."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """Give a folder with a recipe that takes seconds, and with labeled rows."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "quickstart.yaml").write_text(
        f"""
version: 1
name: small
model: {{name_or_path: "{tiny_base}", max_length: 16}}
data: {{dataset_name: "bundled:posts", max_train_examples: 16, max_validation_examples: 8, max_test_examples: 8}}
strategy: {{name: lora}}
training: {{max_steps: 1, per_device_train_batch_size: 4, use_cpu: true}}
forgetting:
  probes: [{{type: lm-loss, dataset_name: "bundled:general-text", max_documents: 3}}]
output_dir: {folder / "run"}
""",
        encoding="utf-8",
    )
    rows = "text,label\nwhat a lovely day,positive\nlate again and cold,negative\n"
    (folder / "rows.csv").write_text(rows, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(work: Path, tiny_base: Path) -> dict[str, Any]:
    """Carry out the Python block of the design."""
    block = _BLOCK.replace('"quickstart"', '"recipes/quickstart.yaml"')
    block = block.replace('"gpt2"', repr(str(tiny_base)))
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        exec(block, names)  # noqa: S102 - our own text
    return names


def test_the_block_of_the_design_runs_as_it_is_written(made: dict[str, Any], work: Path) -> None:
    """Every call of it returns what it says, and what it writes is there."""
    run, comparison = made["run"], made["comparison"]

    assert run.report.is_file()
    assert (work / "my-adapter" / "peftune.json").is_file()
    assert [one.run.strategy for one in comparison.runs] == ["full", "lora"]
    assert comparison.report.is_file()
    assert all(one.report.is_file() for one in comparison.runs)
    assert comparison.answer == comparison.summary.answer
    assert made["again"] == made["predictions"]
    assert made["evaluation"].n == 2


def test_a_comparison_is_a_table_of_its_runs(made: dict[str, Any]) -> None:
    """`to_pandas` has a row a run."""
    table = made["comparison"].to_pandas()

    assert list(table["strategy"]) == ["full", "lora"]
    assert list(table["accuracy"]) == [one.learning.accuracy for one in made["comparison"].runs]
    assert "forgetting.general-text" in table.columns


def test_results_fit_on_a_screen(made: dict[str, Any]) -> None:
    """Each result has a repr of at most 45 lines, and the same facts for a notebook."""
    contents = peftune.adapters.inspect(made["run"].artifact)
    for result in (made["run"], made["comparison"], made["evaluation"], contents):
        shown = repr(result)
        assert 1 < len(shown.splitlines()) <= 45
        assert "<table>" in result._repr_html_()
    assert f"{made['run'].learning.accuracy:.3f}" in repr(made["run"])
    assert len(contents.to_pandas()) == len(contents.groups)
    assert json.loads(json.dumps(made["evaluation"].as_json()))["n"] == 2


@pytest.mark.slow
def test_a_failed_budget_raises_with_the_run_after_its_report_is_written(
    made: dict[str, Any], work: Path
) -> None:
    """The gate speaks last: the run is finished, and the error carries it."""
    run = made["run"]
    budget = run.forgetting["general-text"].forgetting - 1
    output = work / "over"

    with pytest.raises(peftune.GateError, match="over the budget") as caught:
        peftune.run(
            work / "recipes" / "quickstart.yaml",
            strategy=peftune.LoRA(r=4),
            overrides={"forgetting.budget": budget},
            output=output,
        )

    assert caught.value.run.folder == output
    assert caught.value.run.report.is_file()
    assert caught.value.comparison is None


@pytest.mark.slow
def test_the_command_line_prints_a_run_whose_budget_failed(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`peftune run` is `peftune.run` and its print, also where the gate fails."""
    arguments = ["run", str(work / "recipes" / "quickstart.yaml"), "forgetting.budget=-9"]

    code = _exit_code([*arguments, "--output", str(work / "over-cli")])

    printed = capsys.readouterr()
    assert code == 2
    assert f"Report: {work / 'over-cli' / 'report.html'}" in printed.out
    assert "over the budget" in printed.err


def test_a_classifier_has_the_names_that_people_type_first(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_pretrained` is `load`; `push_to_hub` needs an artifact that was loaded."""
    artifact = made["run"].artifact
    classifier = peftune.Classifier.from_pretrained(artifact)

    assert classifier.artifact == str(artifact)
    assert classifier.predict(["what a lovely day"]) == made["predictions"]
    assert "negative, neutral, positive" in repr(classifier)
    not_loaded = peftune.Classifier(classifier.model, classifier.tokenizer, ("a", "b"), 16)
    with pytest.raises(UsageError, match="was not loaded from an artifact"):
        not_loaded.push_to_hub("ada/mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(peftune.PeftuneError):
        classifier.push_to_hub("no name")


def test_validate_fills_in_every_default() -> None:
    """The verb's function returns the resolved recipe."""
    recipe = peftune.validate("quickstart", overrides=["training.seed=3"])

    assert recipe.training.seed == 3
    assert recipe.training.weight_decay is not None


def test_the_top_level_is_small_and_every_name_is_there() -> None:
    """Each public name can be had, stands once, and the adapter verbs lie in their package."""
    stub = Path(peftune.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \S+ import (\w+) as \1$", stub, re.MULTILINE)

    assert sorted([*names, "__version__"]) == sorted(peftune.__all__)
    assert len(set(names)) == len(names) <= 36
    assert all(getattr(peftune, name) is not None for name in names)
    for verb in ("inspect", "verify", "merge", "rescale", "diff", "push"):
        assert callable(getattr(peftune.adapters, verb))
        assert verb in dir(peftune.adapters)
        assert not hasattr(peftune, verb)


def test_python_m_peftune_is_the_command() -> None:
    """`python -m peftune` prints what `peftune` prints."""
    command = [sys.executable, "-m", "peftune", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert result.stdout == f"peftune {peftune.__version__}\n"


class _Hostile(Displayed):
    def _blocks(self) -> list[Block]:
        return ["<b>\x1b[31m", [{"label": "<script>", "n": number} for number in range(40)]]


def test_what_others_wrote_does_nothing_to_a_terminal_or_a_page() -> None:
    """Names are spelled out in text and escaped in HTML; a long table is cut."""
    result = _Hostile()

    assert "\x1b" not in repr(result)
    assert repr(result).endswith("… and 10 more rows")
    assert "<script>" not in result._repr_html_()
    assert "&lt;b&gt;" in result._repr_html_()
    assert text_table([]) == ""


def test_no_verb_of_the_command_line_imports_another() -> None:
    """What verbs share lies in `console` and `options`; only the group `adapter` has a part of its own."""
    folder = Path(peftune.__file__).parent / "cli"
    shared = {"console", "options", "signals"}
    found = {
        (path.stem, name)
        for path in folder.glob("*.py")
        if path.stem not in {"main", "__init__"}
        for name in re.findall(r"from peftune\.cli\.(\w+) import", path.read_text("utf-8"))
        if name not in shared
    }

    assert found == {("adapter", "rescale")}


def test_predict_reads_and_writes_files_as_the_verb_does(
    work: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same lines, byte for byte; an output that cannot be resumed is refused before anything loads."""
    monkeypatch.chdir(work)
    artifact = made["run"].artifact
    Path("texts.txt").write_text("what a lovely day\nrain again\n", encoding="utf-8")

    returned = peftune.predict(artifact, file="texts.txt")
    written = peftune.predict(artifact, file="texts.txt", output="by-python.jsonl")
    verb = ["predict", str(artifact), "--file", "texts.txt", "--output", "by-verb.jsonl"]
    assert _exit_code(verb) == 0

    assert written == Path("by-python.jsonl")
    assert written.read_bytes() == Path("by-verb.jsonl").read_bytes()
    labels = [json.loads(line)["label"] for line in written.read_text().splitlines()]
    assert labels == [one.label for one in returned]
    with pytest.raises(UsageError, match="Give one of the two"):
        peftune.predict(artifact)
    with pytest.raises(UsageError, match="Name both"):
        peftune.predict(artifact, ["a"], output="more.jsonl", resume=True)
