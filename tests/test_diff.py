"""Two artifacts side by side: exact zeros for the same, and each difference where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import nn

import peftune
from peftune.adapters import load, save
from peftune.adapters.difference import (
    FieldDifference,
    GroupDifference,
    LogitsDifference,
    compare_tensors,
    diff,
)
from peftune.adapters.tensors import adapter_tensors
from peftune.cli.main import main
from peftune.errors import UsageError
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import prepare_model
from peftune.recipe.task_type import TaskName
from peftune.strategies import HeadOnly, LoRA, Strategy

ROWS = ("what a lovely day", "no", "so-so", "the soup was cold", "rain again", "splendid")


def _tuned(
    base: Path,
    strategy: Strategy,
    *,
    labels: tuple[str, ...] = ("bad", "good"),
    task: TaskName = "single-label",
    seed: int = 0,
) -> nn.Module:
    model = prepare_model(
        str(base), strategy, labels=labels, task=task, max_length=48, use_cpu=True
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an adapter."""
    return save(_tuned(base, LoRA(r=2)), tmp_path_factory.mktemp("saved") / "first")


@pytest.fixture(scope="module")
def second(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the same with other values, and another field of its manifest."""
    model = _tuned(base, LoRA(r=2, lora_dropout=0.1), seed=1)
    return save(model, tmp_path_factory.mktemp("saved") / "second")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write texts, one a line."""
    file = tmp_path_factory.mktemp("rows") / "rows.txt"
    file.write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    return file


def test_the_same_artifact_twice_differs_in_nothing(
    base: Path, first: Path, rows: Path, tmp_path: Path
) -> None:
    """The control: every difference of an artifact and its copy is zero, and exactly so."""
    copy = shutil.copytree(first, tmp_path / "copy")

    found = diff(first, copy, file=rows, base=str(base), use_cpu=True)

    assert found.identical
    assert found.fields == ()
    assert (found.tensors.only_in_a, found.tensors.only_in_b, found.tensors.other_shape) == (
        (),
        (),
        {},
    )
    assert {(one.changed, one.largest, one.cosine) for one in found.tensors.groups} == {
        (0, 0.0, 1.0)
    }
    assert found.recorded == {"float32": LogitsDifference(16, 0.0, 0.0)}
    assert found.rows is not None
    assert (found.rows.n, found.rows.largest, found.rows.differ) == (6, 0.0, 0.0)


def test_each_difference_is_said(base: Path, first: Path, second: Path, rows: Path) -> None:
    """The manifest's field, the tensors' distance, the record's and the rows' disagreement."""
    found = diff(first, second, file=rows, base=str(base), use_cpu=True)

    assert not found.identical
    assert found.fields == (FieldDifference("strategy.lora_dropout", 0.05, 0.1),)
    assert all(one.changed == one.tensors for one in found.tensors.groups)
    manifests = [json.loads((one / "peftune.json").read_text()) for one in (first, second)]
    logits = [np.asarray(one["behaviour"]["logits"]["float32"]) for one in manifests]
    assert found.recorded is not None
    recorded = found.recorded["float32"]
    assert recorded.largest == pytest.approx(np.abs(logits[0] - logits[1]).max(), rel=1e-6)
    assert recorded.differ == (logits[0].argmax(1) != logits[1].argmax(1)).mean()
    assert recorded.ci95 is None


def test_disagreement_on_a_file_has_an_exact_interval(
    base: Path, first: Path, second: Path, rows: Path
) -> None:
    """Clopper and Pearson's bounds are quantiles of beta distributions."""
    found = diff(first, second, file=rows, base=str(base), use_cpu=True).rows
    said = [
        [one.label for one in load(folder, base=str(base), use_cpu=True).predict(ROWS)]
        for folder in (first, second)
    ]
    count, n = sum(a != b for a, b in zip(*said, strict=True)), len(ROWS)

    assert 0 < count < n  # or the rows show nothing
    assert found is not None
    assert found.differ == count / n
    assert found.ci95 == pytest.approx(
        (beta.ppf(0.025, count, n - count + 1), beta.ppf(0.975, count + 1, n - count))
    )


def test_one_number_more_is_found(base: Path, first: Path, tmp_path: Path) -> None:
    """A head that differs by 0.5 in one place differs by exactly that, and the backbone in nothing."""
    model = _tuned(base, LoRA(r=2))
    with torch.no_grad():
        adapter_tensors(model)["base_model.model.score.weight"][1, 3] += 0.5
    other = save(model, tmp_path / "other")

    found = diff(first, other)

    changed = [one for one in found.tensors.groups if one.changed]
    assert [one.group for one in changed] == ["head"]
    assert changed[0].largest == pytest.approx(0.5, rel=1e-6)


def test_tensors_are_compared_in_closed_form() -> None:
    """A right angle, a zero, another shape, another type, and names of one side only."""
    a = {
        "score.weight": torch.tensor([[3.0, 0.0]]),
        "transformer.wte.weight": torch.zeros(2),
        "transformer.ln_f.bias": torch.ones(3),
        "transformer.h.0.ln_1.bias": torch.tensor([0.5, 0.25]),
        "mine": torch.ones(1),
    }
    b = {
        "score.weight": torch.tensor([[0.0, 4.0]]),
        "transformer.wte.weight": torch.tensor([0.0, -2.0]),
        "transformer.ln_f.bias": torch.ones(4),
        "transformer.h.0.ln_1.bias": torch.tensor([0.5, 0.25], dtype=torch.bfloat16),
        "its": torch.ones(1),
    }

    found = compare_tensors(a, b)

    assert (found.only_in_a, found.only_in_b) == (("mine",), ("its",))
    assert found.other_shape == {"transformer.ln_f.bias": ((3,), (4,))}
    assert found.groups == (
        GroupDifference("head", 1, 1, 4.0, 0.0),
        GroupDifference("ln_1.bias", 1, 0, 0.0, 1.0),
        GroupDifference("wte.weight", 1, 1, 2.0, None),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ("good", "bad")}, "their labels differ, or stand in another order"),
        (
            {"labels": ("stars",), "task": "regression"},
            "their task types differ: single-label and regression",
        ),
    ],
    ids=["labels", "task"],
)
def test_records_of_other_tasks_are_not_compared(
    base: Path, first: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """A logit is the same thing in both only if it stands for the same label."""
    other = save(_tuned(base, HeadOnly(), **changes), tmp_path / "other")

    found = diff(first, other)

    assert (found.recorded, found.reason) == (None, reason)
    assert "labels" in [one.field for one in found.fields]


def test_labels_in_another_order_are_compared_by_name(
    base: Path, first: Path, rows: Path, tmp_path: Path
) -> None:
    """On a file, what is said counts: with the head's rows swapped as well, nothing differs."""
    model = _tuned(base, LoRA(r=2), labels=("good", "bad"))
    head = adapter_tensors(model)["base_model.model.score.weight"]
    with torch.no_grad():
        head.copy_(head.flip(0).clone())
    swapped = save(model, tmp_path / "swapped")

    found = diff(first, swapped, file=rows, base=str(base), use_cpu=True)

    assert found.recorded is None
    assert found.rows is not None
    assert (found.rows.largest, found.rows.differ) == (None, 0.0)


def test_rows_of_another_kind_of_task_are_refused(
    base: Path, first: Path, rows: Path, tmp_path: Path
) -> None:
    """A label and a number do not agree or disagree."""
    other = save(
        _tuned(base, HeadOnly(), labels=("stars",), task="regression"), tmp_path / "other"
    )

    with pytest.raises(UsageError) as caught:
        diff(first, other, file=rows, base=str(base))

    assert str(caught.value) == (
        f"Rows of a file cannot be set against each other: '{first}' has learned single-label, '{other}' regression. "
        "Leave the file out."
    )


def test_a_plain_peft_adapter_is_compared_by_its_tensors(first: Path, tmp_path: Path) -> None:
    """Without a manifest there is no record, and no label to say of a row."""
    plain = shutil.copytree(first, tmp_path / "plain")
    for name in ("peftune.json", "README.md"):
        (plain / name).unlink()

    found = diff(first, plain)

    assert not found.identical
    assert {one.changed for one in found.tensors.groups} == {0}
    assert found.reason == "an adapter without a manifest records nothing"
    with pytest.raises(UsageError, match="for artifacts of peftune only"):
        diff(first, plain, file=tmp_path / "rows.txt")


def test_the_command_prints_a_page_and_json(
    base: Path, first: Path, second: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People read a page; programs read the same values, and no NaN."""
    arguments = ["adapter", "diff", str(first), str(second)]
    arguments += ["--file", str(rows), "--base", str(base)]

    page, text = _run(arguments, capsys), _run([*arguments, "--json"], capsys)

    values = json.loads(text, parse_constant=pytest.fail)
    assert "strategy.lora_dropout  0.05  0.1" in page
    assert f"labels differ on {values['recorded']['float32']['differ']:.2%}" in page
    low, high = values["rows"]["ci95"]
    assert f"[{low:.2%}, {high:.2%}]" in page


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    output = capsys.readouterr()
    assert exit_.value.code == 0, output.err
    return output.out


def test_diff_is_public() -> None:
    """It stands beside `peftune.adapters.inspect`."""
    assert peftune.adapters.diff is diff
