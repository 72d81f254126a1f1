"""Pre-train the small GPT-2 that peftune bundles, from plain English text, within a time budget.

    python tools/pretrain_tiny_gpt2.py TEXT.txt.xz VALIDATION.txt OUT --minutes 90

TEXT holds documents separated by form feeds, xz-compressed. A byte-level BPE in GPT-2's scheme is
trained on half of it, unless OUT holds one already. Hidden matrices learn with Muon, all other
weights with AdamW; the rate is constant, then falls linearly over the second half of the budget.
Runs on a CUDA device where there is one, else on the CPU with bfloat16 autocast. Writes a
transformers folder (float16 safetensors) and training.json. How the bundled weights were made and
what they score stands in peftune/bundled/tiny-gpt2/README.md.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<|endoftext|>"
VALIDATION_CHARACTERS = 300_000
WARMUP_STEPS = 100
REPORT_STEPS = 200


def main() -> None:
    """Train, score and save."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out.mkdir(parents=True, exist_ok=True)
    with lzma.open(options.text, "rt", encoding="utf8") as file:
        documents = file.read().split("\n\x0c\n")
    random.Random(options.seed).shuffle(documents)  # noqa: S311 - an order, no secret
    tokenizer = load_or_train_tokenizer(documents, options.out, size=options.vocabulary)
    tokens = encode(tokenizer, documents)
    model = new_model(tokenizer, options).to(device)
    started = time.monotonic()
    steps, loss = train(model, tokens, options, device=device)
    validation = options.validation.read_text(encoding="utf8")[:VALIDATION_CHARACTERS]
    facts = {
        "parameters": model.num_parameters(),
        "tokens_seen": steps * options.batch * options.window,
        "tokens_in_text": len(tokens),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "device": device,
        "validation_bits_per_byte": round(bits_per_byte(model, tokenizer, validation), 4),
        "final_loss": round(loss, 4),
        "torch": torch.__version__,
    }
    save(model, tokenizer, options.out, facts)
    print(json.dumps(facts, indent=1))


def load_or_train_tokenizer(documents: Sequence[str], out: Path, *, size: int) -> Tokenizer:
    """Return the tokenizer in `out`, training it on every second document where there is none."""
    path = out / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
    )
    tokenizer.train_from_iterator(documents[::2], trainer)
    tokenizer.save(str(path))
    return tokenizer


def encode(tokenizer: Tokenizer, documents: Sequence[str]) -> NDArray[np.uint16]:
    """Concatenate the documents' token ids, each document after an end token: (tokens,)."""
    end = tokenizer.token_to_id(END)
    parts = []
    for start in range(0, len(documents), 2000):
        encoded = tokenizer.encode_batch(documents[start : start + 2000])
        parts += [np.array([end, *document.ids], dtype=np.uint16) for document in encoded]
    return np.concatenate(parts)


def new_model(tokenizer: Tokenizer, options: argparse.Namespace) -> GPT2LMHeadModel:
    """Initialize a GPT-2 of the asked shape, without dropout."""
    end = tokenizer.token_to_id(END)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=options.window,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.width // 64,
        bos_token_id=end,
        eos_token_id=end,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
    )
    return GPT2LMHeadModel(config)


def train(
    model: nn.Module, tokens: NDArray[np.uint16], options: argparse.Namespace, *, device: str
) -> tuple[int, float]:
    """Train until the budget is spent.

    Returns:
        Steps taken, and the last step's loss in nats per token.
    """
    optimizers = _optimizers(model, options.rate)
    base_rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    forward = torch.compile(model)
    started, step, loss = time.monotonic(), 0, torch.tensor(math.nan)
    for batch in _batches(tokens, options):
        done = (time.monotonic() - started) / (options.minutes * 60)
        if done >= 1:
            break
        scale = _rate_scale(step, done)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, base_rates, strict=True):
            group["lr"] = rate * scale
        inputs = torch.from_numpy(batch).to(device)  # (batch, window)
        with torch.autocast(device, torch.bfloat16):
            logits = forward(input_ids=inputs).logits  # (batch, window, vocabulary)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), inputs[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        if step % REPORT_STEPS == 0:
            print(f"step {step}, loss {loss.item():.3f}, {done:.0%} of the time", flush=True)
    return step, loss.item()


@torch.no_grad()
def bits_per_byte(model: GPT2LMHeadModel, tokenizer: Tokenizer, text: str) -> float:
    """Score a text in disjoint windows, each after the end token: bits per byte, lower is better."""
    ids = tokenizer.encode(text).ids
    end, window = tokenizer.token_to_id(END), model.config.n_positions
    nats = 0.0
    model.eval()
    for start in range(0, len(ids), window - 1):
        piece = torch.tensor([[end, *ids[start : start + window - 1]]], device=model.device)
        logits = model(input_ids=piece[:, :-1]).logits[0].float()
        nats += F.cross_entropy(logits, piece[0, 1:], reduction="sum").item()
    return nats / math.log(2) / len(text.encode())


def save(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, out: Path, facts: dict[str, object]
) -> None:
    """Write a transformers folder with float16 weights, and training.json."""
    model.half().save_pretrained(out)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, unk_token=END
    )
    wrapped.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")


def _optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    hidden, others = [], []
    for name, weight in model.named_parameters():
        (hidden if weight.ndim == 2 and ".h." in name else others).append(weight)  # noqa: PLR2004
    return [
        torch.optim.Muon(
            hidden,
            lr=rate,
            momentum=0.95,
            weight_decay=0.01,
            nesterov=True,
            adjust_lr_fn="original",
        ),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _batches(
    tokens: NDArray[np.uint16], options: argparse.Namespace
) -> Iterator[NDArray[np.int64]]:
    """Yield (batch, window) blocks in random order; every pass cuts the text at another offset."""
    rng = np.random.default_rng(options.seed)
    offset = 0
    while True:
        order = rng.permutation(len(tokens) // options.window - 1)
        for start in range(0, len(order) - options.batch + 1, options.batch):
            rows = order[start : start + options.batch] * options.window + offset
            yield np.stack([tokens[row : row + options.window] for row in rows]).astype(np.int64)
        offset = int(rng.integers(options.window))


def _rate_scale(step: int, done: float) -> float:
    falling = 1.0 if done < 0.5 else 0.02 + 0.98 * (1 - done) / 0.5  # noqa: PLR2004
    return min(1.0, (step + 1) / WARMUP_STEPS) * falling


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.02, help="of the hidden matrices")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
