"""The `training` part of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from peftune.recipe.section import Section
from peftune.recipe.training_arguments import NOT_IN_TRAINING
from peftune.seeds import MAX_SEED

Metric = Literal[
    "loss",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "binary_f1",
    "mcc",
    "roc_auc",
    "log_loss",
    "mse",
    "mae",
    "pearson",
    "spearman",
]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(gt=0, lt=1)]
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


def _each_once(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    if len(set(trackers)) < len(trackers):
        message = "must name each program once"
        raise ValueError(message)
    return trackers


def _not_zero(steps: int) -> int:
    if steps == 0:
        message = "0 steps would train nothing, and transformers takes 0 for no limit; give 1 or more, or -1 to train num_train_epochs (got 0)"
        raise ValueError(message)
    return steps


Trackers = Annotated[
    tuple[Tracker, ...], Field(min_length=1, strict=False), AfterValidator(_each_once)
]


class TrainingSection(Section):
    """How the weights are trained: names of `transformers.TrainingArguments`."""

    not_fields: ClassVar[Mapping[str, str]] = NOT_IN_TRAINING

    num_train_epochs: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="Passes over the training rows."
    )
    max_steps: Annotated[int, AfterValidator(_not_zero)] = Field(
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
    metric_for_best_model: Metric | None = Field(
        None,
        description="Validation metric that picks the best checkpoint; the task's own where it is not given: macro_f1, for regression mse, for language-modeling loss.",
    )
    class_weights: (
        Literal["balanced"] | Annotated[dict[str, Weight], Field(min_length=1)] | None
    ) = Field(
        None,
        description="balanced: a rare label counts as much in the loss as a common one; or a weight by label name, 1 for those not named. Multi-label: the pos_weight of BCEWithLogitsLoss.",
    )
    label_smoothing_factor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of each target that is spread evenly over all labels: less sure of itself, less moved by wrong labels; single-label.",
    )
    label_threshold: (
        Threshold
        | Literal["validation"]
        | Annotated[tuple[Threshold, ...], Field(min_length=1, strict=False)]
    ) = Field(
        0.5,
        description="Multi-label: probability from which a label is said; one for all, or one a label; validation: those with the best F1 there.",
    )
    early_stopping_patience: int | None = Field(
        None, gt=0, description="Stop after this many evaluations without a better one."
    )
    bf16: bool | Literal["auto"] = Field(
        "auto",
        description="Compute in bfloat16; auto: on a GPU that has it, and on a CPU that has it for a trunk of 64 million weights or more.",
    )
    trunk_dropout: bool = Field(
        True,
        description="Drop in the trunk, while training, what the base's configuration says; false: nothing, which is faster.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Recompute activations in the backward pass: slower, less memory.",
    )
    use_cpu: bool = Field(False, description="Train on the CPU even where there is a GPU.")
    dataloader_num_workers: int = Field(0, ge=0, description="Processes that prepare batches.")
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] | Trackers = Field(
        "none", description="Where the curves go as well: one program, or a list of several."
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="Seed of the new head, the adapter, the order of rows and dropout.",
    )

    @model_validator(mode="after")
    def _names_its_steps(self) -> TrainingSection:
        if (self.eval_strategy == "steps") != (self.eval_steps is not None):
            message = "'eval_steps' and 'eval_strategy: steps' go together; give both or neither"
            raise ValueError(message)
        return self
