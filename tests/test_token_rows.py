"""Rows as views: the batches that transformers' collator makes of `datasets`, without its lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peftune.bundled import MODELS, bundled_folder
from peftune.data import arrow
from peftune.data.rows import Labels, Rows
from peftune.data.task_data import load_task
from peftune.data.tokens import TokenRows, Tokens, pack_rows, padding_collator, tokenize_rows
from peftune.models.prepare import prepare_model
from peftune.models.tokenizer import load_tokenizer
from peftune.recipe.schema import DataSection, TrainingSection
from peftune.strategies import HeadOnly
from peftune.training.train import training_arguments
from peftune.training.trainer import ClassifierTrainer, LanguageTrainer

COUNT = 1203
"""Rows of more than one piece: a thousand are tokenized at once."""

LABELS: dict[str, Labels] = {
    "ids": tuple(index % 3 for index in range(COUNT)),
    "numbers": tuple(index / 7 for index in range(COUNT)),
    "several": tuple((float(index % 2), 1.0, float("nan")) for index in range(COUNT)),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Return the bundled base's tokenizer."""
    return load_tokenizer(bundled_folder("bundled:tiny-gpt2", among=MODELS))


def _rows(labels: Labels) -> Rows:
    texts = tuple(f"row {index}" + " and more" * (index % 11) for index in range(COUNT))
    return Rows(tuple(map(str, range(COUNT))), texts, labels)


@pytest.mark.parametrize("most", [0, 2**20], ids=["in a file", "in memory"])
@pytest.mark.parametrize("kind", [*LABELS, "windows"])
def test_batches_are_those_of_transformers_own_collator(
    kind: str, most: int, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, mask and labels have the same names, types and values for every task type."""
    monkeypatch.setattr(arrow, "MOST_IN_MEMORY", most)
    if kind == "windows":
        dataset = pack_rows(_rows(LABELS["ids"]), tokenizer, max_length=12).dataset
    else:
        dataset = tokenize_rows(_rows(LABELS[kind]), tokenizer, max_length=16).dataset
    drawn = [*range(7), 999, 1000, 1001, COUNT - 1, -1 % len(dataset)]

    batch = padding_collator(tokenizer)(TokenRows(dataset).__getitems__(drawn))

    plain = dataset.remove_columns("length").select(drawn)
    expected = DataCollatorWithPadding(tokenizer)(plain.to_list())
    assert set(batch) == set(expected)
    for name, tensor in batch.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("most", [0, 2**20], ids=["in a file", "in memory"])
def test_rows_are_read_where_they_lie(
    most: int, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cell is copied, so that rows larger than the memory can be trained on."""
    monkeypatch.setattr(arrow, "MOST_IN_MEMORY", most)
    dataset = tokenize_rows(_rows(LABELS["ids"]), tokenizer, max_length=16).dataset
    before = pa.total_allocated_bytes()

    rows = TokenRows(dataset)

    assert pa.total_allocated_bytes() == before
    lying = dataset.data.table.column("input_ids").chunk(0).values.to_numpy()
    assert np.shares_memory(rows[5]["input_ids"], lying)


def test_chosen_rows_are_read_by_their_new_numbers(tokenizer: PreTrainedTokenizerBase) -> None:
    """What `datasets` selected, sorted or shuffled, is what is read."""
    dataset = tokenize_rows(_rows(LABELS["ids"]), tokenizer, max_length=16).dataset
    chosen = dataset.select([1100, 3, 999, 3])

    rows = TokenRows(chosen)

    assert [row["input_ids"].tolist() for row in rows] == chosen["input_ids"][:]
    assert [row["labels"] for row in rows] == [1100 % 3, 0, 0, 0]


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_row_beyond_the_last(index: int) -> None:
    """A sampler that counts wrongly is told, instead of reading some other row."""
    rows = TokenRows(Dataset.from_dict({"input_ids": [[1], [2, 3], [4]]}))

    with pytest.raises(IndexError, match=rf"^there is no row {index} of 3$"):
        rows[index]


@pytest.mark.parametrize(
    ("tokens", "kind", "expected"),
    [
        (
            tokenize_rows,
            ClassifierTrainer,
            "323ad38a95a953943e29a70797b1d44a5296cb61f8ecb987da8cbd7c7655861d",
        ),
        (
            pack_rows,
            LanguageTrainer,
            "1eeb42283e3de81bbcdfd8fa1cf5e33ab3f3054b96fe2dcf4a567485fdf8d99b",
        ),
    ],
    ids=["labeled rows", "windows of documents"],
)
def test_two_epochs_are_read_in_the_order_that_was_always_theirs(
    tokens: Callable[..., Tokens],
    kind: type[ClassifierTrainer],
    expected: str,
    tmp_path: Path,
) -> None:
    """A seed names its batches for good; the hashes were taken where rows still were lists."""
    task = load_task(DataSection(dataset_name="bundled:posts"))
    model = prepare_model(
        "bundled:tiny-gpt2", HeadOnly(), labels=task.labels, max_length=64, use_cpu=True
    )
    tokenizer = load_tokenizer(bundled_folder("bundled:tiny-gpt2", among=MODELS))
    train, validation = (
        tokens(rows, tokenizer, max_length=64).dataset for rows in (task.train, task.validation)
    )
    section = TrainingSection(learning_rate=1e-3, weight_decay=0.0, use_cpu=True)
    trainer = kind(
        model=model,
        args=training_arguments(section, device=torch.device("cpu"), checkpoints=tmp_path),
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        run_identity="none",
    )
    loader = trainer.get_train_dataloader()

    for _ in range(2):
        list(loader)

    assert trainer.order.sha256 == expected
