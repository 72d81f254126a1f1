"""The model card: what the hub reads of it, what it tells people, and that its snippets run."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_client import client_environment
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from loopback_hub import card_errors, running_hub

import peftune
from peftune.adapters.card import artifact_card, eval_results, load_line
from peftune.adapters.reference_logits import precision_of
from peftune.adapters.saving import save
from peftune.cli.main import _exit_code
from peftune.errors import printable
from peftune.models.architecture import is_whole_model
from peftune.models.base_files import BaseSource
from peftune.models.prepare import Preparation, preparation_of, prepare_model
from peftune.recipe.task_type import TaskName
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

LABELS: dict[TaskName, tuple[str, ...]] = {
    "single-label": ("bad", 'so "so"', "good: yes"),
    "multi-label": ("tide", "oven"),
    "regression": ("stars",),
    "language-modeling": (),
}
PIPELINES: dict[TaskName, str] = {
    "single-label": "text-classification",
    "multi-label": "text-classification",
    "regression": "text-classification",
    "language-modeling": "text-generation",
}
STRATEGIES: list[Strategy] = [Full(), LoRA(r=2), LoRA8bit(r=2), HeadOnly()]
CASES = [
    (strategy, task)
    for strategy in STRATEGIES
    for task in LABELS
    if not (strategy.name == "head-only" and task == "language-modeling")
]
NAMES = [f"{strategy.name}-{task}" for strategy, task in CASES]
FINGERPRINT = "0123456789abcdef" * 4
TASK: dict[str, Any] = {
    "data": "mteb/tweets",
    "split": "test",
    "n": 250,
    "accuracy": 0.75,
    "macro_f1": 0.5,
    "ci95": {"accuracy": [0.7, 0.8], "macro_f1": None},
    "metrics": {},
    "trained_on": {"rows": 1200, "data_fingerprint": FINGERPRINT, "hub_dataset": "mteb/tweets"},
}
OTHER_SCORES: dict[TaskName, dict[str, float]] = {
    "regression": {"pearson": 0.9, "spearman": 0.8, "mse": 1.5},
    "language-modeling": {"bits_per_byte": 1.25, "perplexity": 20.5},
}
FORGETTING = [
    {
        "name": name,
        "type": kind,
        "unit": unit,
        "forgetting": value,
        "ci95": [value - 0.01, value + 0.01],
    }
    for name, kind, unit, value in (
        ("general-text", "lm-loss", "bits/byte", 0.0125),
        ("general-text", "kl", "nats/token", 0.25),
        ("last words: stories", "cloze", "accuracy", -0.03),
    )
]


def task_of(kind: TaskName) -> dict[str, Any]:
    """Make the record of a run of some task type."""
    if kind not in OTHER_SCORES:
        return TASK
    return {**TASK, "accuracy": None, "macro_f1": None, "metrics": OTHER_SCORES[kind]}


@pytest.fixture(scope="module")
def cards(base: Path) -> dict[str, str]:
    """Write the card of every task type learned by every strategy."""
    written = {}
    for name, (strategy, task) in zip(NAMES, CASES, strict=True):
        model = prepare_model(
            str(base), strategy, labels=LABELS[task], task=task, max_length=48, use_cpu=True
        )
        written[name] = artifact_card(
            preparation_of(model),
            kind="model" if is_whole_model(model) else "adapter",
            is_peft=strategy.name.startswith("lora"),
            precision=precision_of(model),
            task=task_of(task),
            forgetting=FORGETTING,
        )
    return written


def card_of(preparation: Preparation, **changes: Any) -> str:  # noqa: ANN401 - any argument
    """Write the card of an adapter."""
    given: dict[str, Any] = {
        "kind": "adapter",
        "is_peft": True,
        "precision": "float32",
        "task": TASK,
        "forgetting": FORGETTING,
    }
    return artifact_card(preparation, **(given | changes))


@pytest.fixture(scope="module")
def preparation(base: Path) -> Preparation:
    """Prepare a model to write cards of."""
    labels = LABELS["single-label"]
    model = prepare_model(str(base), HeadOnly(), labels=labels, max_length=48, use_cpu=True)
    return preparation_of(model)


def read(card: str) -> ModelCardData:
    """Read a card as the hub's own library does, without ignoring an error."""
    data = ModelCard(card, ignore_metadata_errors=False).data
    assert isinstance(data, ModelCardData)
    return data


