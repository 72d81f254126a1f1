"""The schema of recipes: every key with its bounds, unit and consequence; as JSON schema too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, Field, InstanceOf, PlainSerializer, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import JsonOrPythonSchema
from typing_extensions import Self

from peftune.configuration import PathInRecipe, Section
from peftune.plugins import PluginGroup
from peftune.probes import PROBES, Probe
from peftune.recipe.data import DataSection, SplitName
from peftune.recipe.task_type import TASK_TYPES, TaskName, TaskType, task_type
from peftune.recipe.training import Metric, TrainingSection
from peftune.regularizers import REGULARIZERS, Regularizer
from peftune.seeds import MAX_SEED
from peftune.strategies import STRATEGIES, Strategy

AS_FIELDS = PlainSerializer(lambda plugin: plugin.fields(), when_used="json")
"""Writes a plug-in as a recipe names it: by its name, with its fields."""

AProbe = Annotated[InstanceOf[Probe], AS_FIELDS]
ARegularizer = Annotated[InstanceOf[Regularizer], AS_FIELDS]
AStrategy = Annotated[InstanceOf[Strategy], AS_FIELDS]

StoredType = Literal["float32", "bfloat16"]
"""What a file holds the learned weights as; in memory they are float32."""


class SaveSection(Section):
    """What is written at the end of a run."""

    dtype: StoredType = Field(
        "float32",
        description="Type of the stored weights. bfloat16 halves the file; it is kept only if no predicted label of the validation rows changes.",
    )


def refuse_unlabeled(dtype: StoredType, task: TaskName) -> None:
    """Refuse to round where no label could show that it does no harm.

    Raises:
        ValueError: with what the task has to be.
    """
    if dtype != "float32" and not task_type(task).has_classes:
        allowed = " and ".join(name for name, one in TASK_TYPES.items() if one.has_classes)
        message = f"'save.dtype: {dtype}' is kept only where no predicted label changes, and 'task: {task}' has none; it belongs to {allowed}"
        raise ValueError(message)


Number = Annotated[int | float, Field(allow_inf_nan=False)]


class Dimension(Section):
    """The values that one key may take: a range, or a list."""

    low: Number | None = Field(None, description="Smallest value, included.")
    high: Number | None = Field(None, description="Largest value, included.")
    log: bool = Field(False, description="Search orders of magnitude rather than values.")
    step: Number | None = Field(
        None, gt=0, description="Distance of neighboring values, counted from `low`."
    )
    choices: tuple[Any, ...] | None = Field(
        None, min_length=2, strict=False, description="The values themselves, instead of a range."
    )

    @model_validator(mode="after")
    def _is_a_range_or_a_list(self) -> Self:
        fault = _fault_of_list(self) if self.choices is not None else _fault_of_range(self)
        if fault:
            raise ValueError(fault)
        return self

    @property
    def whole(self) -> bool:
        """Whether the range holds whole numbers only: those that it is given are."""
        numbers = (self.low, self.high, self.step)
        return all(isinstance(number, int) for number in numbers if number is not None)


class StrategyTuneSection(Section):
    """What one strategy has for itself in a search."""

    space: dict[str, Dimension] = Field(
        default_factory=dict, description="Ranges in the place of the shared ones, by key."
    )


class TuneSection(Section):
    """How hyper-parameters are searched; the test rows take no part."""

    trials: int = Field(
        20, gt=0, description="Trials of each strategy; pruned and failed ones count."
    )
    metric: Metric | None = Field(
        None,
        description="Validation metric to improve; training.metric_for_best_model where it is null.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="Seed of the search; every trial trains with training.seed.",
    )
    pruner: Literal["median", "none"] = Field(
        "median",
        description="median: give a trial up whose validation curve lies below the median of the trials before.",
    )
    space: dict[str, Dimension] = Field(
        default_factory=dict,
        description="What is searched: keys such as training.learning_rate or strategy.r, each with {low, high}, {low, high, log: true}, {low, high, step} or {choices}; empty: learning rate, batch size and rank around the recipe's own.",
    )
    strategies: dict[str, StrategyTuneSection] = Field(
        default_factory=dict,
        description="What a strategy has for itself: `{full: {space: {…}}}`.",
    )


def _fault_of_list(dimension: Dimension) -> str:
    if {"low", "high", "log", "step"} & dimension.model_fields_set:
        return "needs either 'choices', or 'low' and 'high', and not both"
    written = [json.dumps(choice) for choice in dimension.choices or ()]
    return "'choices' names a value twice" if len(set(written)) < len(written) else ""


def _fault_of_range(dimension: Dimension) -> str:
    low, high = dimension.low, dimension.high
    if low is None or high is None:
        return "needs 'low' and 'high', or 'choices'"
    if low >= high:
        return f"'low' must be below 'high' (got {low} and {high})"
    if dimension.log and low <= 0:
        return f"'log' needs 'low' above 0 (got {low})"
    return _fault_of_step(dimension, high - low)


def _fault_of_step(dimension: Dimension, width: float) -> str:
    step = dimension.step
    if step is None:
        return ""
    if dimension.log:
        return "'log' and 'step' exclude each other"
    steps = width / step
    if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
        return f"'high' must be whole steps above 'low' (got {dimension.low}, {dimension.high} and a step of {step})"
    return ""


class Stage(Section):
    """One stage: its rows, its task and its training; strategy, base and seed are the recipe's."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the stage in reports."
    )
    task: TaskName = Field("language-modeling", description="What is learned from the rows.")
    data: DataSection = Field(description="The rows, or the raw text.")
    training: TrainingSection = Field(
        default_factory=TrainingSection, description="The training; its seed is the recipe's."
    )

    @property
    def task_type(self) -> TaskType:
        """What distinguishes its task type from the others."""
        return task_type(self.task)

    @model_validator(mode="after")
    def _fits_its_task(self) -> Stage:
        self.task_type.refuse_mismatch(self.data, self.training)
        if self.data.cross_validation is not None:
            message = "'data.cross_validation' is for the recipe's own task, not for a stage"
            raise ValueError(message)
        return self


