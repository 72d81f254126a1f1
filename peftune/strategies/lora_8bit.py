"""LoRA on a base held in 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from peftune.errors import GuardError
from peftune.strategies.lora import LoRA

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class LoRA8bit(LoRA):
    """Hold the frozen base as bitsandbytes int8 and learn a LoRA update in float32.

    The head and the embeddings stay in float. The adapter has the same tensors as `lora`'s and
    loads on a float base too, with logits that differ by the quantization error. Evaluation in
    int8 finds outlier columns over the whole batch, so a row's logits depend a little on its
    neighbors unless `llm_int8_threshold` is 0.

    Cost:
        The linear weights take a quarter of float32's bytes, and each step dequantizes them. At
        124M parameters, where embeddings weigh a third, it saves little.

    References:
        Dettmers et al. 2022, LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale,
        arXiv:2208.07339.
    """

    name: ClassVar[str] = "lora-8bit"
    not_fields: ClassVar[Mapping[str, str]] = {
        "load_in_8bit": "This strategy always holds the base in int8; remove it.",
        "quantization_config": "This strategy always holds the base in int8; llm_int8_threshold is the one choice that there is.",
        "llm_int8_skip_modules": "The classification head stays in float, and every other linear weight is int8; remove it.",
        "llm_int8_has_fp16_weight": "The base is frozen, so its weights are held in int8 alone; remove it.",
        "llm_int8_enable_fp32_cpu_offload": "The whole base lies on one device; remove it.",
    }

    llm_int8_threshold: float = Field(
        6.0,
        ge=0,
        allow_inf_nan=False,
        description="Activations beyond it are multiplied in 16 bits; 0 switches that off and makes rows independent of their batch.",
    )

    def load_kwargs(self) -> dict[str, Any]:
        """Ask for an int8 base whose classification head stays in float."""
        from transformers import BitsAndBytesConfig

        quantization = BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=float(self.llm_int8_threshold),
            llm_int8_skip_modules=["score"],
        )
        return {"quantization_config": quantization}

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze the int8 base and put a LoRA update beside each target; the head learns too.

        Raises:
            GuardError: DoRA on a CPU, which bitsandbytes trains and then fails to evaluate.
        """
        quantized = getattr(model, "is_quantized", False)
        if self.use_dora and quantized and model.device.type == "cpu":
            message = (
                "use_dora does not work on an int8 base on a CPU: evaluation fails after the first "
                "training step. Use strategy 'lora', or a CUDA device, or use_dora: false."
            )
            raise GuardError(message)
        return super().prepare(model)
