"""Learned weights in bfloat16: half the bytes, where no predicted label changes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2ForSequenceClassification
from tuned import moved

import peftune
from peftune.adapters.loading import load
from peftune.adapters.saving import artifact_bytes, round_weights, save
from peftune.errors import ArtifactError, RecipeError, UsageError
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import REFERENCE_TEXTS
from peftune.recipe import read_recipe
from peftune.recipe.task_type import TaskName
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

LABELS = ("bad", "so-so", "good")
TEXTS = list(REFERENCE_TEXTS[:6])


def _tied(base: Path, task: TaskName = "single-label") -> nn.Module:
    """Prepare a model of two labels that are almost as likely: rounding the head decides."""
    model = moved(base, HeadOnly(), task)
    with torch.no_grad():
        [head] = trainable_parameters(model).values()
        head[0] = head[1] + 1e-5 * torch.randn(32, generator=torch.Generator().manual_seed(1))
        head[2] = -100.0 * head[1]  # said of no text of which the others are
    return model


def _logits(model: nn.Module) -> Any:  # noqa: ANN401 - an array
    return predict_logits(model, preparation_of(model).tokenizer, TEXTS, max_length=48)


STRATEGIES = [LoRA(r=4), LoRA8bit(r=4), HeadOnly(), Full(), Full(freeze_layers=1)]


@pytest.mark.costly
@pytest.mark.parametrize("strategy", STRATEGIES, ids=["lora", "lora-8bit", "head", "full", "half"])
def test_what_was_stored_in_bfloat16_is_loaded_in_float32_exactly(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """The file holds the rounded weights; in memory they are the same numbers in float32."""
    model = moved(base, strategy)
    whole = save(model, tmp_path / "float32")
    folder = save(model, tmp_path / "bfloat16", dtype="bfloat16", validation_texts=TEXTS)

    name = "model.safetensors" if strategy == Full() else "adapter_model.safetensors"
    first, second = load_file(whole / name), load_file(folder / name)
    assert {tensor.dtype for tensor in second.values()} == {torch.bfloat16}
    assert set(first) == set(second)
    for key, tensor in first.items():
        assert torch.equal(second[key], tensor.to(torch.bfloat16)), key
    assert json.loads((folder / "peftune.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((whole / "peftune.json").read_text())["dtype"] == "float32"

    loaded = load(folder, base=str(base), use_cpu=True)
    found = {parameter.dtype for parameter in loaded.model.parameters()} - {torch.int8}
    assert found == {torch.float32}
    round_weights(model, TEXTS)
    assert loaded.logits(TEXTS).tolist() == _logits(model).tolist()


def test_the_file_is_half_as_large(base: Path, tmp_path: Path) -> None:
    """That is what it is for."""
    model = moved(base, Full())
    whole = save(model, tmp_path / "float32")
    half = save(model, tmp_path / "bfloat16", dtype="bfloat16", validation_texts=TEXTS)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]

    assert 0.5 < sizes[1] / sizes[0] < 0.55
    assert artifact_bytes(tmp_path / "bfloat16") < artifact_bytes(tmp_path / "float32")


def test_the_record_is_of_what_is_stored_and_the_model_is_as_it_was(
    base: Path, tmp_path: Path
) -> None:
    """Behaviour is that of the rounded weights; training goes on from the others."""
    model = moved(base, LoRA(r=4))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    folder = save(model, tmp_path / "adapter", dtype="bfloat16", validation_texts=TEXTS)

    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert (
        peftune.adapters.verify(folder, base=str(base), use_cpu=True).replays[0].texts.largest
        == 0.0
    )
    recorded = json.loads((folder / "peftune.json").read_text())["behaviour"]["logits"]["float32"]
    unrounded = [_alone(model, text) for text in REFERENCE_TEXTS]
    assert 1e-5 < np.abs(np.array(recorded) - unrounded).max() < 0.1


def _alone(model: nn.Module, text: str) -> Any:  # noqa: ANN401 - an array
    return predict_logits(model, preparation_of(model).tokenizer, [text], max_length=48)[0]


@pytest.mark.parametrize("kind", ["single-label", "multi-label"])
def test_float32_is_kept_where_a_label_would_change(
    kind: TaskName, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is said: in the log, and by the manifest."""
    model = _tied(base, kind)
    thresholds = None
    if kind == "multi-label":
        # Where the first text is: a hair above what rounding makes of it, or below.
        logits = _logits(model)
        rounded = _tied(base, kind)
        with torch.no_grad():
            for weight in trainable_parameters(rounded).values():
                weight.copy_(weight.to(torch.bfloat16))
        between = (logits[0] + _logits(rounded)[0]) / 2
        thresholds = (1 / (1 + np.exp(-between.astype(np.float64)))).clip(1e-9, 1 - 1e-9).tolist()
    before = {name: weight.clone() for name, weight in trainable_parameters(model).items()}

    with caplog.at_level(logging.INFO, logger="peftune"):
        folder = save(
            model,
            tmp_path / "adapter",
            dtype="bfloat16",
            validation_texts=TEXTS,
            label_thresholds=thresholds,
        )

    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("bfloat16 would change the labels of ")
    assert message.endswith(" of 6 validation texts, so the weights stay in float32")
    assert json.loads((folder / "peftune.json").read_text())["dtype"] == "float32"
    stored = load_file(folder / "adapter_model.safetensors")
    for name, weight in trainable_parameters(model).items():
        assert torch.equal(stored[name], before[name])
        assert torch.equal(weight, before[name])


