"""The `training` part of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from peftune.configuration import Section
from peftune.seeds import MAX_SEED

_CHECKPOINTS = "A checkpoint is kept at every evaluation (eval_strategy), the best and the last of them; remove it."
_BEST = (
    "The checkpoint with the best metric_for_best_model is always loaded at the end; remove it."
)
_WARMUP = "Use warmup_steps: a number below 1 is a share of all steps, such as warmup_steps: 0.1."
_FLOAT16 = "peftune computes in float32 or bfloat16 and never in float16, whose range is too small to train small updates in; use bf16: auto, true or false."
_EVALUATION_DTYPE = "Scores are always those of the float32 artifact; remove it."
_CHECKPOINTING = "Use activation_checkpointing, which is what it is called in transformers 5.23."
_PROCESSES = "A recipe trains in one process; for several, call peftune.prepare in a script with transformers' Trainer and start it with torchrun."
_HUB = "Nothing is pushed in training; share the artifact afterwards with 'peftune adapter push'."
_ADAM = "The moments are those of torch (0.9, 0.999, 1e-8); choose the optimizer with optim."
_COMPILE = "peftune has a forward of its own for GPT-2 and does not compile; remove it."
_LOGGING = "Points of the training curve come every logging_steps; remove it."
_EVALUATION = "The validation rows are scored whole at every evaluation (eval_strategy, eval_steps), and the test rows once at the end; remove it."
_COLUMNS = "Columns of the rows are named in data (text_column, label_column); remove it."
_LOADER = "Batches come from texts that lie tokenized in memory; dataloader_num_workers is what can be set."
_ORDER = "One seed decides the order of rows, so that strategies can be compared; set seed."
_RESUME = "The same command goes on from the last whole checkpoint by itself; remove it."
_DEVICE = "The device is chosen by itself: a GPU where there is one; set use_cpu: true to stay on the CPU."
_QUANTIZED = "Choose strategy: {name: lora-8bit}, which holds the base in int8."

NOT_IN_TRAINING: Mapping[str, str] = {
    **dict.fromkeys(("load_best_model_at_end",), _BEST),
    "greater_is_better": "It follows from metric_for_best_model; remove it.",
    **dict.fromkeys(
        (
            "save_strategy",
            "save_steps",
            "save_total_limit",
            "save_only_model",
            "save_on_each_node",
            "enable_jit_checkpoint",
            "save_safetensors",
            "overwrite_output_dir",
        ),
        _CHECKPOINTS,
    ),
    "warmup_ratio": _WARMUP,
    "evaluation_strategy": "Did you mean 'eval_strategy'? It was renamed in transformers 4.41.",
    **dict.fromkeys(
        ("fp16", "fp16_opt_level", "fp16_backend", "half_precision_backend"), _FLOAT16
    ),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), _EVALUATION_DTYPE),
    "tf32": "Products of float32 keep all their digits, so that figures can be compared; remove it.",
    **dict.fromkeys(
        (
            "gradient_checkpointing",
            "gradient_checkpointing_kwargs",
            "activation_checkpointing_kwargs",
        ),
        _CHECKPOINTING,
    ),
    "group_by_length": "Use train_sampling_strategy: group_by_length, which is the default; random switches it off.",
    "length_column_name": "Lengths are counted from the tokens; remove it.",
    "output_dir": "It stands at the top level of the recipe, beside training: output_dir, or --output.",
    "run_name": "The name of a run is the recipe's 'name', its strategy and its seed.",
    "logging_dir": "Curves go to the programs of report_to, and lie in the run folder; remove it.",
    "project": "Set the environment variable of the program that report_to names, such as WANDB_PROJECT.",
    **dict.fromkeys(
        ("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        "Set trackio's own environment variables; remove it.",
    ),
    **dict.fromkeys(
        (
            "push_to_hub",
            "hub_token",
            "hub_private_repo",
            "hub_model_id",
            "hub_strategy",
            "hub_always_push",
            "hub_revision",
            "push_to_hub_model_id",
            "push_to_hub_organization",
            "push_to_hub_token",
        ),
        _HUB,
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), _ADAM),
    **dict.fromkeys(
        ("optim_args", "optim_target_modules"),
        "The optimizers of optim take no further arguments; remove it.",
    ),
    "adafactor": "Use optim: adafactor.",
    "lr_scheduler_kwargs": "The schedules of lr_scheduler_type take no further arguments; remove it.",
    "neftune_noise_alpha": "Noise on the embeddings is not offered; remove it.",
    "average_tokens_across_devices": _PROCESSES,
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode", "jit_mode_eval"), _COMPILE
    ),
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config"),
        "peftune has kernels of its own for GPT-2; remove it.",
    ),
    "use_cache": "A classifier generates nothing, so nothing is cached; remove it.",
    "auto_find_batch_size": "'peftune plan' says what fits; use a smaller per_device_train_batch_size with more gradient_accumulation_steps.",
    "torch_empty_cache_steps": "Memory is given back by itself; remove it.",
    **dict.fromkeys(
        (
            "logging_strategy",
            "logging_first_step",
            "logging_nan_inf_filter",
            "log_level",
            "log_level_replica",
            "log_on_each_node",
            "disable_tqdm",
            "include_num_input_tokens_seen",
            "include_tokens_per_second",
        ),
        _LOGGING,
    ),
    **dict.fromkeys(
        (
            "do_train",
            "do_eval",
            "do_predict",
            "eval_delay",
            "eval_on_start",
            "eval_do_concat_batches",
            "eval_use_gather_object",
            "eval_accumulation_steps",
            "prediction_loss_only",
            "batch_eval_metrics",
            "include_for_metrics",
            "include_inputs_for_metrics",
        ),
        _EVALUATION,
    ),
    **dict.fromkeys(("remove_unused_columns", "label_names"), _COLUMNS),
    **dict.fromkeys(
        (
            "dataloader_drop_last",
            "dataloader_pin_memory",
            "dataloader_persistent_workers",
            "dataloader_prefetch_factor",
            "dataloader_multiprocessing_context",
            "dataloader_in_order",
        ),
        _LOADER,
    ),
    **dict.fromkeys(("data_seed", "full_determinism", "accelerator_config"), _ORDER),
    **dict.fromkeys(
        (
            "resume_from_checkpoint",
            "ignore_data_skip",
            "restore_callback_states_from_checkpoint",
        ),
        _RESUME,
    ),
    **dict.fromkeys(
        (
            "local_rank",
            "parallelism_config",
            "ddp_find_unused_parameters",
            "ddp_bucket_cap_mb",
            "ddp_broadcast_buffers",
            "ddp_static_graph",
            "ddp_backend",
            "ddp_timeout",
            "fsdp",
            "fsdp_config",
            "deepspeed",
            "tpu_num_cores",
        ),
        _PROCESSES,
    ),
    **dict.fromkeys(("no_cuda", "device", "device_map", "use_mps_device", "use_ipex"), _DEVICE),
    **dict.fromkeys(
        ("debug", "skip_memory_metrics"),
        "The report holds time and peak memory of every run; remove it.",
    ),
    **dict.fromkeys(("load_in_8bit", "load_in_4bit", "quantization_config"), _QUANTIZED),
    "epochs": "Did you mean 'num_train_epochs'?",
    "num_epochs": "Did you mean 'num_train_epochs'?",
    "batch_size": "Did you mean 'per_device_train_batch_size'?",
    "train_batch_size": "Did you mean 'per_device_train_batch_size'?",
    "per_gpu_train_batch_size": "Did you mean 'per_device_train_batch_size'?",
    "eval_batch_size": "Did you mean 'per_device_eval_batch_size'?",
    "per_gpu_eval_batch_size": "Did you mean 'per_device_eval_batch_size'?",
    "lr": "Did you mean 'learning_rate'?",
    "lr_scheduler": "Did you mean 'lr_scheduler_type'?",
    "optimizer": "Did you mean 'optim'?",
    "patience": "Did you mean 'early_stopping_patience'?",
    "max_seq_length": "The longest text in tokens is model.max_length.",
    "max_length": "The longest text in tokens is model.max_length.",
}
"""The sentence for each name: what peftune does instead, or which key to use."""


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
        description="Multi-label: probability from which a label is assigned; one for all, or one a label; validation: those with the best F1 there.",
    )
    early_stopping_patience: int | None = Field(
        None, gt=0, description="Stop after this many evaluations without a better one."
    )
    bf16: bool | Literal["auto"] = Field(
        "auto",
        description="Compute in bfloat16; auto: on a GPU that has it, and on a CPU that has it for a backbone of 64 million weights or more.",
    )
    trunk_dropout: bool = Field(
        True,
        description="Drop in the backbone, while training, what the base's configuration says; false: nothing, which is faster.",
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
