"""Whatever precision a model is trained in: no frozen weight changes, and it is read in float32."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from tuned import DOCUMENTS, TEXTS, moved, prepared, train

import peftune
from peftune.adapters.classifier import Classifier
from peftune.errors import GuardError
from peftune.fastpath.linear_maps import Computing
from peftune.fastpath.lora_layers import keep_int8_weights
from peftune.forgetting.measurement import (
    adapter_off_forgetting,
    measure,
    measure_base,
    measure_off,
    measure_plainly,
)
from peftune.models.architecture import backbone_of, head_of, trainable_parameters, unwrapped
from peftune.models.inference import pooled_states, predict_logits
from peftune.models.interpolation import at_strength, frozen_sha256
from peftune.models.lm_head import token_log_probabilities
from peftune.models.merging import backbone_states
from peftune.models.prepare import acting_as_base, preparation_of, refuse_changed_base
from peftune.models.weight_statistics import squared_drift
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy
from peftune.training.fast_path import fast_forward

STRATEGIES: dict[str, Strategy] = {
    one.name: one for one in (Full(), LoRA(r=4), LoRA8bit(r=4), HeadOnly())
}
HALVES = (torch.bfloat16, torch.float16)
ROWS = [("so good", 1), ("so bad, so very bad", 0), ("a lovely day it was", 1), ("never", 0)]


@pytest.fixture
def base(tiny_base: Path) -> str:
    """Give a base whose biases and layer norms are neither zero nor one, with outlier channels."""
    return str(tiny_base)


# bitsandbytes' maps, which write the cast bias into the parameter.


class _Scaled(bnb.nn.Linear8bitLt):
    """A map of somebody else, on top of bitsandbytes'."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = 2 * super().forward(x)
        return found


MAPS: dict[str, Callable[[], nn.Module]] = {
    "int8": lambda: bnb.nn.Linear8bitLt(64, 32, has_fp16_weights=False),
    "int8 with outliers": lambda: bnb.nn.Linear8bitLt(
        64, 32, has_fp16_weights=False, threshold=6.0
    ),
    "int8 of somebody else": lambda: _Scaled(64, 32, has_fp16_weights=False),
    "nf4": lambda: bnb.nn.LinearNF4(64, 32),
    "4 bits computed in bfloat16": lambda: bnb.nn.Linear4bit(64, 32, compute_dtype=torch.bfloat16),
}


def quantized(kind: str) -> Any:  # noqa: ANN401 - attributes that bitsandbytes gives no types
    """Make a map, whose codes are made when it comes to a device."""
    torch.manual_seed(0)
    return MAPS[kind]().to("cpu").requires_grad_(False)


@pytest.mark.parametrize("kind", MAPS)
def test_bitsandbytes_still_rounds_a_bias_for_good(kind: str) -> None:
    """Where this fails, bitsandbytes casts a copy, and `models.quantized` is no longer needed."""
    stock = quantized(kind)

    stock(torch.randn(3, 64).bfloat16())

    assert stock.bias.dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", MAPS)
def test_no_pass_changes_a_bias_and_every_pass_gives_what_bitsandbytes_gives(
    kind: str, training: bool
) -> None:
    """In each type, on a copy of the map too; the codes stay as they are."""
    stock, kept = quantized(kind).train(training), quantized(kind).train(training)
    keep_int8_weights(nn.Sequential(kept))
    bias, codes = kept.bias.detach().clone(), kept.weight.detach().clone()

    for module, like in ((kept, stock), (copy.deepcopy(kept), copy.deepcopy(stock))):
        for dtype in (torch.float32, *HALVES):
            x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
            like.bias.data = bias.clone()
            with torch.no_grad():
                found = module(x)
                assert torch.equal(found, like(x))
            assert found.dtype == dtype
        assert torch.equal(module.bias, bias)
        assert module.bias.dtype == torch.float32
        assert torch.equal(module.weight, codes)
    assert {"weight", "bias"} <= set(kept.state_dict())


def test_a_bias_that_learns_stays_in_float32_and_gets_its_gradient() -> None:
    """As BitFit on an int8 base wants it: in the type that the optimizer steps in."""
    kept = quantized("int8").train()
    keep_int8_weights(nn.Sequential(kept))
    kept.bias.requires_grad_(True)

    kept(torch.randn(5, 64).bfloat16()).sum().backward()

    assert kept.bias.dtype == torch.float32
    torch.testing.assert_close(kept.bias.grad, torch.full((32,), 5.0))


