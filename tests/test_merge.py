"""`peftune.adapters.merge` and `peftune adapter merge`: one plain checkpoint, or nothing at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel
from tuned import moved

import peftune
from peftune.adapters.loading import load_prepared
from peftune.adapters.manifest import Manifest, write_manifest
from peftune.adapters.saving import save
from peftune.cli.main import _exit_code
from peftune.errors import OutputFolderError, PeftuneError, UsageError, VerificationError
from peftune.models.merging import UNMERGEABLE, merged_into_base, write_classifier
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import REFERENCE_TEXTS, encode_texts
from peftune.recipe.task_type import TaskName
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

LABELS = ("bad", "so-so", "good")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a LoRA adapter."""
    return save(moved(base, LoRA(r=4)), tmp_path_factory.mktemp("saved") / "lora")


def _recorded(folder: Path) -> Any:  # noqa: ANN401 - an array
    manifest = json.loads((folder / "peftune.json").read_text())
    return np.array(manifest["behaviour"]["logits"]["float32"])


def _alone(model: nn.Module, tokenizer: Any) -> Any:  # noqa: ANN401 - an array
    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS), max_length=48)
    with torch.inference_mode():
        return np.array([model(torch.tensor([ids])).logits[0].float().tolist() for ids in encoded])


# What is written