def test_rounding_counts_the_labels_that_change(base: Path) -> None:
    """Against the two predictions, made here by hand; the weights are put back."""
    model, rounded = _tied(base), _tied(base)
    with torch.no_grad():
        for weight in trainable_parameters(rounded).values():
            weight.copy_(weight.to(torch.bfloat16))
    before, after = _logits(model), _logits(rounded)

    found = round_weights(model, TEXTS)

    assert found.flips == (before.argmax(1) != after.argmax(1)).sum() > 0
    assert found.texts == len(TEXTS)
    assert found.largest_difference == pytest.approx(np.abs(before - after).max())
    assert found.dtype == "float32"
    assert _logits(model).tolist() == before.tolist()


def test_weights_that_are_rounded_already_need_no_texts(base: Path, tmp_path: Path) -> None:
    """A run has decided before it scored; a loaded artifact can be saved again as it was."""
    model = moved(base, LoRA(r=4))
    assert round_weights(model, TEXTS).dtype == "bfloat16"

    folder = save(model, tmp_path / "adapter", dtype="bfloat16")

    assert json.loads((folder / "peftune.json").read_text())["dtype"] == "bfloat16"


def test_bfloat16_without_texts_or_without_labels_is_refused(base: Path, tmp_path: Path) -> None:
    """Nothing could show that it does no harm."""
    number = moved(base, LoRA(r=4), "regression", ("stars",))

    with pytest.raises(UsageError) as caught:
        save(moved(base, LoRA(r=4)), tmp_path / "adapter", dtype="bfloat16")
    assert str(caught.value) == (
        "There are no texts on which to see whether bfloat16 changes a label. "
        "Pass validation_texts=…, or save in float32."
    )
    with pytest.raises(UsageError) as caught:
        save(number, tmp_path / "adapter", dtype="bfloat16", validation_texts=TEXTS)
    assert str(caught.value) == (
        "'save.dtype: bfloat16' is kept only where no predicted label changes, and 'task: "
        "regression' has none; it belongs to single-label and multi-label."
    )
    assert not any(tmp_path.iterdir())


def test_plain_peft_and_transformers_open_it_as_peftune_does(base: Path, tmp_path: Path) -> None:
    """Both hold the rounded weights in float32."""
    of_adapter = save(
        moved(base, LoRA(r=4)), tmp_path / "adapter", dtype="bfloat16", validation_texts=TEXTS
    )
    of_model = save(
        moved(base, Full()), tmp_path / "model", dtype="bfloat16", validation_texts=TEXTS
    )

    plain = GPT2ForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=0)
    peft = PeftModel.from_pretrained(plain, str(of_adapter)).eval()
    loaded = load(of_adapter, base=str(base), use_cpu=True)
    expected = loaded.logits(TEXTS)
    found = predict_logits(peft, loaded.tokenizer, TEXTS, max_length=48)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    classify: Any = transformers.pipeline("text-classification", str(of_model), device="cpu")
    assert classify.model.dtype == torch.float32
    rows = classify(TEXTS, truncation=True, max_length=48)
    said = load(of_model, use_cpu=True).predict(TEXTS)
    assert [row["label"] for row in rows] == [row.label for row in said]
    assert [row["score"] for row in rows] == pytest.approx([row.score for row in said], rel=1e-5)


