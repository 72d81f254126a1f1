"""What every registered strategy saves is the same model wherever it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from peftune.adapters import merge
from peftune.adapters.saving import save
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import predict_logits
from peftune.models.lm_head import language_model_loss
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import REFERENCE_TEXTS, encode_texts
from peftune.strategies import STRATEGIES
from peftune.testing.tuned import run_python

LABELS = ("bad", "so-so", "good")
MAX_LENGTH = 64

# Int8 looks for outlier columns over the whole batch unless its threshold is 0.
FIELDS: dict[str, dict[str, Any]] = {"lora-8bit": {"llm_int8_threshold": 0.0}}

OPEN_EVERYTHING = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folders, base, texts, labels = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(base)
tokenizer.pad_token = tokenizer.eos_token

def plain(folder):
    torch.manual_seed(12345)  # another random head
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=labels, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32
    )
    model = PeftModel.from_pretrained(model, folder).eval()
    with torch.inference_mode():
        return [
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0].tolist()
            for text in texts
        ]

found = {name: {"peft": plain(folder)} for name, (folder, is_peft) in folders.items() if is_peft}
assert not any(name.split(".")[0] == "peftune" for name in sys.modules)

import peftune

for name, (folder, _) in folders.items():
    classifier = peftune.load(folder, base=base, use_cpu=True)
    found.setdefault(name, {})["peftune"] = classifier.logits(texts).tolist()
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A strategy's model, in memory and on disk.

    Args:
        model: as it was saved; of `lora-8bit` on the int8 base.
        folder: its artifact.
        logits: what it makes of the reference texts, (texts, labels).
    """

    model: nn.Module
    folder: Path
    logits: NDArray[np.float32]

    @property
    def is_int8(self) -> bool:
        """Whether plain PEFT, which holds the base in float32, opens it otherwise than peftune."""
        return bool(getattr(self.model, "is_loaded_in_8bit", False))

    @property
    def in_float32(self) -> NDArray[np.float32]:
        """What it makes of the reference texts on the base held in float32, as recorded."""
        manifest = json.loads((self.folder / "peftune.json").read_text())
        return np.asarray(manifest["behaviour"]["logits"]["float32"], np.float32)