def results_of(card: str) -> list[EvalResult]:
    """Read the results of a card."""
    results = read(card).eval_results
    assert results is not None
    return results


# What the hub reads

_VALIDATE = """
import json, sys
from huggingface_hub import EvalResult, ModelCard, ModelCardData
found = {}
for name, text in json.load(sys.stdin).items():
    try:
        ModelCard(text).validate()
        found[name] = None
    except ValueError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_card_passes_the_hubs_own_validation(
    cards: Mapping[str, str], tmp_path: Path
) -> None:
    """`ModelCard.validate` asks a hub, which has nothing against any of them, but much against a bad one."""
    bad = next(iter(cards.values())).replace(
        "library_name:", "base_model: /home/ada\nlibrary_name:"
    )
    with running_hub() as hub:
        result = subprocess.run(
            [sys.executable, "-c", _VALIDATE],
            input=json.dumps({**cards, "bad": bad}),
            env=client_environment(hub.endpoint, tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stderr

    found = json.loads(result.stdout)

    assert '\\"base_model\\" with value \\"/home/ada\\" is not valid' in found.pop("bad")
    assert found == dict.fromkeys(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_results_come_back_from_the_card_as_they_were_written(
    name: str, cards: Mapping[str, str]
) -> None:
    """The front matter is parsed without an error being ignored, and loses no number and no word."""
    task: TaskName = dict(zip(NAMES, (task for _, task in CASES), strict=True))[name]

    data = read(cards[name])

    expected = eval_results(task_of(task), FORGETTING, pipeline=PIPELINES[task])
    assert sorted(results_of(cards[name]), key=repr) == sorted(expected, key=repr)
    assert len(expected) == {"regression": 6}.get(task, 5)
    assert data.pipeline_tag == PIPELINES[task]
    assert data.datasets == ["mteb/tweets"]


def test_forgetting_stands_beside_the_score_and_says_which_way_is_worse(
    preparation: Preparation,
) -> None:
    """A result for each probe, with its sign, unit and direction; it is not a result of the task."""
    results = results_of(card_of(preparation))

    assert [
        (one.task_type, one.dataset_name, one.metric_name, one.metric_value)
        for one in results
        if one.metric_type == "forgetting"
    ] == [
        (
            "text-generation",
            "general-text",
            "forgetting by lm-loss in bits/byte (positive is worse)",
            0.0125,
        ),
        (
            "text-generation",
            "general-text",
            "forgetting by kl in nats/token (positive is worse)",
            0.25,
        ),
        (
            "text-generation",
            "last words: stories",
            "forgetting by cloze in accuracy (positive is worse)",
            -0.03,
        ),
    ]


def test_only_data_of_the_hub_is_named_as_such(preparation: Preparation) -> None:
    """A file of one's own is not a data set that others could fetch, whatever it is called."""
    own = {**TASK, "data": "my files/tweets.csv", "trained_on": None}

    card = card_of(preparation, task=own)

    assert read(card).datasets is None
    [first, *_] = results_of(card)
    assert first.dataset_type == "my-files-tweets.csv"
    assert first.dataset_name == "my files/tweets.csv"


def test_a_base_is_named_to_the_hub_only_if_it_is_there(preparation: Preparation) -> None:
    """A local folder's name may be that of somebody else's model."""
    here = read(card_of(preparation))
    source = BaseSource("openai-community/gpt2", "c0ffee", preparation.base.folder, "hub")
    there = read(card_of(dataclasses.replace(preparation, base=source)))

    assert here.base_model is None
    assert there.base_model == "openai-community/gpt2"


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("", "empty or missing yaml metadata in repo card"),
        ("base_model: /gpt2", '"base_model" with value "/gpt2" is not valid. Use a model id from https://hf.co/models.'),
        ("datasets: [/home/ada]", '"datasets[0]" with value "/home/ada" is not valid. If possible, use a dataset id from https://hf.co/datasets.'),
        ("tags: [3]", '"tags[0]" must be a string'),
        ("model-index: [{name: a, results: [{task: {type: b}, dataset: {type: c}, metrics: []}]}]", '"model-index[0].results[0].dataset.name" is required'),
    ],
)  # fmt: skip
def test_the_hub_of_the_tests_does_refuse_cards(broken: str, error: str) -> None:
    """What every card passes above can be failed."""
    card = f"---\n{broken}\n---\n# A card\n" if broken else "# A card\n"

    assert card_errors(card)[0] == error


