"""What a recipe may say: every key with its bounds, unit and consequence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, model_validator

from peftune.probes import Probe
from peftune.strategies import Strategy

Metric = Literal["loss", "accuracy", "macro_f1", "weighted_f1", "micro_f1", "roc_auc", "log_loss"]
SplitName = Literal["train", "validation", "test"]
LabelNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=2, strict=False)
]


class Section(BaseModel):
    """A part of a recipe: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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
        le=2**32 - 1,
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
            message = "data needs either 'dataset_name' or 'train_file', and not both"
            raise ValueError(message)
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            message = "data.labels names a label twice"
            raise ValueError(message)
        return self


class TrainingSection(Section):
    """How the weights are trained: names of `transformers.TrainingArguments`."""

    num_train_epochs: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="Passes over the training rows."
    )
    max_steps: int = Field(
        -1, ge=-1, description="Stop after this many optimizer steps; -1 trains num_train_epochs."
    )
    per_device_train_batch_size: int = Field(
        16,
        gt=0,
        description="Rows in one forward pass; the batch of a step is this times gradient_accumulation_steps.",
    )
    per_device_eval_batch_size: int = Field(
        64, gt=0, description="Rows in one forward pass of an evaluation."
    )
    gradient_accumulation_steps: int = Field(
        1, gt=0, description="Forward passes to one step: less memory, the same gradient."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Peak learning rate; the strategy's own default where it is not given.",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Decay of the learning weights; the strategy's own default where it is not given.",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="How the learning rate falls."
    )
    warmup_steps: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Steps over which the rate rises; below 1 it is a share of all steps.",
    )
    max_grad_norm: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Gradients are scaled down to at most this norm.",
    )
    optim: Literal["adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit", "adafactor", "sgd"] = (
        Field("adamw_torch_fused", description="Optimizer.")
    )
    train_sampling_strategy: Literal["group_by_length", "random"] = Field(
        "group_by_length",
        description="Batches of texts of like length pad little; the same for all strategies.",
    )
    eval_strategy: Literal["epoch", "steps"] = Field(
        "epoch", description="When the validation rows are scored and a checkpoint is kept."
    )
    eval_steps: int | None = Field(
        None, gt=0, description="Steps between evaluations, with eval_strategy: steps."
    )
    logging_steps: int = Field(
        10, gt=0, description="Steps between two points of the training curve."
    )
    metric_for_best_model: Metric = Field(
        "macro_f1", description="Validation metric that picks the best checkpoint."
    )
    early_stopping_patience: int | None = Field(
        None, gt=0, description="Stop after this many evaluations without a better one."
    )
    bf16: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: on a GPU that has it."
    )
    activation_checkpointing: bool = Field(
        False,
        description="Recompute activations in the backward pass: a third slower, far less memory.",
    )
    use_cpu: bool = Field(False, description="Train on the CPU even where there is a GPU.")
    dataloader_num_workers: int = Field(0, ge=0, description="Processes that prepare batches.")
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = Field(
        "none", description="Where the curves go as well."
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**32 - 1,
        description="Seed of the new head, the adapter, the order of rows and dropout.",
    )

    @model_validator(mode="after")
    def _names_its_steps(self) -> TrainingSection:
        if (self.eval_strategy == "steps") != (self.eval_steps is not None):
            message = "training.eval_steps and training.eval_strategy: steps go together"
            raise ValueError(message)
        return self


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


class CompareSection(Section):
    """What differs between the strategies of a comparison."""

    training: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Keys of `training` that one strategy has for itself, by strategy name.",
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
    output_dir: str = Field(
        min_length=1, description="Run folder, relative to where the command runs."
    )
