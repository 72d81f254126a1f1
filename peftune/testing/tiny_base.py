"""A random GPT-2 of two layers, so small that every law is checked in a moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from peftune.bundled import MODELS, bundled_folder
from peftune.models.tokenizer import load_tokenizer


def write_tiny_base(folder: Path) -> Path:
    """Write a GPT-2 of two random layers, width 64, with the bundled tokenizer.

    Its weights are large enough that padding, masks and positions show in every logit. No bias is
    zero and no layer norm is one. Two hidden units are outliers, as GPT-2's own are, on which int8
    rounds by the whole batch. The files are laid out as those of GPT-2 on the hub.

    Args:
        folder: where to; made where it is missing.

    Returns:
        The folder: a local base for `peftune.prepare` and for recipes.
    """
    bundled = bundled_folder(MODELS[0], among=MODELS)
    tokenizer = load_tokenizer(bundled)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
        unlike_new(model)
    with torch.no_grad():
        for block in model.transformer.h:
            block.get_parameter("ln_1.weight")[:2] = 8.0
    save_as_published(model, folder)
    for path in bundled.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


def unlike_new(model: GPT2LMHeadModel) -> None:
    """Give a new model biases that are not zero and layer norms that are not one.

    Zeros and ones hide whatever forgets, rounds or exchanges them. They are drawn from the global
    random state.
    """
    with torch.no_grad():
        for name, weight in model.transformer.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(0.0, 0.15)
            elif ".ln_" in f".{name}":
                weight.normal_(1.0, 0.25).abs_()


def save_as_published(model: GPT2LMHeadModel, folder: Path) -> None:
    """Save a model as GPT-2 lies on the hub, which `save_pretrained` no longer does.

    Tensors of the backbone without the prefix `transformer.` and without the tied LM head, the causal
    masks among them; a configuration with `n_ctx`, `summary_*` and no pad token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    shape = (1, 1, config.n_positions, config.n_positions)
    mask = torch.ones(config.n_positions, config.n_positions).tril().view(shape)
    tensors = {name: weight.clone() for name, weight in model.transformer.state_dict().items()}
    tensors |= {f"h.{block}.attn.bias": mask.clone() for block in range(config.n_layer)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    published = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_ctx": config.n_positions,
        "summary_proj_to_labels": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    kept = (
        "activation_function attn_pdrop bos_token_id embd_pdrop eos_token_id initializer_range "
        "layer_norm_epsilon n_embd n_head n_layer n_positions resid_pdrop vocab_size"
    )
    published |= {name: getattr(config, name) for name in kept.split()}
    (folder / "config.json").write_text(json.dumps(published, indent=2), encoding="utf-8")
