"""`task: language-modeling`: raw text of a domain trains the backbone through its tied head."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from kinds import STRATEGIES, TRAINING, recipe, write_documents
from peft import PeftModel
from safetensors import safe_open
from torch import nn
from transformers import GPT2LMHeadModel, GPT2Model

import peftune
from peftune.adapters.loading import load_prepared
from peftune.data.rows import Rows
from peftune.data.task_data import load_task
from peftune.data.tokens import pack_rows
from peftune.errors import ArtifactError, DataError, RecipeError, UsageError
from peftune.experiments import Run
from peftune.models.architecture import backbone_of, head_of, trainable_parameters
from peftune.models.base_files import find_base
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.recipe.schema import DataSection
from peftune.testing.tuned import GradientsBeforeTheStep
from peftune.training.train import train

BACKBONES = [name for name in STRATEGIES if name != "head-only"]


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Give a run by every strategy that trains the backbone."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: peftune.run(
            recipe(folder, base, STRATEGIES[name], name=name, task="language-modeling")
        )
        for name in BACKBONES
    }


def documents(*texts: str) -> Rows:
    """Make rows of documents."""
    return Rows(tuple(map(str, range(len(texts)))), texts, (None,) * len(texts))


def test_packing_loses_no_token_but_the_tail(base: Path) -> None:
    """Every token of every document, and the end token after each, is predicted exactly once."""
    tokenizer = load_tokenizer(base)
    texts = ("Rain again.", "", "The ducks walked along the road, all of them.", "é")
    end = tokenizer.eos_token_id
    stream = [
        t for ids in encode_texts(tokenizer, list(texts), max_length=None) for t in (*ids, end)
    ]

    packed = pack_rows(documents(*texts), tokenizer, max_length=8)

    targets = [token for row in packed.dataset["labels"] for token in row]
    inputs = [token for row in packed.dataset["input_ids"] for token in row]
    assert packed.dropped_tokens == len(stream) % 8 != 0
    assert targets == stream[: len(stream) - packed.dropped_tokens]
    assert inputs == [end, *targets[:-1]]
    assert {len(row) for row in packed.dataset["input_ids"]} == {8}


def test_a_text_too_short_for_one_window_is_refused(base: Path) -> None:
    """Nothing is padded, so less than a window is nothing."""
    with pytest.raises(DataError) as caught:
        pack_rows(documents("short"), load_tokenizer(base), max_length=16)

    assert str(caught.value) == (
        "A split of the documents has 6 tokens, too few for one window of 16. Add text, or lower model.max_length."
    )


@pytest.mark.parametrize("kind", ["txt", "txt with form feeds", "jsonl", "csv", "parquet"])
def test_documents_are_read_from_any_file(kind: str, tmp_path: Path) -> None:
    """A plain text has its documents between blank lines, or between form feeds."""
    texts = [f"document {number}\nof two lines" for number in range(10)]
    path = tmp_path / f"domain.{kind.split(maxsplit=1)[0]}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table({"text": texts}), path)
    elif kind == "csv":
        path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    elif kind == "jsonl":
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        path.write_text("".join(lines), encoding="utf-8")
    else:
        path.write_text(("\f" if "feeds" in kind else "\n\n").join(texts), encoding="utf-8")

    task = load_task(DataSection(train_file=str(path)), "language-modeling")

    assert task.labels == ()
    assert sorted([*task.train.texts, *task.validation.texts]) == texts
    assert len(task.validation) == 1  # validation_split is a share of the documents


def _step_gradients(
    base: Path, folder: Path, *, rows: int, accumulation: int
) -> dict[str, torch.Tensor]:
    model = _without_dropout(base, STRATEGIES["full"])
    copied = GradientsBeforeTheStep()
    section = TRAINING.model_copy(
        update={
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": accumulation,
            "max_steps": 1,
            "max_grad_norm": 1e9,
            "weight_decay": 0.0,
            "metric_for_best_model": "loss",
        }
    )
    task = load_task(
        DataSection(train_file=str(write_documents(folder / "d.jsonl", 7))), "language-modeling"
    )
    train(
        model, task, section, checkpoints=folder / f"{rows}", run_identity="x", callbacks=[copied]
    )
    return copied.gradients


def _without_dropout(base: Path, strategy: peftune.strategies.Strategy) -> nn.Module:
    model = prepare_model(
        str(base), strategy, labels=(), task="language-modeling", max_length=36, use_cpu=True
    )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def test_a_step_does_not_depend_on_how_it_is_split_into_batches(
    base: Path, tmp_path: Path
) -> None:
    """Seven windows at once, or in batches of two, the last of one: the mean over their tokens."""
    whole = _step_gradients(base, tmp_path, rows=8, accumulation=1)
    split = _step_gradients(base, tmp_path, rows=2, accumulation=4)

    assert set(whole) == set(split)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-6, rtol=1e-4)


def test_the_gradient_is_that_of_a_plain_language_model(base: Path, tmp_path: Path) -> None:
    """Transformers' own model of the same base, on the same windows, in one batch."""
    found = _step_gradients(base, tmp_path, rows=8, accumulation=1)
    task = load_task(DataSection(train_file=str(tmp_path / "d.jsonl")), "language-modeling")
    packed = pack_rows(task.train, load_tokenizer(base), max_length=36).dataset
    plain = GPT2LMHeadModel.from_pretrained(base).eval()

    logits = plain(torch.tensor(packed["input_ids"][:])).logits  # (windows, time, vocabulary)
    targets = torch.tensor(packed["labels"][:])
    nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()

    assert len(packed) % 2 == 1  # so that the split above is uneven
    assert len(packed) <= 8
    for name, weight in plain.transformer.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(found[f"transformer.{name}"], weight.grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    "term",
    [
        peftune.regularizers.L2SP(weight=0.1, head_weight=1.0),
        peftune.regularizers.KLToBase(weight=0.1, text="task"),
    ],
    ids=["l2-sp", "kl"],
)
def test_a_regularizer_holds_a_language_model_too(
    base: Path, term: peftune.regularizers.Regularizer, tmp_path: Path
) -> None:
    """Its term of the loss is logged; the head that takes no part is not part of it."""
    model = _without_dropout(base, STRATEGIES["lora"])
    task = load_task(
        DataSection(train_file=str(write_documents(tmp_path / "d.jsonl", 8))), "language-modeling"
    )
    section = TRAINING.model_copy(update={"weight_decay": 0.0, "metric_for_best_model": "loss"})

    result = train(
        model, task, section, checkpoints=tmp_path, run_identity="x", regularizers=[term]
    )

    found = [point[f"penalty_{term.name}"] for point in result.curve if "train_loss" in point]
    assert found[0] == 0.0  # before the first step nothing has moved
    assert found[1] > 0.0


