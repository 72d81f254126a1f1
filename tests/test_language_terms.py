"""The language model inside a classifier, with gradients: each term against another way to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import GPT2LMHeadModel
from tuned import prepared

from peftune.errors import UsageError
from peftune.models import lm_head
from peftune.models.architecture import backbone_of, head_of, trainable_parameters
from peftune.models.base_files import find_base
from peftune.models.lm_head import (
    divergence_from_base,
    fisher_information,
    language_model_loss,
    written_by_base,
)
from peftune.models.prepare import preparation_of
from peftune.models.weight_statistics import squared_drift
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

SEQUENCES = ([50, 60, 70, 80], [9], [30, 40, 50, 60, 70, 80, 90])
PREFIX = 0
CPU = torch.device("cpu")
INT8 = LoRA8bit(r=4, llm_int8_threshold=0.0)
FLOAT = [
    pytest.param(LoRA(r=4), id="lora"),
    pytest.param(Full(), id="full"),
    pytest.param(Full(freeze_layers=1), id="full, frozen below"),
]

Weights = Mapping[str, torch.Tensor]


def moved(base: Path, strategy: Strategy) -> nn.Module:
    """Prepare a model in train mode, and move every weight that learns."""
    model = prepared(base, strategy)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.train()


def rebuilt(base: Path, model: nn.Module) -> tuple[GPT2LMHeadModel, dict[str, nn.Parameter]]:
    """Load the plain language model, and copy the trained weights outside the head."""
    head = {id(weight) for weight in head_of(model).parameters()}
    leaves = {
        name: nn.Parameter(weight.detach().clone())
        for name, weight in trainable_parameters(model).items()
        if id(weight) not in head
    }
    return GPT2LMHeadModel.from_pretrained(base).eval(), leaves


def dense(plain: GPT2LMHeadModel, leaves: Mapping[str, nn.Parameter], scale: float) -> Weights:
    """Form every changed weight of the plain model from its parts: W + s (B A)^T, or itself."""
    weights: dict[str, torch.Tensor] = {}
    for name, leaf in leaves.items():
        if "lora_B" in name:
            continue
        place = name.removeprefix("base_model.model.").removeprefix("base_model.")
        if "lora_A" in name:
            place = place.replace("lora_A.default.", "")
            up = leaves[name.replace("lora_A", "lora_B")]
            leaf_weight = plain.get_parameter(place).detach() + scale * (up @ leaf).T
        else:
            leaf_weight = leaf
        weights[place] = leaf_weight
    return weights


def log_probabilities(plain: GPT2LMHeadModel, weights: Weights, ids: list[int]) -> torch.Tensor:
    """Read one sequence after the prefix, with weights in the place of the model's own."""
    logits = functional_call(plain, dict(weights), (torch.tensor([[PREFIX, *ids[:-1]]]),)).logits
    return torch.log_softmax(logits[0], -1)  # (time, vocabulary)


def scale_of(strategy: Strategy) -> float:
    """Return the factor of a LoRA's update."""
    return strategy.lora_alpha / strategy.r if isinstance(strategy, LoRA) else 1.0


def assert_same_gradients(model: nn.Module, expected: Mapping[str, torch.Tensor | None]) -> None:
    """Compare the gradients of the trained weights; the head must have none."""
    for name, weight in trainable_parameters(model).items():
        wanted = expected.get(name)
        if wanted is None:
            assert weight.grad is None, name
        else:
            assert weight.grad is not None, name
            torch.testing.assert_close(weight.grad, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strategy", FLOAT)
def test_the_divergence_and_its_gradient_are_those_of_two_language_models(
    strategy: Strategy, base: Path
) -> None:
    """KL(base || model) a token, by torch's kl_div over plain GPT-2s, one sequence at a time."""
    model = moved(base, strategy)
    student, leaves = rebuilt(base, model)
    teacher = copy.deepcopy(student)
    weights = dense(student, leaves, scale_of(strategy))
    total = torch.zeros(())
    for ids in SEQUENCES:
        with torch.no_grad():
            reference = log_probabilities(teacher, {}, ids)
        total = total + nn.functional.kl_div(
            log_probabilities(student, weights, ids), reference, reduction="sum", log_target=True
        )
    expected = total / sum(map(len, SEQUENCES))
    expected.backward()

    value = divergence_from_base(model, SEQUENCES, prefix=PREFIX)
    value.backward()

    assert value.item() > 0.01
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-7)
    assert_same_gradients(model, {name: leaf.grad for name, leaf in leaves.items()})