class _FourBit(LoRA):
    """LoRA on 4-bit codes that compute in bfloat16, as a plug-in may."""

    name = "four-bit"

    def load_kwargs(self) -> dict[str, Any]:
        return {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
                llm_int8_skip_modules=["score"],
            )
        }


class _Rebuilt(LoRA8bit):
    """A plug-in that puts int8 maps of its own into the base."""

    name = "rebuilt"

    def prepare(self, model: Any) -> nn.Module:  # noqa: ANN401 - the strategy's signature
        mlp = model.transformer.h[0].mlp
        own = _Scaled(64, 256, has_fp16_weights=False, threshold=6.0)
        own.weight, own.bias, own.state = mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_fc.state
        mlp.c_fc = own
        model.transformer.h[0].mlp.act = _Halved(model.transformer.h[0].mlp.act)
        return super().prepare(model)


class _Halved(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x / 2)
        return found


OF_INTEGERS: dict[str, Strategy] = {
    "lora-8bit": LoRA8bit(r=4),
    "lora-8bit without outliers": LoRA8bit(r=4, llm_int8_threshold=0.0),
    "a plug-in with maps of its own": _Rebuilt(r=4),
    "a plug-in of 4 bits": _FourBit(r=4),
}


@pytest.mark.costly
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", OF_INTEGERS)
def test_a_loop_under_autocast_leaves_the_frozen_base_as_it_is(
    base: str, name: str, dtype: torch.dtype
) -> None:
    """Training and evaluating alike, whoever writes the loop."""
    model = prepared(base, OF_INTEGERS[name])

    with torch.autocast("cpu", dtype):
        train(model)
        predict(model.eval())
        with torch.no_grad():
            model(**inputs(model))

    refuse_changed_base(model)


def test_the_guard_sees_a_changed_scale(base: str) -> None:
    """What an int8 code is worth is no parameter, and is a frozen weight all the same."""
    model = prepared(base, LoRA8bit(r=4))
    [scale, *_] = [
        module.state.SCB for module in model.modules() if isinstance(module, bnb.nn.Linear8bitLt)
    ]
    scale[0] *= 1.01

    with pytest.raises(GuardError, match="Frozen weights of the base"):
        refuse_changed_base(model)


# Reading: in float32, whoever asks for another type.


def inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tokenize the rows as one padded batch."""
    tokenizer = preparation_of(model).tokenizer
    return dict(tokenizer([text for text, _ in ROWS], padding=True, return_tensors="pt"))


def predict(model: nn.Module) -> NDArray[np.float32]:
    """Classify the rows."""
    tokenizer = preparation_of(model).tokenizer
    return predict_logits(model, tokenizer, [text for text, _ in ROWS], max_length=32)


def _ids(model: nn.Module) -> list[list[int]]:
    tokenizer = preparation_of(model).tokenizer
    return [tokenizer(text)["input_ids"] for text in DOCUMENTS[:2]]


READERS: dict[str, Callable[[nn.Module], Any]] = {
    "logits": predict,
    "classifier": lambda model: Classifier(
        model, preparation_of(model).tokenizer, ("a", "b"), 32
    ).logits([text for text, _ in ROWS]),
    "states": lambda model: pooled_states(
        model, preparation_of(model).tokenizer, [text for text, _ in ROWS], max_length=32
    ),
    "backbone": lambda model: backbone_states(model, preparation_of(model).tokenizer).numpy(),
    "tokens": lambda model: torch.cat(
        token_log_probabilities(model, _ids(model), prefix=0)
    ).numpy(),
    "forgetting": lambda model: measure(model, TEXTS)[0].total,
    "callback": lambda model: (
        measure_plainly(model, preparation_of(model).tokenizer, TEXTS)[0].total
    ),
    "base": lambda model: measure_base(model, TEXTS)[0].total,
}


@contextlib.contextmanager
def _accelerated(model: nn.Module, times: int = 1) -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)  # as Trainer does
    for _ in range(times):
        vars(model).pop("_is_accelerate_prepared", None)
        Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model)
    yield


@contextlib.contextmanager
def _decorated(model: nn.Module) -> Iterator[None]:
    vars(model)["forward"] = torch.autocast("cpu", torch.bfloat16)(model.forward)
    yield


AROUND: dict[str, Callable[[nn.Module], contextlib.AbstractContextManager[Any]]] = {
    "accelerate": _accelerated,
    "accelerate twice": functools.partial(_accelerated, times=2),
    "a decorator": _decorated,
    "bfloat16 around it": lambda _: torch.autocast("cpu", torch.bfloat16),
    "float16 around it": lambda _: torch.autocast("cpu", torch.float16),
}


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "around"),
    [
        *(("lora", around) for around in AROUND),
        ("full", "accelerate"),
        ("lora-8bit", "accelerate"),
    ],
)
def test_a_model_is_read_in_float32_whatever_is_around_it(
    base: str, name: str, around: str
) -> None:
    """To the bit; and what is around it is still there afterwards."""
    model = moved(base, STRATEGIES[name]).eval()
    expected = {reader: read(model) for reader, read in READERS.items()}

    with AROUND[around](model):
        forward = vars(model).get("forward")
        own = model(**inputs(model)).logits.detach().float().numpy()
        for reader, read in READERS.items():
            np.testing.assert_array_equal(read(model), expected[reader], err_msg=reader)
        assert vars(model).get("forward") is forward
        after = model(**inputs(model)).logits.detach().float().numpy()

    assert np.abs(own - expected["logits"]).max() > 1e-4, "it never computed in another type"
    np.testing.assert_array_equal(after, own)
    parts = (backbone_of(model), head_of(model), unwrapped(model))
    assert all("forward" not in vars(part) for part in parts if part is not model)


def test_a_callback_reads_in_float32_while_a_training_computes_in_bfloat16(base: str) -> None:
    """So the points of a path are of the same kind as its end."""
    model = moved(base, LoRA(r=4)).eval()
    expected = predict(model)

    with fast_forward(model, Computing(torch.bfloat16, torch.device("cpu"))) as reason:
        assert reason is None
        np.testing.assert_array_equal(predict(model), expected)
        with torch.no_grad():
            fast = model(**inputs(model)).logits
        assert np.abs(fast.numpy() - expected).max() > 1e-4


def test_a_merge_is_computed_in_float32_whatever_is_around_it(base: str, tmp_path: Path) -> None:
    """A product of factors that autocast rounds would be another model."""
    peftune.save(moved(base, LoRA(r=4), labels=("a", "b")), tmp_path / "adapter")

    peftune.adapters.merge(tmp_path / "adapter", tmp_path / "plain", base=base, use_cpu=True)
    with torch.autocast("cpu", torch.bfloat16):
        peftune.adapters.merge(tmp_path / "adapter", tmp_path / "inside", base=base, use_cpu=True)

    plain, inside = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "inside")
    )
    assert plain == inside


# Saving: what is recorded is what a load gives, or nothing is saved.


def stock(model: nn.Module, folder: Path, *callbacks: Any, **arguments: Any) -> Trainer:  # noqa: ANN401 - Trainer's
    """Write the training script of a user of transformers: two large steps."""
    tokenizer = preparation_of(model).tokenizer
    rows = [{**tokenizer(text), "labels": label} for text, label in ROWS]
    chosen: dict[str, Any] = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.02,
        "save_strategy": "no",
        "eval_strategy": "steps",
        "eval_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), **chosen),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=list(callbacks),
    )


@pytest.mark.costly
@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "float32"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_stock_trainer_leaves_an_artifact_that_loads_and_a_base_that_is_the_base(
    base: str, name: str, bf16: bool, tmp_path: Path
) -> None:
    """In either type, with forgetting watched: the control is exactly zero, the logits are the artifact's."""
    model, _ = peftune.prepare(
        base, strategy=STRATEGIES[name], labels=["a", "b"], max_length=32, use_cpu=True
    )
    before = measure_base(model, TEXTS)
    watch = peftune.ForgettingCallback(TEXTS[0].probe)

    stock(model, tmp_path, watch, bf16=bf16).train()

    after = measure(model, TEXTS)
    assert adapter_off_forgetting(before, measure_off(model, TEXTS, after)) == 0.0
    assert len(watch.curve) == 2
    assert (watch.curve[-1]["forgetting_general-text"] == 0.0) == (name == "head-only")
    artifact = peftune.save(model, tmp_path / "artifact")
    loaded = peftune.load(artifact, base=None if name == "full" else base, use_cpu=True)
    found = loaded.logits([text for text, _ in ROWS])
    np.testing.assert_allclose(found, predict(model), rtol=0, atol=1e-6)
    if name == "lora-8bit":
        for replay in peftune.adapters.verify(artifact, base=base, use_cpu=True).replays:
            assert replay.texts.largest < 1e-5, replay


