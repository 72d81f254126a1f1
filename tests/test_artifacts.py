"""Artifacts: complete, private, bound to their base, refused when anything was changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from bases import write_base
from huggingface_hub import ModelCardData
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes
from torch import nn

import peftune
from peftune.adapters import Classifier, load, save
from peftune.adapters.artifact import open_artifact
from peftune.adapters.saving import artifact_bytes
from peftune.errors import (
    ArtifactError,
    OutputFolderError,
    PeftuneError,
    TrainingError,
    UsageError,
)
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import REFERENCE_TEXTS, load_tokenizer, tokenizer_sha256
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

LABELS = ("bad", "so-so", "good")
TEXTS = ("what a lovely day", "no", "", "the soup was cold and nobody said sorry " * 3)

TASK = {
    "data": "bundled:posts",
    "split": "test",
    "n": 250,
    "accuracy": 0.75,
    "macro_f1": 0.5,
    "loss": 0.6,
    "ci95": {"accuracy": [0.7, 0.8], "macro_f1": None},
}
FORGETTING = [
    {
        "name": "prose",
        "unit": "bits/byte",
        "forgetting": 0.0125,
        "ci95": [0.01, 0.02],
    }
]


@dataclass(frozen=True)
class Saved:
    """An artifact with the base it belongs to, and the logits of the model that was saved."""

    folder: Path
    base: Path
    logits: NDArray[np.float32]


def _tuned(base: Path, strategy: Strategy) -> nn.Module:
    """Prepare a model and move every weight that learns, as training would."""
    model = prepare_model(str(base), strategy, labels=LABELS, max_length=48, seed=3, use_cpu=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def _logits(model: nn.Module) -> NDArray[np.float32]:
    return predict_logits(model, preparation_of(model).tokenizer, TEXTS, max_length=48)


@pytest.fixture(scope="module")
def original(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Save a LoRA adapter with results beside it."""
    model = _tuned(base, LoRA(r=4))
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    return Saved(save(model, folder, task=TASK, forgetting=FORGETTING), base, _logits(model))


@pytest.fixture
def saved(original: Saved, tmp_path: Path) -> Saved:
    """Copy the adapter, for a test that changes it."""
    folder = tmp_path / "adapter"
    shutil.copytree(original.folder, folder)
    return Saved(folder, original.base, original.logits)


# What is in the folder


def test_an_adapter_folder_holds_four_files_and_nothing_else(original: Saved) -> None:
    """No pickle, no tokenizer, no training state; the byte count is that of the files."""
    names = {path.name for path in original.folder.iterdir()}

    assert names == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "peftune.json",
        "README.md",
    }
    assert artifact_bytes(original.folder) == sum(
        (original.folder / name).stat().st_size for name in names
    )


def test_a_strategy_that_is_no_peft_method_has_no_peft_configuration(
    base: Path, tmp_path: Path
) -> None:
    """The head alone is one tensor, under its own name."""
    folder = save(_tuned(base, HeadOnly()), tmp_path / "head")

    assert {path.name for path in folder.iterdir()} == {
        "adapter_model.safetensors",
        "peftune.json",
        "README.md",
    }
    assert list(load_file(folder / "adapter_model.safetensors")) == ["score.weight"]


