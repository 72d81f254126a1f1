"""What is inside an artifact: every number from its own tensors, every change from its base."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from bases import write_base
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2ForSequenceClassification

import peftune
from peftune.adapters import save
from peftune.adapters.inspection import Place, TensorGroup, inspect, place_of
from peftune.adapters.tensors import adapter_tensors
from peftune.cli.main import main
from peftune.errors import ArtifactError, BaseModelError
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import prepare_model
from peftune.models.weight_statistics import WeightChange, with_outliers
from peftune.strategies import Full, HeadOnly, LoRA, Strategy

BACKBONE = "base_model.model.transformer"
LABELS = ("bad", "good")
LEARNED_FROM = {"rows": 30, "data_fingerprint": "0" * 64}
TASK = {
    "data": "posts",
    "split": "test",
    "n": 9,
    "accuracy": 0.5,
    "macro_f1": 0.4,
    "loss": 0.6,
    "ci95": {"accuracy": [0.4, 0.6], "macro_f1": None},
    "trained_on": LEARNED_FROM,
}
FORGETTING = [{"name": "prose", "unit": "bits/byte", "forgetting": 0.0125, "ci95": [0.01, 0.02]}]


def _tuned(base: Path, strategy: Strategy) -> nn.Module:
    model = prepare_model(str(base), strategy, labels=LABELS, max_length=48, use_cpu=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a LoRA adapter of one kind of weight."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    model = _tuned(base, LoRA(r=2, lora_alpha=6, target_modules=("c_attn",)))
    return save(model, folder, task=TASK, forgetting=FORGETTING)


def test_tensors_are_counted_by_group_and_block(base: Path, adapter: Path) -> None:
    """Two blocks of width 32: A is 2 x 32, B is 96 x 2, four bytes a number, and a head of 2 x 32."""
    found = inspect(adapter, base=str(base), use_cpu=True)

    size = 2 * 32 + 96 * 2
    assert found.groups == (
        TensorGroup("LoRA of attn.c_attn", 0, 2, size, 4 * size),
        TensorGroup("LoRA of attn.c_attn", 1, 2, size, 4 * size),
        TensorGroup("head", None, 1, 64, 256),
    )
    assert found.by_group == (
        TensorGroup("LoRA of attn.c_attn", None, 4, 2 * size, 8 * size),
        TensorGroup("head", None, 1, 64, 256),
    )
    assert found.dtypes == {"F32": 2 * size + 64}
    assert found.files == {path.name: path.stat().st_size for path in sorted(adapter.iterdir())}
    assert found.nbytes == sum(found.files.values())


def test_the_manifest_speaks(base: Path, adapter: Path) -> None:
    """Strategy, labels, scores, origin and seal are the manifest's."""
    manifest = json.loads((adapter / "peftune.json").read_text())
    found = inspect(adapter, base=str(base), use_cpu=True)

    assert found.kind == "adapter"
    assert found.sha256 == manifest["sha256"]
    assert found.strategy == manifest["strategy"]
    assert found.base == manifest["base"]
    assert (found.task_name, found.labels, found.max_length) == ("single-label", LABELS, 48)
    assert found.precision == "float32"
    assert found.scores == manifest["task"]
    assert found.forgetting == tuple(manifest["forgetting"])
    assert found.provenance is not None
    assert found.provenance.peftune_version == manifest["peftune_version"]
    assert found.provenance.data == "posts"
    assert found.provenance.trained_on == LEARNED_FROM