__all__ = [
    "CompareSection",
    "DataSection",
    "DuringTrainingSection",
    "ForgettingSection",
    "ModelSection",
    "PathSection",
    "Recipe",
    "SaveSection",
    "Section",
    "SplitName",
    "Stage",
    "TaskName",
    "TrainingSection",
    "TuneSection",
]


class ModelSection(Section):
    """Which GPT-2 is the base."""

    not_fields: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("load_in_8bit", "load_in_4bit", "quantization_config"),
            "Choose strategy: {name: lora-8bit}, which holds the base in int8.",
        ),
        **dict.fromkeys(
            ("dtype", "torch_dtype"),
            "The base is held in float32; training.bf16 says what training computes in, and save.dtype what is stored.",
        ),
        **dict.fromkeys(
            ("num_labels", "id2label", "label2id"), "Labels are named in data.labels."
        ),
        "tokenizer_name": "The tokenizer is the base's own, from its folder; remove it.",
        "use_fast": "The tokenizer is always the fast one; remove it.",
        "device_map": "The device is chosen by itself; set training.use_cpu: true to stay on the CPU.",
        "trust_remote_code": "Code of a model folder is never run; remove it.",
        "attn_implementation": "peftune has a forward of its own for GPT-2; remove it.",
    }

    name_or_path: Annotated[str, PathInRecipe(or_name=True)] = Field(
        "bundled:tiny-gpt2",
        min_length=1,
        description="Hub id, local folder, or bundled:tiny-gpt2.",
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch of the hub id; pin a commit to repeat a run."
    )
    init_from: Annotated[str | None, PathInRecipe()] = Field(
        None,
        min_length=1,
        description="Artifact of another task (its adapter/ or model/ folder): its backbone or adapter is the start, the head is new.",
    )
    max_length: int = Field(
        128,
        ge=2,
        le=1024,
        description="Longest text in tokens; the rest of a longer text is cut off.",
    )


class DuringTrainingSection(Section):
    """What is measured while training goes on, and what happens over the budget."""

    probe: AProbe = Field(
        description="Measured at every evaluation; its text must share nothing with the probes'."
    )
    over_budget: Literal["skip-checkpoint", "stop-training"] = Field(
        "skip-checkpoint",
        description="With a budget: such a checkpoint is never the best one, or training stops there.",
    )


class PathSection(Section):
    """Where between the base and the tuned model accuracy and forgetting are measured as well."""

    strengths: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.25, 0.5, 0.75),
        strict=False,
        description="Strengths between the base, 0, and the tuned model, 1; both ends are measured anyway.",
    )
    checkpoints: bool = Field(
        True, description="Measure at every evaluation too; no decision rests on it."
    )


