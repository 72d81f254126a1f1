"""The laws that every probe and every regularizer keeps; each test method is one."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from peftune.adapters import prepare
from peftune.configuration import Configuration, keys_of
from peftune.data.documents import load_documents
from peftune.errors import UsageError
from peftune.forgetting.measurement import ProbeText, measure, measure_base, measure_off
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import REFERENCE_TEXTS
from peftune.plugins import PluginGroup
from peftune.probes import PROBES, Measurement, Probe
from peftune.regularizers import REGULARIZERS, Penalty, Regularizer
from peftune.strategies import LoRA
from peftune.testing.tuned import (
    LABELS,
    MAX_LENGTH,
    copy_state,
    equal_values,
    require,
    run_python,
    stock_trainer,
    write_tiny_base,
)
from peftune.training.regularization import RegularizedTrainer, TrainedClassifier

HEAVY = ("bitsandbytes", "datasets", "peft", "torch", "transformers")
_PRINT_HEAVY_IMPORTS = (
    f"import sys, {{module}}; print(*[name for name in {HEAVY} if name in sys.modules])"
)


class PluginContract:
    """Check what the plug-ins of all three groups have in common."""

    group: ClassVar[PluginGroup[Any]]

    @pytest.fixture(scope="class")
    @classmethod
    def base(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Give the folder of a tiny base."""
        return write_tiny_base(tmp_path_factory.mktemp("contract") / "tiny-base")

    @pytest.fixture(scope="class")
    @classmethod
    def plugin(cls, tmp_path_factory: pytest.TempPathFactory) -> Configuration:
        """Give the plug-in to check."""
        raise NotImplementedError

    def test_is_installed_under_its_name(self, plugin: Any) -> None:  # noqa: ANN401 - of any group
        """The entry point of the plug-in's name leads to its class: recipes find it there."""
        found = self.group.get(plugin.name)
        require(
            found is type(plugin),
            f"The entry point '{plugin.name}' leads to {found}, not to {type(plugin)}.",
        )

    def test_fields_make_the_same_plugin_again(self, plugin: Any) -> None:  # noqa: ANN401 - of any group
        """`fields()` hold every field under its key: through JSON comes an equal plug-in."""
        fields = json.loads(json.dumps(plugin.fields()))
        expected = {self.group.key, *keys_of(type(plugin))}
        require(
            set(fields) == expected,
            f"fields() hold {sorted(fields)}; they must hold {sorted(expected)}.",
        )
        name = fields.pop(self.group.key)
        again = type(plugin).model_validate(fields)
        require(
            (name, again) == (plugin.name, plugin), f"fields() give {again!r}, not {plugin!r}."
        )

    def test_an_unknown_field_is_refused(self, plugin: Configuration) -> None:
        """A misspelled field is an error, not a default in disguise."""
        fields = {**plugin.model_dump(by_alias=True), "no_such_field": 1}
        with pytest.raises(UsageError, match=r"\.no_such_field: unknown field"):
            type(plugin)(**fields)

    def test_importing_the_module_is_light(self, plugin: Configuration) -> None:
        """Importing the plug-in's module loads no torch, so listing and validating stay fast."""
        module = type(plugin).__module__
        heavy = run_python(_PRINT_HEAVY_IMPORTS.format(module=module)).split()
        require(
            not heavy,
            f"Importing '{module}' loads {', '.join(heavy)}; import them inside the methods.",
        )


