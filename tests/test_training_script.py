"""A training script of one's own, with the texts that people have: too long, or empty."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

import peftune
from peftune.errors import ArtifactError, UsageError
from peftune.models.prepare import preparation_of
from peftune.strategies import Strategy

ROOT = Path(__file__).parents[1]
LABELS = ["negative", "positive"]
LENGTH = 16
LONG, SHORT = "late again, and cold " * 60, "what a lovely day"
TEXTS = [SHORT, LONG, "", "the soup was cold"] * 3

STRATEGIES = [peftune.LoRA(r=2), peftune.Full(), peftune.HeadOnly()]
by_name = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


def prepared(base: Path, strategy: Strategy) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Prepare a model that reads 16 tokens of each text."""
    return peftune.prepare(
        str(base), strategy=strategy, labels=LABELS, max_length=LENGTH, use_cpu=True
    )


def script(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    **arguments: Any,  # noqa: ANN401 - of TrainingArguments
) -> Trainer:
    """Set a stock Trainer up as the README does, with every text as it is."""
    rows = Dataset.from_dict({"text": TEXTS, "labels": [1, 0] * 6})
    rows = rows.map(lambda row: tokenizer(row["text"], verbose=False), remove_columns="text")
    chosen = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), **chosen),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )


def logits(model: nn.Module, tokenizer: PreTrainedTokenizerBase, text: str) -> torch.Tensor:
    """Return what a model makes of one text that its tokenizer cut: (labels,)."""
    batch = tokenizer([text], truncation=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model(**batch).logits[0]
    return found


@by_name
def test_a_text_is_read_the_same_however_it_was_tokenized(
    strategy: Strategy, tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain call of the tokenizer cuts nothing: the model reads the first tokens, as predict does."""
    model, tokenizer = prepared(tiny_base, strategy)
    model.eval()
    batch = tokenizer([LONG, SHORT, ""], padding=True, return_tensors="pt", verbose=False)

    with torch.no_grad():
        by_keyword, by_place = (
            model(**batch).logits,
            model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits,
        )
        alone = model(tokenizer([SHORT], return_tensors="pt")["input_ids"]).logits[0]

    expected = [logits(model, tokenizer, text) for text in (LONG, SHORT, tokenizer.eos_token)]
    torch.testing.assert_close(by_keyword, torch.stack(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(by_place, by_keyword, rtol=0, atol=0)
    torch.testing.assert_close(alone, expected[1], rtol=0, atol=1e-5)
    length = batch["input_ids"].shape[1]
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert told == (
        f"a batch has texts of up to {length} tokens: what follows max_length=16 is cut off, as "
        "predict does. Tokenize with truncation=True to spare the memory, or pass prepare another "
        "max_length."
    )


def test_texts_without_tokens_are_one_end_token(tiny_base: Path) -> None:
    """A batch of nothing else has no column at all, and was an error of a reshape."""
    model, tokenizer = prepared(tiny_base, peftune.LoRA(r=2))
    model.eval()
    batch = tokenizer(["", ""], padding=True, return_tensors="pt")

    with torch.no_grad():
        found = model(**batch).logits

    assert batch["input_ids"].shape == (2, 0)
    end = logits(model, tokenizer, str(tokenizer.eos_token))
    torch.testing.assert_close(found, torch.stack([end, end]), rtol=0, atol=1e-5)


def test_a_long_batch_that_is_padded_on_the_left_is_refused(tiny_base: Path) -> None:
    """The first tokens of a row may be padding there, and the rest would be lost."""
    model, tokenizer = prepared(tiny_base, peftune.LoRA(r=2))
    batch = tokenizer(
        [LONG, SHORT], padding=True, return_tensors="pt", padding_side="left", verbose=False
    )

    with pytest.raises(UsageError) as caught:
        model(**batch)

    assert str(caught.value) == (
        f"A batch of {batch['input_ids'].shape[1]} tokens is longer than max_length=16 and padded "
        "on the left, so that its texts cannot be cut at their end. Tokenize with truncation=True, "
        "and pad with the tokenizer that peftune.prepare returned."
    )


def test_the_tokenizer_knows_the_length(tiny_base: Path) -> None:
    """`truncation=True` is enough; without a length it cut nothing."""
    model, tokenizer = prepared(tiny_base, peftune.LoRA(r=2))

    assert len(tokenizer(LONG, truncation=True)["input_ids"]) == LENGTH
    own = preparation_of(model).tokenizer
    assert own is not tokenizer
    assert own.model_max_length > LENGTH


@by_name
def test_a_stock_trainer_learns_and_says_what_the_saved_artifact_says(
    strategy: Strategy, tiny_base: Path, tmp_path: Path
) -> None:
    """With long and empty texts, accumulation, evaluation and prediction, as people write them."""
    model, tokenizer = prepared(tiny_base, strategy)
    trainer = script(model, tokenizer, tmp_path / "scratch")

    trainer.train()
    rows: Any = trainer.eval_dataset
    predicted = torch.tensor(trainer.predict(rows).predictions)
    peftune.save(model, tmp_path / "artifact")

    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    classifier = peftune.load(tmp_path / "artifact", base=str(tiny_base), use_cpu=True)
    artifact = torch.tensor(classifier.logits(TEXTS))
    torch.testing.assert_close(predicted, artifact, rtol=0, atol=1e-4)


@by_name
def test_a_stock_trainer_resumes_to_the_same_weights(
    strategy: Strategy, tiny_base: Path, tmp_path: Path
) -> None:
    """From its own checkpoint, into a model that was prepared anew."""
    whole, resumed = (prepared(tiny_base, strategy) for _ in range(2))
    script(*whole, tmp_path / "scratch").train()

    script(*resumed, tmp_path / "scratch").train(
        resume_from_checkpoint=str(tmp_path / "scratch" / "checkpoint-2")
    )

    expected = dict(whole[0].named_parameters())
    for name, weight in resumed[0].named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)
    peftune.save(resumed[0], tmp_path / "artifact")
    assert peftune.load(tmp_path / "artifact", base=str(tiny_base), use_cpu=True).labels == (
        "negative",
        "positive",
    )


@by_name
def test_what_trainer_saves_is_not_taken_for_an_artifact(
    strategy: Strategy, tiny_base: Path, tmp_path: Path
) -> None:
    """It names neither the base by its weights nor the length, so that nothing could be checked."""
    model, tokenizer = prepared(tiny_base, strategy)
    folder = tmp_path / "saved"
    script(model, tokenizer, tmp_path / "scratch").save_model(str(folder))

    with pytest.raises((ArtifactError, UsageError)) as caught:
        peftune.load(folder)

    wrote = "Trainer wrote it; peftune.save(model, folder) writes the artifact of a model that peftune.prepare returned."
    assert str(caught.value) in (
        f"'{folder}' holds no peftune.json, so it is not an artifact of peftune. {wrote}",
        f"'{folder}' carries no manifest, so it does not say to which base and labels it belongs. Pass both: base=… and labels=[…]. {wrote}",
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16=False", "bf16=True"])
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_script_of_a_page_takes_what_people_give_it(
    page: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long and empty texts, accumulation, bfloat16, and Trainer's own verbs afterwards."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    block = next(
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "Trainer(" in block
    )
    hostile = re.sub(r'\["what a lovely day", "[^"]+"\]', f"[{LONG!r}, '']", block)
    assert hostile != block

    device = f"use_cpu={not torch.cuda.is_available()}"  # transformers wants to be told for bf16
    given = f"max_steps=1, {precision}, {device}, gradient_accumulation_steps=2"
    after = "trainer.evaluate(rows); trainer.predict(rows); trainer.save_model('of-trainer')"
    code = re.sub(r"max_steps=\d+", given, hostile).replace(
        "\npeftune.save(", f"\n{after}\npeftune.save("
    )
    assert given in code
    assert after in code

    exec(compile(code, page, "exec"), {})  # noqa: S102 - the page's own code

    assert len(peftune.load("my-adapter").predict([LONG, ""])) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2], "(got [1, 2]). 1 is of type int, and names are text; write '1'."),
        ([0.5, "a"], "(got [0.5, 'a']). 0.5 is of type float, and names are text; write '0.5'."),
        (2, "(got 2). For 2 classes without names pass [str(i) for i in range(2)]."),
        ("ab", "(got 'ab')."),
        (b"ab", "(got b'ab')."),
        ({0: "a", 1: "b"}, "(got {0: 'a', 1: 'b'})."),
        ({"a"}, "(got {'a'})."),
        (True, "(got True)."),
        (["a", " "], "(got ['a', ' ']). A name is empty."),
    ],
)
@pytest.mark.parametrize("function", ["prepare", "load"])
def test_labels_that_are_no_list_of_names_are_refused(
    function: str,
    labels: Any,  # noqa: ANN401 - of any kind
    message: str,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    """A text became a label a letter, and numbers an error of Python."""
    calls: dict[str, Any] = {
        "prepare": lambda: peftune.prepare(
            str(tiny_base), strategy=peftune.HeadOnly(), labels=labels
        ),
        "load": lambda: peftune.load(tmp_path, labels=labels),
    }
    with pytest.raises(UsageError) as caught:
        calls[function]()

    assert str(caught.value) == (
        "labels must be a list of label names in the order of their ids, such as "
        f"['negative', 'positive'] {message}"
    )