def test_the_divergence_of_an_int8_model_is_the_one_with_its_adapter_switched_off(
    base: Path,
) -> None:
    """PEFT's own switch gives the int8 base; one sequence at a time gives the same gradients."""
    model = moved(base, INT8)
    by_hand = copy.deepcopy(model).eval()
    assert isinstance(by_hand, PeftModel)
    backbone, head = backbone_of(by_hand), backbone_of(by_hand).wte.weight
    total = torch.zeros(())
    for ids in SEQUENCES:
        inputs = torch.tensor([[PREFIX, *ids[:-1]]])
        with torch.no_grad(), by_hand.disable_adapter():
            reference = torch.log_softmax(backbone(inputs).last_hidden_state[0] @ head.T, -1)
        own = torch.log_softmax(backbone(inputs).last_hidden_state[0] @ head.T, -1)
        total = total + (reference.exp() * (reference - own)).sum()
    expected = total / sum(map(len, SEQUENCES))
    expected.backward()

    value = divergence_from_base(model, SEQUENCES, prefix=PREFIX)
    value.backward()

    assert value.item() > 0.01
    torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-6)
    wanted = {name: weight.grad for name, weight in trainable_parameters(by_hand).items()}
    assert sum(gradient is not None for gradient in wanted.values()) == 16, "8 updates learn"
    for name, weight in trainable_parameters(model).items():
        gradient = wanted[name]
        if gradient is not None:
            assert weight.grad is not None
            # Gradients pass through fp16 in bitsandbytes, so they agree to its precision.
            largest = float(gradient.abs().max())
            torch.testing.assert_close(weight.grad, gradient, rtol=0, atol=2e-3 * largest)


@pytest.mark.parametrize(
    "strategy", [*FLOAT, pytest.param(LoRA8bit(r=4), id="lora-8bit"), HeadOnly()]
)
def test_before_the_first_step_the_divergence_is_exactly_zero(
    strategy: Strategy, base: Path
) -> None:
    """In train mode, with dropout on: both read without it, in the same kernels."""
    model = prepared(base, strategy).train()

    assert divergence_from_base(model, SEQUENCES, prefix=PREFIX).item() == 0.0


@pytest.mark.parametrize("strategy", FLOAT)
def test_the_language_loss_and_its_gradient_are_those_of_a_language_model(
    strategy: Strategy, base: Path
) -> None:
    """Cross-entropy of every token after the prefix, by a plain GPT-2."""
    model = moved(base, strategy)
    student, leaves = rebuilt(base, model)
    weights = dense(student, leaves, scale_of(strategy))
    total = torch.zeros(())
    for ids in SEQUENCES:
        picked = log_probabilities(student, weights, ids)[range(len(ids)), ids]
        total = total - picked.sum()
    expected = total / sum(map(len, SEQUENCES))
    expected.backward()

    value = language_model_loss(model, SEQUENCES, prefix=PREFIX)
    value.backward()

    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-6)
    assert_same_gradients(model, {name: leaf.grad for name, leaf in leaves.items()})


