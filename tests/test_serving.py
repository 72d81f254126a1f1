"""Many adapters on one base: each is what it is alone, however a batch mixes them."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import write_base
from torch import nn

import peftune
from peftune.adapters import Classifier, load, save
from peftune.adapters.artifact import open_artifact
from peftune.adapters.classifier_set import ClassifierSet, load_many
from peftune.errors import ArtifactError, UsageError
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import plan_batches
from peftune.models.prepare import prepare_model
from peftune.recipe.schema import StoredType
from peftune.recipe.task_type import TaskName
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

TEXTS = ("what a lovely day", "no", "", "the soup was cold and nobody said sorry " * 3, "é")
ALL = "Available: default, embeddings, head, lora, one.block, stars, topics."
FLOAT = 1e-5
"""Largest difference that another shape of a batch makes in float32, relative to the logits."""


def _save(
    base: Path,
    folder: Path,
    strategy: Strategy,
    *,
    labels: tuple[str, ...] = ("bad", "good"),
    task: TaskName = "single-label",
    max_length: int = 48,
    seed: int = 0,
    thresholds: tuple[float, ...] | None = None,
    dtype: StoredType = "float32",
) -> Path:
    """Prepare a model, move every weight that learns far, and save it."""
    model = prepare_model(
        str(base), strategy, labels=labels, task=task, max_length=max_length, use_cpu=True
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return save(
        model,
        folder,
        label_thresholds=thresholds,
        dtype=dtype,
        validation_texts=() if dtype == "float32" else TEXTS,
    )


@dataclass(frozen=True)
class Saved:
    """Adapters by name, on one base."""

    base: Path
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Save adapters that differ in all that may differ."""
    home = tmp_path_factory.mktemp("saved")
    base = write_base(home / "tiny")
    kinds: dict[str, dict[str, Any]] = {
        "lora": {"strategy": LoRA(r=4), "seed": 1},
        "one.block": {
            "strategy": LoRA(r=2, layers_to_transform=(1,), use_rslora=True),
            "labels": ("x", "y", "z"),
            "max_length": 9,
            "seed": 2,
        },
        "embeddings": {
            "strategy": LoRA(r=3, target_modules=("wte", "c_attn")),
            "seed": 3,
            "dtype": "bfloat16",
        },
        "default": {"strategy": LoRA(r=2, use_dora=True), "seed": 4},
        "head": {"strategy": HeadOnly(), "labels": ("p", "q", "r", "s"), "seed": 5},
        "topics": {
            "strategy": LoRA(r=1, target_modules=("c_fc",)),
            "task": "multi-label",
            "labels": ("food", "money", "sport"),
            "thresholds": (0.4, 0.5, 0.6),
            "seed": 6,
        },
        "stars": {
            "strategy": LoRA(r=1),
            "task": "regression",
            "labels": ("stars",),
            "seed": 7,
        },
    }
    return Saved(base, {name: _save(base, home / name, **kind) for name, kind in kinds.items()})


@pytest.fixture(scope="module")
def alone(saved: Saved) -> dict[str, Classifier]:
    """Load each adapter on a base of its own."""
    return {
        name: load(folder, base=str(saved.base), use_cpu=True)
        for name, folder in saved.folders.items()
    }


@pytest.fixture(scope="module")
def together(saved: Saved) -> ClassifierSet:
    """Load all of them on one base."""
    return load_many(saved.folders, base=str(saved.base), use_cpu=True)


def _close(actual: Any, expected: Any) -> None:  # noqa: ANN401 - arrays
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=FLOAT * scale)


# One at a time


def test_each_adapter_gives_the_logits_that_it_gives_alone(
    alone: dict[str, Classifier], together: ClassifierSet
) -> None:
    """Adapters can be switched in any order, by name or as plain classifiers."""
    for name in [*alone, *reversed(alone)]:
        expected = alone[name].logits(TEXTS)

        _close(together.logits(TEXTS, adapter=name), expected)
        _close(together[name].logits(TEXTS), expected)


def test_the_adapters_differ(together: ClassifierSet) -> None:
    """The test above can fail: no two adapters of the same labels say the same."""
    first, second = (together.logits(TEXTS, adapter=name) for name in ("lora", "embeddings"))

    assert float(np.abs(first - second).max()) > 0.1


