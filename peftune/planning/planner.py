"""Go through strategies and shapes with one reading of the data and one measurement of the machine."""

from __future__ import annotations

import gc
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from peftune.errors import first_line
from peftune.kernels.processor import multiplies_bfloat16
from peftune.models.base import choose_device
from peftune.models.parts import trainable_parameters
from peftune.models.source import BaseSource
from peftune.models.tokenizer import load_tokenizer
from peftune.planning.activations import little_to_collect, measure_passes
from peftune.planning.advice import advise
from peftune.planning.batches import Batches, read_batches
from peftune.planning.forward import conditions_of
from peftune.planning.hollow import Hollow, one_block, prepare_hollow
from peftune.planning.memory import Facts, artifact_bytes, memory_of
from peftune.planning.passes import Sampled
from peftune.planning.probe import (
    Machine,
    Pace,
    measure_machine,
    measure_pace,
    seconds_of_pass,
    seconds_of_step,
)
from peftune.planning.process import available_bytes, page_in, resident_bytes
from peftune.planning.results import Plan, StrategyPlan
from peftune.planning.sample import sample_of
from peftune.planning.shapes import OWN, Shape
from peftune.planning.weights import trunk_parameters
from peftune.recipe import Recipe
from peftune.training.checkpoints import MOST_AT_ONCE, checkpoint_bytes, disk_bytes

_TOKENIZER = "tokenizer*.json"