@pytest.mark.parametrize("strategy", [LoRA(), HeadOnly(), Full()], ids=lambda s: s.name)
def test_no_byte_of_an_artifact_tells_where_it_was_made(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """No absolute path and no user name: the folder can be shared as it is."""
    folder = save(_tuned(base, strategy), tmp_path / "artifact", task=TASK)
    private = [str(tmp_path), str(base), str(base.parent), str(Path.home()), "pytest-of"]

    for path in folder.rglob("*"):
        content = path.read_bytes()
        for secret in private:
            if len(secret) > 1:
                assert secret.encode() not in content, f"{secret} in {path.name}"


def test_the_manifest_names_everything_that_a_load_needs(original: Saved) -> None:
    """Base, ordered labels, hashes of the files, and how the model behaves."""
    manifest = json.loads((original.folder / "peftune.json").read_text())

    assert manifest["strategy"]["name"] == "lora"
    assert manifest["strategy"]["r"] == 4
    assert (manifest["base"]["name"], manifest["base"]["revision"]) == ("tiny", None)
    assert manifest["labels"] == list(LABELS)
    assert manifest["max_length"] == 48
    assert manifest["files"] == {
        name: hashlib.sha256((original.folder / name).read_bytes()).hexdigest()
        for name in ("README.md", "adapter_config.json", "adapter_model.safetensors")
    }
    assert manifest["behaviour"]["texts"] == list(REFERENCE_TEXTS)
    assert list(manifest["behaviour"]["logits"]) == ["float32"]
    assert np.array(manifest["behaviour"]["logits"]["float32"]).shape == (len(REFERENCE_TEXTS), 3)
    assert (manifest["task"], manifest["forgetting"]) == (TASK, FORGETTING)


# Readable without peftune

_WITHOUT_PEFTUNE = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base, adapter, texts = json.loads(sys.argv[1])
torch.manual_seed(12345)  # another random head
tokenizer = AutoTokenizer.from_pretrained(base)
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=3, pad_token_id=tokenizer.pad_token_id
)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.inference_mode():
    logits = [
        model(input_ids=torch.tensor([tokenizer(text)["input_ids"][:48]])).logits[0].tolist()
        for text in texts
    ]
assert not any(name.split(".")[0] == "peftune" for name in sys.modules)
print("LOGITS", json.dumps(logits))
"""


@pytest.mark.slow
def test_plain_peft_reads_the_adapter_in_a_process_without_peftune(original: Saved) -> None:
    """On a base with another random head it gives the same logits: the head is in the file."""
    texts = [text for text in TEXTS if text]
    argument = json.dumps([str(original.base), str(original.folder), texts])

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WITHOUT_PEFTUNE, argument],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    logits = json.loads(done.stdout.partition("LOGITS")[2])
    expected = [row for text, row in zip(TEXTS, original.logits, strict=True) if text]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_full_model_opens_as_a_transformers_pipeline(base: Path, tmp_path: Path) -> None:
    """The folder of full fine-tuning is a plain checkpoint with its tokenizer and label names."""
    model = _tuned(base, Full())
    folder = save(model, tmp_path / "model")
    texts = [TEXTS[0], TEXTS[1]]

    found = transformers.pipeline("text-classification", str(folder), device="cpu")(texts)
    expected = load(folder, use_cpu=True).predict(texts)

    assert [row["label"] for row in found] == [row.label for row in expected]
    assert [row["score"] for row in found] == pytest.approx(
        [row.score for row in expected], rel=1e-5
    )
    assert {row["label"] for row in found} <= set(LABELS)


# Loading


@pytest.mark.parametrize(
    "strategy",
    [LoRA(r=4), LoRA(use_dora=True), HeadOnly(), Full(), LoRA8bit()],
    ids=["lora", "dora", "head-only", "full", "lora-8bit"],
)
def test_a_saved_model_loads_with_equal_logits(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """What was saved is what is loaded, bit for bit, in float and in int8."""
    model = _tuned(base, strategy)
    folder = save(model, tmp_path / "artifact")

    loaded = load(folder, base=str(base), use_cpu=True)

    assert loaded.logits(TEXTS).tolist() == _logits(model).tolist()
    assert loaded.labels == LABELS


def test_a_refused_load_leaves_the_base_as_it_was(saved: Saved) -> None:
    """Files of the base are only read, and a model of it in memory is another one."""
    before = {path.name: path.read_bytes() for path in saved.base.iterdir()}
    _change_manifest(saved, strategy={"name": "lora", "r": 4, "lora_alpha": 64.0})

    with pytest.raises(ArtifactError):
        load(saved.folder, base=str(saved.base), use_cpu=True)

    assert {path.name: path.read_bytes() for path in saved.base.iterdir()} == before


def test_tensors_that_do_not_fit_leave_the_model_untouched(saved: Saved) -> None:
    """Every tensor is checked before the first one is copied."""
    from peftune.adapters.tensors import insert_tensors

    model = _tuned(saved.base, LoRA(r=4))
    before = _logits(model)
    tensors = load_file(saved.folder / "adapter_model.safetensors")
    last = max(tensors)

    with pytest.raises(ArtifactError):
        insert_tensors(model, to_bytes({**tensors, last: tensors[last] * math.nan}), source="file")

    assert _logits(model).tolist() == before.tolist()


def _refusal(saved: Saved, base: Path | None = None) -> str:
    with pytest.raises(PeftuneError) as caught:
        load(saved.folder, base=str(base or saved.base), use_cpu=True)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{saved.folder.parent}/", "")


def _change_manifest(
    saved: Saved,
    *,
    fitting: bool = True,
    **values: Any,  # noqa: ANN401 - values of a JSON file
) -> None:
    """Edit the manifest; with a new digest, as someone would who wants the change unnoticed."""
    path = saved.folder / "peftune.json"
    changed = {**json.loads(path.read_text()), **values}
    digest = changed.pop("sha256")
    if fitting:
        digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
    laid_out = json.dumps({**changed, "sha256": digest}, indent=1, ensure_ascii=False)
    path.write_text(f"{laid_out}\n", encoding="utf-8")


def _renew_digest(saved: Saved) -> None:
    """Bring the manifest's hashes up to date, as someone would who wants a change unnoticed."""
    listed = json.loads((saved.folder / "peftune.json").read_text())["files"]
    hashes = {
        name: hashlib.sha256((saved.folder / name).read_bytes()).hexdigest() for name in listed
    }
    _change_manifest(saved, files=hashes)