def test_a_model_is_saved_out_of_what_trains_it(base: str, tmp_path: Path) -> None:
    """`save` takes Trainer's wrapped model too."""
    model = moved(base, LoRA(r=4), labels=("a", "b"))
    artifact = peftune.save(nn.DataParallel(model), tmp_path / "adapter")
    found = peftune.load(artifact, base=base, use_cpu=True).logits([text for text, _ in ROWS])
    np.testing.assert_allclose(found, predict(model), rtol=0, atol=1e-6)


def _in_bfloat16(model: nn.Module) -> None:
    model.to(torch.bfloat16)


def _frozen_in_bfloat16(model: nn.Module) -> None:
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.bfloat16().float()


def _pad_of_another(model: nn.Module) -> None:
    unwrapped(model).config.pad_token_id = 5


REFUSED: dict[str, tuple[Callable[[nn.Module], None], str]] = {
    "converted": (
        _in_bfloat16,
        "The weight '{first}' is bfloat16 and was prepared in float32, so no load would give what this model gives; nothing is saved. Train with bf16=True or fp16=True, which leave the weights as they are, and without bf16_full_eval, fp16_full_eval, half() or to(dtype).",
    ),
    "rounded": (
        _frozen_in_bfloat16,
        "Frozen weights of the base '{base}' have changed since the model was prepared, so no load would give what this model gives, and nothing is saved. Train only what has requires_grad, and merge nothing before measuring or saving.",
    ),
    "padding": (
        _pad_of_another,
        "What the strategy 'lora' made gives two texts other logits in one padded batch than alone, so every load would refuse it; nothing is saved. Choose a strategy whose logits do not depend on padding.",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_no_load_would_take_is_not_saved(base: str, fault: str, tmp_path: Path) -> None:
    """One line, and no folder."""
    model = moved(base, LoRA(r=4), labels=("a", "b"))
    change, message = REFUSED[fault]
    change(model)

    with pytest.raises(GuardError) as caught:
        peftune.save(model, tmp_path / "adapter")

    first = next(iter(trainable_parameters(model)))
    name = preparation_of(model).base.name
    assert str(caught.value) == message.format(first=first, base=name)
    assert list(tmp_path.iterdir()) == []


# A model that Trainer moves to another device than it was prepared on.


@pytest.mark.parametrize("name", ["full", "lora", "head-only"])
def test_the_start_follows_the_model_to_its_device(base: str, name: str) -> None:
    """Every strength, the base and the drift are computed where the model is now."""
    model = prepared(base, STRATEGIES[name])
    model.to("meta")
    weights = trainable_parameters(model)

    before = preparation_of(model).before
    assert {kept.device.type for kept in before.values()} == {"meta"}
    assert preparation_of(model).before is before, "it is moved once"
    for strength in (0.0, 0.5):
        with at_strength(model, before, strength):
            assert {weight.device.type for weight in weights.values()} == {"meta"}
    with acting_as_base(model):
        assert {weight.device.type for weight in model.parameters()} == {"meta"}
    if name != "head-only":
        assert squared_drift(model, before).device.type == "meta"


def test_importance_is_taken_where_the_weight_is(base: str) -> None:
    """Fisher information of the base may lie on the device that it was prepared on."""
    model = prepared(base, Full())
    importance = {
        key: torch.ones_like(weight) for key, weight in backbone_of(model).named_parameters()
    }
    model.to("meta")
    assert squared_drift(model, preparation_of(model).before, importance).device.type == "meta"


def test_a_frozen_hash_does_not_depend_on_reading(base: str) -> None:
    """Neither a reading nor an evaluation of an int8 base changes what the guard hashes."""
    model = prepared(base, LoRA8bit(r=4))
    kept = preparation_of(model)
    predict(model)
    measure(model, TEXTS)
    assert frozen_sha256(model, kept.before) == kept.frozen_sha256
