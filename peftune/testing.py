"""The conformance kit: the laws that every strategy keeps, for authors of plug-ins to run.

The only module of peftune that imports pytest, which is no dependency of peftune.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from pydantic import ValidationError
from safetensors import safe_open
from torch import nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from peftune.artifacts import save
from peftune.artifacts.manifest import WEIGHTS
from peftune.bundled import MODELS, bundled_folder
from peftune.data.tokens import padding_collator
from peftune.models.base import choose_device, load_classifier
from peftune.models.inference import predict_logits
from peftune.models.parts import (
    evaluating,
    head_of,
    is_whole_model,
    trainable_parameters,
    trunk_of,
)
from peftune.models.prepare import preparation_of, prepare, reference_batch
from peftune.models.reference import at_strength
from peftune.models.reference_texts import REFERENCE_TEXTS
from peftune.models.source import find_base
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.recipe import Recipe, read_recipe, write_recipe
from peftune.recipe.schema import DataSection
from peftune.strategies import STRATEGIES, Strategy

LABELS = ("negative", "neutral", "positive")
TOLERANCE = 1e-5
"""Largest difference between two ways to compute the same float, relative to the largest (or 1)."""

_MAX_LENGTH = 64
_HEAVY = ("bitsandbytes", "datasets", "peft", "torch", "transformers")
_PRINT_HEAVY_IMPORTS = (
    f"import sys, {{module}}; print(*[name for name in {_HEAVY} if name in sys.modules])"
)
_PRINT_LOGITS = """
import json, sys, peftune
from peftune.models.reference_texts import REFERENCE_TEXTS
classifier = peftune.load(sys.argv[1], base=sys.argv[2], use_cpu=True)
print(json.dumps(classifier.logits(REFERENCE_TEXTS).tolist()))
"""


def write_tiny_base(folder: Path) -> Path:
    """Write a GPT-2 of two random layers, width 64, with the bundled tokenizer.

    Its weights are large enough that padding, masks and positions show in every logit. Two hidden
    units are outliers, as GPT-2's own are, on which int8 rounds by the whole batch.

    Args:
        folder: where to; made where it is missing.

    Returns:
        The folder: a local base for `peftune.prepare` and for recipes.
    """
    bundled = bundled_folder(MODELS[0], among=MODELS)
    tokenizer = load_tokenizer(bundled)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for block in model.transformer.h:
            block.ln_1.weight[:2] = 8.0
    model.save_pretrained(folder)
    for path in bundled.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A strategy's model after three real training steps, and what it was before them.

    Args:
        model: prepared and trained.
        tokenizer: its tokenizer.
        before: every entry of the prepared model's state, copied before training.
        base: the base as the strategy loads it, with the same new head, never prepared.
    """

    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    before: Mapping[str, Any] = field(repr=False)
    base: nn.Module = field(repr=False)

    @property
    def batch(self) -> dict[str, torch.Tensor]:
        """The reference texts as one right-padded batch: (rows, time), int64."""
        return reference_batch(
            self.tokenizer,
            torch.device("cpu"),
            max_length=_MAX_LENGTH,
            rows=len(REFERENCE_TEXTS),
        )


