"""A random GPT-2 of two layers, so small that every law is checked in a moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
)

from peftune.bundled import MODELS, bundled_folder
from peftune.models.tokenizer import load_tokenizer


def write_tiny_base(folder: Path) -> Path:
    """Write a GPT-2 of two random layers, width 64, with the bundled tokenizer.

    Its weights are large enough that padding, masks and positions show in every logit. Two hidden
    units are outliers, as GPT-2's own are, on which int8 rounds by the whole batch.

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
    with torch.no_grad():
        for block in model.transformer.h:
            block.get_parameter("ln_1.weight")[:2] = 8.0
    model.save_pretrained(folder)
    for path in bundled.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder
