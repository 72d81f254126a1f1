"""Folders of full fine-tuning: what a save leaves out, so that every load takes what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from bases import write_base
from transformers import AutoTokenizer

import peftune
from peftune.errors import UsageError
from peftune.models.prepare import preparation_of

LABELS = ("bad", "good")
TEXTS = ["what a lovely day", "no"]


def _tuned(base: Path, labels: tuple[str, ...] = LABELS) -> torch.nn.Module:
    model, _ = peftune.prepare(
        str(base), strategy=peftune.Full(), labels=labels, max_length=32, use_cpu=True
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(
                0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )
    return model.eval()


def _as_years_ago(base: Path) -> None:
    """Give a base the keys that GPT-2's own files on the hub have, small to extra large."""
    path = base / "config.json"
    config = json.loads(path.read_text())
    config |= {
        "n_ctx": config["n_positions"],
        "n_special": 0,
        "predict_special_tokens": True,
        "output_past": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    path.write_text(json.dumps(config))


def _that_chats(base: Path) -> None:
    """Give a base's tokenizer a chat template, and no longest text."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.model_max_length = transformers.tokenization_utils_base.VERY_LARGE_INTEGER
    tokenizer.save_pretrained(base)
    assert (base / "chat_template.jinja").is_file()


@pytest.mark.parametrize("change", [_as_years_ago, _that_chats])
def test_a_whole_model_of_any_gpt2_loads(change: object, tmp_path: Path) -> None:
    """What a base's files say beyond a classifier's is left behind: it computes nothing."""
    base = write_base(tmp_path / "base")
    assert callable(change)
    change(base)
    model = _tuned(base)

    folder = peftune.save(model, tmp_path / "model")
    loaded = peftune.load(folder, use_cpu=True)

    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "peftune.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    found = transformers.pipeline("text-classification", str(folder), device="cpu")(TEXTS)
    assert [row["label"] for row in found] == [row.label for row in loaded.predict(TEXTS)]
    assert [row["score"] for row in found] == pytest.approx(
        [row.score for row in loaded.predict(TEXTS)], rel=1e-5
    )


def test_what_a_tokenizer_was_last_asked_for_is_not_saved(tmp_path: Path) -> None:
    """Two saves of one model are the same bytes, whatever was read in between."""
    base = write_base(tmp_path / "base")
    model = _tuned(base)
    first = peftune.save(model, tmp_path / "first")
    tokenizer = preparation_of(model).tokenizer
    tokenizer(TEXTS, truncation=True, padding="max_length", max_length=7)
    second = peftune.save(model, tmp_path / "second")

    parts = json.loads((first / "tokenizer.json").read_text(encoding="utf-8"))
    assert parts["truncation"] is parts["padding"] is None
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("bad", "bad"), "Two labels have the same name (got ['bad', 'bad']). Give each its own."),
        (
            ("bad", "go\nod"),
            "The labels ['bad', 'go\\nod'] cannot be saved: a string holds the hidden character U+000A. Name that label otherwise.",
        ),
    ],
)
def test_labels_that_cannot_be_saved_are_refused_before_the_training(
    labels: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """Not after it, when the manifest is written."""
    base = write_base(tmp_path / "base")

    with pytest.raises(UsageError) as caught:
        _tuned(base, labels)

    assert str(caught.value) == message