@pytest.mark.parametrize("says", ["bfloat16", "float32"])
def test_a_file_of_another_type_than_the_manifest_says_is_refused(
    says: str, base: Path, tmp_path: Path
) -> None:
    """The type is part of what every tensor must be."""
    from peftune.adapters.manifest import Manifest, write_manifest

    model = moved(base, HeadOnly())
    options: dict[str, Any] = (
        {} if says == "bfloat16" else {"dtype": "bfloat16", "validation_texts": TEXTS}
    )
    folder = save(model, tmp_path / "adapter", **options)
    values = json.loads((folder / "peftune.json").read_text())
    values.pop("sha256")
    (folder / "peftune.json").unlink()
    write_manifest(Manifest.model_validate({**values, "dtype": says}), folder)

    must, found = ("BF16", "F32") if says == "bfloat16" else ("F32", "BF16")
    with pytest.raises(ArtifactError) as caught:
        load(folder, base=str(base), use_cpu=True)
    assert str(caught.value) == (
        f"'{folder}/adapter_model.safetensors': tensor 'score.weight' is {found} [3, 32]; "
        f"it must be {must} [3, 32]."
    )


# What is never in the file


@pytest.mark.parametrize("targets", ["all-linear", ("wte", "c_attn")], ids=["linear", "embedding"])
def test_an_embedding_that_did_not_learn_is_never_saved(
    targets: Any,  # noqa: ANN401 - a field of LoRA
    base: Path,
    tmp_path: Path,
) -> None:
    """PEFT saves embeddings unasked where one is adapted or has grown; here only updates are."""
    folder = save(moved(base, LoRA(r=2, target_modules=targets)), tmp_path / "adapter")

    names = set(load_file(folder / "adapter_model.safetensors"))
    assert all(".lora_" in name or name == "base_model.model.score.weight" for name in names), (
        names
    )
    assert any("lora_embedding" in name for name in names) is (targets != "all-linear")


def test_a_frozen_embedding_is_no_part_of_a_half_frozen_model(base: Path, tmp_path: Path) -> None:
    """What learned is saved, and nothing else."""
    folder = save(moved(base, Full(freeze_layers=1)), tmp_path / "adapter")

    names = set(load_file(folder / "adapter_model.safetensors"))
    assert not any("wte" in name or "wpe" in name or ".h.0." in name for name in names)
    assert "transformer.h.1.mlp.c_fc.weight" in names


# In a run

SHORT = [
    "training.max_steps=3",
    "data.max_train_examples=64",
    "data.max_validation_examples=20",
    "data.max_test_examples=20",
    "forgetting.probes=[]",
]


@pytest.mark.slow
def test_every_number_of_a_run_is_of_the_weights_that_are_shared(tmp_path: Path) -> None:
    """Rounding comes before the score: the artifact repeats the run's own predictions."""
    run = peftune.run(
        "quickstart",
        overrides=[*SHORT, "save.dtype=bfloat16"],
        output=tmp_path / "run",
    )

    assert "kept-float32" not in {finding.code for finding in run.findings}
    assert json.loads((run.artifact / "peftune.json").read_text())["dtype"] == "bfloat16"
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    said = [json.loads(line)["probabilities"] for line in lines]
    rows = (run.folder / "texts.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in rows]
    found = [row.probabilities for row in load(run.artifact, use_cpu=True).predict(texts)]
    for first, second in zip(said, found, strict=True):
        assert first == pytest.approx(dict(second), abs=1e-6)


@pytest.mark.slow
def test_a_run_that_cannot_round_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a finding of its report, and in its log; the artifact is in float32."""
    from peftune.training import train as training

    train = training.train

    def then_tie(model: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the original
        result = train(model, *arguments, **options)
        with torch.no_grad():
            head = next(w for n, w in trainable_parameters(model).items() if "score" in n)
            head[1:] = head[0] + 1e-6 * torch.randn(head[1:].shape)
        return result

    monkeypatch.setattr("peftune.experiments.run_execution.train", then_tie)
    with caplog.at_level(logging.INFO, logger="peftune"):
        run = peftune.run(
            "quickstart",
            overrides=[*SHORT, "save.dtype=bfloat16"],
            strategy="head-only",
            output=tmp_path / "run",
        )

    [finding] = [finding for finding in run.findings if finding.code == "kept-float32"]
    assert finding.message.endswith(
        " of 20 validation rows would change, so the artifact is stored in float32."
    )
    assert json.loads((run.artifact / "peftune.json").read_text())["dtype"] == "float32"
    assert any("the weights stay in float32" in record.getMessage() for record in caplog.records)


def test_a_recipe_asks_for_bfloat16_only_where_there_are_labels() -> None:
    """Refused before anything is loaded."""
    of_regression = ["task=regression", "data.labels=null", "training.metric_for_best_model=null"]

    assert read_recipe("quickstart", of_regression).save.dtype == "float32"
    assert read_recipe("quickstart", ["save.dtype=bfloat16"]).save.dtype == "bfloat16"
    with pytest.raises(RecipeError, match="'task: regression' has none"):
        read_recipe("quickstart", [*of_regression, "save.dtype=bfloat16"])
