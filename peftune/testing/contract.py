"""The laws that every strategy keeps; each test method is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import transformers
from safetensors import safe_open

from peftune.adapters import prepare, save
from peftune.adapters.format import WEIGHTS
from peftune.models.architecture import head_of, is_whole_model, trainable_parameters
from peftune.models.guards import logits_of
from peftune.models.inference import predict_logits
from peftune.models.interpolation import at_strength
from peftune.models.prepare import preparation_of, reference_batch
from peftune.models.tokenizer import REFERENCE_TEXTS, encode_texts, load_tokenizer
from peftune.recipe import Recipe, read_recipe, write_recipe
from peftune.recipe.schema import DataSection
from peftune.strategies import STRATEGIES, Strategy
from peftune.testing.plugin_contracts import PluginContract
from peftune.testing.tuned import (
    LABELS,
    MAX_LENGTH,
    TOLERANCE,
    Tuned,
    copy_state,
    equal_values,
    expected_tensors,
    hidden_states_of,
    largest_difference,
    load_base,
    pad_to,
    predict_texts,
    require,
    require_close,
    run_python,
    step_gradients,
    stock_trainer,
)

PRINT_LOGITS = """
import json, sys, peftune
from peftune.models.tokenizer import REFERENCE_TEXTS
classifier = peftune.load(sys.argv[1], base=sys.argv[2], use_cpu=True)
print(json.dumps(classifier.logits(REFERENCE_TEXTS).tolist()))
"""


class StrategyContract(PluginContract):
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

    group = STRATEGIES
    strategy: ClassVar[Strategy]

    @pytest.fixture(scope="class")
    @classmethod
    def plugin(cls) -> Strategy:
        """Give the strategy to check."""
        return cls.strategy

    @pytest.fixture(scope="class")
    @classmethod
    def tuned(cls, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
        """Prepare the strategy's model and train it for three steps."""
        model, tokenizer = prepare(
            str(base),
            strategy=cls.strategy,
            labels=LABELS,
            max_length=MAX_LENGTH,
            use_cpu=True,
        )
        before = copy_state(model)
        stock_trainer(
            model, tokenizer, tmp_path_factory.mktemp("training"), learning_rate=0.01, max_steps=3
        ).train()
        return Tuned(model.eval(), tokenizer, before, load_base(cls.strategy, base))

    @pytest.fixture(scope="class")
    @classmethod
    def artifact(cls, tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Save the trained model."""
        return save(tuned.model, tmp_path_factory.mktemp("artifact") / "saved")

    def test_wrapping_leaves_the_logits_unchanged(self, base: Path) -> None:
        """Preparing a model changes no logit: training starts from the base."""
        model, tokenizer = load_base(self.strategy, base), load_tokenizer(base)
        batch = reference_batch(tokenizer, torch.device("cpu"), max_length=MAX_LENGTH)
        expected = logits_of(model, batch)
        require_close(
            logits_of(self.strategy.prepare(model), batch), expected, "The logits after wrapping"
        )

    def test_something_learns_and_so_does_the_head(self, tuned: Tuned) -> None:
        """Three steps move the head, and other weights exactly if `trains_backbone` says so."""
        head = {id(weight) for weight in head_of(tuned.model).parameters()}
        moved = {
            name: id(weight) in head
            for name, weight in trainable_parameters(tuned.model).items()
            if not torch.equal(weight.detach(), tuned.before[name])
        }
        require(any(moved.values()), "The classification head did not move in three steps.")
        backbone = sorted(name for name, in_head in moved.items() if not in_head)
        require(
            bool(backbone) == self.strategy.trains_backbone,
            f"trains_backbone is {self.strategy.trains_backbone}, but outside the head there moved: {backbone or 'nothing'}.",
        )

    def test_frozen_weights_are_bit_identical_after_training(self, tuned: Tuned) -> None:
        """Training changes no weight or buffer but the trainable ones, not by one bit."""
        learning, after = trainable_parameters(tuned.model), copy_state(tuned.model)
        require(set(after) == set(tuned.before), "Training added or removed weights.")
        changed = [
            name
            for name, value in after.items()
            if name not in learning and not equal_values(value, tuned.before[name])
        ]
        require(not changed, f"Frozen, yet changed by training: {changed}.")

    def test_a_fresh_process_loads_equal_logits(
        self, tuned: Tuned, artifact: Path, base: Path
    ) -> None:
        """An artifact, loaded on the base by a process that knows nothing else, gives the logits."""
        printed = run_python(PRINT_LOGITS, str(artifact), str(base))
        expected = predict_logits(
            tuned.model, tuned.tokenizer, REFERENCE_TEXTS, max_length=MAX_LENGTH
        )
        require_close(
            torch.tensor(json.loads(printed.splitlines()[-1])),
            torch.from_numpy(expected),
            "The logits of the artifact in a fresh process",
        )

    def test_the_artifact_holds_exactly_the_trainable_weights(
        self, tuned: Tuned, artifact: Path
    ) -> None:
        """The file holds each trainable weight and nothing else; peft's under peft's names.

        Where every weight is trained, the artifact is a checkpoint that plain transformers opens.
        """
        whole = is_whole_model(tuned.model)
        with safe_open(artifact / ("model.safetensors" if whole else WEIGHTS), "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors handle is not a mapping
        expected = expected_tensors(tuned.model)
        require(
            set(held) == set(expected),
            f"The artifact's tensors and the trainable weights differ in {sorted(set(held) ^ set(expected))}.",
        )
        changed = [
            name for name, tensor in held.items() if not torch.equal(tensor, expected[name])
        ]
        require(not changed, f"The artifact holds other values than the model: {changed}.")
        if whole:
            plain = transformers.AutoModelForSequenceClassification.from_pretrained(artifact)
            require_close(
                logits_of(plain, tuned.batch),
                logits_of(tuned.model, tuned.batch),
                "The logits of the checkpoint in plain transformers",
            )

    def test_the_reference_is_the_base_after_training(self, tuned: Tuned) -> None:
        """With the adapter off, hidden states equal the untouched base's: forgetting starts at 0."""
        expected = hidden_states_of(tuned.base, tuned.batch)
        with at_strength(tuned.model, preparation_of(tuned.model).before, 0.0):
            actual = hidden_states_of(tuned.model, tuned.batch)
        require(
            torch.equal(actual, expected),
            f"The reference's hidden states differ from the base's by {largest_difference(actual, expected):.3g}; they must be equal.",
        )

    def test_strengths_lead_from_the_base_to_the_tuned_model(self, tuned: Tuned) -> None:
        """Strength 0 is the base and strength 1 the tuned model, exactly; between there is no gap."""
        before, batch = preparation_of(tuned.model).before, tuned.batch
        ends = logits_of(tuned.base, batch), logits_of(tuned.model, batch)
        require(
            not torch.allclose(*ends, rtol=0, atol=0.01),
            "Three training steps with a learning rate of 0.01 hardly changed the logits.",
        )
        for strength, expected in enumerate(ends):
            with at_strength(tuned.model, before, strength):
                actual = logits_of(tuned.model, batch)
            require(
                torch.equal(actual, expected),
                f"At strength {strength} the logits are off by {largest_difference(actual, expected):.3g}; they must be equal.",
            )
            with at_strength(tuned.model, before, abs(strength - 1e-6)):
                nearly = logits_of(tuned.model, batch)
            require_close(
                nearly, expected, f"The logits just beside strength {strength}", tolerance=1e-3
            )
        require(
            torch.equal(logits_of(tuned.model, batch), ends[1]),
            "The tuned weights do not come back after at_strength.",
        )

    def test_gradients_do_not_depend_on_how_a_batch_is_split(
        self, tuned: Tuned, tmp_path: Path
    ) -> None:
        """Eight rows at once, or in two or four parts, give one and the same gradient."""
        whole, *parts = (
            step_gradients(tuned, tmp_path, rows=rows, accumulation=8 // rows)
            for rows in (8, 4, 2)
        )
        largest = max(float(gradient.abs().max()) for gradient in whole.values())
        for part in parts:
            for name, gradient in whole.items():
                difference = largest_difference(part[name], gradient)
                require(
                    difference <= TOLERANCE * largest,
                    f"The gradient of '{name}' depends on how the batch is split: {difference:.3g} off, the largest being {largest:.3g}.",
                )

    def test_logits_do_not_depend_on_padding(self, tuned: Tuned) -> None:
        """A text has the same logits alone and padded to any length."""
        encoded = encode_texts(tuned.tokenizer, list(REFERENCE_TEXTS), max_length=MAX_LENGTH)
        for ids in encoded:
            alone = logits_of(tuned.model, pad_to(tuned.tokenizer, [ids], len(ids)))
            longer = logits_of(tuned.model, pad_to(tuned.tokenizer, [ids], MAX_LENGTH + 5))
            require_close(longer, alone, f"The logits of a padded text of {len(ids)} tokens")

    def test_logits_do_not_depend_on_the_rest_of_the_batch(self, tuned: Tuned) -> None:
        """A text has the same logits whatever the order and the size of its batch."""
        texts = list(REFERENCE_TEXTS)
        expected = predict_texts(tuned, texts, batch_size=1)
        for batch_size in (2, 3, len(texts)):
            actual = predict_texts(tuned, texts, batch_size=batch_size)
            require_close(actual, expected, f"The logits in batches of {batch_size}")
        batch = tuned.batch
        order = torch.arange(len(texts)).flip(0)
        turned = {name: tensor[order] for name, tensor in batch.items()}
        require_close(
            logits_of(tuned.model, turned)[order], expected, "The logits in reverse order"
        )

    def test_a_recipe_holds_the_strategy(self, tmp_path: Path) -> None:
        """Written into a recipe and read from it, the strategy is equal."""
        recipe = Recipe(
            version=1,
            name="contract",
            data=DataSection(dataset_name="bundled:posts"),
            strategy=self.strategy,
            output_dir="runs/contract",
        )
        write_recipe(recipe, tmp_path / "recipe.yaml")
        read = read_recipe(tmp_path / "recipe.yaml").strategy
        require(read == self.strategy, f"The recipe gives {read!r}, not {self.strategy!r}.")