def _change_tensors(
    saved: Saved, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = saved.folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    _renew_digest(saved)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "README.md"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_flipped_bit_is_refused(name: str, place: float, saved: Saved) -> None:
    """At the beginning, in the middle or at the end of any file."""
    path = saved.folder / name
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)

    assert _refusal(saved) == (
        f"'adapter/{name}' is not the file that was saved: its hash differs from the manifest's. "
        "Fetch it again."
    )


def test_any_flipped_bit_of_the_manifest_is_refused(saved: Saved) -> None:
    """All along the file: no JSON, no manifest, another one, or the same in other bytes."""
    path = saved.folder / "peftune.json"
    content = path.read_bytes()

    for place in range(0, len(content), 61):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        path.write_bytes(flipped)
        assert _refusal(saved).startswith("'adapter/peftune.json' ")


@pytest.mark.parametrize(
    "values",
    [
        {"labels": ["good", "so-so", "bad"]},
        {"strategy": {"name": "lora", "r": 4, "lora_alpha": 17.0}},
        {"max_length": 8},
        {"task": {**TASK, "accuracy": 0.99}},
        {"forgetting": []},
        {"sha256": None},
    ],
    ids=["labels", "alpha", "length", "accuracy", "forgetting", "digest"],
)
def test_an_edited_manifest_is_refused(values: dict[str, Any], saved: Saved) -> None:
    """Permuted labels turn every verdict round, and no tensor would show it."""
    _change_manifest(saved, fitting=False, **values)

    assert _refusal(saved) == (
        "'adapter/peftune.json' is not the manifest that was saved: its content does not fit its "
        "hash. Fetch it again."
    )


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "README.md"])
def test_a_missing_file_is_refused(name: str, saved: Saved) -> None:
    """An artifact that was copied in part is not loaded in part."""
    (saved.folder / name).unlink()

    assert _refusal(saved) == (
        f"'adapter/{name}' is missing; the artifact is incomplete or was changed. Fetch it again."
    )


