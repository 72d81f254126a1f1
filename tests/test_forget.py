"""Forgetting alone: of peftune's own artifacts, of other tools' adapters, and of checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import write_base
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
from tuned import DOCUMENTS, forgetting, prepared, train

from peftune.adapters import save
from peftune.cli.forget import probe_facts
from peftune.errors import ArtifactError, BaseModelError, PeftuneError, UsageError
from peftune.experiments.forget import MeasuredForgetting, forget
from peftune.experiments.report import Forgetting, summarized
from peftune.files.hash_cache import write_entry
from peftune.forgetting.before_and_after import measure_before, measure_tuned
from peftune.forgetting.measurement import measure, measure_base, measure_with, read_probe_texts
from peftune.models.tokenizer import load_tokenizer
from peftune.probes import LanguageModelLoss
from peftune.strategies import Full, LoRA


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> LanguageModelLoss:
    """Write the documents to a file, and return the probe that reads them."""
    path = tmp_path_factory.mktemp("probe") / "prose.txt"
    path.write_text("\f".join(DOCUMENTS))
    return LanguageModelLoss(file=str(path))


@pytest.fixture(scope="module")
def adapter(
    base: Path, probe: LanguageModelLoss, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Forgetting]:
    """Train and save a small adapter, with its forgetting as a run measures it."""
    model = prepared(base, LoRA(r=4))
    texts = read_probe_texts([probe])
    before = measure_before(model, texts)
    train(model)
    found = summarized(texts, measure_tuned(model, texts, before), learned=True)
    scores = {"accuracy": 0.9, "macro_f1": 0.9}
    task = {
        "split": "test",
        "n": 100,
        **scores,
        "ci95": {name: [0.8, 0.95] for name in scores},
        "majority_accuracy": 0.5,
    }
    folder = save(model, tmp_path_factory.mktemp("adapter") / "adapter", task=task)
    return folder, found


def test_forgetting_of_an_adapter_folder_is_the_runs_own(
    adapter: tuple[Path, Forgetting],
    base: Path,
    probe: LanguageModelLoss,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saved, loaded and measured against a base loaded by itself: the same number, control zero."""
    folder, expected = adapter
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path))  # nothing that the run measured is read

    found = forget(folder, [probe], base=str(base), use_cpu=True)

    assert found["prose"] == expected["prose"]
    assert found["prose"].forgetting != 0
    assert (found.verdict, found.controls) == (expected.verdict, {"adapter_off_forgetting": 0.0})


def test_an_interval_of_one_model_says_so(adapter: tuple[Path, Forgetting]) -> None:
    """In the `repr` of the result and in what the verb prints; without an interval there is no such line."""
    measured = adapter[1]
    without = measured["prose"]
    found = dataclasses.replace(without, forgetting=0.71264, ci95=(0.6, 0.8251))

    shown = MeasuredForgetting([found, without], measured.controls, "forgot")

    assert repr(shown) == (
        "95% intervals over documents, of this one model; positive is worse\n"
        "prose: +0.7126 [+0.6000, +0.8251] bits/byte\n"
        f"prose: {without.forgetting:+.4f} bits/byte\n"
        "verdict: forgot"
    )
    assert (
        dict(probe_facts(found))["  brackets"] == "95% interval over documents, of this one model"
    )
    assert "  brackets" not in dict(probe_facts(without))


@pytest.fixture
def plain(adapter: tuple[Path, Forgetting], tmp_path: Path) -> Path:
    """Copy the adapter folder as PEFT itself would have written it."""
    folder = tmp_path / "plain"
    shutil.copytree(adapter[0], folder)
    (folder / "peftune.json").unlink()
    (folder / "README.md").unlink()
    return folder


def test_forgetting_of_a_plain_peft_folder_is_the_same(
    adapter: tuple[Path, Forgetting], plain: Path, base: Path, probe: LanguageModelLoss
) -> None:
    """The adapter alone, without the manifest, gives the same numbers and the same control."""
    _, expected = adapter

    found = forget(plain, [probe], base=str(base), use_cpu=True)

    assert found["prose"].forgetting == pytest.approx(expected["prose"].forgetting, abs=1e-9)
    assert found.controls == {"adapter_off_forgetting": 0.0}
    assert (found.verdict, found.reason) == (None, "no verdict without a task score beside it")
    assert found["prose"].reason is not None
    assert "verdict: there is no task score to compare it with" in found["prose"].reason