class ProbeContract(PluginContract):
    """Check one probe against every law; each test method is one law, and says it.

    Subclass it in a test module and give the probe, with the text that it reads, in `make_probe`.
    Everything runs on the CPU, with a random GPT-2 of two layers; no network is used.

    Example:
        ```python
        from peftune.testing import ProbeContract
        from my_package import Copying

        class TestCopying(ProbeContract):
            @classmethod
            def make_probe(cls, folder):
                return Copying(dataset_name="bundled:general-text", max_documents=8)
        ```
    """

    group = PROBES

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Make the probe.

        Args:
            folder: where a text of its own may be written.
        """
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def plugin(cls, tmp_path_factory: pytest.TempPathFactory) -> Probe:
        """Give the probe to check."""
        return cls.make_probe(tmp_path_factory.mktemp("probe"))

    @pytest.fixture(scope="class")
    @classmethod
    def text(cls, plugin: Probe) -> ProbeText:
        """Read the documents of the probe."""
        return ProbeText(plugin, tuple(load_documents(plugin)))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, base: Path) -> nn.Module:
        """Prepare a LoRA model that nothing has trained."""
        model, _ = prepare(
            str(base), strategy=LoRA(r=4), labels=LABELS, max_length=MAX_LENGTH, use_cpu=True
        )
        return model

    @pytest.fixture(scope="class")
    @classmethod
    def before(cls, model: nn.Module, text: ProbeText) -> Measurement:
        """Measure the base."""
        return measure_base(model, [text])[0]

    def test_a_measurement_is_sums_per_document(
        self, before: Measurement, text: ProbeText
    ) -> None:
        """One finite number a document, no negative weight, and at least one document scored."""
        count = len(text.documents)
        for name, values in (
            ("total", before.total),
            ("weight", before.weight),
            ("tokens", before.tokens),
            *before.extra.items(),
        ):
            require(
                values.shape == (count,),
                f"{name} has the shape {values.shape}; it must have ({count},), one number a document.",
            )
            require(bool(np.isfinite(values).all()), f"{name} holds numbers that are not finite.")
        require(bool((before.weight >= 0).all()), "A weight is negative.")
        require(before.weight.sum() > 0, "No document is scored: all weights are 0.")
        if type(text.probe).right_or_wrong:
            scored = before.total[before.weight > 0]
            require(
                set(scored.tolist()) <= {0.0, 1.0},
                "right_or_wrong is set, but a document counts neither 0 nor 1.",
            )

    def test_an_untrained_adapter_forgets_exactly_nothing(
        self, model: nn.Module, text: ProbeText, before: Measurement
    ) -> None:
        """A fresh adapter computes what the base computes, so every document has the same number.

        The control of every report, measured with the adapter disabled, is exactly zero as well.
        """
        [after] = measure(model, [text])
        [disabled] = measure_off(model, [text], [after])
        for name, found in (("after", after), ("with the adapter disabled", disabled)):
            require(
                np.array_equal(found.total, before.total)
                and np.array_equal(found.weight, before.weight),
                f"Nothing was trained, but the measurement {name} is not that of the base.",
            )

    def test_a_changed_model_is_noticed(
        self, base: Path, text: ProbeText, before: Measurement
    ) -> None:
        """Other weights give other numbers: a probe that sees no change measures nothing."""
        model, _ = prepare(
            str(base), strategy=LoRA(r=4), labels=LABELS, max_length=MAX_LENGTH, use_cpu=True
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in trainable_parameters(model).values():
                weight.add_(torch.randn(weight.shape, generator=generator))
        [after] = measure(model, [text])
        pairs = [(after.total, before.total)]
        pairs += [(after.extra[name], values) for name, values in before.extra.items()]
        require(
            any(not np.array_equal(*pair) for pair in pairs),
            "The weights changed, but no number of the measurement did.",
        )

    def test_protocol_and_details_can_be_reported(
        self, text: ProbeText, before: Measurement
    ) -> None:
        """Both hold plain values that JSON can write."""
        json.dumps(text.probe.protocol())
        details = text.probe.details(before, before)
        strange = {name: value for name, value in details.items() if type(value) is not float}
        require(not strange, f"details() must hold floats (got {strange}).")


class RegularizerContract(PluginContract):
    """Check one regularizer against every law; each test method is one law, and says it.

    Subclass it in a test module, with the regularizer to check as a class attribute. Everything
    runs on the CPU, with a random GPT-2 of two layers; no network is used.

    Example:
        ```python
        from peftune.testing import RegularizerContract
        from my_package import StayNear

        class TestStayNear(RegularizerContract):
            regularizer = StayNear(weight=0.1)
        ```
    """

    group = REGULARIZERS
    regularizer: ClassVar[Regularizer]

    @pytest.fixture(scope="class")
    @classmethod
    def plugin(cls) -> Regularizer:
        """Give the regularizer to check."""
        return cls.regularizer

    @pytest.fixture
    def model(self, base: Path) -> nn.Module:
        """Prepare a LoRA model and move its adapter, so that there is something to hold."""
        model, _ = prepare(
            str(base), strategy=LoRA(r=4), labels=LABELS, max_length=MAX_LENGTH, use_cpu=True
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in trainable_parameters(model).values():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        return model.train()

    def _begun(self, model: nn.Module) -> Penalty:
        trained = TrainedClassifier(model, seed=0, task_tokens=lambda: 16.0)
        return self.regularizer.begin(trained)

    def test_the_penalty_is_a_finite_scalar_with_a_gradient(self, model: nn.Module) -> None:
        """Its gradient reaches trainable parameters and no others; None adds nothing."""
        penalty = self._begun(model)(_batch(model), 0)
        if penalty is None:
            return
        require(
            penalty.shape == () and bool(torch.isfinite(penalty)),
            f"The penalty is {penalty!r}; it must be one finite number.",
        )
        penalty.backward()
        reached = [weight for weight in model.parameters() if weight.grad is not None]
        require(bool(reached), "The penalty has no gradient.")
        require(
            all(weight.requires_grad for weight in reached), "The penalty moves frozen weights."
        )

    def test_the_same_draw_gives_the_same_penalty(self, model: nn.Module) -> None:
        """A resumed training must read the terms that the uninterrupted one read."""
        values = [self._begun(model)(_batch(model), 3) for _ in range(2)]
        require(
            values[0] is None
            if values[1] is None
            else values[0] is not None and torch.equal(values[0], values[1]),
            f"Two starts give {values[0]!r} and {values[1]!r} for the same batch and draw.",
        )

    def test_computing_it_leaves_the_training_as_it_was(self, model: nn.Module) -> None:
        """Weights, modes and the random state are what they were before."""
        before, state = copy_state(model), torch.get_rng_state()
        modes = [module.training for module in model.modules()]
        self._begun(model)(_batch(model), 0)
        after = copy_state(model)
        changed = [name for name, value in before.items() if not equal_values(value, after[name])]
        require(not changed, f"Computing the penalty changed {changed}.")
        require(
            modes == [module.training for module in model.modules()],
            "Computing the penalty left modules in another mode.",
        )
        require(
            torch.equal(state, torch.get_rng_state()),
            "Computing the penalty used up random numbers of the training.",
        )

    def test_a_weight_of_zero_is_the_plain_training(self, base: Path, tmp_path: Path) -> None:
        """Training with the term switched off by its weight gives the same weights, bit for bit."""
        without = _trained(base, tmp_path / "without", [])
        off = self.regularizer.model_copy(update={"weight": 0.0})
        zero = _trained(base, tmp_path / "zero", [off])
        changed = [name for name, value in without.items() if not torch.equal(value, zero[name])]
        require(not changed, f"A weight of 0 still changes {changed}.")

    def test_it_trains(self, base: Path, tmp_path: Path) -> None:
        """Three steps with the term end with finite weights."""
        weights = _trained(base, tmp_path, [self.regularizer])
        strange = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        require(not strange, f"After three steps these weights are not finite: {strange}.")


def _batch(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a batch of the task, as the loss reads it."""
    tokenizer = preparation_of(model).tokenizer
    encoded = tokenizer(
        list(REFERENCE_TEXTS[:4]),
        padding=True,
        truncation=True,
        max_length=MAX_LENGTH,
        return_tensors="pt",
    )
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _trained(base: Path, folder: Path, regularizers: list[Regularizer]) -> dict[str, torch.Tensor]:
    """Train for three steps, and return the trainable parameters."""
    model, tokenizer = prepare(
        str(base), strategy=LoRA(r=4), labels=LABELS, max_length=MAX_LENGTH, use_cpu=True
    )
    stock_trainer(
        model,
        tokenizer,
        folder,
        kind=partial(RegularizedTrainer, regularizers=regularizers),
        learning_rate=0.01,
        max_steps=3,
    ).train()
    return {name: weight.detach() for name, weight in trainable_parameters(model).items()}