@pytest.mark.parametrize("term", [divergence_from_base, language_model_loss])
@pytest.mark.parametrize("strategy", [LoRA(r=4), Full()], ids=["lora", "full"])
def test_logits_that_cannot_be_held_give_the_same_term(
    term: Callable[..., torch.Tensor],
    strategy: Strategy,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few positions at a time, computed again in the backward pass: the same value and gradient."""
    direct, chunked = moved(base, strategy), moved(base, strategy)
    expected = term(direct, SEQUENCES, prefix=PREFIX)
    expected.backward()
    calls = []

    def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - checkpoint's signature
        calls.append(args)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(lm_head, "_HELD_LOGITS", 0)
    monkeypatch.setattr(lm_head, "_POSITIONS", 5)
    monkeypatch.setattr(lm_head, "checkpoint", counted)
    value = term(chunked, SEQUENCES, prefix=PREFIX)
    value.backward()

    assert len(calls) == 3, "12 positions, 5 at a time"
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    wanted = {name: weight.grad for name, weight in trainable_parameters(direct).items()}
    assert_same_gradients(chunked, wanted)


@pytest.mark.parametrize("term", [divergence_from_base, language_model_loss])
def test_a_term_does_not_depend_on_how_sequences_are_padded(
    term: Callable[..., torch.Tensor], base: Path
) -> None:
    """Together, one by one and in another order: the mean over all tokens."""
    model = moved(base, LoRA(r=4))

    together = term(model, SEQUENCES, prefix=PREFIX)
    alone = [term(model, [ids], prefix=PREFIX) * len(ids) for ids in SEQUENCES]
    turned = term(model, SEQUENCES[::-1], prefix=PREFIX)

    torch.testing.assert_close(together, torch.stack(alone).sum() / 12, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together, turned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", [LoRA(r=4), Full(), INT8], ids=lambda s: s.name)
def test_a_term_leaves_the_model_and_the_random_state_as_they_were(
    strategy: Strategy, base: Path
) -> None:
    """Modes, weights, gradients and the generator: nothing tells that the term was read."""
    model = moved(base, strategy)
    model.get_submodule("score" if strategy.name == "full" else "base_model").eval()
    modes = [module.training for module in model.modules()]
    weights = {name: weight.clone() for name, weight in trainable_parameters(model).items()}
    state = torch.random.get_rng_state()

    divergence_from_base(model, SEQUENCES, prefix=PREFIX)
    language_model_loss(model, SEQUENCES, prefix=PREFIX)

    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weights[n], w) for n, w in trainable_parameters(model).items())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def written(base: Path, count: int, *, length: int, seed: int = 1) -> list[list[int]]:
    """Let a base write."""
    return written_by_base(
        find_base(str(base)), count, length=length, prefix=PREFIX, seed=seed, device=CPU
    )


def test_what_the_base_writes_is_decided_by_the_seed_alone(base: Path) -> None:
    """The same seed, the same text; the global random state neither matters nor moves."""
    torch.manual_seed(1)
    first = written(base, 70, length=6)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = written(base, 70, length=6)

    assert second == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert written(base, 70, length=6, seed=2) != first
    assert {len(ids) for ids in first} == {6}
    assert len(first) == 70


def test_the_base_writes_end_tokens_as_often_as_it_expects_them(
    base: Path, tmp_path: Path
) -> None:
    """Every token comes with the base's own probability, the end token too; text goes on after it."""
    model = GPT2LMHeadModel.from_pretrained(base)
    with torch.no_grad():
        end = model.transformer.wte.weight[PREFIX]
        model.transformer.ln_f.bias.add_(2.5 * end / end.square().sum())  # likelier by e^2.5
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    model.save_pretrained(tmp_path)
    model.eval()

    texts = written(tmp_path, 200, length=16)

    fed = torch.tensor([[PREFIX, *ids[:-1]] for ids in texts])
    with torch.no_grad():
        chances = model(fed).logits.softmax(-1)[..., PREFIX].double()
    found = sum(ids.count(PREFIX) for ids in texts)
    deviation = float((chances * (1 - chances)).sum().sqrt())
    assert float(chances.sum()) > 40
    assert abs(found - float(chances.sum())) < 4 * deviation
    assert any(PREFIX in ids[:-1] for ids in texts)


def test_the_fisher_information_is_the_expected_square_under_the_base(base: Path) -> None:
    """Summed over all next tokens with their probabilities, the mean of many draws comes out.

    With the text's own next tokens, the empirical Fisher, it is another matrix.
    """
    ids = [50, 60, 70]
    model = GPT2LMHeadModel.from_pretrained(base).eval()
    weights = dict(model.transformer.named_parameters())
    log_p = torch.log_softmax(model(torch.tensor([[PREFIX, *ids[:-1]]])).logits[0], -1)
    watched = ["h.0.attn.c_proj.weight", "h.1.mlp.c_fc.weight", "wte.weight"]

    def squares(place: int, token: int) -> list[torch.Tensor]:
        gradients = torch.autograd.grad(
            log_p[place, token], [weights[name] for name in watched], retain_graph=True
        )
        return [gradient.square() for gradient in gradients]

    exact = [torch.zeros_like(weights[name]) for name in watched]
    for place in range(len(ids)):
        for token in range(257):
            for sums, square in zip(exact, squares(place, token), strict=True):
                sums.add_(square, alpha=log_p[place, token].exp().item() / len(ids))
    empirical = [
        sum(parts) / len(ids)
        for parts in zip(*(squares(p, t) for p, t in enumerate(ids)), strict=True)
    ]

    found = fisher_information(
        find_base(str(base)), [ids] * 400, prefix=PREFIX, seed=0, device=CPU
    )

    assert set(found) == set(weights)
    for name, expected, other in zip(watched, exact, empirical, strict=True):
        assert float(found[name].sum()) == pytest.approx(float(expected.sum()), rel=0.1)
        assert torch.corrcoef(torch.stack([found[name].flatten(), expected.flatten()]))[0, 1] > 0.9
        off, other_off = ((values - expected).abs().sum() for values in (found[name], other))
        assert float(off) < 0.35 * float(expected.sum())
        assert float(other_off) > 0.5 * float(expected.sum()), "the empirical one is another"


@pytest.mark.parametrize("strategy", [LoRA(r=4), Full(), INT8], ids=lambda s: s.name)
def test_the_drift_is_the_squared_distance_of_the_backbones_weights(
    strategy: Strategy, base: Path
) -> None:
    """Of a low-rank update ||s B A||², by forming it; of trained weights, their own change.

    The head is none of the backbone.
    """
    model = moved(base, strategy)
    before = preparation_of(model).before
    with torch.no_grad():
        for weight in head_of(model).parameters():
            weight.add_(100.0)
    weights = trainable_parameters(model)
    head = {id(weight) for weight in head_of(model).parameters()}
    if strategy.name == "full":
        expected = sum(
            (weight - before[name]).square().sum().item()
            for name, weight in weights.items()
            if id(weight) not in head
        )
    else:
        expected = sum(
            (scale_of(strategy) * weights[name.replace("_A", "_B")] @ down).square().sum().item()
            for name, down in weights.items()
            if "lora_A" in name
        )

    assert squared_drift(model, before).item() == pytest.approx(expected, rel=1e-5)


def merged_change(base: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """Let PEFT merge an adapter, and subtract the base: the change of each weight, by base name."""
    merged = copy.deepcopy(model).merge_and_unload()  # type: ignore[operator]
    plain = dict(GPT2LMHeadModel.from_pretrained(base).transformer.named_parameters())
    return {
        name: (weight - plain[name]).detach()
        for name, weight in backbone_of(merged).named_parameters()
    }


@pytest.mark.parametrize(
    "strategy",
    [LoRA(r=4), LoRA(r=4, target_modules=("wte", "c_proj")), INT8],
    ids=["lora", "lora with embeddings", "lora-8bit"],
)
def test_importance_weighs_each_number_of_a_low_rank_update_in_the_bases_layout(
    strategy: LoRA, base: Path
) -> None:
    """As PEFT's merged weights have it. The layout shows even where a weight is square.

    The int8 model holds its weights turned; its update is the one of a float model with the same
    factors. Planted fault: importance that is turned where it can be.
    """
    model = moved(base, strategy)
    twin = moved(base, LoRA(r=4, target_modules=strategy.target_modules))
    changes = merged_change(base, twin)
    generator = torch.Generator().manual_seed(3)
    importance = {n: torch.rand(w.shape, generator=generator) for n, w in changes.items()}
    expected = sum(float((importance[n] * w.square()).sum()) for n, w in changes.items())
    turned = {
        name: values.T if values.dim() == 2 and values.shape[0] == values.shape[1] else values
        for name, values in importance.items()
    }
    before = preparation_of(model).before

    assert squared_drift(model, before, importance).item() == pytest.approx(expected, rel=1e-5)
    assert changes["h.0.attn.c_proj.weight"].shape == (32, 32)
    with pytest.raises(AssertionError):
        assert squared_drift(model, before, turned).item() == pytest.approx(expected, rel=1e-5)


def test_importance_weighs_each_weight_that_learns_by_itself(base: Path) -> None:
    """For full fine-tuning, number by number."""
    model = moved(base, Full())
    before = preparation_of(model).before
    plain = GPT2LMHeadModel.from_pretrained(base).transformer
    generator = torch.Generator().manual_seed(3)
    importance = {
        name: torch.rand(weight.shape, generator=generator)
        for name, weight in plain.named_parameters()
    }
    own = dict(backbone_of(model).named_parameters())
    expected = sum(
        (importance[name] * (own[name] - weight).square()).sum().item()
        for name, weight in plain.named_parameters()
    )

    assert squared_drift(model, before, importance).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weighed", [False, True])
def test_the_gradient_of_the_drift_is_that_of_the_formed_update(base: Path, weighed: bool) -> None:
    """The small products of the factors have the gradient of ||s B A||² itself."""
    model = moved(base, LoRA(r=4))
    student, leaves = rebuilt(base, model)
    plain = dict(student.named_parameters())
    importance = {n: torch.rand(w.shape) for n, w in student.transformer.named_parameters()}
    total = torch.zeros(())
    for name, weight in dense(student, leaves, 4.0).items():
        factor = importance[name.removeprefix("transformer.")] if weighed else 1.0
        total = total + (factor * (weight - plain[name].detach()).square()).sum()
    total.backward()

    found = squared_drift(model, preparation_of(model).before, importance if weighed else None)
    found.backward()

    assert_same_gradients(model, {name: leaf.grad for name, leaf in leaves.items()})


@pytest.mark.parametrize(
    ("strategy", "importance", "message"),
    [
        (
            LoRA(r=4, use_dora=True),
            None,
            "The change that DoRA makes is not a plain low-rank update, so its distance from the base cannot be held down. Set use_dora: false.",
        ),
        (
            HeadOnly(),
            None,
            "No weight but the head is trainable, so there is no drift from the base to hold down. Remove the regularizer, or choose another strategy.",
        ),
        (
            LoRA(r=4),
            {},
            "The base has no weight 'h.0.attn.c_attn.weight', so nothing is known of its importance. Use another regularizer with this strategy.",
        ),
    ],
    ids=["DoRA", "head only", "unknown weight"],
)
def test_a_drift_that_cannot_be_told_is_refused(
    strategy: Strategy, importance: Weights | None, message: str, base: Path
) -> None:
    """Rather than a number that is not the distance."""
    model = prepared(base, strategy)

    with pytest.raises(UsageError) as refused:
        squared_drift(model, preparation_of(model).before, importance)

    assert str(refused.value) == message
