"""Small random GPT-2 folders to start from: another seed is another base of the same shape."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from peftune.bundled import MODELS, bundled_folder
from peftune.testing.tuned import save_as_published, unlike_new

END = "<|endoftext|>"


def write_base(folder: Path, *, seed: int = 0, reverse_bytes: bool = False) -> Path:
    """Write a GPT-2 of 2 layers and 32 dimensions, with a tokenizer of single bytes.

    Weights are ten times larger than GPT-2's own initial ones, so that a change of the backbone
    shows in the logits; dropout is on, so that forgetting to switch it off shows too. No bias is
    zero and no layer norm is one, and the files are laid out as those of GPT-2 on the hub.

    Args:
        folder: where to.
        seed: decides the weights.
        reverse_bytes: number the bytes the other way round: the same shape, another tokenizer.
    """
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=257,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    unlike_new(model)
    save_as_published(model, folder)
    alphabet = sorted(ByteLevel.alphabet(), reverse=reverse_bytes)
    vocabulary = {END: 0, **{byte: index for index, byte in enumerate(alphabet, start=1)}}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=64
    ).save_pretrained(folder)
    return folder


def write_wide_base(folder: Path) -> Path:
    """Write a random GPT-2 of 45 million weights in float32, with the bundled tokenizer."""
    bundled = bundled_folder(f"bundled:{MODELS[0]}", among=MODELS)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=8192,
        n_positions=256,
        n_embd=640,
        n_layer=8,
        n_head=10,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    for path in bundled.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


def teach(base: Path, documents: Sequence[str], *, steps: int = 40) -> Path:
    """Let a base learn short documents by heart, so that there is something to forget."""
    model = GPT2LMHeadModel.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [torch.tensor([[0, *tokenizer(document)["input_ids"]]]) for document in documents]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        for ids in texts:
            model(ids, labels=ids).loss.backward()
        optimizer.step()
    save_as_published(model, base)
    return base