@pytest.mark.parametrize("strategy", BACKBONES)
def test_the_head_takes_no_part(base: Path, strategy: str) -> None:
    """It does not learn, and is not part of what is saved, restored or switched off."""
    model = prepare_model(
        str(base),
        STRATEGIES[strategy],
        labels=(),
        task="language-modeling",
        max_length=16,
        use_cpu=True,
    )

    assert not any(weight.requires_grad for weight in head_of(model).parameters())
    assert set(preparation_of(model).before) == set(trainable_parameters(model)) != set()


def test_a_strategy_that_trains_the_head_alone_is_refused(base: Path, tmp_path: Path) -> None:
    """Before anything is read or trained; in a stage too."""
    with pytest.raises(UsageError) as caught:
        peftune.run(recipe(tmp_path, base, STRATEGIES["head-only"], task="language-modeling"))

    assert str(caught.value) == (
        "The strategy 'head-only' trains the classification head alone, and 'task: language-modeling' has none. "
        "Choose a strategy that trains the backbone, such as lora or full."
    )


@pytest.mark.costly
@pytest.mark.parametrize("strategy", BACKBONES)
def test_a_run_says_how_much_better_the_domain_is_predicted(
    runs: dict[str, Run], strategy: str
) -> None:
    """In bits per byte, beside the base's; there is no accuracy, and the report says why."""
    learning = runs[strategy].learning
    base, scores = learning.baselines["base"], learning.metrics

    assert (learning.accuracy, learning.macro_f1, learning.confusion) == (None, None, None)
    assert learning.reason is not None
    assert learning.reason.startswith(
        "accuracy, macro_f1, confusion: language modeling has no labels"
    )
    assert runs[strategy].cost.latency_median_ms is None
    assert runs[strategy].cost.reason == (
        "latency_median_ms, latency_p95_ms, latency_texts, latency_device: "
        "a task without labels classifies no text"
    )
    assert scores["perplexity"] == pytest.approx(math.exp(learning.loss))
    assert scores["bits_per_byte_gain"] == pytest.approx(
        base["bits_per_byte"] - (scores["bits_per_byte"] or 0.0)
    )
    assert runs[strategy].forgetting.controls == {"adapter_off_forgetting": 0.0}
    assert "validation_loss" in learning.curve[-1]
    assert runs[strategy].learning.task == "language-modeling"