# What people read


def test_the_card_says_what_it_was_made_of_by_hash(preparation: Preparation) -> None:
    """Names can be taken by others; fingerprints tell."""
    card = card_of(preparation)

    assert (
        f"- Base: `tiny`, whose weights have the fingerprint `{preparation.base_fingerprint}`.\n"
        in card
    )
    assert (
        f"- Data: `mteb/tweets`, 1200 training rows; all splits together have the fingerprint `{FINGERPRINT}`. "
        "No row of them is in this folder.\n"
    ) in card
    assert "- Data: not recorded, for it was saved outside a run of peftune.\n" in card_of(
        preparation, task=None
    )


def test_the_card_says_what_it_is_for_and_where_that_ends(cards: Mapping[str, str]) -> None:
    """By what it gives, how much it reads, what it forgot, and what no check can tell."""
    for name, card in cards.items():
        scope = card.partition("## Intended use and limits")[2].partition("##")[0]
        assert "It reads the first 48 tokens of a text" in scope
        assert "what it forgot of the base's abilities stands above" in scope
        assert "They do not tell what its maker trained it for." in scope
        assert ("8 bits" in scope) == name.startswith("lora-8bit")
        assert ("not a chance of being right" in scope) == ("label" in name)


def test_the_card_of_a_run_names_its_rows(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`peftune.run` hands on what it learned from: rows, and the fingerprint of its report."""
    monkeypatch.chdir(tmp_path)
    lines = [
        json.dumps({"text": f"text {number}", "label": "ab"[number % 2]}) for number in range(20)
    ]
    Path("rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = f"""
version: 1
name: small
model: {{name_or_path: {base}, max_length: 16}}
data: {{train_file: rows.jsonl}}
strategy: {{name: head-only}}
training: {{max_steps: 1, use_cpu: true}}
forgetting: {{probes: []}}
output_dir: run
"""
    Path("small.yaml").write_text(recipe, encoding="utf-8")

    run = peftune.run("small.yaml")

    assert run.artifact is not None
    card = (run.artifact / "README.md").read_text(encoding="utf-8")
    rows = json.loads((run.artifact / "peftune.json").read_text())["task"]["trained_on"]["rows"]
    assert rows == 18  # a tenth of the rows is the validation split
    assert (
        f"- Data: `rows.jsonl`, 18 training rows; all splits together have the fingerprint `{run.run.data_fingerprint}`."
        in card
    )
    assert str(tmp_path) not in card


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>|`a`[x](javascript:y)\n---\n# b\x1b[31m\u202e"


def test_names_of_others_neither_mark_up_the_card_nor_run(preparation: Preparation) -> None:
    """Labels, names of base, data and probes, and fields of the strategy; the numbers stay readable."""
    probes: list[dict[str, Any]] = [{**FORGETTING[0], "name": HOSTILE, "unit": HOSTILE}]
    attacked = dataclasses.replace(
        preparation,
        labels=(HOSTILE, "```", "so_so", "good"),
        base=BaseSource(HOSTILE, HOSTILE, preparation.base.folder, "hub"),
    )

    card = card_of(attacked, task={**TASK, "data": HOSTILE, "split": HOSTILE}, forgetting=probes)

    _, front, body = card.split("---\n", 2)
    assert "<script" not in body
    assert "<img" not in body
    prose = re.sub(r"^```.*?^```", "", body, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)\]\(javascript", prose)
    assert not [one for one in card if not one.isprintable() and one != "\n"]
    headings = [line for line in body.splitlines() if line.startswith("# ")]
    assert [line[:12] for line in headings] == ["# head-only ", "# ids to lab"]
    assert len(re.findall(r"^```", body, re.MULTILINE)) % 2 == 0
    for row in re.findall(r"^\|.*$", body, re.MULTILINE):
        assert len(re.findall(r"(?<!\\)\|", row)) == 4, row
    results = results_of(card)
    assert {one.dataset_name for one in results} == {printable(HOSTILE)}
    for block in blocks(card):
        compile(block, "card", "exec")
    assert front.count("model-index") == 1


def test_a_name_in_the_call_that_loads_is_text() -> None:
    """A base that an artifact names can be no code to copy."""
    line = load_line("ada/tweets", base='x")\n__import__("os")#', revision="c0ffee")

    [call] = ast.parse(line).body
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert [one.arg for one in call.value.keywords] == ["base"]
    assert isinstance(call.value.keywords[0].value, ast.Constant)


# How to use it


@pytest.mark.parametrize(
    ("base", "revision", "line"),
    [
        ("gpt2", "c0ffee", 'peftune.load("ada/tweets", base="gpt2")'),
        ("tiny", None, 'peftune.load("ada/tweets", base="PATH/TO/THE/BASE")'),
        ("bundled:tiny-gpt2", None, 'peftune.load("ada/tweets")'),
    ],
)
def test_a_base_that_nobody_has_yet_is_named_in_the_call(
    base: str, revision: str | None, line: str
) -> None:
    """A name inside an artifact is never fetched, so the reader asks for it; a bundled one is there."""
    assert load_line("ada/tweets", base=base, revision=revision) == line


def blocks(card: str) -> list[str]:
    """Collect the Python of a card."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def run_block(block: str, places: Mapping[str, object]) -> dict[str, Any]:
    """Run a snippet after putting real paths in."""
    for placeholder, path in places.items():
        block = block.replace(placeholder, str(path))
    names: dict[str, Any] = {}
    exec(compile(block, "card", "exec"), names)  # noqa: S102 - what a reader would do
    return names


def saved(base: Path, strategy: Strategy, folder: Path, labels: Sequence[str]) -> Path:
    """Save a model whose head is not all noise."""
    model = prepare_model(str(base), strategy, labels=labels, max_length=48, seed=1, use_cpu=True)
    return save(model, folder, task=TASK, forgetting=FORGETTING)


def test_the_snippets_of_an_adapters_card_run_and_agree(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied as they stand, peftune's, PEFT's and, once merged, transformers' tell the same."""
    monkeypatch.chdir(tmp_path)
    folder = saved(base, LoRA(r=2), tmp_path / "adapter", LABELS["single-label"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    with_peftune, with_peft, with_transformers = blocks(card)
    [command] = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    places = {"PATH/TO/THIS/FOLDER": folder, "PATH/TO/THE/BASE": base}

    classifier = run_block(with_peftune, places)["classifier"]
    names = run_block(with_peft, places)
    for placeholder, path in places.items():
        command = command.replace(placeholder, str(path))
    assert _exit_code(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    [merged] = run_block(with_transformers.replace("classify([", "found = classify(["), {})[
        "found"
    ]

    text = "what a lovely day"
    with torch.no_grad():
        logits = names["model"](**names["tokenizer"](text, return_tensors="pt")).logits
    np.testing.assert_allclose(logits.numpy(), classifier.logits([text]), atol=1e-5)
    [prediction] = classifier.predict([text])
    assert merged["label"] == prediction.label
    assert merged["score"] == pytest.approx(prediction.score, abs=1e-4)


def test_the_snippet_of_a_models_card_runs_without_peftune(base: Path, tmp_path: Path) -> None:
    """A whole model is opened by transformers alone, with the right label names."""
    folder = saved(base, Full(), tmp_path / "model", LABELS["single-label"])
    _, plain = blocks((folder / "README.md").read_text(encoding="utf-8"))
    places = {"PATH/TO/THIS/FOLDER": folder}

    [found] = run_block(plain.replace("classify([", "found = classify(["), places)["found"]

    assert found["label"] in LABELS["single-label"]