def test_predictions_are_those_of_each_kind_of_task(
    alone: dict[str, Classifier], together: ClassifierSet
) -> None:
    """Labels, thresholds and numbers are each adapter's own."""
    for name, classifier in alone.items():
        said, expected = together.predict(TEXTS, adapter=name), classifier.predict(TEXTS)
        assert [one.label for one in said] == [one.label for one in expected]
        assert [one.labels for one in said] == [one.labels for one in expected]
        assert [one.score for one in said] == pytest.approx([one.score for one in expected])

    assert together.names == tuple(alone)
    assert together.labels_of("one.block") == ("x", "y", "z")
    assert list(together) == list(alone)
    assert repr(together) == f"ClassifierSet({', '.join(alone)})"


# Mixed batches


def test_a_mixed_batch_gives_each_text_what_its_adapter_gives_alone(
    alone: dict[str, Classifier], together: ClassifierSet
) -> None:
    """Every pair of text and adapter in one call: equal within rounding, and the same words."""
    texts = [text for text in TEXTS for _ in alone]
    adapters = [name for _ in TEXTS for name in alone]

    rows = together.logits(texts, adapters=adapters)
    said = together.predict(texts, adapters=adapters)

    for text, name, row, prediction in zip(texts, adapters, rows, said, strict=True):
        _close(row, alone[name].logits([text])[0])
        assert prediction.label == alone[name].predict([text])[0].label
        assert prediction.labels == alone[name].predict([text])[0].labels


def test_what_a_text_gets_does_not_depend_on_how_the_batch_mixes(together: ClassifierSet) -> None:
    """Among itself, among others, in another order, and in batches of one: the same."""
    text = TEXTS[0]
    expected = together.logits([text], adapter="lora")[0]
    for adapters in (
        ["lora", "head", "topics"],
        ["one.block", "default", "lora", "lora"],
        ["lora"],
    ):
        place = adapters.index("lora")
        for batch_size in (1, 8):
            rows = together.logits(
                [text] * len(adapters), adapters=adapters, batch_size=batch_size
            )
            _close(rows[place], expected)


def test_threads_do_not_take_each_others_adapter(
    alone: dict[str, Classifier], together: ClassifierSet
) -> None:
    """Which adapter acts is a state of the model; calls from several threads wait for each other."""
    names = ("lora", "default", "head", "embeddings")
    expected = {name: alone[name].logits(TEXTS) for name in names}
    wrong: list[str] = []

    def ask(name: str) -> None:
        found = (together.logits(TEXTS, adapter=name) for _ in range(5))
        wrong.extend(name for one in found if not np.allclose(one, expected[name], atol=1e-4))

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_no_texts_are_no_predictions(together: ClassifierSet) -> None:
    """An empty list is answered by an empty one, whoever is asked."""
    assert together.predict([], adapter="one.block") == []
    assert together.predict([], adapters=[]) == []
    assert together.logits([], adapter="one.block").shape == (0, 3)


# Memory


def test_the_base_is_in_memory_once(alone: dict[str, Classifier], together: ClassifierSet) -> None:
    """All weights together are those of one base, of the updates and of the heads."""
    weights = {
        weight.data_ptr(): weight.numel()
        for one in (together.shared.model, *(found.model for found in together.values()))
        for weight in one.parameters()
    }
    learned = {
        name: sum(weight.numel() for weight in trainable_parameters(one.model).values())
        for name, one in alone.items()
    }
    heads = sum(seat.head.numel() for seat in together.shared.seats.values())
    base = sum(weight.numel() for weight in alone["head"].model.parameters()) - learned["head"]

    assert sum(weights.values()) + heads == base + sum(learned.values())


# int8