class StrategyContract:
    """Check one strategy against every law; each test method is one law, and says it.

    Subclass it in a test module, with the strategy to check as a class attribute. The package must
    be installed, since recipes and artifacts find a strategy by its entry point. Everything runs
    on the CPU, with a random GPT-2 of two layers that is made on the fly; no network is used.

    Example:
        ```python
        from peftune.testing import StrategyContract
        from peftune_bitfit import BitFit

        class TestBitFit(StrategyContract):
            strategy = BitFit()
        ```
    """

    strategy: ClassVar[Strategy]

    @pytest.fixture(scope="class")
    @classmethod
    def base(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Give the folder of a tiny base."""
        return write_tiny_base(tmp_path_factory.mktemp("contract") / "tiny-base")

    @pytest.fixture(scope="class")
    @classmethod
    def tuned(cls, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
        """Prepare the strategy's model and train it for three steps."""
        model, tokenizer = prepare(
            str(base),
            strategy=cls.strategy,
            labels=LABELS,
            max_length=_MAX_LENGTH,
            use_cpu=True,
        )
        before = _state(model)
        _trainer(
            model, tokenizer, tmp_path_factory.mktemp("training"), learning_rate=0.01, max_steps=3
        ).train()
        return Tuned(model.eval(), tokenizer, before, _load_base(cls.strategy, base))

    @pytest.fixture(scope="class")
    @classmethod
    def artifact(cls, tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Save the trained model."""
        return save(tuned.model, tmp_path_factory.mktemp("artifact") / "saved")

    def test_is_installed_under_its_name(self) -> None:
        """The entry point of the strategy's name leads to its class: recipes find it there."""
        found = STRATEGIES.get(self.strategy.name)
        _require(
            found is type(self.strategy),
            f"The entry point '{self.strategy.name}' leads to {found}, not to {type(self.strategy)}.",
        )

    def test_wrapping_leaves_the_logits_unchanged(self, base: Path) -> None:
        """Preparing a model changes no logit: training starts from the base."""
        model, tokenizer = _load_base(self.strategy, base), load_tokenizer(base)
        batch = reference_batch(tokenizer, torch.device("cpu"), max_length=_MAX_LENGTH)
        expected = _logits(model, batch)
        _require_close(
            _logits(self.strategy.prepare(model), batch), expected, "The logits after wrapping"
        )

    def test_something_learns_and_so_does_the_head(self, tuned: Tuned) -> None:
        """Three steps move the head, and other weights exactly if `trains_trunk` says so."""
        head = {id(weight) for weight in head_of(tuned.model).parameters()}
        moved = {
            name: id(weight) in head
            for name, weight in trainable_parameters(tuned.model).items()
            if not torch.equal(weight.detach(), tuned.before[name])
        }
        _require(any(moved.values()), "The classification head did not move in three steps.")
        trunk = sorted(name for name, in_head in moved.items() if not in_head)
        _require(
            bool(trunk) == self.strategy.trains_trunk,
            f"trains_trunk is {self.strategy.trains_trunk}, but outside the head there moved: {trunk or 'nothing'}.",
        )

    def test_frozen_weights_are_bit_identical_after_training(self, tuned: Tuned) -> None:
        """Training changes no weight or buffer but the trainable ones, not by one bit."""
        learning, after = trainable_parameters(tuned.model), _state(tuned.model)
        _require(set(after) == set(tuned.before), "Training added or removed weights.")
        changed = [
            name
            for name, value in after.items()
            if name not in learning and not _same(value, tuned.before[name])
        ]
        _require(not changed, f"Frozen, yet changed by training: {changed}.")

    def test_a_fresh_process_loads_equal_logits(
        self, tuned: Tuned, artifact: Path, base: Path
    ) -> None:
        """An artifact, loaded on the base by a process that knows nothing else, gives the logits."""
        printed = _run_python(_PRINT_LOGITS, str(artifact), str(base))
        expected = predict_logits(
            tuned.model, tuned.tokenizer, REFERENCE_TEXTS, max_length=_MAX_LENGTH
        )
        _require_close(
            torch.tensor(json.loads(printed.splitlines()[-1])),
            torch.from_numpy(expected),
            "The logits of the artifact in a fresh process",
        )

    def test_the_artifact_holds_exactly_the_trainable_weights(
        self, tuned: Tuned, artifact: Path
    ) -> None:
        """The file holds each trainable weight and nothing else; peft's under peft's names.

        Where every weight learns, the artifact is a checkpoint that plain transformers opens.
        """
        whole = is_whole_model(tuned.model)
        with safe_open(artifact / ("model.safetensors" if whole else WEIGHTS), "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors handle is no mapping
        expected = _expected_tensors(tuned.model)
        _require(
            set(held) == set(expected),
            f"The artifact's tensors and the trainable weights differ in {sorted(set(held) ^ set(expected))}.",
        )
        changed = [
            name for name, tensor in held.items() if not torch.equal(tensor, expected[name])
        ]
        _require(not changed, f"The artifact holds other values than the model: {changed}.")
        if whole:
            plain = transformers.AutoModelForSequenceClassification.from_pretrained(artifact)
            _require_close(
                _logits(plain, tuned.batch),
                _logits(tuned.model, tuned.batch),
                "The logits of the checkpoint in plain transformers",
            )

    def test_the_reference_is_the_base_after_training(self, tuned: Tuned) -> None:
        """With the adapter off, hidden states equal the untouched base's: forgetting starts at 0."""
        expected = _hidden_states(tuned.base, tuned.batch)
        with at_strength(tuned.model, preparation_of(tuned.model).before, 0.0):
            actual = _hidden_states(tuned.model, tuned.batch)
        _require(
            torch.equal(actual, expected),
            f"The reference's hidden states differ from the base's by {_largest_difference(actual, expected):.3g}; they must be equal.",
        )

    def test_strengths_lead_from_the_base_to_the_tuned_model(self, tuned: Tuned) -> None:
        """Strength 0 is the base and strength 1 the tuned model, exactly; between there is no gap."""
        before, batch = preparation_of(tuned.model).before, tuned.batch
        ends = _logits(tuned.base, batch), _logits(tuned.model, batch)
        _require(
            not torch.allclose(*ends, rtol=0, atol=0.01),
            "Three training steps with a learning rate of 0.01 hardly changed the logits.",
        )
        for strength, expected in enumerate(ends):
            with at_strength(tuned.model, before, strength):
                actual = _logits(tuned.model, batch)
            _require(
                torch.equal(actual, expected),
                f"At strength {strength} the logits are off by {_largest_difference(actual, expected):.3g}; they must be equal.",
            )
            with at_strength(tuned.model, before, abs(strength - 1e-6)):
                nearly = _logits(tuned.model, batch)
            _require_close(
                nearly, expected, f"The logits just beside strength {strength}", tolerance=1e-3
            )
        _require(
            torch.equal(_logits(tuned.model, batch), ends[1]),
            "The tuned weights do not come back after at_strength.",
        )

    def test_gradients_do_not_depend_on_how_a_batch_is_split(
        self, tuned: Tuned, tmp_path: Path
    ) -> None:
        """Eight rows at once, or in two or four parts, give one and the same gradient."""
        whole, *parts = (
            _gradients(tuned, tmp_path, rows=rows, accumulation=8 // rows) for rows in (8, 4, 2)
        )
        largest = max(float(gradient.abs().max()) for gradient in whole.values())
        for part in parts:
            for name, gradient in whole.items():
                difference = _largest_difference(part[name], gradient)
                _require(
                    difference <= TOLERANCE * largest,
                    f"The gradient of '{name}' depends on how the batch is split: {difference:.3g} off, the largest being {largest:.3g}.",
                )

    def test_logits_do_not_depend_on_padding(self, tuned: Tuned) -> None:
        """A text has the same logits alone and padded to any length."""
        encoded = encode_texts(tuned.tokenizer, list(REFERENCE_TEXTS), max_length=_MAX_LENGTH)
        for ids in encoded:
            alone = _logits(tuned.model, _padded(tuned.tokenizer, [ids], len(ids)))
            longer = _logits(tuned.model, _padded(tuned.tokenizer, [ids], _MAX_LENGTH + 5))
            _require_close(longer, alone, f"The logits of a padded text of {len(ids)} tokens")

    def test_logits_do_not_depend_on_the_rest_of_the_batch(self, tuned: Tuned) -> None:
        """A text has the same logits whatever the order and the size of its batch."""
        texts = list(REFERENCE_TEXTS)
        expected = _predicted(tuned, texts, batch_size=1)
        for batch_size in (2, 3, len(texts)):
            actual = _predicted(tuned, texts, batch_size=batch_size)
            _require_close(actual, expected, f"The logits in batches of {batch_size}")
        batch = tuned.batch
        order = torch.arange(len(texts)).flip(0)
        turned = {name: tensor[order] for name, tensor in batch.items()}
        _require_close(
            _logits(tuned.model, turned)[order], expected, "The logits in reverse order"
        )

    def test_fields_make_the_same_strategy_again(self, tmp_path: Path) -> None:
        """`fields()` hold every hyper-parameter: through JSON and a recipe comes an equal strategy."""
        fields = json.loads(json.dumps(self.strategy.fields()))
        expected = {"name", *type(self.strategy).model_fields}
        _require(
            set(fields) == expected,
            f"fields() hold {sorted(fields)}; they must hold {sorted(expected)}.",
        )
        name = fields.pop("name")
        again = type(self.strategy).model_validate(fields)
        _require(
            (name, again) == (self.strategy.name, self.strategy),
            f"fields() give {again!r}, not {self.strategy!r}.",
        )
        recipe = Recipe(
            version=1,
            name="contract",
            data=DataSection(dataset_name="bundled:posts"),
            strategy=self.strategy,
            output_dir="runs/contract",
        )
        write_recipe(recipe, tmp_path / "recipe.yaml")
        read = read_recipe(tmp_path / "recipe.yaml").strategy
        _require(read == self.strategy, f"The recipe gives {read!r}, not {self.strategy!r}.")

    def test_an_unknown_field_is_refused(self) -> None:
        """A misspelled hyper-parameter is an error, not a default in disguise."""
        fields = {**self.strategy.model_dump(), "no_such_field": 1}
        with pytest.raises(
            ValidationError, match="no_such_field\n  Extra inputs are not permitted"
        ):
            type(self.strategy)(**fields)

    def test_importing_the_module_is_light(self) -> None:
        """Importing the strategy's module loads no torch, so listing and validating stay fast."""
        module = type(self.strategy).__module__
        heavy = _run_python(_PRINT_HEAVY_IMPORTS.format(module=module)).split()
        _require(
            not heavy,
            f"Importing '{module}' loads {', '.join(heavy)}; import them inside the methods.",
        )


class _GradientsBeforeTheStep(transformers.TrainerCallback):
    """Copy the gradients that the optimizer is about to use."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Copy them."""
        for name, weight in trainable_parameters(kwargs["model"]).items():
            if weight.grad is not None:
                self.gradients[name] = weight.grad.detach().clone()


def _gradients(
    tuned: Tuned, folder: Path, *, rows: int, accumulation: int
) -> dict[str, torch.Tensor]:
    """Return the gradient of one Trainer step; a rate of zero leaves the model as it is."""
    copied = _GradientsBeforeTheStep()
    dropouts = [module for module in tuned.model.modules() if isinstance(module, nn.Dropout)]
    shares = [module.p for module in dropouts]
    trainer = _trainer(
        tuned.model,
        tuned.tokenizer,
        folder,
        learning_rate=0.0,
        max_steps=1,
        max_grad_norm=0.0,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
    )
    trainer.add_callback(copied)
    try:
        for module in dropouts:
            module.p = 0.0
        trainer.train()
    finally:
        tuned.model.eval()
        tuned.model.zero_grad(set_to_none=True)
        for module, share in zip(dropouts, shares, strict=True):
            module.p = share
    return copied.gradients


def _trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    **arguments: Any,  # noqa: ANN401 - TrainingArguments' own
) -> transformers.Trainer:
    """Build a stock Trainer on the reference texts."""
    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS[:8]), max_length=_MAX_LENGTH)
    rows = {"input_ids": encoded, "labels": [i % len(LABELS) for i in range(len(encoded))]}
    return transformers.Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            **{"per_device_train_batch_size": 8, **arguments},
            use_cpu=True,
            seed=0,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        data_collator=padding_collator(tokenizer),
    )