def test_a_merge_is_a_plain_checkpoint_and_a_card(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    """No manifest, no adapter and no pickle: nothing in it asks for peftune."""
    merged = peftune.adapters.merge(adapter, tmp_path / "merged", base=str(base), use_cpu=True)

    assert merged.folder == tmp_path / "merged"
    assert {path.name for path in merged.folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((merged.folder / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "so-so", "2": "good"}
    assert config["label2id"] == {"bad": 0, "so-so": 1, "good": 2}
    assert config["pad_token_id"] == 0
    assert config["dtype"] == "float32"
    assert config["use_cache"] is True
    assert "quantization_config" not in config
    assert AutoTokenizer.from_pretrained(merged.folder).pad_token_id == 0


@pytest.mark.parametrize("lm", [False, True], ids=["classifier", "lm"])
def test_no_byte_of_a_merge_tells_where_it_was_made(
    lm: bool, adapter: Path, base: Path, tmp_path: Path
) -> None:
    """No absolute path and no user name: the folder can be shared as it is."""
    merged = peftune.adapters.merge(
        adapter, tmp_path / "merged", base=str(base), lm=lm, use_cpu=True
    )
    private = [str(tmp_path), str(base), str(adapter), str(Path.home()), "pytest-of"]

    for path in merged.folder.iterdir():
        content = path.read_bytes()
        for secret in private:
            if len(secret) > 1:
                assert secret.encode() not in content, f"{secret} in {path.name}"


@pytest.mark.parametrize(
    "strategy",
    [LoRA(r=4, use_dora=True), LoRA(use_rslora=True, target_modules=("wte", "c_attn"))],
    ids=["dora", "embedding"],
)
def test_what_a_merge_says_of_itself_is_true(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """The largest difference is that of the checkpoint on disk, opened by transformers."""
    folder = save(moved(base, strategy), tmp_path / "adapter")

    merged = peftune.adapters.merge(folder, tmp_path / "merged", base=str(base), use_cpu=True)

    model = GPT2ForSequenceClassification.from_pretrained(merged.folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    difference = np.abs(_alone(model, tokenizer) - _recorded(folder)).max()
    assert merged.difference.largest == pytest.approx(difference, abs=1e-6)
    assert merged.difference.largest <= 1e-4 <= merged.allowed
    assert (merged.dtype, merged.lm, merged.difference.label_flips) == ("float32", False, 0.0)


def test_an_adapter_of_int8_is_merged_into_the_base_in_float32(base: Path, tmp_path: Path) -> None:
    """Into the base's own weights, and not into what int8 has made of them."""
    folder = save(moved(base, LoRA8bit(r=4)), tmp_path / "adapter")

    merged = peftune.adapters.merge(folder, tmp_path / "merged", base=str(base), use_cpu=True)

    found = load_file(merged.folder / "model.safetensors")
    own = load_file(base / "model.safetensors")
    assert torch.equal(found["transformer.wte.weight"], own["wte.weight"])
    assert merged.difference.largest <= 1e-4
    weights = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.transformer.h.0.mlp.c_fc"
    update = weights[f"{prefix}.lora_B.weight"] @ weights[f"{prefix}.lora_A.weight"]  # (out, in)
    torch.testing.assert_close(
        found["transformer.h.0.mlp.c_fc.weight"],
        own["h.0.mlp.c_fc.weight"] + 16 / 4 * update.T,
    )


def test_a_merge_in_bfloat16_is_half_as_large_and_says_how_far_it_is_off(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    """Rounded once, at the end: each weight is that of the merge in float32, rounded."""
    whole = peftune.adapters.merge(adapter, tmp_path / "float32", base=str(base), use_cpu=True)
    half = peftune.adapters.merge(
        adapter, tmp_path / "bfloat16", base=str(base), dtype="bfloat16", use_cpu=True
    )

    first, second = (load_file(one.folder / "model.safetensors") for one in (whole, half))
    assert set(first) == set(second)
    for name, weight in first.items():
        assert torch.equal(second[name], weight.to(torch.bfloat16)), name
    assert 1e-4 < half.difference.largest <= half.allowed
    model = GPT2ForSequenceClassification.from_pretrained(half.folder)
    assert model.dtype == torch.bfloat16
    logits = _alone(model, AutoTokenizer.from_pretrained(half.folder))
    assert half.difference.largest == pytest.approx(
        np.abs(logits - _recorded(adapter)).max(), abs=1e-6
    )
    flips = logits.argmax(1) != _recorded(adapter).argmax(1)
    assert half.difference.label_flips == np.mean(flips)


@pytest.mark.parametrize("strategy", [LoRA(r=4), Full()], ids=["lora", "full"])
def test_an_artifact_of_language_modeling_merges_into_a_language_model(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """It has no head, so there is nothing else to merge it into."""
    folder = save(moved(base, strategy, "language-modeling", ()), tmp_path / "artifact")

    merged = peftune.adapters.merge(folder, tmp_path / "merged", base=str(base), use_cpu=True)

    assert merged.lm
    assert merged.difference.label_flips is None
    model = GPT2LMHeadModel.from_pretrained(merged.folder, dtype=torch.float32)
    recorded = json.loads((folder / "peftune.json").read_text())["behaviour"]["logits"]["float32"]
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    ids = encode_texts(tokenizer, list(REFERENCE_TEXTS), max_length=48)[3]
    with torch.inference_mode():
        logits = model(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0, :-1]
    found = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
    np.testing.assert_allclose(found.numpy(), recorded[3], atol=1e-4)


@pytest.mark.parametrize(
    ("task", "labels", "scores"),
    [("multi-label", LABELS, "sigmoid"), ("regression", ("stars",), "none")],
)
def test_other_kinds_of_task_keep_their_kind(
    task: TaskName, labels: tuple[str, ...], scores: str, base: Path, tmp_path: Path
) -> None:
    """A pipeline gives each label a probability of its own, and a number as it is."""
    folder = save(moved(base, LoRA(r=4), task, labels), tmp_path / "adapter")

    merged = peftune.adapters.merge(folder, tmp_path / "merged", base=str(base), use_cpu=True)

    classify: Any = transformers.pipeline("text-classification", str(merged.folder), device="cpu")
    [found] = classify([REFERENCE_TEXTS[0]], top_k=None)
    logits = _recorded(folder)[0]
    expected = 1 / (1 + np.exp(-logits)) if scores == "sigmoid" else logits
    assert {row["label"]: row["score"] for row in found} == pytest.approx(
        dict(zip(labels, expected, strict=True)), abs=1e-5
    )


def test_the_card_says_what_was_merged_and_how_close_it_is(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    """The digest leads back to the artifact and its numbers."""
    merged = peftune.adapters.merge(adapter, tmp_path / "merged", base=str(base), use_cpu=True)

    card = (merged.folder / "README.md").read_text()
    values = huggingface_hub.metadata_load(merged.folder / "README.md")
    assert values == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["peftune", "lora", "merged"],
    }
    assert json.loads((adapter / "peftune.json").read_text())["sha256"] in card
    assert "A classifier of bad, so-so, good." in card
    assert f"is {merged.difference.largest:.2e}\n(allowed: {merged.allowed:.2e})." in card
    assert "Of these texts 0 have another label than there." in card


# What is refused


def _refusal(kind: type[PeftuneError], *arguments: Any, **options: Any) -> str:  # noqa: ANN401 - arguments of merge
    with pytest.raises(kind) as caught:
        peftune.adapters.merge(*arguments, use_cpu=True, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("int8", "Merging into a base held in 8-bit integers rounds base and update together anew, and logits change by 0.05 to 0.13. Merge in float32, and quantize what comes of it if you must. Available: bfloat16, float32."),
        ("float23", "A merged checkpoint is not written as 'float23'. Did you mean 'float32'? Available: bfloat16, float32."),
    ],
)  # fmt: skip
def test_a_type_that_corrupts_is_refused(
    dtype: str, message: str, adapter: Path, base: Path, tmp_path: Path
) -> None:
    """By its name, with the reason; nothing is written."""
    output = tmp_path / "merged"

    assert _refusal(UsageError, adapter, output, base=str(base), dtype=dtype) == message
    assert not output.exists()


def test_a_base_held_in_integers_is_never_merged_into(base: Path) -> None:
    """Whoever calls: the model is as it was."""
    model = moved(base, LoRA8bit(r=4))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(UsageError) as caught:
        merged_into_base(model)
    assert str(caught.value) == (
        "What the strategy 'lora-8bit' learned is not merged into a base held in integers: it would "
        "be rounded anew, and logits change by 0.05 to 0.13. Merge into the base held in float32."
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_table_of_methods_names_methods_of_peft() -> None:
    """A name that PEFT does not have would refuse nothing."""
    assert set(UNMERGEABLE) <= {method.value for method in peft.PeftType}


def _wrapped(base: Path, config: peft.PeftConfig) -> nn.Module:
    """Wrap a base as a plug-in might, with what `prepare` leaves on it."""
    plain = moved(base, HeadOnly())
    model: nn.Module = peft.get_peft_model(
        GPT2ForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=0), config
    )
    model.peftune_preparation = preparation_of(plain)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2), "its method is PEFT's PREFIX_TUNING, and it learns virtual tokens in front of every text, which are not weights of a base"),
        (peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2), "its method is PEFT's PROMPT_TUNING, and it learns virtual tokens in front of every text, which are not weights of a base"),
        (peft.LoraConfig(task_type="SEQ_CLS", r=2, fan_in_fan_out=True, init_lora_weights="pissa_niter_2"), "its method is PEFT's LORA with init_lora_weights pissa_niter_2, which changes the base by a random decomposition that no load repeats"),
    ],
    ids=["prefix", "prompt", "pissa"],
)  # fmt: skip
def test_a_method_that_no_merge_is_right_of_is_refused_by_name(
    config: peft.PeftConfig, reason: str, base: Path
) -> None:
    """Whatever strategy uses it; the message says what it is still good for."""
    with pytest.raises(UsageError) as caught:
        merged_into_base(_wrapped(base, config))
    assert str(caught.value) == (
        f"What the strategy 'head-only' learned cannot be written as weights of a plain GPT-2: {reason}. "
        "It is of use as an adapter only: through peftune.load, or as the start of a run of the same strategy."
    )


def test_weights_beside_those_of_a_gpt2_are_refused(base: Path) -> None:
    """A strategy that adds modules of its own has more to say than a plain GPT-2 can hold."""
    model = moved(base, HeadOnly())
    model.get_submodule("transformer.h.0").add_module("extra", nn.Linear(32, 32))

    with pytest.raises(UsageError, match="it leaves weights of its own beside them"):
        merged_into_base(model)


def test_a_folder_that_is_not_empty_is_never_replaced(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    """Neither somebody's files nor the artifact itself."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("dear")

    for output in (tmp_path / "thesis", tmp_path / "thesis" / "chapter", adapter):
        assert _refusal(OutputFolderError, adapter, output, base=str(base)) == (
            f"'{output}' exists and is not empty. Choose another folder, or remove it."
        )
    inside = adapter / "merged"
    assert _refusal(OutputFolderError, adapter, inside, base=str(base)) == (
        f"'{inside}' lies in the artifact itself, which is not changed. Choose another output folder."
    )
    assert (tmp_path / "thesis" / "chapter").read_text() == "dear"


def _off_record(folder: Path, output: Path, change: float) -> Path:
    shutil.copytree(folder, output)
    values = json.loads((folder / "peftune.json").read_text())
    values.pop("sha256")
    values["behaviour"]["logits"]["float32"][2][1] += change
    (output / "peftune.json").unlink()
    write_manifest(Manifest.model_validate(values), output)
    return output


def test_an_artifact_that_is_off_its_record_is_not_merged(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    """What comes of it would be a faithful copy of something wrong."""
    folder = _off_record(adapter, tmp_path / "edited", 0.5)
    output = tmp_path / "merged"

    message = _refusal(VerificationError, folder, output, base=str(base))

    assert message.startswith(f"'{folder}' is off its own record by 0.5, and ")
    assert message.endswith(
        " is allowed in float32. Nothing is merged; see peftune adapter verify."
    )
    assert not output.exists()


def test_a_checkpoint_that_is_off_its_artifact_is_not_written(
    adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault between the merge and the file, here one weight that is lost: 2, and no folder."""

    def forgetful(
        model: Any,  # noqa: ANN401 - as the original
        tokenizer: Any,  # noqa: ANN401 - as the original
        folder: Path,
        *,
        dtype: torch.dtype,
    ) -> None:
        with torch.no_grad():
            model.transformer.h[0].attn.c_attn.weight.zero_()
        write_classifier(model, tokenizer, folder, dtype=dtype)

    monkeypatch.setattr("peftune.adapters.merged_checkpoint.write_classifier", forgetful)
    output = tmp_path / "merged"

    message = _refusal(VerificationError, adapter, output, base=str(base), dtype="bfloat16")

    assert message.startswith(f"The checkpoint merged from '{adapter}' is off by ")
    assert message.endswith(
        " is allowed in bfloat16. Nothing is written; use the adapter on its base."
    )
    assert VerificationError.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_merging_changes_neither_the_artifact_nor_the_base(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    """Both are only read."""
    before = {path: path.read_bytes() for folder in (adapter, base) for path in folder.iterdir()}

    peftune.adapters.merge(adapter, tmp_path / "merged", base=str(base), use_cpu=True)

    after = {path: path.read_bytes() for folder in (adapter, base) for path in folder.iterdir()}
    assert after == before
    assert load_prepared(adapter, base=str(base), use_cpu=True) is not None


# The verb


def test_the_verb_says_where_the_checkpoint_is_and_how_close(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table for people."""
    output = tmp_path / "merged"

    code = _exit_code(["adapter", "merge", str(adapter), str(output), "--base", str(base)])

    printed = capsys.readouterr().out
    assert code == 0
    assert printed.splitlines()[0].rstrip() == "merged in float32"
    assert printed.splitlines()[-1] == f"saved: {output}"
    assert (output / "model.safetensors").is_file()


def test_the_verb_writes_a_language_model_and_its_numbers_as_json(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--lm` and `--dtype` are those of `peftune.adapters.merge`."""
    output = tmp_path / "merged"
    options = ["--base", str(base), "--lm", "--dtype", "bfloat16", "--json"]

    code = _exit_code(["adapter", "merge", str(adapter), str(output), *options])

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (printed["folder"], printed["dtype"], printed["lm"]) == (str(output), "bfloat16", True)
    assert 0 < printed["difference"]["largest"] <= printed["allowed"]
    assert GPT2LMHeadModel.from_pretrained(output).dtype == torch.bfloat16


def test_the_verb_ends_with_three_for_a_type_that_corrupts(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The request cannot be used as given; nothing has failed a check."""
    arguments = [str(adapter), str(tmp_path / "merged"), "--dtype", "int8", "--base", str(base)]

    assert _exit_code(["adapter", "merge", *arguments]) == 3
    assert capsys.readouterr().err.startswith(
        "peftune: Merging into a base held in 8-bit integers"
    )