def test_a_folder_without_a_manifest_is_no_artifact(saved: Saved) -> None:
    """Nothing in the folder can stand for the manifest; what is left of PEFT's needs the labels."""
    (saved.folder / "peftune.json").unlink()

    assert _refusal(saved) == (
        "'adapter' carries no manifest, so it does not say to which base and labels it belongs. "
        "Pass both: base=… and labels=[…]."
    )
    (saved.folder / "adapter_config.json").unlink()
    assert _refusal(saved) == (
        "'adapter' holds no peftune.json, so it is not an artifact of peftune. "
        "Name a run folder, or the adapter/ or model/ folder in it."
    )


def test_a_run_folder_stands_for_its_artifact(saved: Saved) -> None:
    """What a run printed as its folder is what people pass on."""
    inside, run = (
        load(folder, base=str(saved.base), use_cpu=True)
        for folder in (saved.folder, saved.folder.parent)
    )

    assert run.manifest == inside.manifest
    assert open_artifact(saved.folder.parent).name == str(saved.folder)


def test_the_folder_of_a_comparison_is_answered_with_the_artifacts_in_it(
    saved: Saved, tmp_path: Path
) -> None:
    """Several runs lie in it, and only the person knows which is meant."""
    comparison = tmp_path / "comparison"
    comparison.mkdir()
    (comparison / "comparison.json").write_text("{}", encoding="utf-8")
    for name in ("lora-seed0", "lora-seed1"):
        shutil.copytree(saved.folder, comparison / name / "adapter")

    with pytest.raises(ArtifactError) as caught:
        load(comparison)

    assert str(caught.value) == (
        f"'{comparison}' is the folder of a comparison. Name one of its artifacts: "
        f"'{comparison / 'lora-seed0' / 'adapter'}', '{comparison / 'lora-seed1' / 'adapter'}'."
    )


