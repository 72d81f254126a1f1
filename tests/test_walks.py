"""A model walked once answers as one that is walked each time."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import walks
from torch import nn

import peftune
from peftune.models.architecture import backbone_of
from peftune.training.regularization import walked_once


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> nn.Module:
    """Prepare a model whose LoRA layers have dropout."""
    model, _ = peftune.prepare(
        str(tiny_base), strategy=peftune.LoRA(r=2), labels=["a", "b"], max_length=16, use_cpu=True
    )
    return model


def _counts(model: Any) -> list[int]:  # noqa: ANN401 - a model with transformers' methods
    return [model.num_parameters(only, without) for only in (0, 1) for without in (0, 1)]


def test_the_answers_are_those_of_the_model(model: nn.Module) -> None:
    """Parameters, their order and their counts are what they are without; twice as once."""
    parameters, own, counts = (
        list(model.parameters()),
        list(model.parameters(False)),
        _counts(model),
    )

    with walked_once(model):
        for _ in range(2):
            assert list(map(id, model.parameters())) == list(map(id, parameters))
            assert list(model.parameters(False)) == own
            assert _counts(model) == counts
    assert "parameters" not in vars(model)
    assert "train" not in vars(model)


def test_training_mode_reaches_every_module(model: nn.Module) -> None:
    """Also one that alone was switched to evaluation, or the whole model after an evaluation."""
    with walked_once(model):
        model.train()
        backbone_of(model).h[1].eval()
        model.train()
        assert all(module.training for module in model.modules())
        model.eval()
        assert not any(module.training for module in model.modules())
        model.train()
        assert all(module.training for module in model.modules())


def test_what_is_added_is_found(model: nn.Module) -> None:
    """A parameter or module that a callback adds is trained, clipped and cleared like the others."""
    changed = copy.deepcopy(model)
    with walked_once(changed):
        before = len(list(changed.parameters()))
        backbone_of(changed).register_parameter("extra", nn.Parameter(torch.ones(2)))
        assert len(list(changed.parameters())) == before + 1
        further = nn.Linear(2, 3).eval()
        backbone_of(changed).further = further
        assert len(list(changed.parameters())) == before + 3
        changed.train()
        assert further.training
        backbone_of(changed).extra.grad = torch.ones(2)
        changed.zero_grad()
        assert backbone_of(changed).extra.grad is None
        kept = changed.parameters
    backbone_of(changed).register_parameter("late", nn.Parameter(torch.ones(2)))
    assert len(list(kept())) == before + 4


def test_learning_parameters_are_counted_anew(model: nn.Module) -> None:
    """A callback may freeze some."""
    counted: Any = model
    with walked_once(model):
        before = counted.num_parameters(only_trainable=True)
        weight = next(weight for weight in model.parameters() if weight.requires_grad)
        weight.requires_grad = False
        try:
            assert counted.num_parameters(only_trainable=True) == before - weight.numel()
        finally:
            weight.requires_grad = True


@pytest.mark.parametrize("when", ["inside", "afterwards"])
def test_a_copy_answers_for_itself(when: str, model: nn.Module) -> None:
    """A callback that keeps an average of the weights, or writes the model whole, gets a model."""
    file = io.BytesIO()
    with walked_once(model):
        list(model.parameters())
        copied = copy.deepcopy(model)
        torch.save(model, file)
        if when == "inside":
            _assert_apart(copied, model)
    _assert_apart(copied, model)
    file.seek(0)
    _assert_apart(torch.load(file, weights_only=False), model)


def _assert_apart(copied: nn.Module, model: nn.Module) -> None:
    model.eval()
    copied.train()
    assert all(module.training for module in copied.modules())
    assert not model.training
    assert {id(p) for p in copied.parameters()}.isdisjoint(map(id, model.parameters()))
    copied.register_parameter("extra", nn.Parameter(torch.ones(1)))
    assert any(weight is copied.extra for weight in copied.parameters())


def test_the_model_has_its_own_methods_again_after_a_failure(model: nn.Module) -> None:
    """A training that diverges leaves nothing behind, and nor does one inside another."""
    with walked_once(model):
        inside = vars(model)["train"]
        with pytest.raises(ZeroDivisionError), walked_once(model):
            raise ZeroDivisionError
        assert vars(model)["train"] == inside
    assert not {"train", "parameters", "num_parameters"} & vars(model).keys()


def test_a_model_is_walked_once(model: nn.Module) -> None:
    """Asked a hundred times, it is walked as often as the first time."""
    counted: Any = model

    def ask() -> int:
        with walks() as found:
            model.train()
            model.zero_grad()
            counted.num_parameters(exclude_embeddings=True)
        return found[0]

    plainly = ask()
    assert plainly > len(list(model.modules()))
    with walked_once(model):
        ask()
        assert [ask() for _ in range(100)] == [0] * 100
