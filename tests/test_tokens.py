"""Token ids: nothing lost, nothing shifted, little padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from peftune.bundled import MODELS, bundled_folder
from peftune.data import arrow
from peftune.data.rows import Rows
from peftune.data.task_data import load_task
from peftune.data.tokens import pack_rows, padding_collator, tokenize_rows
from peftune.models.prepare import prepare_model
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.recipe.schema import DataSection, TrainingSection
from peftune.strategies import HeadOnly
from peftune.training.train import training_arguments
from peftune.training.trainer import ClassifierTrainer

MOST_PADDING = 1.15
"""Tokens with padding over tokens without, over an epoch; random batches of posts have 1.37 (of 8 rows) and 1.46 (of 16)."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Return the bundled base's tokenizer."""
    return load_tokenizer(bundled_folder("bundled:tiny-gpt2", among=MODELS))


def _rows(*texts: str) -> Rows:
    return Rows(tuple(map(str, range(len(texts)))), texts, tuple(i % 2 for i in range(len(texts))))


def test_padding_stands_on_the_right(tokenizer: PreTrainedTokenizerBase) -> None:
    """GPT-2 counts positions from the left edge, so a pad there would shift every token."""
    dataset = tokenize_rows(_rows("a", "a longer text of words"), tokenizer, max_length=32).dataset
    batch = padding_collator(tokenizer)([{"input_ids": ids} for ids in dataset["input_ids"]])

    short = len(dataset["input_ids"][0])
    assert batch["input_ids"][0, :short].tolist() == dataset["input_ids"][0]
    assert batch["attention_mask"][0].tolist() == [1] * short + [0] * (
        batch["input_ids"].shape[1] - short
    )
    assert set(batch["input_ids"][0, short:].tolist()) == {tokenizer.eos_token_id}


def test_the_end_token_spelled_in_a_text_is_read_as_characters(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """A text cannot hold the token that pads, whatever its author writes."""
    text = f"before {tokenizer.eos_token} after"

    [ids] = encode_texts(tokenizer, [text], max_length=None)

    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_an_empty_text_becomes_one_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """A row without tokens could not be pooled."""
    dataset = tokenize_rows(_rows("", "words"), tokenizer, max_length=8).dataset

    assert dataset["input_ids"][0] == [tokenizer.eos_token_id]
    assert dataset["length"][0] == 1


def test_long_texts_are_cut_at_the_end_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    """The first tokens stay; a text of exactly the limit is not cut."""
    exact = "one two three four"
    [whole] = encode_texts(tokenizer, [exact + " five six"], max_length=None)
    limit = len(encode_texts(tokenizer, [exact], max_length=None)[0])

    tokens = tokenize_rows(_rows(exact, exact + " five six", "one"), tokenizer, max_length=limit)

    assert tokens.truncated == 1
    assert tokens.dataset["input_ids"][1] == whole[:limit]
    assert max(tokens.dataset["length"]) == limit


def test_rows_beyond_one_chunk_keep_their_order(tokenizer: PreTrainedTokenizerBase) -> None:
    """Tokenizing in chunks of a thousand changes nothing."""
    texts = [f"text {index}" for index in range(1003)]

    dataset = tokenize_rows(_rows(*texts), tokenizer, max_length=16).dataset

    assert [tokenizer.decode(ids) for ids in dataset["input_ids"]] == texts


@pytest.mark.parametrize("most", [0, 2**20])
def test_windows_of_documents_are_one_stream_cut(
    most: int, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many documents are packed at once, in memory or in a file: no token is lost or doubled."""
    monkeypatch.setattr(arrow, "MOST_IN_MEMORY", most)
    texts = [f"document {index} of a thousand words " * (index % 5) for index in range(1503)]
    end = tokenizer.eos_token_id
    stream = [end]
    for ids in encode_texts(tokenizer, [text or "" for text in texts], max_length=None):
        stream += [*ids, end]

    packed = pack_rows(_rows(*texts), tokenizer, max_length=33)

    count = (len(stream) - 1) // 33
    assert [token for ids in packed.dataset["input_ids"] for token in ids] == stream[: count * 33]
    assert [token for ids in packed.dataset["labels"] for token in ids] == stream[
        1 : count * 33 + 1
    ]
    assert set(packed.dataset["length"]) == {33}
    assert packed.dropped_tokens == len(stream) - 1 - count * 33


@pytest.mark.parametrize("batch_size", [8, 16])
def test_batches_of_an_epoch_hold_little_padding(batch_size: int, tmp_path: Path) -> None:
    """Texts of like length share a batch, padded to its own longest: every row comes once."""
    task = load_task(DataSection(dataset_name="bundled:posts"))
    model = prepare_model(
        "bundled:tiny-gpt2", HeadOnly(), labels=task.labels, max_length=64, use_cpu=True
    )
    tokenizer = load_tokenizer(bundled_folder("bundled:tiny-gpt2", among=MODELS))
    train, validation = (
        tokenize_rows(rows, tokenizer, max_length=64).dataset
        for rows in (task.train, task.validation)
    )
    section = TrainingSection(
        per_device_train_batch_size=batch_size, learning_rate=1e-3, weight_decay=0.0, use_cpu=True
    )
    trainer = ClassifierTrainer(
        model=model,
        args=training_arguments(section, device=torch.device("cpu"), checkpoints=tmp_path),
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        run_identity="none",
    )

    batches = list(trainer.get_train_dataloader())

    real = sum(int(batch["attention_mask"].sum()) for batch in batches)
    padded = sum(batch["input_ids"].numel() for batch in batches)
    assert sum(len(batch["input_ids"]) for batch in batches) == len(task.train)
    assert real == sum(train["length"])
    assert padded / real < MOST_PADDING
    for batch in batches:
        assert batch["attention_mask"].sum(-1).max() == batch["input_ids"].shape[1]