def test_a_run_that_has_not_finished_has_no_artifact(tmp_path: Path) -> None:
    """The folder holds a recipe and a report, and nothing to load yet."""
    for name in ("recipe.yaml", "report.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")

    with pytest.raises(ArtifactError) as caught:
        load(tmp_path)

    assert str(caught.value) == (
        f"'{tmp_path}' holds no peftune.json, so it is not an artifact of peftune. It is the folder "
        "of a run that has not finished; run the same command again."
    )


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    """Neither a path that leads nowhere nor a file is an artifact."""
    (tmp_path / "file").write_text("text")

    for path in (tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(ArtifactError) as caught:
            load(path)
        assert str(caught.value) == (
            f"There is no artifact folder '{path}'. Name a run folder, or the adapter/ or model/ folder in it."
        )


@pytest.mark.parametrize("name", ["adapter_model.bin", "tokenizer.json", ".hidden", "folder"])
def test_an_extra_file_is_refused(name: str, saved: Saved) -> None:
    """Nothing rides along: what peftune did not write does not belong there."""
    path = saved.folder / name
    path.mkdir() if name == "folder" else path.write_text("{}")

    assert _refusal(saved) == (
        f"'adapter/{name}' does not belong into an artifact, and is not opened. Remove it."
    )


def test_a_symbolic_link_is_refused(saved: Saved, tmp_path: Path) -> None:
    """Also one whose content has the right hash: a link can change its target later."""
    path = saved.folder / "adapter_model.safetensors"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert _refusal(saved) == (
        "'adapter/adapter_model.safetensors' is not a plain file, and is not opened."
    )


def test_a_manifest_behind_a_symbolic_link_is_refused(saved: Saved, tmp_path: Path) -> None:
    """The manifest is the root of trust, and is a plain file too."""
    path = saved.folder / "peftune.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert _refusal(saved) == "'adapter/peftune.json' is not a plain file, and is not opened."


NOT_REPRODUCED = (
    "'adapter' does not reproduce the logits recorded when it was saved; its tensors and its "
    "manifest do not belong together, or library versions differ in what they compute. "
    "It is not loaded."
)


def test_an_edited_alpha_is_refused(saved: Saved) -> None:
    """The tensors fit and every hash was made to; what PEFT would read, or the logits, do not."""
    _change_manifest(saved, strategy={"name": "lora", "r": 4, "lora_alpha": 64})

    assert _refusal(saved) == (
        "'adapter/adapter_config.json' says 'lora_alpha' otherwise than the strategy does; plain "
        "PEFT would load another model than peftune. Fetch the adapter again."
    )
    path = saved.folder / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 16', '"lora_alpha": 64'))
    _change_manifest(
        saved,
        files={
            **json.loads((saved.folder / "peftune.json").read_text())["files"],
            path.name: hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    )
    assert _refusal(saved) == NOT_REPRODUCED


def test_permuted_head_rows_are_refused(saved: Saved) -> None:
    """A head with its rows in another order is another classifier."""

    def swap(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = "base_model.model.score.weight"
        return {**tensors, name: tensors[name].flip(0).contiguous()}

    _change_tensors(saved, swap)

    assert _refusal(saved) == NOT_REPRODUCED


HEAD = "base_model.model.score.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {**t, HEAD: t[HEAD] * math.nan},
            f"'adapter/adapter_model.safetensors': tensor '{HEAD}' holds values that are not finite.",
        ),
        (
            lambda t: {**t, "spare": torch.zeros(1)},
            "'adapter/adapter_model.safetensors' holds the unexpected tensor 'spare'; it does not fit its strategy and base.",
        ),
        (
            lambda t: {name: tensor for name, tensor in t.items() if name != HEAD},
            f"'adapter/adapter_model.safetensors' lacks tensor '{HEAD}'; it does not fit its strategy and base.",
        ),
        (
            lambda t: {**t, HEAD: t[HEAD][:2].contiguous()},
            f"'adapter/adapter_model.safetensors': tensor '{HEAD}' is F32 [2, 32]; it must be F32 [3, 32].",
        ),
        (
            lambda t: {**t, HEAD: t[HEAD].half()},
            f"'adapter/adapter_model.safetensors': tensor '{HEAD}' is F16 [3, 32]; it must be F32 [3, 32].",
        ),
    ],
    ids=["NaN", "extra", "missing", "shape", "type"],
)
def test_tensors_are_checked_one_by_one(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
    saved: Saved,
) -> None:
    """Name, shape, type and values, even where the hashes were made to fit."""
    _change_tensors(saved, change)

    assert _refusal(saved) == message


def test_another_base_of_the_same_shape_is_refused(saved: Saved, tmp_path: Path) -> None:
    """Every tensor would fit, and every number would be wrong."""
    other = write_base(tmp_path / "other", seed=1)

    message = _refusal(saved, other)

    assert message.startswith("'adapter' belongs to the base 'tiny' with fingerprint ")
    assert message.endswith("… and is another model. Pass the base that it was trained on.")


def test_another_tokenizer_is_refused(saved: Saved, tmp_path: Path) -> None:
    """The same weights read other words: the base's fingerprint fits, the tokenizer's does not."""
    other = write_base(tmp_path / "other", reverse_bytes=True)

    assert _refusal(saved, other) == (
        f"The tokenizer of '{other}' reads text differently from the one that 'adapter' was "
        "trained with. Pass the base that it was trained on."
    ).replace(f"{tmp_path}/", "")


def test_tokenizers_of_one_vocabulary_that_merge_otherwise_are_two(
    tiny_base: Path, tmp_path: Path
) -> None:
    """They read some texts differently, though not the one that is hashed."""
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    parts = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    parts["model"]["merges"] = parts["model"]["merges"][:-500]
    (other / "tokenizer.json").write_text(json.dumps(parts), encoding="utf-8")

    one, two = load_tokenizer(tiny_base), load_tokenizer(other)

    assert one.get_vocab() == two.get_vocab()
    assert tokenizer_sha256(one) != tokenizer_sha256(two)
    assert tokenizer_sha256(one) == tokenizer_sha256(load_tokenizer(tiny_base))