def _load_base(strategy: Strategy, folder: Path) -> GPT2ForSequenceClassification:
    return load_classifier(
        find_base(str(folder)),
        load_tokenizer(folder),
        strategy=strategy,
        labels=LABELS,
        device=choose_device(use_cpu=True),
        seed=0,
    )


def _expected_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the file must hold: the trainable weights, or what peft itself would write."""
    if isinstance(model, PeftModel):
        tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model, save_embedding_layers=False
        )
        count = len(trainable_parameters(model))
        _require(
            len(tensors) == count,
            f"{count} weights are trainable, of which peft would save {len(tensors)}.",
        )
        return tensors
    return {name: weight.detach() for name, weight in trainable_parameters(model).items()}


def _state(model: nn.Module) -> dict[str, Any]:
    """Copy every weight and buffer, quantisation statistics included."""
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in [*model.state_dict().items(), *model.named_buffers()]
    }


def _same(first: Any, second: Any) -> bool:  # noqa: ANN401 - tensors, or what quantisation stores beside them
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return bool(first == second)


def _logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with evaluating(model):
        logits: torch.Tensor = model(**batch).logits
    return logits.float()  # (batch, labels)


def _hidden_states(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with evaluating(model):
        states: torch.Tensor = trunk_of(model)(**batch).last_hidden_state
    return states  # (batch, time, hidden)


def _predicted(tuned: Tuned, texts: Sequence[str], *, batch_size: int) -> torch.Tensor:
    return torch.from_numpy(
        predict_logits(
            tuned.model, tuned.tokenizer, texts, max_length=_MAX_LENGTH, batch_size=batch_size
        )
    )


def _padded(
    tokenizer: PreTrainedTokenizerBase, encoded: list[list[int]], length: int
) -> dict[str, torch.Tensor]:
    padded = tokenizer.pad(
        {"input_ids": encoded}, padding="max_length", max_length=length, return_tensors="pt"
    )
    return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}


def _run_python(script: str, *arguments: str) -> str:
    """Run a script in a process of its own that sees the same packages and no network."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    result = subprocess.run(  # noqa: S603 - this Python, with a script of ours
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    _require(result.returncode == 0, f"A fresh process failed:\n{result.stderr}")
    return result.stdout


def _largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


def _require_close(
    actual: torch.Tensor, expected: torch.Tensor, what: str, *, tolerance: float = TOLERANCE
) -> None:
    __tracebackhide__ = True
    difference = _largest_difference(actual, expected)
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    _require(
        difference <= allowed, f"{what} are off by {difference:.3g}; allowed is {allowed:.3g}."
    )


def _require(holds: bool, fault: str) -> None:
    """Fail with one sentence: asserts of an installed package tell an author nothing."""
    __tracebackhide__ = True
    if not holds:
        pytest.fail(fault)
