"""`peftune.adapters.verify` and `peftune adapter verify`: an artifact does what it did, or 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from tuned import moved

import peftune
from peftune.adapters.loading import load, load_prepared
from peftune.adapters.manifest import Manifest, write_manifest
from peftune.adapters.saving import save
from peftune.adapters.verification import On, Verification
from peftune.cli.main import _exit_code
from peftune.errors import ArtifactError, PeftuneError, UsageError
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

LABELS = ("bad", "so-so", "good")
ROWS = [
    f"the {word} day was {other}" for word in "abcdefgh" for other in ("long", "short", "so so")
]


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a LoRA adapter of the base in float32."""
    return save(moved(base, LoRA(r=4)), tmp_path_factory.mktemp("saved") / "lora")


@pytest.fixture(scope="module")
def of_int8(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a LoRA adapter of the base in int8."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.copytree(base, folder / "base")
    return save(moved(base, LoRA8bit(r=4)), folder / "lora-8bit")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write rows without labels."""
    path = tmp_path_factory.mktemp("rows") / "rows.txt"
    path.write_text("\n".join(ROWS) + "\n")
    return path


def _off_record(folder: Path, output: Path, precision: str, change: float) -> Path:
    """Copy an artifact and move one recorded logit, with a new digest."""
    shutil.copytree(folder, output)
    values = json.loads((folder / "peftune.json").read_text())
    values.pop("sha256")
    values["behaviour"]["logits"][precision][2][1] += change
    (output / "peftune.json").unlink()
    write_manifest(Manifest.model_validate(values), output)
    return output


@pytest.mark.parametrize(
    "strategy", [LoRA(r=4), HeadOnly(), Full()], ids=["lora", "head-only", "full"]
)
def test_what_was_saved_is_reproduced_exactly_where_it_was_saved(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """Each text alone, as it was recorded: no difference at all; merging makes one of rounding."""
    folder = save(moved(base, strategy), tmp_path / "artifact")

    found = peftune.adapters.verify(folder, base=str(base), on=["fp32", "merged"], use_cpu=True)

    assert found.passed
    assert (found.trained_on, found.n_texts, found.n_rows, found.parity) == (
        "fp32",
        16,
        None,
        None,
    )
    fp32, merged = found.replays
    assert (fp32.on, fp32.texts.largest, fp32.texts.label_flips, fp32.rows) == (
        "fp32",
        0.0,
        0.0,
        None,
    )
    assert (merged.on, merged.texts.label_flips) == ("merged", 0.0)
    assert merged.texts.largest <= 1e-5
    assert found.sha256 == json.loads((folder / "peftune.json").read_text())["sha256"]


def test_a_whole_model_is_verified_without_its_base(base: Path, tmp_path: Path) -> None:
    """It holds every weight and its tokenizer."""
    folder = save(moved(base, Full()), tmp_path / "model")

    assert peftune.adapters.verify(folder, use_cpu=True).passed


def test_every_recorded_precision_is_replayed_if_none_is_named(
    adapter: Path, of_int8: Path, base: Path
) -> None:
    """On what was trained on, and on float32."""
    plain = peftune.adapters.verify(adapter, base=str(base), use_cpu=True)
    quantized = peftune.adapters.verify(of_int8, base=str(base), use_cpu=True)

    assert [each.on for each in plain.replays] == ["fp32"]
    assert [each.on for each in quantized.replays] == ["fp32", "int8"]
    assert [each.texts.largest for each in quantized.replays] == [0.0, 0.0]
    assert quantized.trained_on == "int8"


def _logits(model: nn.Module, texts: list[str]) -> Any:  # noqa: ANN401 - an array
    return predict_logits(model, preparation_of(model).tokenizer, texts, max_length=48)


def test_parity_of_int8_is_a_number(of_int8: Path, base: Path, rows: Path) -> None:
    """How far the same adapter is from itself on the float32 base: over texts, and over rows."""
    found = peftune.adapters.verify(of_int8, base=str(base), file=rows, use_cpu=True)

    assert found.passed
    assert found.n_rows == len(ROWS)
    assert found.parity is not None
    recorded = json.loads((of_int8 / "peftune.json").read_text())["behaviour"]["logits"]
    int8, fp32 = (np.array(recorded[name]) for name in ("int8", "float32"))
    assert found.parity.texts.largest == pytest.approx(np.abs(int8 - fp32).max(), abs=1e-6)
    assert found.parity.texts.label_flips == np.mean(int8.argmax(1) != fp32.argmax(1))
    first, second = (
        _logits(load_prepared(of_int8, base=str(base), use_cpu=True, in_float32=float32), ROWS)
        for float32 in (False, True)
    )
    assert found.parity.rows is not None
    assert found.parity.rows.largest == pytest.approx(np.abs(first - second).max(), abs=1e-6)
    assert found.parity.rows.label_flips == np.mean(first.argmax(1) != second.argmax(1))
    on_fp32, on_int8 = found.replays
    assert on_fp32.rows == found.parity.rows
    assert on_int8.rows is None


def test_parity_is_told_from_the_record_where_int8_is_not_replayed(
    of_int8: Path, base: Path
) -> None:
    """On a machine without int8 kernels the number is there all the same."""
    found = peftune.adapters.verify(of_int8, base=str(base), on=["fp32"], use_cpu=True)

    assert [each.on for each in found.replays] == ["fp32"]
    assert found.parity is not None
    recorded = json.loads((of_int8 / "peftune.json").read_text())["behaviour"]["logits"]
    int8, fp32 = (np.array(recorded[name]) for name in ("int8", "float32"))
    assert found.parity.texts.largest == pytest.approx(np.abs(int8 - fp32).max(), abs=1e-6)


def test_flipped_labels_are_counted_against_the_precision_that_was_trained_on(
    of_int8: Path, base: Path, rows: Path
) -> None:
    """A head that ties two labels everywhere lets quantization decide."""
    model = load_prepared(of_int8, base=str(base), use_cpu=True)
    with torch.no_grad():
        head = next(w for n, w in trainable_parameters(model).items() if "score" in n)
        head[0], head[1] = head[2], head[2] * (1 + 1e-5)
    folder = save(model, of_int8.parent / "tied")

    found = peftune.adapters.verify(folder, base=str(base), on=["merged"], file=rows, use_cpu=True)

    [merged] = found.replays
    assert merged.rows is not None
    assert found.parity is not None
    int8 = _logits(model, ROWS)
    fp32 = _logits(load_prepared(folder, base=str(base), use_cpu=True, in_float32=True), ROWS)
    expected = np.mean(int8.argmax(1) != fp32.argmax(1))
    assert found.parity.rows is not None
    assert found.parity.rows.label_flips == expected
    assert merged.rows.label_flips == pytest.approx(expected, abs=1 / len(ROWS))


@pytest.mark.parametrize(
    ("on", "change", "passes"),
    [("fp32", 5e-5, True), ("fp32", -1e-3, False), ("int8", 0.05, True), ("int8", 1.0, False)],
)
def test_a_replay_beyond_its_tolerance_fails(
    on: On, change: float, passes: bool, of_int8: Path, tmp_path: Path
) -> None:
    """1e-4 in float32 and 0.1 in int8, of the largest recorded logit, which is some units here."""
    precision = "float32" if on == "fp32" else "int8"
    folder = _off_record(of_int8, tmp_path / "edited", precision, change)

    found = peftune.adapters.verify(
        folder, base=str(of_int8.parent / "base"), on=[on], use_cpu=True
    )

    [replay] = found.replays
    assert (found.passed, replay.passed) == (passes, passes)
    assert replay.texts.largest == pytest.approx(abs(change), rel=1e-2)


def test_what_load_lets_pass_is_seen_by_verify(adapter: Path, base: Path, tmp_path: Path) -> None:
    """A load replays two texts; this was recorded of a third."""
    folder = _off_record(adapter, tmp_path / "edited", "float32", 0.5)

    assert load(folder, base=str(base), use_cpu=True).labels == LABELS
    assert not peftune.adapters.verify(folder, base=str(base), use_cpu=True).passed


@pytest.mark.slow
def test_regression_and_multi_label_have_differences_of_their_own(
    base: Path, rows: Path, tmp_path: Path
) -> None:
    """A number has no label that could flip; of several labels any one may."""
    number = save(moved(base, LoRA8bit(r=4), "regression", ("score",)), tmp_path / "number")
    several = save(
        moved(base, LoRA8bit(r=4), "multi-label"),
        tmp_path / "several",
        label_thresholds=[0.2, 0.5, 0.7],
    )

    of_number = peftune.adapters.verify(number, base=str(base), file=rows, use_cpu=True).parity
    of_several = peftune.adapters.verify(several, base=str(base), file=rows, use_cpu=True).parity

    assert of_number is not None
    assert of_number.texts.label_flips is None
    assert of_number.rows is not None
    assert of_number.rows.label_flips is None
    assert of_number.rows.largest > 0
    assert of_several is not None
    recorded = json.loads((several / "peftune.json").read_text())["behaviour"]["logits"]
    limits = np.log(np.array([0.2, 0.5, 0.7]) / np.array([0.8, 0.5, 0.3]))
    int8, fp32 = (np.array(recorded[name]) >= limits for name in ("int8", "float32"))
    assert of_several.texts.label_flips == np.mean((int8 != fp32).any(axis=1))


def test_an_artifact_without_a_head_is_replayed_by_its_tokens(base: Path, tmp_path: Path) -> None:
    """Merged too: what it makes of a text is what its backbone makes of it."""
    folder = save(moved(base, LoRA(r=4), "language-modeling", ()), tmp_path / "language")

    found = peftune.adapters.verify(folder, base=str(base), on=["fp32", "merged"], use_cpu=True)

    assert found.passed
    assert [each.texts.label_flips for each in found.replays] == [None, None]
    assert found.replays[0].texts.largest == 0.0
    assert found.replays[0].allowed > 1e-4  # log-probabilities are larger than 1


def _refusal(folder: Path, **arguments: Any) -> str:  # noqa: ANN401 - arguments of verify
    with pytest.raises(PeftuneError) as caught:
        peftune.adapters.verify(folder, use_cpu=True, **arguments)
    assert isinstance(caught.value, UsageError)
    return str(caught.value)


def test_what_cannot_be_replayed_is_refused_in_a_line(
    adapter: Path, base: Path, rows: Path, tmp_path: Path
) -> None:
    """A precision that is unknown or was never recorded, and rows where nothing is said of them."""
    unknown: list[Any] = ["fp31"]
    int8: list[On] = ["int8"]
    language = save(moved(base, LoRA(r=4), "language-modeling", ()), tmp_path / "language")
    (tmp_path / "empty.txt").write_text("")

    assert _refusal(adapter, base=str(base), on=unknown) == (
        "An artifact is not replayed on 'fp31'. Did you mean 'fp32'? Available: fp32, int8, merged."
    )
    assert _refusal(adapter, base=str(base), on=int8) == (
        f"'{adapter}' was trained on the base in float32, so there is no record of it on int8. "
        "Name fp32 or merged."
    )
    assert _refusal(language, base=str(base), file=rows) == (
        f"'{language}' has learned language-modeling and says nothing of rows. Leave the file out."
    )
    assert _refusal(adapter, base=str(base), file=tmp_path / "empty.txt") == (
        f"'{tmp_path / 'empty.txt'}' has no rows. Name a file with texts."
    )


def test_logits_that_overflow_are_refused_by_load_and_verify(base: Path, tmp_path: Path) -> None:
    """Finite weights can make numbers that are not; nobody sees a traceback of it."""
    model = moved(base, HeadOnly())
    folder = save(model, tmp_path / "adapter")
    values = json.loads((folder / "peftune.json").read_text())
    with torch.no_grad():
        next(iter(trainable_parameters(model).values())).fill_(3e38)
    from safetensors.torch import save_file

    from peftune.adapters.manifest import sha256_of

    save_file(
        {name: weight.detach() for name, weight in trainable_parameters(model).items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    values.pop("sha256")
    values["files"]["adapter_model.safetensors"] = sha256_of(
        (folder / "adapter_model.safetensors").read_bytes()
    )
    (folder / "peftune.json").unlink()
    write_manifest(Manifest.model_validate(values), folder)

    with pytest.raises(ArtifactError, match="does not reproduce the logits recorded"):
        load(folder, base=str(base), use_cpu=True)
    with pytest.raises(ArtifactError) as caught:
        peftune.adapters.verify(folder, base=str(base), use_cpu=True)
    assert str(caught.value) == (
        f"'{folder}' on fp32: the model gives a logit that is not finite for 16 texts, so it is of "
        "no use. Fetch it again, or save a better one."
    )


# The verb


def test_the_verb_prints_a_table_and_the_parity(
    of_int8: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a precision, with what is allowed; then int8 against float32."""
    code = _exit_code(
        ["adapter", "verify", str(of_int8), "--base", str(base), "--file", str(rows)]
    )

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[1].split()[:2] == ["fp32", "0.00e+00"]
    assert lines[2].split()[:2] == ["int8", "0.00e+00"]
    assert all(line.rstrip().endswith("reproduced") for line in lines[1:3])
    assert lines[4].startswith("Trained on int8. On fp32 logits differ by up to ")


def test_the_verb_gives_the_same_numbers_as_json(
    of_int8: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every field of what `peftune.adapters.verify` returns, and whether each replay passed."""
    arguments = ["--base", str(base), "--on", "fp32, merged", "--json"]
    code = _exit_code(["adapter", "verify", str(of_int8), *arguments])

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(printed) == {
        *Verification.__dataclass_fields__,
        "passed",
    }
    assert printed["passed"] is True
    assert printed["parity"]["texts"]["largest"] > 0
    assert [each["on"] for each in printed["replays"]] == ["fp32", "merged"]
    assert [each["passed"] for each in printed["replays"]] == [True, True]


def test_the_verb_ends_with_two_if_a_replay_is_off(
    adapter: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers are printed all the same, and the fault is one line."""
    folder = _off_record(adapter, tmp_path / "edited", "float32", 0.5)

    code = _exit_code(["adapter", "verify", str(folder), "--base", str(base)])

    printed = capsys.readouterr()
    assert code == 2
    assert printed.out.splitlines()[1].rstrip().endswith("NOT REPRODUCED")
    assert printed.err == (
        f"peftune: '{folder}' is off its record by 0.5 on fp32, and "
        f"{_allowed(folder):.3g} is allowed.\n"
    )


def _allowed(folder: Path) -> float:
    recorded = json.loads((folder / "peftune.json").read_text())["behaviour"]["logits"]["float32"]
    return 1e-4 * max(1.0, float(np.abs(np.array(recorded)).max()))