@pytest.fixture(scope="module")
def int8(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Save two adapters of an int8 base with outliers, on which a batch rounds as a whole."""
    home = tmp_path_factory.mktemp("int8")
    labels = ("x", "y", "z")
    return Saved(
        tiny_base,
        {
            "a": _save(tiny_base, home / "a", LoRA8bit(r=2), seed=1),
            "b": _save(tiny_base, home / "b", LoRA8bit(r=4), labels=labels, max_length=9, seed=2),
        },
    )


def test_int8_adapters_share_an_int8_base_without_sharing_batches(
    int8: Saved,
) -> None:
    """In int8 a row's logits depend on its batch, so rows of two adapters never share one."""
    together = load_many(int8.folders, base=str(int8.base), use_cpu=True)
    adapters = ["a", "b", "b", "a", "b"]

    rows = together.logits(TEXTS, adapters=adapters)

    for name, folder in int8.folders.items():
        one = load(folder, base=str(int8.base), use_cpu=True)
        own = [text for text, adapter in zip(TEXTS, adapters, strict=True) if adapter == name]
        found = [row for row, adapter in zip(rows, adapters, strict=True) if adapter == name]
        _close(np.stack(found), one.logits(own))
        _close(together.logits(TEXTS, adapter=name), one.logits(TEXTS))


# Refusals


def test_adapters_that_hold_their_base_otherwise_are_refused(int8: Saved, tmp_path: Path) -> None:
    """An int8 adapter shares with others of int8 only."""
    mine = _save(int8.base, tmp_path / "mine", LoRA(r=1))

    with pytest.raises(UsageError) as caught:
        load_many({"mine": mine, "its": int8.folders["a"]}, base=str(int8.base))

    assert str(caught.value) == (
        "'its' (lora-8bit) holds its base in int8, 'mine' (lora) in float32. "
        "Load adapters that hold it in the same way together."
    )


def test_int8_adapters_of_other_thresholds_are_refused(int8: Saved, tmp_path: Path) -> None:
    """What is rounded how belongs to the base too."""
    other = _save(int8.base, tmp_path / "other", LoRA8bit(r=2, llm_int8_threshold=0.0))

    with pytest.raises(UsageError) as caught:
        load_many({"a": int8.folders["a"], "b": other}, base=str(int8.base))

    assert str(caught.value) == (
        "'b' (lora-8bit) holds its base with other settings than 'a' (lora-8bit). "
        "Load adapters that hold it in the same way together."
    )


def test_an_adapter_of_another_base_is_named(saved: Saved, tmp_path: Path) -> None:
    """One line says which of them belongs elsewhere."""
    elsewhere = write_base(tmp_path / "elsewhere", seed=1)
    stranger = _save(elsewhere, tmp_path / "stranger", LoRA(r=2))
    prints = [
        open_artifact(folder).manifest.base.fingerprint
        for folder in (stranger, saved.folders["lora"])
    ]

    with pytest.raises(ArtifactError) as caught:
        load_many({"mine": saved.folders["lora"], "its": stranger}, base=str(saved.base))

    assert str(caught.value) == (
        f"'its' belongs to the base 'elsewhere' with fingerprint {prints[0][:12]}…, 'mine' to 'tiny' with "
        f"{prints[1][:12]}…. Load adapters of one base together."
    )


def test_an_adapter_of_another_tokenizer_is_named(saved: Saved, tmp_path: Path) -> None:
    """The same weights behind another tokenizer read another text."""
    reversed_base = write_base(tmp_path / "reversed", reverse_bytes=True)
    stranger = _save(reversed_base, tmp_path / "stranger", LoRA(r=2))

    with pytest.raises(ArtifactError) as caught:
        load_many({"mine": saved.folders["lora"], "its": stranger}, base=str(saved.base))

    assert str(caught.value) == (
        "'its' was trained with another tokenizer than 'mine'. Load adapters of one tokenizer together."
    )


def test_what_changes_the_backbone_itself_is_sent_home(saved: Saved, tmp_path: Path) -> None:
    """Weights that learned in place cannot be shared; a whole model cannot either."""
    frozen = _save(saved.base, tmp_path / "frozen", Full(freeze_layers=1))
    whole = _save(saved.base, tmp_path / "whole", Full())

    with pytest.raises(UsageError) as caught:
        load_many({"a": saved.folders["lora"], "b": frozen}, base=str(saved.base))
    assert str(caught.value) == (
        f"'{frozen}' cannot share its base: its strategy 'full' changes the backbone otherwise than by LoRA updates "
        "beside its weights. Load it alone, with peftune.load."
    )
    with pytest.raises(UsageError) as caught:
        load_many({"a": whole})
    assert str(caught.value) == (
        f"'a' ('{whole}') is a whole model, which shares its base with nothing. Load it alone, with peftune.load."
    )


def test_a_damaged_adapter_among_good_ones_is_refused(saved: Saved, tmp_path: Path) -> None:
    """Company helps nobody past the checks: a flipped bit is found as by `load`."""
    folder = shutil.copytree(saved.folders["lora"], tmp_path / "damaged")
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ArtifactError) as caught:
        load_many({"good": saved.folders["head"], "bad": folder}, base=str(saved.base))

    assert str(caught.value) == (
        f"'{folder}/adapter_model.safetensors' is not the file that was saved: its hash differs from the manifest's. "
        "Fetch it again."
    )