class ForgettingSection(Section):
    """What must not be forgotten, and how much of it may be."""

    probes: tuple[AProbe, ...] = Field(
        (), strict=False, description="Probes, each measured before and after."
    )
    budget: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Largest allowed forgetting in bits per byte; above it the run exits with 2.",
    )
    regularizers: tuple[ARegularizer, ...] = Field(
        (), strict=False, description="Terms added to the loss that hold forgetting down."
    )
    during_training: DuringTrainingSection | None = Field(
        None, description="Measuring at every evaluation, on a text that is not reported."
    )
    path: PathSection | None = Field(
        None,
        description="Also measure the way from the base to the tuned model, on the reported rows and texts; null: only its end.",
    )

    @model_validator(mode="after")
    def _names_each_probe_once(self) -> ForgettingSection:
        labels = [probe.label for probe in self.probes]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            message = (
                f"two probes are named {', '.join(map(repr, repeated))}; give each its own 'name'"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _watches_what_is_budgeted(self) -> ForgettingSection:
        watched = self.during_training and self.during_training.probe
        if watched and self.budget is not None and watched.unit != "bits/byte":
            message = f"'budget' is in bits per byte, but '{watched.label}', measured during training, is in {watched.unit}; measure an lm-loss there"
            raise ValueError(message)
        return self


class CompareSection(Section):
    """What differs between the strategies of a comparison."""

    training: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Keys of `training` that one strategy has for itself, by strategy name.",
    )
    held_equal: Literal["examples_seen", "steps", "tuned"] = Field(
        "examples_seen",
        description="What the strategies share besides rows and seeds; tuned: the effort spent on tuning each.",
    )
    tuning_budget: dict[str, Annotated[int, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Trials that each strategy's values were chosen by, by strategy name; for held_equal: tuned.",
    )
    path: PathSection | None = Field(
        default_factory=PathSection,
        description="The way from the base that every run measures, so that forgetting can be read at equal accuracy; null: none.",
    )


class Recipe(Section):
    """One run: a base, rows, a strategy, training, and what must not be forgotten."""

    version: Literal[1] = Field(description="Version of the recipe format: 1.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run in reports."
    )
    task: TaskName = Field("single-label", description="What is learned from the rows.")
    model: ModelSection = Field(default_factory=ModelSection, description="The base model.")
    stages: tuple[Stage, ...] = Field(
        (),
        strict=False,
        description="What is learned first, in this order, by the same strategy and seed; the recipe's own task comes last.",
    )
    data: DataSection = Field(description="The rows.")
    strategy: AStrategy = Field(description="Strategy name and its hyper-parameters.")
    training: TrainingSection = Field(default_factory=TrainingSection, description="The training.")
    forgetting: ForgettingSection = Field(
        default_factory=ForgettingSection, description="The probes."
    )
    save: SaveSection = Field(
        default_factory=SaveSection, description="How the artifact is stored."
    )
    compare: CompareSection = Field(
        default_factory=CompareSection,
        description="Differences between strategies in a comparison.",
    )
    tune: TuneSection = Field(
        default_factory=TuneSection, description="The search of `peftune tune`."
    )
    output_dir: str = Field(
        min_length=1, description="Run folder, relative to where the command runs."
    )

    @property
    def task_type(self) -> TaskType:
        """What distinguishes its task type from the others."""
        return task_type(self.task)

    @model_validator(mode="after")
    def _fits_its_task(self) -> Recipe:
        self.task_type.refuse_mismatch(self.data, self.training)
        refuse_unlabeled(self.save.dtype, self.task)
        if self.stages and self.data.cross_validation is not None:
            message = "'stages' would be learned anew for every fold of 'data.cross_validation'; run them first, and initialize from their artifact: model.init_from"
            raise ValueError(message)
        names = [stage.name for stage in self.stages]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            message = (
                f"two stages are named {', '.join(map(repr, repeated))}; give each its own 'name'"
            )
            raise ValueError(message)
        return self


SECTIONS = tuple(
    name
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
"""The parts of a recipe that hold keys of their own."""


Plugin = TypeVar("Plugin", bound=BaseModel)

_GROUPS: dict[type[BaseModel], PluginGroup[Any]] = {
    Strategy: STRATEGIES,
    Probe: PROBES,
    Regularizer: REGULARIZERS,
}
_GROUP = "plug-in of"
"""Key that stands for the plug-ins of a group until they are described."""


def recipe_json_schema() -> dict[str, Any]:
    """Describe what a recipe may hold, for editors that complete and check YAML."""
    schema = Recipe.model_json_schema(schema_generator=_WithPlugins)
    definitions = schema["$defs"]
    offers = {group.kind: _one_of(group, group.key, definitions) for group in _GROUPS.values()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_offered(schema, offers),
        "title": "peftune recipe",
    }


class _WithPlugins(GenerateJsonSchema):
    def json_or_python_schema(self, schema: JsonOrPythonSchema) -> JsonSchemaValue:
        """Name the group where the schema takes any plug-in of one."""
        group = _GROUPS.get(schema["python_schema"].get("cls"))  # type: ignore[arg-type]
        return super().json_or_python_schema(schema) if group is None else {_GROUP: group.kind}


def _offered(part: Any, offers: dict[str, dict[str, Any]]) -> Any:  # noqa: ANN401 - any JSON
    """Put the plug-ins of a group in the place of its name, anywhere in a schema."""
    if isinstance(part, list):
        return [_offered(one, offers) for one in part]
    if not isinstance(part, dict):
        return part
    found = {key: _offered(value, offers) for key, value in part.items() if key != _GROUP}
    return found | offers[part[_GROUP]] if _GROUP in part else found


def _one_of(group: PluginGroup[Plugin], key: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Offer each plug-in of a group, distinguished by its name."""
    options = []
    for name, plugin in group.load_all()[0].items():
        described = plugin.model_json_schema()
        definitions.update(described.pop("$defs", {}))
        described["properties"] = {key: {"const": name}, **described.get("properties", {})}
        described["required"] = [key, *described.get("required", [])]
        definitions[plugin.__name__] = described
        options.append({"$ref": f"#/$defs/{plugin.__name__}"})
    return {"oneOf": options}