@pytest.fixture(scope="module")
def saved(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """Save a model of every registered strategy, each of its learning weights moved."""
    made = {}
    for name in STRATEGIES.names():
        strategy = STRATEGIES.get(name)(**FIELDS.get(name, {}))
        model = prepare_model(
            str(tiny_base), strategy, labels=LABELS, max_length=MAX_LENGTH, use_cpu=True
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in trainable_parameters(model).values():
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
        folder = save(model.eval(), tmp_path_factory.mktemp(name) / "artifact")
        tokenizer = preparation_of(model).tokenizer
        logits = predict_logits(model, tokenizer, REFERENCE_TEXTS, max_length=MAX_LENGTH)
        made[name] = Saved(model, folder, logits)
    return made


@pytest.fixture(scope="module")
def elsewhere(
    saved: Mapping[str, Saved], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Open all of them in a process that knows nothing, on a base with a head of its own."""
    base = tmp_path_factory.mktemp("elsewhere") / "with-another-head"
    torch.manual_seed(99)
    GPT2ForSequenceClassification.from_pretrained(
        tiny_base, num_labels=len(LABELS), dtype=torch.float32
    ).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(base)
    folders = {
        name: (str(one.folder), isinstance(one.model, PeftModel)) for name, one in saved.items()
    }
    argument = json.dumps([folders, str(base), REFERENCE_TEXTS, len(LABELS)])
    found: dict[str, dict[str, Any]] = json.loads(
        run_python(OPEN_EVERYTHING, argument).splitlines()[-1]
    )
    return found


@pytest.fixture(scope="module", params=STRATEGIES.names())
def one(request: pytest.FixtureRequest, saved: Mapping[str, Saved]) -> Saved:
    """Give each of them in turn."""
    return saved[request.param]


@pytest.fixture(scope="module")
def name(one: Saved) -> str:
    """Give its strategy's name."""
    return preparation_of(one.model).strategy.name


@pytest.mark.costly
def test_a_fresh_process_with_another_head_loads_equal_logits(
    name: str, one: Saved, elsewhere: Mapping[str, Any]
) -> None:
    """Bit for bit: the head is in the artifact, and the base's own plays no part."""
    assert elsewhere[name]["peftune"] == one.logits.tolist()


def test_plain_peft_in_a_fresh_process_gives_the_same_logits(
    name: str, one: Saved, elsewhere: Mapping[str, Any]
) -> None:
    """Each text alone, as recorded: what was trained on int8, too, on the base in float32."""
    if not isinstance(one.model, PeftModel):
        assert "peft" not in elsewhere[name]
        return
    assert elsewhere[name]["peft"] == one.in_float32.tolist()


@pytest.fixture(scope="module")
def merged(
    name: str, one: Saved, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Merge it into one classifier."""
    output = tmp_path_factory.mktemp(f"{name}-merged") / "checkpoint"
    return merge(one.folder, output, base=str(tiny_base), use_cpu=True).folder


def test_the_merged_classifier_is_the_adapter_within_a_ten_thousandth(
    one: Saved, merged: Path
) -> None:
    """Opened by transformers alone; what was trained on int8 is what it is on the float32 base."""
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = GPT2ForSequenceClassification.from_pretrained(merged, dtype=torch.float32)
    logits = predict_logits(model, tokenizer, REFERENCE_TEXTS, max_length=MAX_LENGTH)

    assert np.abs(logits - one.in_float32).max() <= 1e-4
    assert np.abs(logits - one.logits).max() <= (0.5 if one.is_int8 else 1e-4)


def test_a_pipeline_opens_the_merged_classifier_with_its_label_names(
    one: Saved, merged: Path
) -> None:
    """The checkpoint says its labels and how to pad: the pipeline needs nothing else."""
    texts = list(REFERENCE_TEXTS[:6])
    classify: Any = transformers.pipeline("text-classification", str(merged), device="cpu")
    found = classify(texts, batch_size=3, top_k=None)

    expected = torch.tensor(one.in_float32[:6]).double().softmax(-1)
    for row, probabilities in zip(found, expected, strict=True):
        said = {entry["label"]: entry["score"] for entry in row}
        assert said == pytest.approx(
            dict(zip(LABELS, probabilities.tolist(), strict=True)), abs=1e-5
        )


def test_the_language_model_of_a_merge_is_the_tuned_backbone(
    name: str, one: Saved, tiny_base: Path, tmp_path: Path
) -> None:
    """Its loss is that of the backbone under the tied head, as forgetting is measured."""
    output = merge(one.folder, tmp_path / "lm", base=str(tiny_base), lm=True, use_cpu=True).folder
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    assert isinstance(model, GPT2LMHeadModel)
    tokenizer = AutoTokenizer.from_pretrained(output)
    prefix = tokenizer.eos_token_id
    sequences = encode_texts(tokenizer, list(REFERENCE_TEXTS), max_length=MAX_LENGTH)
    total = 0.0
    with torch.inference_mode():
        for ids in sequences:
            batch = torch.tensor([[prefix, *ids]])
            total += float(model(batch, labels=batch).loss) * len(ids)
        found = total / sum(map(len, sequences))
        expected = float(language_model_loss(one.model, sequences, prefix=prefix))
        base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        untuned = float(language_model_loss(base, sequences, prefix=prefix))

    assert found == pytest.approx(expected, abs=0.05 if one.is_int8 else 1e-5)
    assert (abs(expected - untuned) > 0.01) is (name != "head-only")
    assert model.lm_head.weight is model.transformer.wte.weight
