"""Plan a recipe: every strategy on every shape, before any base is loaded."""

from __future__ import annotations

import gc
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from peftune.errors import PeftuneError, first_line
from peftune.fastpath.products import multiplies_bfloat16
from peftune.models.architecture import trainable_parameters
from peftune.models.base_files import BaseSource, check_length
from peftune.models.loading import choose_device
from peftune.models.prepare import refuse_nothing_trainable
from peftune.models.tokenizer import load_tokenizer
from peftune.planning.activations import Sampled, little_to_collect, measure_passes
from peftune.planning.batches import Batches, read_batches
from peftune.planning.memory import (
    Facts,
    artifact_bytes,
    available_bytes,
    backbone_parameters,
    memory_of,
    page_in,
    resident_bytes,
)
from peftune.planning.plan_results import Plan, StrategyPlan, advise
from peftune.planning.shapes import (
    OWN,
    SIZES,
    Shape,
    ShapeModel,
    describe_base,
    one_block,
    prepare_shape,
    sample_of,
    shapes_of,
)
from peftune.planning.training_step import (
    Machine,
    Pace,
    conditions_of,
    measure_machine,
    measure_pace,
    seconds_of_pass,
    seconds_of_step,
)
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.overrides import Assignment, assignments_for_each, read_overrides
from peftune.strategies import STRATEGIES, StrategyChoice
from peftune.strategies.base import class_of, name_of
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
        model, computing = facts.prepared.model, facts.conditions.computing
        if shape.size == OWN:
            known.pace[name] = measure_pace(
                facts.prepared,
                facts.conditions,
                self.machine,
                self.batches.usual,
                share=known.share,
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
            base_parameters=backbone_parameters(shape),
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
        prepared = self._model_of(shape, block, recipe, checkpointing=checkpointing)
        tokens = self.batches.mean_tokens * recipe.training.per_device_train_batch_size
        conditions = conditions_of(prepared.model, recipe, tokens=tokens)
        narrow, sample = shape.narrowed(), sample_of(prepared.model)
        alike = (recipe.strategy.name, checkpointing, conditions, narrow.alike, sample.pattern)
        if alike not in known.passes:
            with one_block(narrow) as few:
                model = self._model_of(narrow, few, recipe, checkpointing=checkpointing).model
                known.passes[alike] = measure_passes(
                    model, sample_of(model), conditions, longest=self.batches.largest.time
                )
        passes = known.passes[alike].of(sample.more, wider=shape.width / narrow.width)
        return Facts(shape, prepared, conditions, passes, self.process_bytes)

    def _model_of(
        self, shape: Shape, block: BaseSource, recipe: Recipe, *, checkpointing: bool
    ) -> ShapeModel:
        return prepare_shape(
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


@working("planning")
def plan(
    recipe: str | Path | Recipe,
    *,
    overrides: Overrides = (),
    strategies: Sequence[StrategyChoice] | None = None,
    sizes: Sequence[str] = SIZES,
) -> Plan:
    """Work out what a recipe would need, on this machine, of memory, time and disk.

    Nothing is trained, and no weight of a base is read: one random block of each shape takes the
    place of all of them.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `training.per_device_train_batch_size=4`, or a
            mapping. A hyper-parameter that only some strategies have is set in those.
        strategies: names or strategies; all that are installed where they are not given.
        sizes: `own` for the recipe's base, and published sizes of GPT-2: `small`, `medium`,
            `large`, `xl`.

    Raises:
        PeftuneError: with one line that says what is wrong and what to do.
    """
    assignments = read_overrides(overrides)
    chosen = read_recipe(recipe, [one for one in assignments if one.strategy_field is None])
    source = describe_base(chosen.model.name_or_path, chosen.model.revision)
    shapes = shapes_of(source, (OWN, *sizes))
    recipes, unplanned = _with_each(recipe, assignments, strategies)
    check_length(source, chosen.model.max_length)
    planner = Planner.of(resolve(chosen), source, shapes)
    return planner.plan(recipes, unplanned, shown=sizes)


def _with_each(
    recipe: str | Path | Recipe,
    assignments: Sequence[Assignment],
    strategies: Sequence[StrategyChoice] | None,
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Put each strategy into a recipe; those that cannot be are returned with the reason.

    A strategy that is asked for by name is not passed over: its fault is raised.
    """
    found: dict[str, Recipe] = {}
    unplanned: dict[str, str] = {}
    classes, broken = STRATEGIES.load_all()
    chosen = list(classes) if strategies is None else strategies
    own = assignments_for_each(assignments, [class_of(choice) for choice in chosen])
    for choice in STRATEGIES.names() if strategies is None else chosen:
        name = name_of(choice)
        try:
            if strategies is None and name in broken:
                raise broken[name]
            found[name] = resolve(read_recipe(recipe, own[name], strategy=choice))
            refuse_nothing_trainable(found[name].strategy, found[name].task)
        except PeftuneError as error:
            if strategies is not None:
                raise
            found.pop(name, None)
            unplanned[name] = first_line(error)
    return found, unplanned