def test_an_unknown_strategy_is_refused(saved: Saved) -> None:
    """An adapter of a plug-in that is not installed is answered with the strategies that are."""
    _change_manifest(saved, strategy={"name": "lroa"})

    assert _refusal(saved).startswith("Unknown strategy 'lroa'. Did you mean 'lora'? Available: ")


def test_an_impossible_hyper_parameter_is_refused(saved: Saved) -> None:
    """Fields go through the strategy's own checks."""
    _change_manifest(saved, strategy={"name": "lora", "r": -1})

    assert _refusal(saved) == (
        "'adapter' names strategy 'lora' with an impossible field r: "
        "Input should be greater than 0."
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pad_token_id": 0,', '"pad_token_id": 0, "pad_token_id": 0,', "is not valid JSON: the key 'pad_token_id' stands twice."),
        ('"n": 250,', '"n": NaN,', "is not valid JSON: NaN is not a JSON number."),
        ('"n": 250,', '"n": -Infinity,', "is not valid JSON: -Infinity is not a JSON number."),
        ('"kind": "adapter",', '"kind": "adapter", "spare": 1,', "is not a valid manifest: spare: Extra inputs are not permitted."),
        ('"kind": "adapter",', "", "is not a valid manifest: kind: Field required."),
        ('"format_version": 2,', "", "is not the manifest that was saved: its content does not fit its hash. Fetch it again."),
        ('"format_version": 2,', '"format_version": "2",', "is not a valid manifest: format_version: Input should be 2."),
        ('"format_version": 2,', '"format_version": 1,', "has format 1; this peftune reads format 2: save it again."),
        ('"format_version": 2,', '"format_version": 3,', "has format 3; this peftune reads format 2: upgrade peftune."),
        ('"kind": "adapter",', '"kind": "ada\\u001b[2Jpter",', "is not valid JSON: a string holds the hidden character U+001B."),
        ('"n": 250,', '"n": 1e999,', "is not valid JSON: 1e999 is beyond every number."),
        ('"n": 250,', f'"n": {"9" * 5000},', "is not valid JSON: a number has 5000 digits."),
        ('"pad_token_id": 0,', '"pad_token_id": "0",', "is not a valid manifest: pad_token_id: Input should be a valid integer."),
    ],
)  # fmt: skip
def test_the_manifest_is_read_strictly(old: str, new: str, message: str, saved: Saved) -> None:
    """No duplicate keys, no NaN, no unknown or missing keys, no other type or version."""
    path = saved.folder / "peftune.json"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))

    assert _refusal(saved) == f"'adapter/peftune.json' {message}"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"", b"[]"])
def test_garbage_for_a_manifest_is_refused(content: bytes, saved: Saved) -> None:
    """Nesting without end, other bytes than text, nothing at all: one line each."""
    (saved.folder / "peftune.json").write_bytes(content)

    assert _refusal(saved).startswith("'adapter/peftune.json' is no")


def test_a_manifest_of_many_megabytes_is_not_parsed(saved: Saved) -> None:
    """A manifest has a few kilobytes."""
    size = (1 << 20) + 1
    (saved.folder / "peftune.json").write_bytes(b" " * size)

    assert _refusal(saved) == (
        f"'adapter/peftune.json' has {size} bytes, and may have 1048576; it is not read."
    )


# Saving


class _Interrupted(KeyboardInterrupt):
    """What the fault injector raises: not an Exception, as Ctrl-C is none."""


