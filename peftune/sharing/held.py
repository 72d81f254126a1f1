"""The model of an artifact on one base or another, and merged into it."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peftune.artifacts.load import load_prepared
from peftune.artifacts.opened import Opened
from peftune.artifacts.whole_model import load_whole_model
from peftune.models.base import choose_device
from peftune.models.merged import merged_into_base
from peftune.models.parts import unwrapped
from peftune.models.prepare import is_prepared, preparation_of
from peftune.recipe.task import has_head


def held_model(
    opened: Opened, *, base: str | None, use_cpu: bool, in_float32: bool = False
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load the model of an artifact, whatever it makes of its recorded texts.

    Args:
        opened: the artifact.
        base: where its base lies, as for `peftune.load`.
        use_cpu: stay on the CPU even where there is a GPU.
        in_float32: hold the base in float32 even where the strategy would not.

    Returns:
        The model in eval mode, and its tokenizer.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base cannot be found.
    """
    if opened.manifest.kind == "model" and has_head(opened.manifest.task_name):
        return load_whole_model(opened, base=base, device=choose_device(use_cpu=use_cpu))
    model = load_prepared(opened, base=base, use_cpu=use_cpu, in_float32=in_float32)
    return model, preparation_of(model).tokenizer


def merged_model(model: nn.Module) -> PreTrainedModel:
    """Merge a model, held in float32, into its base; it is taken apart.

    Raises:
        UsageError: what was learned cannot be written as weights of a plain GPT-2.
    """
    return merged_into_base(model) if is_prepared(model) else unwrapped(model)