def test_an_adapter_without_a_head_is_refused(saved: Saved, tmp_path: Path) -> None:
    """Raw text leaves nothing that says a label."""
    text = _save(saved.base, tmp_path / "text", LoRA(r=2), task="language-modeling", labels=())

    with pytest.raises(ArtifactError) as caught:
        load_many({"text": text}, base=str(saved.base))

    assert str(caught.value) == (
        f"'text' ('{text}') is not a classifier: it has learned language-modeling and has no head. Leave it out."
    )


@pytest.mark.parametrize("name", ["", "a b", "../a", ".a", "a\n", "ä", "a" * 65])
def test_a_name_is_letters_digits_and_little_else(name: str) -> None:
    """Names go into messages and logs; PEFT never sees them."""
    with pytest.raises(UsageError, match="cannot name an adapter"):
        load_many({name: "nowhere"})


def test_no_adapters_are_refused() -> None:
    """There is no base to load for nobody."""
    with pytest.raises(UsageError) as caught:
        load_many({})

    assert str(caught.value) == (
        "load_many needs adapters by name: load_many({'a': 'runs/a/adapter', …})."
    )


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (
            {"adapter": "lroa"},
            f"There is no adapter 'lroa' here. Did you mean 'lora'? {ALL}",
        ),
        (
            {},
            f"Say which adapter reads the texts: adapter=… for all, or adapters=[…] with one for each. {ALL}",
        ),
        (
            {"adapter": "lora", "adapters": ["lora"]},
            "adapter= reads all texts and adapters= each text by its own; pass one of them.",
        ),
        (
            {"adapters": ["lora", "head"]},
            "adapters= takes one name for each text (got 2 for 1 texts); for one adapter write adapter=….",
        ),
        (
            {"adapters": "l"},
            "adapters= takes one name for each text (got 1 for 1 texts); for one adapter write adapter=….",
        ),
    ],
)
def test_an_unclear_question_is_answered_in_one_line(
    together: ClassifierSet, asked: dict[str, Any], answer: str
) -> None:
    """Neither, both, too many, unknown: what is wrong, and what there is."""
    with pytest.raises(UsageError) as caught:
        together.predict(["a text"], **asked)

    assert str(caught.value) == answer


def test_load_many_is_public() -> None:
    """It stands beside `peftune.load`."""
    assert peftune.load_many is load_many
    assert peftune.adapters.ClassifierSet is ClassifierSet


# Batches


def test_batches_hold_like_lengths_within_a_budget_of_tokens() -> None:
    """Longest first, ties in the order given, every text once, never more padded tokens than allowed."""
    lengths = [3, 200, 3, 600, 40, 41, 3]
    device = torch.device("cpu")

    batches = plan_batches(lengths, device)

    assert batches == [[3], [1, 5], [4, 0, 2, 6]]
    assert plan_batches(lengths, device, rows=2) == [[3], [1, 5], [4, 0], [2, 6]]
    assert plan_batches([], device) == []


def test_plain_modules_are_left_in_the_mode_they_had(together: ClassifierSet) -> None:
    """Nothing of a served model ever trains."""
    together.predict(TEXTS, adapters=["lora"] * len(TEXTS))
    model: nn.Module = together.shared.model

    assert not any(module.training for module in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())
