"""Adapters that plain PEFT saved: loaded with the same care, by those who know what they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import write_base
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2ForSequenceClassification

import peftune
from peftune.errors import BaseModelError, PeftuneError, UsageError
from peftune.models.tokenizer import encode_texts, load_tokenizer

LABELS = ("bad", "so-so", "good")
TEXTS = ["what a lovely day", "no", "the soup was cold " * 3]


def _write(base: Path, folder: Path, **settings: Any) -> PeftModel:  # noqa: ANN401 - of LoraConfig
    """Save an adapter as somebody without peftune would, every weight of it moved."""
    model = get_peft_model(
        GPT2ForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=0),
        LoraConfig(task_type=TaskType.SEQ_CLS, fan_in_fan_out=True, **settings),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink()
    assert isinstance(model, PeftModel)
    return model.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4},
        {"r": 2, "target_modules": "all-linear", "use_rslora": True},
        {"r": 2, "target_modules": ["attn.c_proj", "c_fc"], "use_dora": True, "lora_alpha": 4},
        {"r": 2, "target_modules": ["c_attn"], "layers_to_transform": [1], "layers_pattern": "h"},
    ],
    ids=["default", "rslora", "dora", "one block"],
)
def test_a_plain_adapter_loads_with_the_logits_of_peft(
    settings: dict[str, Any], base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same model as PEFT's own, under the label names that are given, and a word in the log."""
    model = _write(base, tmp_path / "lora", **settings)

    with caplog.at_level(logging.WARNING, "peftune"):
        classifier = peftune.load(tmp_path / "lora", base=str(base), labels=LABELS, use_cpu=True)

    tokenizer = load_tokenizer(base)
    for text in TEXTS:
        ids = torch.tensor(encode_texts(tokenizer, [text], max_length=64))
        with torch.no_grad():
            expected = model(input_ids=ids).logits
        torch.testing.assert_close(
            torch.from_numpy(classifier.logits([text])), expected, atol=1e-5, rtol=1e-5
        )
    assert {found.label for found in classifier.predict(TEXTS)} <= set(LABELS)
    assert classifier.manifest is None
    told = [record.getMessage() for record in caplog.records if "peftune" in record.name]
    assert told == [
        f"'{tmp_path / 'lora'}' carries no manifest: nothing binds it to the base 'tiny' or to these labels, and nothing tells whether it behaves as when it was saved"
    ]


def test_a_plain_adapter_needs_its_base_and_its_labels(base: Path, tmp_path: Path) -> None:
    """Neither is guessed, and the base that it names itself, a path here, is not followed."""
    _write(base, tmp_path / "lora")
    folder = tmp_path / "lora"
    for given in ({}, {"base": str(base)}, {"labels": LABELS}):
        with pytest.raises(UsageError) as caught:
            peftune.load(folder, **given, use_cpu=True)
        assert str(caught.value) == (
            f"'{folder}' carries no manifest, so it does not say to which base and labels it "
            "belongs. Pass both: base=… and labels=[…]."
        )
    with pytest.raises(UsageError) as caught:
        peftune.load(folder, base=str(base), labels=["bad", "good"], use_cpu=True)
    assert str(caught.value) == f"'{folder}' has 3 labels; 2 are given."


