"""LoRA: low-rank updates beside frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from peftune.errors import UsageError, suggestion
from peftune.strategies.base import Strategy, TrainingDefaults

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ModuleNames = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$", max_length=200)], ...],
    Field(min_length=1, max_length=1000, strict=False),
]
Layers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(min_length=1, max_length=1000, strict=False),
]


_OTHER_LORAS = "peftune does not offer this variant of LoRA; use_rslora and use_dora are those that it has. An adapter that plain PEFT trains is measured by 'peftune forget'."
_ONE_RANK = "Every target has the same r and lora_alpha; choose the targets by target_modules and layers_to_transform."
_WRITTEN_BY_PEFT = "PEFT sets it when it saves or loads an adapter; remove it."
_NOT_IN_LORA = {
    "rank": "Did you mean 'r'? The rank is called as in peft.LoraConfig.",
    "lora_r": "Did you mean 'r'? The rank is called as in peft.LoraConfig.",
    "lora_rank": "Did you mean 'r'? The rank is called as in peft.LoraConfig.",
    "task_type": "The recipe's task decides it (SEQ_CLS for a classifier); remove it.",
    "peft_type": "The strategy's name decides it; remove it.",
    "inference_mode": "The adapter is always trainable in training and frozen when it is loaded; remove it.",
    "bias": "Biases stay frozen (bias: none), so that the adapter switched off is exactly the base; remove it. The strategy 'full' trains them.",
    "lora_bias": "The update has no bias, so that it can be read by every version of PEFT; remove it.",
    "modules_to_save": "The classification head always learns and is saved with the adapter, and nothing else; remove it.",
    "init_lora_weights": "The update always starts at zero (B = 0), so that training starts from the base itself; remove it.",
    "fan_in_fan_out": "It is set from the base's layers; remove it.",
    "layers_pattern": "layers_to_transform is enough: the name of the blocks is known; remove it.",
    "exclude_modules": "Name the modules that get an update in target_modules instead.",
    "trainable_token_indices": "The embeddings stay frozen; remove it. The strategy 'full' trains them.",
    "target_parameters": "Name modules in target_modules instead.",
    "base_model_name_or_path": "The base is named in model.name_or_path.",
    "revision": "The base's revision is model.revision.",
    "rank_pattern": _ONE_RANK,
    "alpha_pattern": _ONE_RANK,
    "load_in_8bit": "Choose the strategy 'lora-8bit', which holds the base in int8.",
    "load_in_4bit": "There is no strategy on a 4-bit base; 'lora-8bit' holds the base in int8.",
    "quantization_config": "Choose the strategy 'lora-8bit', which holds the base in int8.",
    "llm_int8_threshold": "It belongs to the strategy 'lora-8bit'.",
    **dict.fromkeys(("auto_mapping", "peft_version", "runtime_config"), _WRITTEN_BY_PEFT),
    **dict.fromkeys(
        (
            "alora_invocation_tokens",
            "arrow_config",
            "corda_config",
            "ensure_weight_tying",
            "eva_config",
            "kasa_config",
            "layer_replication",
            "loftq_config",
            "lora_ga_config",
            "megatron_config",
            "megatron_core",
            "monteclora_config",
            "qalora_group_size",
            "use_bdlora",
            "use_qalora",
            "velora_config",
        ),
        _OTHER_LORAS,
    ),
}
"""What `peft.LoraConfig` has beyond the fields of the strategy, and how people misname those."""


class LoRA(Strategy):
    """Freeze the base and learn a low-rank update `s * B A` beside each adapted weight.

    The fields carry peft's own names; what `peft.LoraConfig` says of them holds.

    Cost:
        Two thirds of the FLOPs of full fine-tuning; optimizer state for the update alone; an
        artifact of `r * (inputs + outputs)` numbers for each adapted weight, and the head.

    References:
        Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
        Kalajdzievski 2023 (use_rslora), arXiv:2312.03732. Liu et al. 2024 (use_dora),
        arXiv:2402.09353.
    """

    name: ClassVar[str] = "lora"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(2.0e-4)
    not_fields: ClassVar[Mapping[str, str]] = _NOT_IN_LORA

    r: int = Field(
        8, gt=0, le=1024, description="Rank: higher learns more and makes a larger file."
    )
    lora_alpha: float = Field(
        16,
        gt=0,
        le=4096,
        allow_inf_nan=False,
        description="Strength of the update: it is scaled by lora_alpha / r.",
    )
    lora_dropout: float = Field(
        0.05, ge=0, lt=1, description="Share of inputs dropped before the update while training."
    )
    target_modules: Literal["all-linear"] | ModuleNames = Field(
        "all-linear",
        description="Which weights get an update: all linear ones, or a list of module names such as [c_attn].",
    )
    layers_to_transform: Layers | None = Field(
        None,
        description="Blocks that get an update, counted from 0, such as [2, 3]; all of them where it is null. Without the lower ones less is forgotten.",
    )
    use_rslora: bool = Field(
        False, description="Scale by lora_alpha / sqrt(r) instead: steadier at large ranks."
    )
    use_dora: bool = Field(
        False,
        description="Learn a magnitude for each output as well: more accurate at small ranks, slower.",
    )

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze the base and put a LoRA update beside each target; the head learns too.

        Raises:
            UsageError: a block or a module that is to get an update does not exist.
        """
        from peft import LoraConfig, TaskType, get_peft_model
        from transformers.pytorch_utils import Conv1D

        blocks = int(model.config.num_hidden_layers)
        beyond = [layer for layer in self.layers_to_transform or () if layer >= blocks]
        if beyond:
            message = f"layers_to_transform names block {beyond[0]}, but the base has {blocks} blocks, counted from 0."
            raise UsageError(message)
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=self.r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self._targets(model),
            layers_to_transform=self.layers_to_transform and list(self.layers_to_transform),
            layers_pattern="h" if self.layers_to_transform is not None else None,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            bias="none",
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        prepared: nn.Module = get_peft_model(model, config)
        return prepared

    def _targets(self, model: PreTrainedModel) -> str | list[str]:
        """Name the targets as peft takes them: it passes over a name that fits nothing."""
        import torch
        from transformers.pytorch_utils import Conv1D

        linear = (Conv1D, torch.nn.Linear)
        modules = {
            f".{model.base_model_prefix}.{n}": m for n, m in model.base_model.named_modules()
        }
        if self.target_modules == "all-linear":
            if self.layers_to_transform is None:
                return self.target_modules
            # peft takes layers only with a list of names.
            return sorted({n.split(".")[-1] for n, m in modules.items() if isinstance(m, linear)})
        known = [n for n, m in modules.items() if isinstance(m, (*linear, torch.nn.Embedding))]
        for target in self.target_modules:
            if not any(name.endswith(f".{target}") for name in known):
                names = {name.split(".")[-1] for name in known}
                message = f"target_modules names '{target}', which is not a weight that LoRA can adapt. {suggestion(target, names)}"
                raise UsageError(message)
        return list(self.target_modules)