@pytest.mark.parametrize("task_type", [TaskType.SEQ_CLS, TaskType.CAUSAL_LM])
def test_forgetting_of_an_adapter_that_peft_saved_is_measured(
    task_type: TaskType, base: Path, probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """A LoRA of another tool, for classes or for text, is measured on its own base."""
    kind = GPT2ForSequenceClassification if task_type == TaskType.SEQ_CLS else GPT2LMHeadModel
    model = get_peft_model(
        kind.from_pretrained(base),
        LoraConfig(task_type=task_type, r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    )
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.5)
    model.save_pretrained(str(tmp_path / "lora"))

    found = forget(tmp_path / "lora", [probe], base=str(base), use_cpu=True)["prose"]

    texts = read_probe_texts([probe])
    [expected] = measure_with(model.eval(), load_tokenizer(base), texts)
    assert found.after == pytest.approx(expected.value, rel=1e-6)
    assert found.after != found.before


def test_forgetting_of_a_full_checkpoint_is_measured_with_and_without_its_manifest(
    base: Path, probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """Full fine-tuning leaves a checkpoint; it has no adapter to switch off, so no control."""
    model = prepared(base, Full())
    texts = read_probe_texts([probe])
    before = measure_base(model, texts)
    train(model, rate=0.1)
    expected = forgetting(before, measure(model, texts))
    folder = save(model, tmp_path / "model")

    own = forget(folder, [probe], base=str(base), use_cpu=True)
    (folder / "peftune.json").unlink()
    plain = forget(folder, [probe], base=str(base), use_cpu=True)

    assert expected != 0
    for found in (own, plain):
        assert found["prose"].forgetting == pytest.approx(expected, abs=1e-9)
        assert found.controls == {"adapter_off_forgetting": None}
    with pytest.raises(UsageError) as caught:
        forget(folder, [probe], use_cpu=True)
    assert str(caught.value) == (
        f"'{folder}' is a plain checkpoint, which does not say what it was made from. Pass --base."
    )


def test_forgetting_against_another_base_is_refused(
    adapter: tuple[Path, Forgetting], probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """Of the same shape or not, a base with other weights gives no number."""
    folder, _ = adapter
    other = write_base(tmp_path / "other", seed=1)
    manifest = json.loads((folder / "peftune.json").read_text())

    with pytest.raises(ArtifactError) as caught:
        forget(folder, [probe], base=str(other), use_cpu=True)
    assert str(caught.value).startswith(
        f"'{folder}' belongs to the base 'tiny' with fingerprint "
        f"{manifest['base']['fingerprint'][:12]}…; '{other}' has "
    )
    assert str(caught.value).endswith(
        "… and is another model. Pass the base that it was trained on."
    )


def test_a_local_base_is_found_again_where_this_machine_last_saw_it(
    adapter: tuple[Path, Forgetting],
    probe: LanguageModelLoss,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its fingerprint, in peftune's cache folder; the artifact itself holds no path."""
    folder, told = adapter
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    base = write_base(tmp_path / "moved", seed=0)
    asks = (
        f"The base 'tiny' of '{folder}' is not on this machine, and no name in an artifact is fetched. "
        "Say where it lies, or what to fetch: base=… in Python, --base on the command line."
    )

    with pytest.raises(BaseModelError) as caught:
        forget(folder, [probe], use_cpu=True)
    assert str(caught.value) == asks
    forget(folder, [probe], base=str(base), use_cpu=True)
    places = list((tmp_path / "cache" / "base-places").iterdir())
    assert {place.read_text().splitlines()[1] for place in places} == {str(base)}
    found = forget(folder, [probe], use_cpu=True)
    assert found.probes[0].forgetting == told.probes[0].forgetting


Change = Callable[[Path, Path], object]

CHANGES: dict[str, Change] = {
    "moved away": lambda base, _: base.is_dir() and base.rename(base.with_name("elsewhere")),
    "another base there": lambda base, _: write_base(base, seed=1),
    "another tokenizer": lambda base, _: write_base(base, seed=0, reverse_bytes=True),
    "damaged": lambda base, _: (base / "model.safetensors").write_bytes(b"cut"),
    "another place": lambda base, place: write_entry(
        "base-places", place.name, str(write_base(base.with_name("planted"), seed=2)).encode()
    ),
    "a relative place": lambda _, place: write_entry("base-places", place.name, b"moved"),
    "no text": lambda _, place: write_entry("base-places", place.name, b"\xff\x00/"),
    "nothing": lambda _, place: place.write_text(""),
    "no checksum": lambda base, place: place.write_text(str(base)),
    "cut": lambda _, place: os.truncate(place, 70),
}


@pytest.mark.costly
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_place_where_the_base_no_longer_is_is_not_trusted(
    change: Change,
    adapter: tuple[Path, Forgetting],
    probe: LanguageModelLoss,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fingerprint is worked out anew from the files there; if it differs, the base is asked for."""
    folder, _ = adapter
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    base = write_base(tmp_path / "moved", seed=0)
    forget(folder, [probe], base=str(base), use_cpu=True)

    for place in (tmp_path / "cache" / "base-places").iterdir():
        change(base, place)

    with pytest.raises(BaseModelError, match=r"^The base 'tiny' of .* is not on this machine"):
        forget(folder, [probe], use_cpu=True)


def _change_config(folder: Path, **values: Any) -> None:  # noqa: ANN401 - values of a JSON file
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _refusal(folder: Path, base: Path, probe: LanguageModelLoss) -> str:
    with pytest.raises(PeftuneError) as caught:
        forget(folder, [probe], base=str(base), use_cpu=True)
    return str(caught.value).replace(f"{folder.parent}/", "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"target_modules": ".*c_attn"},
            "'plain/adapter_config.json': target_modules is the pattern '.*c_attn', and patterns inside an artifact are not followed. Write the names of its modules there as a list; its tensors are those of attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj.",
        ),
        (
            {"init_lora_weights": "orthogonal"},
            "'plain/adapter_config.json': init_lora_weights 'orthogonal' is a way to start that peftune does not open, although it leaves the base as it is and is over once the adapter is trained. Its tensors mean the same with \"init_lora_weights\": true; write that there.",
        ),
        (
            {"r": 10**9},
            "'plain/adapter_config.json': r must be 1 to 1024, lora_alpha positive, target_modules a list of module names, layers_to_transform a list of block numbers, and switches true or false.",
        ),
        (
            {"bias": "all"},
            "'plain/adapter_config.json': bias 'all' is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"init_lora_weights": "pissa"},
            "'plain/adapter_config.json': init_lora_weights 'pissa' is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"rank_pattern": {"c_attn": 2}},
            "'plain/adapter_config.json': rank_pattern {'c_attn': 2} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"alpha_pattern": {"c_attn": 2}},
            "'plain/adapter_config.json': alpha_pattern {'c_attn': 2} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened.",
        ),
        (
            {"peft_type": "IA3"},
            "'plain/adapter_config.json' is not a LoRA adapter; peftune reads plain LoRA adapters of other tools.",
        ),
    ],
)
def test_a_foreign_adapter_that_is_no_plain_lora_is_refused(
    values: dict[str, Any],
    message: str,
    plain: Path,
    base: Path,
    probe: LanguageModelLoss,
) -> None:
    """What rewrites the base, or cannot be checked, gives an error and never a number."""
    _change_config(plain, **values)

    assert _refusal(plain, base, probe) == message


def test_a_foreign_adapter_with_broken_tensors_is_refused(
    plain: Path, base: Path, probe: LanguageModelLoss
) -> None:
    """NaN, a missing or an unexpected tensor, and garbage in the file: one line each."""
    path = plain / "adapter_model.safetensors"
    tensors = load_file(path)
    *others, first = sorted(tensors)

    save_file({**tensors, first: torch.full_like(tensors[first], math.nan)}, path)
    assert _refusal(plain, base, probe) == (
        f"'plain/adapter_model.safetensors': tensor '{first}' holds values that are not finite."
    )
    save_file({name: tensors[name] for name in others}, path)
    assert _refusal(plain, base, probe) == (
        f"'plain/adapter_model.safetensors' lacks tensor '{first}'; it does not fit its strategy and base."
    )
    save_file({**tensors, "spare": torch.zeros(1)}, path)
    assert _refusal(plain, base, probe) == (
        "'plain/adapter_model.safetensors' holds the unexpected tensor 'spare'; it does not fit its strategy and base."
    )
    path.write_bytes(b"not tensors")
    assert _refusal(plain, base, probe).startswith(
        "'plain/adapter_model.safetensors' is not a readable safetensors file: "
    )


def test_a_pickled_adapter_is_never_opened(
    plain: Path, base: Path, probe: LanguageModelLoss
) -> None:
    """`adapter_model.bin` can run code when it is opened, so it is not."""
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")

    assert _refusal(plain, base, probe) == (
        "'plain' holds no adapter_model.safetensors; pickled adapters are never opened. "
        "Save it again with safetensors."
    )


def test_a_foreign_adapter_without_a_base_asks_for_one(
    plain: Path, probe: LanguageModelLoss
) -> None:
    """An adapter that names no base is measured against the one that is passed."""
    with pytest.raises(ArtifactError) as caught:
        forget(plain, [probe], use_cpu=True)
    assert str(caught.value) == (
        f"'{plain}' does not name its base. Pass it: --base on the command line, base=… in Python."
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, probe: LanguageModelLoss) -> None:
    """A wrong path is not a hub id and no traceback."""
    with pytest.raises(ArtifactError) as caught:
        forget(tmp_path / "nothing", [probe])
    assert str(caught.value) == (
        f"There is no artifact folder '{tmp_path / 'nothing'}'. Name a run folder, or the adapter/ or model/ folder in it."
    )
