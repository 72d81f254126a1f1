"""What an artifact makes of sixteen texts: recorded at save, replayed at load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from peftune.adapters.loading import load, load_prepared
from peftune.adapters.manifest import Manifest, ReferenceLogits
from peftune.adapters.reference_logits import (
    check_reference_logits,
    largest_difference,
    precision_of,
    record_reference_logits,
    replay,
    scale_of,
)
from peftune.adapters.saving import save
from peftune.errors import ArtifactError
from peftune.models.architecture import trainable_parameters, unwrapped
from peftune.models.guards import logits_of
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import REFERENCE_TEXTS, encode_texts
from peftune.recipe.task_type import TaskName
from peftune.strategies import LoRA, LoRA8bit, Strategy

LABELS = ("bad", "so-so", "good")


def _tuned(base: Path, strategy: Strategy, task: TaskName = "single-label") -> nn.Module:
    """Prepare a model and move every weight that learns, as training would."""
    labels = LABELS if task == "single-label" else ()
    model = prepare_model(
        str(base), strategy, labels=labels, task=task, max_length=48, use_cpu=True
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def tuned(base: Path) -> nn.Module:
    """Prepare a model on a base held in float32."""
    return _tuned(base, LoRA(r=4))


@pytest.fixture(scope="module")
def on_int8(base: Path) -> nn.Module:
    """Prepare a model on a base held in int8."""
    return _tuned(base, LoRA8bit(r=4))


def _alone(model: nn.Module) -> list[list[float]]:
    """Score each reference text by itself, without any padding."""
    tokenizer = preparation_of(model).tokenizer
    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS), max_length=48)
    return [
        logits_of(
            model,
            {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()},
        )[0].tolist()
        for ids in encoded
    ]


def test_every_text_is_recorded_alone(tuned: nn.Module) -> None:
    """The record holds the texts themselves and, exactly, the logits of each without a batch."""
    recorded = record_reference_logits(tuned)

    assert recorded.texts == list(REFERENCE_TEXTS)
    assert set(recorded.logits) == {"float32"}
    found = np.array(recorded.logits["float32"], dtype=np.float32)
    assert found.tolist() == _alone(tuned)


def test_what_was_trained_on_int8_is_recorded_on_float32_too(
    on_int8: nn.Module, base: Path, tmp_path: Path
) -> None:
    """The same tensors on the base held in float32; they differ by the error of quantization."""
    recorded = record_reference_logits(on_int8)
    in_float32 = load_prepared(
        save(on_int8, tmp_path / "adapter"), base=str(base), use_cpu=True, in_float32=True
    )

    assert precision_of(on_int8) == "int8"
    assert precision_of(in_float32) == "float32"
    int8, float32 = (np.array(recorded.logits[name], np.float32) for name in ("int8", "float32"))
    assert int8.tolist() == _alone(on_int8)
    assert float32.tolist() == _alone(in_float32)
    assert 0.0 < np.abs(int8 - float32).max() < 0.1 * np.abs(float32).max()


def test_recording_on_float32_leaves_the_int8_model_as_it_was(on_int8: nn.Module) -> None:
    """The second base is loaded beside it."""
    before = _alone(on_int8)

    record_reference_logits(on_int8)

    assert _alone(on_int8) == before
    assert on_int8.training


def test_without_a_head_the_texts_own_tokens_are_recorded(base: Path) -> None:
    """Language modeling has no logits of labels: the log-probability of each token is recorded."""
    model = _tuned(base, LoRA(r=4), "language-modeling")
    tokenizer = preparation_of(model).tokenizer
    recorded = record_reference_logits(model)

    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS), max_length=48)
    assert [len(row) for row in recorded.logits["float32"]] == [len(ids) for ids in encoded]
    batched = replay(
        model,
        tokenizer,
        REFERENCE_TEXTS,
        max_length=48,
        task="language-modeling",
        batch_size=5,
    )
    assert largest_difference(recorded.logits["float32"], batched) < 1e-5
    assert all(row.max() < 0 for row in batched)


def recording(logits: ReferenceLogits) -> Manifest:
    """Make of a manifest what a replay reads."""
    values: dict[str, Any] = {
        "reference_logits": logits,
        "max_length": 48,
        "task_name": "single-label",
    }
    return Manifest.model_construct(**values)


def test_a_model_that_takes_padding_for_text_is_refused(tuned: nn.Module) -> None:
    """The replay is one padded batch: a wrong pad token shows in no tensor and in no hash.

    GPT-2's classifier looks for the last token that is not padding; with another pad token it reads
    the padding of the shorter text.
    """
    recorded = record_reference_logits(tuned)
    tokenizer = preparation_of(tuned).tokenizer
    config = unwrapped(tuned).config
    kept = config.pad_token_id

    check_reference_logits(tuned, tokenizer, recording(recorded), source="it")
    config.pad_token_id = int(kept) + 1
    try:
        with pytest.raises(ArtifactError) as caught:
            check_reference_logits(tuned, tokenizer, recording(recorded), source="it")
    finally:
        config.pad_token_id = kept
    assert str(caught.value) == (
        "'it' does not reproduce the logits recorded when it was saved; its tensors and its manifest "
        "do not belong together, or library versions differ in what they compute. It is not loaded."
    )


def test_texts_of_one_length_and_a_single_text_are_replayed_too(tuned: nn.Module) -> None:
    """Which two are replayed follows from the manifest's own texts, whatever they are."""
    tokenizer = preparation_of(tuned).tokenizer
    for texts in (["abc", "abd"], ["abc"]):
        rows = replay(tuned, tokenizer, texts, max_length=48)
        recorded = ReferenceLogits(texts=texts, logits={"float32": [row.tolist() for row in rows]})
        check_reference_logits(tuned, tokenizer, recording(recorded), source="it")

        worse = [[value + 0.1 for value in row] for row in recorded.logits["float32"]]
        muddled = recording(ReferenceLogits(texts=texts, logits={"float32": worse}))
        with pytest.raises(ArtifactError):
            check_reference_logits(tuned, tokenizer, muddled, source="it")


