"""What a recipe may say: every key with its bounds, unit and consequence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf, model_validator

from peftune.probes import Probe
from peftune.recipe.section import Section
from peftune.recipe.training import TrainingSection
from peftune.recipe.tune import TuneSection
from peftune.regularizers import Regularizer
from peftune.seeds import MAX_SEED
from peftune.strategies import Strategy

__all__ = [
    "CompareSection",
    "DataSection",
    "DuringTrainingSection",
    "ForgettingSection",
    "ModelSection",
    "PathSection",
    "Recipe",
    "Section",
    "SplitName",
    "TrainingSection",
    "TuneSection",
]

SplitName = Literal["train", "validation", "test"]
LabelNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=2, strict=False)
]


class ModelSection(Section):
    """Which GPT-2 is the base."""

    name_or_path: str = Field(
        "bundled:tiny-gpt2",
        min_length=1,
        description="Hub id, local folder, or bundled:tiny-gpt2.",
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch of the hub id; pin a commit to repeat a run."
    )
    max_length: int = Field(
        128,
        ge=2,
        le=1024,
        description="Longest text in tokens; the rest of a longer text is cut off.",
    )


class DataSection(Section):
    """Which rows are learned, and which are held out."""

    dataset_name: str | None = Field(
        None, min_length=1, description="bundled:posts, a hub id, or a saved datasets folder."
    )
    dataset_config_name: str | None = Field(None, description="Configuration of the hub data set.")
    revision: str | None = Field(None, description="Commit, tag or branch of the hub data set.")
    splits: dict[SplitName, str] = Field(
        default_factory=dict,
        description="Which split of the data set serves as train, validation and test.",
    )
    train_file: str | None = Field(
        None,
        description="csv, tsv, json, jsonl or parquet, relative to the recipe; instead of dataset_name.",
    )
    validation_file: str | None = Field(
        None,
        description="Rows for choosing the best checkpoint; without it they are taken from train.",
    )
    test_file: str | None = Field(
        None, description="Rows for the final score; never used for a decision."
    )
    text_column: str = Field("text", min_length=1, description="Column that holds the text.")
    label_column: str = Field(
        "label", min_length=1, description="Column that holds the label, as id or name."
    )
    labels: LabelNames | None = Field(
        None,
        description="Label names in the order of their ids; otherwise the sorted labels of train.",
    )
    validation_split: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of train held out for validation when there is no validation split; stratified.",
    )
    test_split: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of train held out for the test when there is no test split; stratified.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="Decides which rows are held out; not the seed of training.",
    )
    empty_text: Literal["error", "drop", "keep"] = Field(
        "error", description="What to do with rows whose text is empty or blank."
    )
    max_train_examples: int | None = Field(
        None, gt=0, description="Use at most this many rows; a seeded, stratified sample."
    )
    max_validation_examples: int | None = Field(None, gt=0, description="The same for validation.")
    max_test_examples: int | None = Field(None, gt=0, description="The same for the test.")

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> DataSection:
        if (self.dataset_name is None) == (self.train_file is None):
            message = "needs either 'dataset_name' or 'train_file', and not both"
            raise ValueError(message)
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            message = "'labels' names a label twice"
            raise ValueError(message)
        return self


class DuringTrainingSection(Section):
    """What is measured while training goes on, and what happens over the budget."""

    probe: InstanceOf[Probe] = Field(
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

    probes: tuple[InstanceOf[Probe], ...] = Field(
        (), strict=False, description="Probes, each measured before and after."
    )
    budget: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Largest allowed forgetting in bits per byte; above it the run exits with 2.",
    )
    regularizers: tuple[InstanceOf[Regularizer], ...] = Field(
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
    model: ModelSection = Field(default_factory=ModelSection, description="The base model.")
    data: DataSection = Field(description="The rows.")
    strategy: InstanceOf[Strategy] = Field(description="Strategy name and its hyper-parameters.")
    training: TrainingSection = Field(default_factory=TrainingSection, description="The training.")
    forgetting: ForgettingSection = Field(
        default_factory=ForgettingSection, description="The probes."
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