def test_bits_per_byte_of_the_domain_are_those_of_the_probe(
    base: Path, runs: dict[str, Run], tmp_path: Path
) -> None:
    """There is one way of scoring text: `peftune forget` finds the same numbers on the same documents."""
    run = runs["lora"]
    section = peftune.read_recipe(run.folder / "recipe.yaml").data
    held_out = load_task(section, "language-modeling").validation
    path = tmp_path / "held_out.jsonl"
    lines = (json.dumps({"text": text}) + "\n" for text in held_out.texts)
    path.write_text("".join(lines), encoding="utf-8")

    [found] = peftune.forget(
        run.artifact,
        [peftune.probes.LanguageModelLoss(file=str(path))],
        base=str(base),
        use_cpu=True,
    )

    assert found.after == pytest.approx(run.learning.metrics["bits_per_byte"], rel=1e-12)
    assert found.before == pytest.approx(run.learning.baselines["base"]["bits_per_byte"])
    assert found.n_documents == run.learning.n


# On a float base peft corrects what the adapter of an 8-bit base says of the layout of weights.
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
@pytest.mark.parametrize("strategy", ["lora", "lora-8bit"])
def test_plain_peft_reads_the_adapter_as_a_language_model(
    base: Path, runs: dict[str, Run], strategy: str
) -> None:
    """On transformers' own language model, with equal logits; no head is in the file."""
    folder = runs[strategy].artifact
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        names = list(file.keys())
    tuned = _loaded(folder, base)

    plain = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), folder).eval()

    assert (config["task_type"], config["modules_to_save"]) == ("CAUSAL_LM", None)
    assert not [name for name in names if "score" in name or "lora" not in name]
    with torch.no_grad():
        expected = tuned(ids).last_hidden_state @ tuned.wte.weight.T
        torch.testing.assert_close(plain(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_artifact_of_full_fine_tuning_is_a_plain_language_model(
    base: Path, runs: dict[str, Run]
) -> None:
    """Transformers reads it with nothing missing, and its tied head gives the same logits."""
    folder = runs["full"].artifact
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    tuned = _loaded(folder, base)

    loaded: Any = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    plain, told = loaded

    assert not any(told.values())
    with torch.no_grad():
        expected = tuned(ids).last_hidden_state @ tuned.wte.weight.T
        torch.testing.assert_close(plain.eval()(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert find_base(str(folder)).kind == "folder"


def _loaded(folder: Path, base: Path) -> GPT2Model:
    return backbone_of(load_prepared(folder, base=str(base), use_cpu=True, in_float32=True))


@pytest.mark.parametrize("strategy", BACKBONES)
def test_what_has_no_head_is_no_classifier(runs: dict[str, Run], strategy: str) -> None:
    """`peftune.load` says what it is, and what it is good for."""
    folder = runs[strategy].artifact

    with pytest.raises(ArtifactError) as caught:
        peftune.load(folder)

    assert str(caught.value) == (
        f"'{folder}' is not a classifier: it has learned language-modeling and has no head. Start a run from it with model.init_from."
    )


@pytest.mark.costly
@pytest.mark.parametrize("strategy", BACKBONES)
def test_a_classifier_starts_from_the_domain(
    base: Path, runs: dict[str, Run], strategy: str, tmp_path: Path
) -> None:
    """The forgetting of pre-training and that of the task stand apart, and add up."""
    domain = runs[strategy]

    run = peftune.run(recipe(tmp_path, base, STRATEGIES[strategy], init_from=domain.artifact))

    [before], [probe] = domain.forgetting, run.forgetting
    start, task = run.forgetting.stages
    assert (start.name, start.task) == ("start", "language-modeling")
    assert start.forgetting["probe"] == pytest.approx(before.forgetting, abs=1e-9)
    assert start.forgetting["probe"] + task.forgetting["probe"] == pytest.approx(
        probe.forgetting, abs=1e-12
    )
    assert run.run.start is not None
    assert run.run.start.kind == "adapter"


def test_every_held_out_document_is_in_the_run_folder(runs: dict[str, Run]) -> None:
    """Its bits before and after add up to the numbers of the report."""
    run = runs["full"]
    text = (run.folder / "predictions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]

    sums = {key: np.sum([line[key] for line in lines]) for key in lines[0] if key != "id"}

    assert len(lines) == run.learning.n
    assert sums["bits_after"] / sums["bytes"] == pytest.approx(
        run.learning.metrics["bits_per_byte"]
    )
    assert sums["bits_before"] / sums["bytes"] == pytest.approx(
        run.learning.baselines["base"]["bits_per_byte"]
    )


def test_labels_say_nothing_in_language_modeling(tmp_path: Path) -> None:
    """A recipe that fixes label names for raw text is refused where it is written."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "version: 1\nname: x\ntask: language-modeling\n"
        "data: {train_file: a.txt, labels: [a, b]}\nstrategy: {name: lora}\noutput_dir: x\n",
        encoding="utf-8",
    )

    with pytest.raises(
        RecipeError, match=r"'data\.labels' has no meaning in 'task: language-modeling'"
    ):
        peftune.read_recipe(path)