def test_an_adapter_of_int8_is_checked_on_float32_as_closely_as_any(
    on_int8: nn.Module, base: Path, tmp_path: Path
) -> None:
    """On float32 the record of float32 counts, which the one of int8 is too far from."""
    folder = save(on_int8, tmp_path / "adapter")
    recorded = load(folder, base=str(base), use_cpu=True).manifest
    assert recorded is not None
    model = load_prepared(folder, base=str(base), use_cpu=True, in_float32=True)
    tokenizer = preparation_of(model).tokenizer
    int8 = recorded.reference_logits.logits["int8"]
    muddled = recorded.reference_logits.model_copy(
        update={"logits": {"float32": int8, "int8": int8}}
    )

    check_reference_logits(model, tokenizer, recorded, source="it")
    with pytest.raises(ArtifactError):
        check_reference_logits(model, tokenizer, recording(muddled), source="it")


def test_differences_of_what_cannot_be_compared_are_beyond_any_tolerance() -> None:
    """Rows of other sizes, and numbers that are none, never count as close."""
    assert largest_difference([[1.0, 2.0]], [[1.0, 2.5]]) == 0.5
    assert not largest_difference([[1.0, 2.0]], [[1.0]]) <= 1e9
    assert not largest_difference([[1.0]], [[float("nan")]]) <= 1e9
    assert scale_of([[0.25, -0.5]]) == 1.0
    assert scale_of([[0.25, -8.0]]) == 8.0


ROWS = [[0.5, 1.5], [2.0, 1.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"texts": []}, "texts: List should have at least 1 item after validation, not 0"),
        ({"texts": ["a"] * 17}, "texts: List should have at most 16 items after validation, not 17"),
        ({"texts": ["a", "b" * 1001]}, "texts.1: String should have at most 1000 characters"),
        ({"texts": ["a"]}, ": Value error, there must be a row of numbers for each of the 1 texts"),
        ({"logits": {}}, ": Value error, there are no logits on the base held in float32"),
        ({"logits": {"int8": ROWS}}, ": Value error, there are no logits on the base held in float32"),
        ({"logits": {"float32": [[1.0], []]}}, ": Value error, there must be a row of numbers for each of the 2 texts"),
        ({"logits": {"float32": ROWS, "int8": [[1.0], [1.0]]}}, ": Value error, the rows of float32 and int8 must be of the same sizes"),
        ({"logits": {"float32": ROWS, "int4": ROWS}}, "logits.int4.[key]: Input should be 'float32' or 'int8'"),
        ({"logits": {"float32": [[1.0, 1e999], [1.0, 1.0]]}}, "logits.float32.0.1: Input should be a finite number"),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    """Sizes agree, numbers are finite, and the texts are few and short."""
    given = json.loads(json.dumps({"texts": ["a", "b"], "logits": {"float32": ROWS}, **values}))

    with pytest.raises(ValidationError) as caught:
        ReferenceLogits.model_validate(given)
    first = caught.value.errors()[0]
    assert f"{'.'.join(map(str, first['loc']))}: {first['msg']}" == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": ["bad", "good"]}, "there must be one logit for each of the 2 labels"),
        ({"precision": "int8"}, "an artifact trained on a base in int8 has logits in float32 and in that, and no others"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_its_artifact_is_refused(
    values: dict[str, Any], message: str, tuned: nn.Module, tmp_path: Path
) -> None:
    """A logit a label, and the precision that it was trained on."""
    folder = save(tuned, tmp_path / "adapter")
    manifest = json.loads((folder / "peftune.json").read_text())
    manifest.pop("sha256")

    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate({**manifest, **values})
    assert caught.value.errors()[0]["msg"] == f"Value error, {message}"