def test_the_base_that_a_plain_adapter_names_is_not_followed(base: Path, tmp_path: Path) -> None:
    """PEFT wrote the path of a folder that is there; forgetting asks for it all the same."""
    _write(base, tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    probe = peftune.probes.LanguageModelLoss(dataset_name="bundled:general-text", max_documents=1)

    with pytest.raises(BaseModelError) as caught:
        peftune.forget(tmp_path / "lora", [probe], use_cpu=True)
    assert str(caught.value) == (
        f"'{tmp_path / 'lora'}' names its base by the path '{base}', and paths inside an artifact are not followed. "
        f"If the base lies there, say so yourself: --base {base} on the command line, base=… in Python."
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "bases/mine",  # reads like a hub id, and is a folder of the working directory
            "'lora' names its base by the path 'bases/mine', and paths inside an artifact are not followed. If the base lies there, say so yourself: --base bases/mine on the command line, base=… in Python.",
        ),
        (
            "./my base",
            "'lora' names its base by the path './my base', and paths inside an artifact are not followed. If the base lies there, say so yourself: --base './my base' on the command line, base=… in Python.",
        ),
        (
            "C:\\models\\gpt2",
            "'lora' names its base by the path 'C:\\models\\gpt2', and paths inside an artifact are not followed. If the base lies there, say so yourself: --base 'C:\\models\\gpt2' on the command line, base=… in Python.",
        ),
        (
            "somebody/nothing-here",
            "The base 'somebody/nothing-here' of 'lora' is not on this machine, and no name in an artifact is fetched. Say where it lies, or what to fetch: base=… in Python, --base on the command line.",
        ),
    ],
)
def test_a_path_in_a_plain_adapter_and_a_name_that_is_not_here_are_told_apart(
    name: str, message: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the base in a folder is told to pass that folder, and not that it is missing."""
    _write(base, tmp_path / "lora")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    path = tmp_path / "lora" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": name}))
    probe = peftune.probes.LanguageModelLoss(dataset_name="bundled:general-text", max_documents=1)

    with pytest.raises(BaseModelError) as caught:
        peftune.forget(Path("lora"), [probe], use_cpu=True)
    assert str(caught.value) == message


def test_labels_of_an_own_artifact_cannot_be_renamed(base: Path, tmp_path: Path) -> None:
    """Its manifest has them; the same ones in the same order are not a contradiction."""
    model, _ = peftune.prepare(str(base), strategy=peftune.LoRA(r=2), labels=LABELS, use_cpu=True, max_length=32)  # fmt: skip
    folder = peftune.save(model, tmp_path / "own")

    assert peftune.load(folder, base=str(base), labels=LABELS, use_cpu=True).labels == LABELS
    with pytest.raises(UsageError) as caught:
        peftune.load(folder, base=str(base), labels=LABELS[::-1], use_cpu=True)
    assert str(caught.value) == (
        f"'{folder}' has the labels bad, so-so, good, in this order. Leave labels out."
    )


BEYOND: list[dict[str, Any]] = [
    {"target_modules": ["(a+)+$"]},
    {"target_modules": []},
    {"r": 20_000_000},
    {"r": True},
    {"r": "4"},
    {"lora_alpha": "8"},
    {"lora_alpha": -1},
    {"lora_alpha": 1e30},
    {"use_rslora": "no"},
    {"layers_to_transform": ["0"]},
    {"layers_pattern": "(a+)+$"},
]
NOT_PLAIN = "is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "SHADOW"}, "is not a LoRA adapter; peftune reads plain LoRA adapters of other tools."),
        ({"bias": "all"}, f": bias 'all' {NOT_PLAIN}"),
        ({"init_lora_weights": "pissa_niter_4"}, f": init_lora_weights 'pissa_niter_4' {NOT_PLAIN}"),
        ({"modules_to_save": ["wte", "score"]}, f": modules_to_save ['wte', 'score'] {NOT_PLAIN}"),
        ({"exclude_modules": "(a+)+$"}, f": exclude_modules '(a+)+$' {NOT_PLAIN}"),
        ({"rank_pattern": {"(a+)+$": 4}}, f": rank_pattern {{'(a+)+$': 4}} {NOT_PLAIN}"),
        ({"megatron_config": {"a": 1}}, f": megatron_config {{'a': 1}} {NOT_PLAIN}"),
        ({"megatron_core": "os"}, f": megatron_core 'os' {NOT_PLAIN}"),
        ({"auto_mapping": {"parent_library": "os"}}, f": auto_mapping {{'parent_library': 'os'}} {NOT_PLAIN}"),
        ({"trainable_token_indices": [1]}, f": trainable_token_indices [1] {NOT_PLAIN}"),
        ({"target_modules": "(a+)+$"}, ": target_modules is the pattern '(a+)+$', and patterns inside an artifact are not followed. Write the names of its modules there as a list; its tensors are those of attn.c_attn."),
        ({"init_lora_weights": "orthogonal"}, ": init_lora_weights 'orthogonal' is a way to start that peftune does not open, although it leaves the base as it is and is over once the adapter is trained. Its tensors mean the same with \"init_lora_weights\": true; write that there."),
        ({"unheard_of": "yes"}, f": unheard_of 'yes' {NOT_PLAIN}"),
        *(
            (values, ": r must be 1 to 1024, lora_alpha positive, target_modules a list of module names, layers_to_transform a list of block numbers, and switches true or false.")
            for values in BEYOND
        ),
    ],
)  # fmt: skip
def test_a_plain_adapter_that_says_more_than_lora_is_refused(
    values: dict[str, Any], message: str, base: Path, tmp_path: Path
) -> None:
    """No pattern, module, method or file that it names is followed; huge ranks allocate nothing."""
    folder = tmp_path / "lora"
    _write(base, folder, r=4)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    found = _refusal(folder, base)

    assert found.endswith(message)
    assert found.startswith("'lora/adapter_config.json'")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "base_model.model.transformer.ln_f.weight": torch.ones(32)}, "holds the unexpected tensor 'base_model.model.transformer.ln_f.weight'; it does not fit its strategy and base."),
        (lambda t: {name: tensor for name, tensor in t.items() if "lora_A" not in name}, "lacks tensor 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight' and 1 more; it does not fit its strategy and base."),
        (lambda t: {name: tensor.long() for name, tensor in t.items()}, "is not a type of F32, F16, BF16, a shape and the offsets that follow from them."),
        (lambda t: {name: tensor * torch.inf for name, tensor in t.items()}, "holds values that are not finite."),
        (lambda t: {name: tensor[:1].contiguous() for name, tensor in t.items()}, "with at least two labels."),
    ],
    ids=["a weight of the base", "missing", "whole numbers", "infinite", "one row"],
)  # fmt: skip
def test_the_tensors_of_a_plain_adapter_are_checked_like_its_own(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
    base: Path,
    tmp_path: Path,
) -> None:
    """PEFT itself would put the first into the base, and load the others without a word."""
    folder = tmp_path / "lora"
    _write(base, folder, r=4)
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})

    assert _refusal(folder, base).endswith(message)


def test_half_precision_is_read_as_it_is(base: Path, tmp_path: Path) -> None:
    """Others store adapters in bfloat16; the values are taken over exactly."""
    folder = tmp_path / "lora"
    _write(base, folder, r=4)
    path = folder / "adapter_model.safetensors"
    halved = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file({name: tensor.float() for name, tensor in halved.items()}, path)
    expected = peftune.load(folder, base=str(base), labels=LABELS, use_cpu=True).logits(TEXTS)
    save_file(halved, path)

    found = peftune.load(folder, base=str(base), labels=LABELS, use_cpu=True).logits(TEXTS)

    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "key", ["auto_map", "quantization_config", "_attn_implementation_internal"]
)
def test_a_base_whose_configuration_steers_the_loader_is_refused(key: str, tmp_path: Path) -> None:
    """Keys by which transformers would fetch code or other weights than the folder's."""
    base = write_base(tmp_path / "tiny")
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: {"a": "b"}}))

    with pytest.raises(BaseModelError) as caught:
        peftune.prepare(str(base), strategy=peftune.LoRA(), labels=LABELS, use_cpu=True)
    assert str(caught.value) == (
        f"The config.json of 'tiny' has the key '{key}', which makes transformers load other code or other weights "
        "than its files. Remove it, or save the model again with save_pretrained."
    )


def test_a_base_with_an_adapter_beside_it_is_refused(tmp_path: Path) -> None:
    """Transformers would put the adapter on it, unasked."""
    base = write_base(tmp_path / "tiny")
    (base / "adapter_config.json").write_text("{}")

    with pytest.raises(BaseModelError, match=r"holds an adapter_config\.json, which transformers"):
        peftune.prepare(str(base), strategy=peftune.LoRA(), labels=LABELS, use_cpu=True)


def _refusal(folder: Path, base: Path) -> str:
    with pytest.raises(PeftuneError) as caught:
        peftune.load(folder, base=str(base), labels=LABELS, use_cpu=True)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder.parent}/", "")