@dataclass(frozen=True, slots=True)
class _Known:
    """What was measured for one strategy and shape, and holds for others too.

    Args:
        share: of the time for blocks that each strategy may take.
        pace: at the recipe's own shape, by strategy.
        passes: of narrow shapes, by all that they depend on.
    """

    share: float
    pace: dict[str, Pace] = field(default_factory=dict)
    passes: dict[Hashable, Sampled] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planner:
    """What is the same for all strategies and shapes.

    Args:
        recipe: resolved.
        source: where the base's configuration and tokenizer lie.
        shapes: the recipe's own first.
        tokenizer: of the base.
        device: where a run would train.
        batches: what it would read.
        process_bytes: resident set of a process with its libraries and data, and nothing else.
        available: bytes that a run can have.
        machine: its rates.
    """

    recipe: Recipe
    source: BaseSource
    shapes: Sequence[Shape]
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    batches: Batches
    process_bytes: int
    available: int
    machine: Machine

    @classmethod
    def of(cls, recipe: Recipe, source: BaseSource, shapes: Sequence[Shape]) -> Planner:
        """Read the data, and measure the process and the machine."""
        tokenizer = load_tokenizer(source.folder)
        device = choose_device(use_cpu=recipe.training.use_cpu)
        batches = read_batches(recipe, tokenizer)
        page_in(recipe, tokenizer, device)
        process = resident_bytes()
        return cls(
            recipe=recipe,
            source=source,
            shapes=shapes,
            tokenizer=tokenizer,
            device=device,
            batches=batches,
            process_bytes=process,
            available=available_bytes(device),
            machine=measure_machine(
                shapes, _types(recipe, device), tokens=batches.usual.tokens, device=device
            ),
        )

    def plan(
        self, recipes: Mapping[str, Recipe], unplanned: Mapping[str, str], *, shown: Sequence[str]
    ) -> Plan:
        """Plan all strategies on all shapes.

        Args:
            recipes: resolved, by strategy.
            unplanned: strategies that cannot be planned, with the reason.
            shown: sizes that were asked for.
        """
        faults = dict(unplanned)
        with little_to_collect():
            plans = self._plans(recipes, faults)
        asked = [found for found in plans if found.size in shown]
        return Plan(
            recipe=self.recipe.name,
            device="cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            threads=self.machine.threads,
            available_bytes=self.available,
            products=self.machine.products,
            copied=self.machine.copied,
            batch_size=self.recipe.training.per_device_train_batch_size,
            lengths=self.batches.source,
            plans=asked,
            unplanned=faults,
            advice=advise(
                asked,
                available=self.available,
                checkpointing=self.recipe.training.activation_checkpointing,
                base=self.source.name,
            ),
        )

    def _plans(self, recipes: Mapping[str, Recipe], faults: dict[str, str]) -> list[StrategyPlan]:
        """Plan what can be planned; what cannot is put into the faults."""
        plans: list[StrategyPlan] = []
        known = _Known(share=1 / max(1, len(recipes)))
        for shape in self.shapes:
            left = {name: one for name, one in recipes.items() if name not in faults}
            with one_block(shape) as block:
                for name, recipe in left.items():
                    try:
                        plans.append(self._planned(shape, block, recipe, known))
                    except Exception as error:  # noqa: PERF203 - of any package's strategy; one fault stops no other
                        own = shape.size == OWN
                        if own and recipe.strategy == self.recipe.strategy:
                            raise
                        faults[name if own else f"{name} on {shape.name}"] = first_line(error)
        return plans

    def _planned(
        self, shape: Shape, block: BaseSource, recipe: Recipe, known: _Known
    ) -> StrategyPlan:
        section, name = recipe.training, recipe.strategy.name
        checkpointing = section.activation_checkpointing
        facts = self._facts(shape, block, recipe, known, checkpointing=checkpointing)
        model, computing = facts.hollow.model, facts.conditions.computing
        if shape.size == OWN:
            known.pace[name] = measure_pace(
                facts.hollow, facts.conditions, self.machine, self.batches.usual, share=known.share
            )
        memory = memory_of(facts, recipe, self.batches)
        fits = memory.peak <= self.available
        learning = sum(weight.numel() for weight in trainable_parameters(model).values())
        saved = artifact_bytes(model, recipe, self._tokenizer_bytes())
        state = checkpoint_bytes(model, section.optim)
        del model, facts  # a second model need not fit beside it
        less = None
        if not (fits or checkpointing):
            again = self._facts(shape, block, recipe, known, checkpointing=True)
            less = memory_of(again, recipe, self.batches).peak
        one = seconds_of_pass(known.pace[name], shape, self.machine, computing.dtype)
        update = seconds_of_step(learning, self.machine)
        passes, together = self.batches.epoch, section.gradient_accumulation_steps
        return StrategyPlan(
            strategy=name,
            size=shape.size,
            base=shape.name,
            learning_parameters=learning,
            base_parameters=trunk_parameters(shape),
            computes_in=str(computing.dtype).removeprefix("torch."),
            integers=_on_integers(recipe),
            memory=memory,
            artifact_bytes=saved,
            disk_bytes=disk_bytes(state, saved, there=0, to_come=MOST_AT_ONCE),
            seconds_per_step=together * one + update,
            seconds_per_epoch=None
            if passes is None
            else passes * one + math.ceil(passes / together) * update,
            fits=fits,
            checkpointed_peak=less,
        )

    def _facts(
        self,
        shape: Shape,
        block: BaseSource,
        recipe: Recipe,
        known: _Known,
        *,
        checkpointing: bool,
    ) -> Facts:
        gc.collect()  # the model before refers to itself
        hollow = self._hollow(shape, block, recipe, checkpointing=checkpointing)
        tokens = self.batches.mean_tokens * recipe.training.per_device_train_batch_size
        conditions = conditions_of(hollow.model, recipe, tokens=tokens)
        narrow, sample = shape.narrowed(), sample_of(hollow.model)
        alike = (recipe.strategy.name, checkpointing, conditions, narrow.alike, sample.pattern)
        if alike not in known.passes:
            with one_block(narrow) as few:
                model = self._hollow(narrow, few, recipe, checkpointing=checkpointing).model
                known.passes[alike] = measure_passes(
                    model, sample_of(model), conditions, longest=self.batches.largest.time
                )
        passes = known.passes[alike].of(sample.more, wider=shape.width / narrow.width)
        return Facts(shape, hollow, conditions, passes, self.process_bytes)

    def _hollow(
        self, shape: Shape, block: BaseSource, recipe: Recipe, *, checkpointing: bool
    ) -> Hollow:
        return prepare_hollow(
            shape,
            block,
            recipe.strategy,
            tokenizer=self.tokenizer,
            labels=self.batches.labels,
            task=recipe.task,
            device=self.device,
            checkpointing=checkpointing,
        )

    def _tokenizer_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.source.folder.glob(_TOKENIZER))


def _on_integers(recipe: Recipe) -> bool:
    return "quantization_config" in recipe.strategy.load_kwargs()


def _types(recipe: Recipe, device: torch.device) -> list[torch.dtype]:
    """List the types that a strategy may be computed in."""
    setting = recipe.training.bf16
    may = setting or device.type == "cuda" or multiplies_bfloat16()
    return [torch.float32, torch.bfloat16] if setting is not False and may else [torch.float32]