def _interrupt(
    monkeypatch: pytest.MonkeyPatch, step: int, fault: type[BaseException]
) -> list[str]:
    """Raise at the given call of fsync or rename, counting both; return the calls made."""
    calls: list[str] = []

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - of any os function
            calls.append(name)
            if len(calls) == step:
                message = f"interrupted at {name}"
                raise fault(message)
            return function(*arguments, **options)

        return counted

    for name in ("fsync", "rename", "replace"):
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    return calls


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("fault", [_Interrupted, OSError])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_save_that_is_interrupted_anywhere_leaves_the_old_artifact_or_the_new(
    fault: type[BaseException],
    replacing: bool,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each step towards the disk: one whole artifact (or none yet), and no folder beside it."""
    model = _tuned(base, HeadOnly())
    [head] = trainable_parameters(model).values()
    with torch.no_grad():
        old = _contents(save(model, tmp_path / "old"))
        head.mul_(2.0)
        new = _contents(save(model, tmp_path / "new"))
    steps = 0
    calls = ["all"]
    while len(calls) >= steps:
        steps += 1
        folder = tmp_path / f"{fault.__name__}-{steps}" / "adapter"
        if replacing:
            shutil.copytree(tmp_path / "old", folder)
        with monkeypatch.context() as patch, contextlib.suppress(fault):
            calls = _interrupt(patch, steps, fault)
            save(model, folder)
        left = [path.name for path in folder.parent.iterdir()]
        assert left in ([["adapter"]] if replacing else [[], ["adapter"]])
        if left:
            assert _contents(folder) in ([old, new] if replacing else [new])

    assert steps > 5  # three files, the folder, the rename and the parent are steps
    assert _contents(folder) == new
    assert old != new


def test_a_save_refuses_a_folder_with_other_content(base: Path, tmp_path: Path) -> None:
    """Nobody's files are replaced by an adapter."""
    model = _tuned(base, HeadOnly())
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter-1.txt").write_text("dear")

    for target in (folder, folder / "chapter-1.txt"):
        with pytest.raises(OutputFolderError) as caught:
            save(model, target)
        assert str(caught.value) == (
            f"'{target}' exists and is not an artifact of peftune. "
            "Choose another folder, or remove it."
        )
    assert (folder / "chapter-1.txt").read_text() == "dear"


def test_an_empty_folder_and_an_older_artifact_are_replaced(base: Path, tmp_path: Path) -> None:
    """Saving twice leaves the second."""
    model = _tuned(base, HeadOnly())
    (tmp_path / "adapter").mkdir()

    save(model, tmp_path / "adapter")
    with torch.no_grad():
        next(iter(trainable_parameters(model).values())).add_(1.0)
    save(model, tmp_path / "adapter")

    loaded = load(tmp_path / "adapter", base=str(base), use_cpu=True)
    assert loaded.logits(TEXTS).tolist() == _logits(model).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_weights_that_are_not_finite_are_never_saved(base: Path, tmp_path: Path) -> None:
    """A diverged model leaves no artifact."""
    model = _tuned(base, HeadOnly())
    with torch.no_grad():
        next(iter(trainable_parameters(model).values()))[0, 0] = math.inf

    with pytest.raises(TrainingError) as caught:
        save(model, tmp_path / "adapter")
    assert str(caught.value) == (
        "The weight 'score.weight' holds values that are not finite: training has diverged, and "
        "nothing is saved. Lower the learning rate."
    )
    assert not any(tmp_path.iterdir())


def test_a_model_that_peftune_did_not_prepare_cannot_be_saved(base: Path, tmp_path: Path) -> None:
    """Its base and labels are unknown."""
    model = transformers.GPT2ForSequenceClassification.from_pretrained(base)

    with pytest.raises(UsageError) as caught:
        save(model, tmp_path / "adapter")
    assert str(caught.value) == (
        "This GPT2ForSequenceClassification was not made by peftune.prepare, so its base and "
        "labels are unknown. Pass the model that peftune.prepare returned."
    )


@pytest.mark.parametrize("strategy", [LoRA(), Full()], ids=["lora", "full"])
def test_saving_leaves_the_model_as_it_was(strategy: Strategy, base: Path, tmp_path: Path) -> None:
    """Training can go on after a save."""
    model = _tuned(base, strategy).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    use_cache, learning = model.config.use_cache, list(trainable_parameters(model))  # type: ignore[union-attr]

    save(model, tmp_path / "artifact")

    assert model.training
    assert model.config.use_cache == use_cache  # type: ignore[union-attr]
    assert list(trainable_parameters(model)) == learning
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


# The model card


def test_the_cards_front_matter_is_read_by_the_hub(original: Saved) -> None:
    """`model-index` holds accuracy, F1 and forgetting; the library is the one that opens it."""
    values = huggingface_hub.metadata_load(original.folder / "README.md")

    assert values is not None
    data = ModelCardData(**values)
    assert data.library_name == "peft"
    assert data.pipeline_tag == "text-classification"
    assert set(data.tags or []) >= {"peftune", "lora"}
    [entry] = values["model-index"]
    learned, forgotten = entry["results"]
    assert learned["task"] == {"type": "text-classification"}
    assert {metric["type"]: metric["value"] for metric in learned["metrics"]} == {
        "accuracy": 0.75,
        "f1": 0.5,
    }
    assert forgotten["task"] == {"type": "text-generation"}
    assert forgotten["metrics"] == [
        {
            "type": "forgetting",
            "name": "forgetting in bits/byte (positive is worse)",
            "value": 0.0125,
        }
    ]


def test_the_card_tells_the_results_with_their_intervals(original: Saved) -> None:
    """Value, interval and direction, for people."""
    card = (original.folder / "README.md").read_text()

    assert "| accuracy on 250 test rows | 0.750 | 0.700 to 0.800 |" in card
    assert "| macro F1 | 0.500 | - |" in card
    assert "| measured | value | 95% interval over rows or documents, of this one model |" in card
    assert (
        "| forgetting on prose, bits/byte (positive is worse) | +0.0125 | +0.0100 to +0.0200 |"
        in card
    )


def test_a_card_without_results_says_so(base: Path, tmp_path: Path) -> None:
    """An adapter saved from a script of one's own has no model-index."""
    folder = save(_tuned(base, HeadOnly()), tmp_path / "adapter")

    values = huggingface_hub.metadata_load(folder / "README.md")

    assert values is not None
    assert "model-index" not in values
    assert values["library_name"] == "peftune"
    assert (
        "Not recorded: it was saved outside a run of peftune."
        in (folder / "README.md").read_text()
    )


# Predicting


@pytest.fixture(scope="module")
def classifier(original: Saved) -> Classifier:
    """Load the adapter."""
    return peftune.load(original.folder, base=str(original.base), use_cpu=True)


def test_predictions_come_in_the_order_of_the_texts(
    classifier: Classifier, original: Saved
) -> None:
    """Texts are batched by length inside, and come back where they stood."""
    predictions = classifier.predict(TEXTS, batch_size=2)

    for prediction, row in zip(predictions, original.logits, strict=True):
        expected = torch.tensor(row).double().softmax(-1)
        assert prediction.label == LABELS[int(expected.argmax())]
        assert prediction.score == pytest.approx(float(expected.max()), rel=1e-5)
        assert list(prediction.probabilities) == list(LABELS)
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-12)
        assert prediction.probabilities[prediction.label] == prediction.score


def test_no_texts_have_no_predictions(classifier: Classifier) -> None:
    """An empty list gives an empty list."""
    assert classifier.predict([]) == []


def test_a_bare_string_is_refused(classifier: Classifier) -> None:
    """A string is a sequence of strings too, and would give one prediction a character."""
    with pytest.raises(UsageError) as caught:
        classifier.predict("what a lovely day")
    assert str(caught.value) == (
        "predict takes a list of strings (got one string); for one text write predict([text])."
    )


def test_texts_that_are_no_strings_are_refused(classifier: Classifier) -> None:
    """A missing text in a list is named, with its place."""
    with pytest.raises(UsageError) as caught:
        classifier.predict(["fine", None])  # type: ignore[list-item]
    assert str(caught.value) == ("predict takes a list of strings (got NoneType at index 1).")
    with pytest.raises(UsageError) as caught:
        classifier.predict(None)  # type: ignore[arg-type]
    assert str(caught.value) == "predict takes a list of strings (got NoneType)."
