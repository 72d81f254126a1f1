"""What the hub holds under the names of the `tweets-*` recipes, small: laid out as it is there.

`gpt2` as published in 2019: tensors without the prefix `transformer.`, with the mask buffers of
every block, no pad token, no `tokenizer_config.json`; biases and layer norms that are neither zero
nor one, and channels that are outliers. `mteb/tweet_sentiment_extraction` as jsonl, whose test
stands in train in part. `Salesforce/wikitext` as parquet, a folder for each configuration.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from loopback_hub import LoopbackHub
from safetensors.torch import save
from transformers import GPT2Config, GPT2LMHeadModel

from peftune.bundled import MODELS, TASKS, TEXTS, bundled_folder

TWEETS = "mteb/tweet_sentiment_extraction"
WIKITEXT = "Salesforce/wikitext"
LABELS = ("negative", "neutral", "positive")
TOKENS = 1024
LEAKED = 4
"""Rows of train whose text is in the test: three to the letter, one in other case and spacing."""


def publish(hub: LoopbackHub) -> None:
    """Put the base and both data sets on a hub, the base under the name that it has now."""
    hub.add("openai-community/gpt2", gpt2_files())
    hub.moved["gpt2"] = "openai-community/gpt2"
    hub.add(f"datasets/{TWEETS}", tweet_files())
    hub.add(f"datasets/{WIKITEXT}", wikitext_files())


def gpt2_files() -> dict[str, bytes]:
    """Make a GPT-2 of two layers, width 64, with a part of the bundled vocabulary, laid out as OpenAI's."""
    written = bundled_folder(MODELS[0], among=MODELS) / "tokenizer.json"
    tokenizer = json.loads(written.read_text(encoding="utf-8"))
    model = tokenizer["model"]
    # The first tokens alone: reading a text takes as long as the vocabulary is large.
    model["vocab"] = vocabulary = {k: v for k, v in model["vocab"].items() if v < TOKENS}
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    model["merges"] = [pair for pair in pairs if "".join(pair) in vocabulary]
    lines = [" ".join(pair) for pair in model["merges"]]
    shape = {"n_embd": 64, "n_head": 2, "n_layer": 2, "n_positions": 256}
    config = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 0,
        "embd_pdrop": 0.1,
        "eos_token_id": 0,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": shape["n_positions"],
        **shape,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": len(vocabulary),
    }
    return {
        "README.md": b"---\nlanguage: en\nlicense: mit\n---\n\n# GPT-2\n",
        "config.json": _json(config),
        "generation_config.json": _json({"bos_token_id": 0, "eos_token_id": 0}),
        "merges.txt": "\n".join(["#version: 0.2", *lines, ""]).encode(),
        "model.safetensors": save(_published_tensors(config, shape), metadata={"format": "pt"}),
        "tokenizer.json": _json(tokenizer),
        "vocab.json": _json(vocabulary),
    }


def _published_tensors(
    config: Mapping[str, Any], shape: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**config))
        for name, weight in model.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(0.0, 0.15)
            elif ".ln_" in name:
                weight.normal_(1.0, 0.25).abs_()
    model.transformer.wte.weight.data[:, :2] *= 8
    tensors = {name: weight.clone() for name, weight in model.transformer.state_dict().items()}
    most = shape["n_positions"]
    for layer in range(shape["n_layer"]):
        mask = torch.ones(most, most).tril().view(1, 1, most, most)
        tensors[f"h.{layer}.attn.bias"] = mask
    return tensors


def tweet_files(kind: str = "jsonl") -> dict[str, bytes]:
    """Make the data set, from bundled posts: rows that leak, one without text, one twice.

    Args:
        kind: of its files, `jsonl` as on the hub, or `parquet` as the hub converts it.
    """
    rows = {split: _posts(split)[:count] for split, count in (("train", 360), ("test", 90))}
    train, test = rows["train"], rows["test"]
    for place, leaked in enumerate(test[:3]):
        train[10 * place + 4] = {**leaked, "id": f"leaked-{place}"}
    written_otherwise = f"  {test[5]['text'].upper()} "
    train[70] = {**test[5], "id": "leaked-3", "text": written_otherwise}
    train[314]["text"] = ""
    train[120] = {**train[20], "id": "twice"}
    card = b"---\nlanguage:\n- en\n---\n"
    if kind == "jsonl":
        return {"README.md": card} | {
            f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in found).encode()
            for split, found in rows.items()
        }
    return {"README.md": card} | {
        f"data/{split}-00000-of-00001.parquet": _parquet(found) for split, found in rows.items()
    }


def _posts(split: str) -> list[dict[str, Any]]:
    path = bundled_folder("bundled:posts", among=TASKS) / f"{split}.jsonl"
    return [
        {
            "id": row["id"],
            "text": row["text"],
            "label": LABELS.index(row["label"]),
            "label_text": row["label"],
        }
        for row in _records(path)
    ]


def wikitext_files() -> dict[str, bytes]:
    """Make two configurations of which a recipe asks for one; a row is a line, most are short."""
    names = ("wikitext-103-raw-v1", "wikitext-2-raw-v1")
    splits = ("test", "train", "validation")
    data_files = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}-*"} for split in splits],
        }
        for name in names
    ]
    card = f"---\nlanguage:\n- en\nconfigs: {json.dumps(data_files)}\n---\n".encode()
    files = {
        f"{name}/{split}-00000-of-00001.parquet": _parquet(
            [{"text": line} for line in [f"{split} of {name}", *_article_lines()]]
        )
        for name in names
        for split in splits
    }
    return {"README.md": card} | files


def _article_lines() -> list[str]:
    path = bundled_folder("bundled:general-text", among=TEXTS) / "train.jsonl"
    lines = [""]
    for number, row in enumerate(_records(path)[:24]):
        if number % 4 == 0:
            lines += [f" = Article {number // 4} = \n", ""]
        lines += [f" {row['text']} \n", ""]
    return lines


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _parquet(rows: Iterable[Mapping[str, Any]]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), content)
    return content.getvalue()


def _json(values: object) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode()