def test_a_change_is_measured_against_the_base(base: Path, adapter: Path) -> None:
    """The update of a weight is alpha / r times B A, whose norm the file's tensors give."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    weights = load_file(base / "model.safetensors")
    found = inspect(adapter, base=str(base), use_cpu=True)

    assert found.reason is None
    assert found.changes is not None
    assert [one.weight for one in found.changes] == [f"h.{i}.attn.c_attn.weight" for i in (0, 1)]
    for one in found.changes:
        prefix = f"{BACKBONE}.h.{one.block}.attn.c_attn.lora"
        update = 3 * tensors[f"{prefix}_B.weight"] @ tensors[f"{prefix}_A.weight"]
        before = weights[one.weight]
        assert one.kind == "attn.c_attn.weight"
        assert one.norm == pytest.approx(float(update.norm()), rel=1e-5)
        assert one.relative == pytest.approx(float(update.norm() / before.norm()), rel=1e-5)
        assert not one.outlier


@pytest.mark.parametrize(
    ("strategy", "kind", "changed"),
    [
        (Full(), "model", 28),
        (Full(freeze_layers=1), "adapter", 14),
        (HeadOnly(), "adapter", 0),
        (LoRA(r=2, use_dora=True), "adapter", 8),
        (LoRA(r=2, target_modules=("wte",)), "adapter", 1),
    ],
    ids=["full", "half", "head", "dora", "embedding"],
)
def test_whatever_learned_is_compared_weight_by_weight(
    base: Path, tmp_path: Path, strategy: Strategy, kind: str, changed: int
) -> None:
    """Two blocks of 12 weights, two embeddings and a norm of two: those that learned have changed."""
    folder = save(_tuned(base, strategy), tmp_path / "artifact")

    found = inspect(folder, base=str(base), use_cpu=True)

    assert found.kind == kind
    assert found.changes is not None
    assert len(found.changes) == changed


def test_without_its_base_the_rest_is_said(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local folder's name leads nowhere, so no norm is known, and the reason is given."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path))  # where no base was seen
    found = inspect(adapter)

    assert found.changes is None
    assert found.reason == "the base 'tiny' is not on this machine"
    assert found.by_group


def test_a_base_that_is_given_must_be_the_right_one(adapter: Path, tmp_path: Path) -> None:
    """Norms against another model would mean nothing."""
    with pytest.raises(ArtifactError, match="is another model"):
        inspect(adapter, base=str(write_base(tmp_path / "other", seed=1)))
    with pytest.raises(BaseModelError, match="There is no folder"):
        inspect(adapter, base=str(tmp_path / "nowhere"))


def test_a_damaged_artifact_is_refused(adapter: Path, tmp_path: Path) -> None:
    """Inspecting believes no more than loading does."""
    folder = shutil.copytree(adapter, tmp_path / "damaged")
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ArtifactError, match="is not the file that was saved"):
        inspect(folder)


def test_a_plain_peft_adapter_says_what_it_can(base: Path, tmp_path: Path) -> None:
    """Without a manifest there are tensors, a configuration that nothing vouches for, and norms."""
    plain = GPT2ForSequenceClassification.from_pretrained(base, num_labels=2, pad_token_id=0)
    model = get_peft_model(
        plain,
        LoraConfig(r=2, task_type=TaskType.SEQ_CLS, target_modules=["c_fc"], fan_in_fan_out=True),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    model.save_pretrained(str(tmp_path / "plain"))
    for path in (tmp_path / "plain").glob("*.md"):
        path.unlink()

    found = inspect(tmp_path / "plain", base=str(base), use_cpu=True)

    assert found.kind == "plain PEFT adapter"
    assert (found.sha256, found.labels, found.provenance, found.scores) == (None,) * 4
    assert found.strategy["r"] == 2
    assert [one.group for one in found.by_group] == ["LoRA of mlp.c_fc", "head"]
    assert found.changes is not None
    assert [one.weight for one in found.changes] == [f"h.{i}.mlp.c_fc.weight" for i in (0, 1)]
    assert inspect(tmp_path / "plain").base["fingerprint"] is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (
            "base_model.model.transformer.h.3.attn.c_attn.lora_A.weight",
            Place("LoRA of attn.c_attn", 3),
        ),
        ("base_model.model.transformer.wte.lora_embedding_B", Place("LoRA of wte", None)),
        ("base_model.model.score.weight", Place("head", None)),
        ("score.weight", Place("head", None)),
        ("transformer.h.11.ln_1.bias", Place("ln_1.bias", 11)),
        ("transformer.h.0.mlp.c_fc.ia3_l", Place("ia3 of mlp.c_fc", 0)),
        ("transformer.wpe.weight", Place("wpe.weight", None)),
        ("lora", Place("lora", None)),
        ("", Place("", None)),
        ("h.12345678.x.y", Place("h.12345678.x.y", None)),
    ],
)
def test_a_tensor_is_placed_by_the_parts_of_its_name(name: str, place: Place) -> None:
    """PEFT's and GPT-2's formats; a name of neither is its own group."""
    assert place_of(name) == place


# Outliers


def _changes(values: list[float | None], kind: str = "c_attn.weight") -> list[WeightChange]:
    return [
        WeightChange(f"h.{block}.{kind}", kind, block, value or 0.0, value)
        for block, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "blocks"),
    [
        ([0.1, 0.11, 0.09, 0.1, 1.0, 0.1], [4]),
        ([0.1, 0.11, 0.09, 0.1, 0.001, 0.1], [4]),
        # Rising evenly: nothing stands out of a spread that is wide.
        ([0.01, 0.02, 0.04, 0.08, 0.16, 0.32], []),
        # Far in units of a tiny spread, but not by a factor of two.
        ([0.1, 0.1, 0.1, 0.1, 0.15, 0.1], []),
        ([0.1, 0.1, 9.0], []),
        ([0.1, 0.1, 0.1, 9.0], [3]),
        ([None, 0.1, 0.1, 0.1, 0.1, 9.0], [5]),
    ],
)
def test_what_stands_out_of_its_kind_is_marked(
    values: list[float | None], blocks: list[int]
) -> None:
    """Over 3.5 robust standard deviations of the logarithm and over a factor of two, of four or more."""
    marked = with_outliers(_changes(values))

    assert [one.block for one in marked if one.outlier] == blocks


def test_weights_are_compared_with_their_own_kind_only() -> None:
    """A weight that moves ten times as far as those of other kinds is none the less like its like."""
    marked = with_outliers([*_changes([0.1] * 6), *_changes([1.0] * 6, "c_proj.weight")])

    assert not any(one.outlier for one in marked)


def test_an_outlier_of_a_real_adapter_is_found(tmp_path: Path) -> None:
    """One of six blocks whose update is made twenty times as large is the one that is marked."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    small = write_base(tmp_path / "small")
    config = GPT2Config.from_pretrained(small)
    config.n_layer = 6
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "deep")
    AutoTokenizer.from_pretrained(small).save_pretrained(tmp_path / "deep")
    model = _tuned(tmp_path / "deep", LoRA(r=4, target_modules=("c_fc",)))
    with torch.no_grad():
        adapter_tensors(model)[f"{BACKBONE}.h.2.mlp.c_fc.lora_B.weight"].mul_(20)
    folder = save(model, tmp_path / "artifact")

    found = inspect(folder, base=str(tmp_path / "deep"), use_cpu=True)

    assert [one.weight for one in found.outliers] == ["h.2.mlp.c_fc.weight"]


# Command line and JSON


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    output = capsys.readouterr()
    assert exit_.value.code == 0, output.err
    return output.out


def test_the_command_prints_a_page_and_json(
    base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People read groups and norms; programs read the same values, and no NaN."""
    arguments = ["adapter", "inspect", str(adapter), "--base", str(base)]

    page = " ".join(_run(arguments, capsys).split())
    values = json.loads(_run([*arguments, "--json"], capsys), parse_constant=pytest.fail)

    assert "LoRA of attn.c_attn 4 512 2,048" in page
    assert "target_modules [c_attn]" in page
    assert "forgetting on prose +0.0125 bits/byte (positive is worse)" in page
    assert "2 weights of the backbone differ from the base's." in page
    assert values["nbytes"] == sum(values["files"].values())
    assert all(math.isfinite(one["relative"]) for one in values["changes"])


def test_inspect_is_public() -> None:
    """It stands beside `peftune.load`."""
    assert peftune.adapters.inspect is inspect
