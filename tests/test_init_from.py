"""`model.init_from`: a run begins as the backbone of another artifact, with a new head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bases import write_base
from kinds import STRATEGIES, move, recipe, states
from torch import nn

import peftune
from peftune.adapters.loading import load_prepared
from peftune.errors import ArtifactError, OutputFolderError, UsageError
from peftune.models.architecture import head_of
from peftune.models.base_files import find_base
from peftune.models.loading import choose_device, load_backbone
from peftune.models.prepare import acting_as_base, preparation_of

LABELS = ["no", "yes", "perhaps"]


@pytest.fixture(scope="module")
def artifacts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give an artifact of another task by every strategy."""
    folder = tmp_path_factory.mktemp("artifacts")
    for name, strategy in STRATEGIES.items():
        model, _ = peftune.prepare(
            str(base), strategy=strategy, labels=["a", "b"], max_length=16, use_cpu=True
        )
        move(model)
        peftune.save(model, folder / name)
    return {name: folder / name for name in STRATEGIES}


def begun(base: Path, strategy: str, init: Path | None, tmp_path: Path) -> nn.Module:
    """Prepare a model for three labels."""
    model, _ = peftune.prepare(
        str(base),
        strategy=STRATEGIES[strategy],
        labels=LABELS,
        max_length=16,
        use_cpu=True,
        init_from=init,
        base_folder=tmp_path / "under",
    )
    return model


_WEIGHTS = {("half", "full"), ("lora", "full"), ("lora-8bit", "full")}


@pytest.mark.costly
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("init", STRATEGIES)
def test_training_begins_at_the_artifacts_backbone(
    base: Path, artifacts: dict[str, Path], init: str, strategy: str, tmp_path: Path
) -> None:
    """Of its own strategy bit for bit; otherwise up to rounding, and to the 8 bits of the base."""
    start = load_prepared(artifacts[init], base=str(base), use_cpu=True)

    model = begun(base, strategy, artifacts[init], tmp_path)

    found = preparation_of(model).initialized_from
    assert found is not None
    if init in (strategy, "head-only"):
        assert found.kind == "adapter"
    else:
        assert found.kind == ("weights" if strategy == "full" else "base")
    if init == strategy:
        assert torch.equal(states(model), states(start))
        return
    rounds = "lora-8bit" in (init, strategy)
    torch.testing.assert_close(
        states(model), states(start), atol=0.3 if rounds else 1e-4, rtol=0.0
    )


@pytest.mark.parametrize(("init", "strategy"), [("lora", "lora"), ("lora", "full")])
def test_the_reference_is_still_the_untouched_base(
    base: Path, artifacts: dict[str, Path], init: str, strategy: str, tmp_path: Path
) -> None:
    """What was known at the start counts as learned: switched off, the model is its base."""
    model = begun(base, strategy, artifacts[init], tmp_path)
    untouched = load_backbone(find_base(str(base)), choose_device(use_cpu=True))

    with acting_as_base(model):
        off = states(model)

    assert not torch.equal(states(model), off)
    torch.testing.assert_close(off, states(untouched), atol=0.0, rtol=0.0)


def test_the_head_is_the_one_of_a_cold_start(
    base: Path, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing of the other task's head comes along, whatever its labels were."""
    cold, warm = (begun(base, "full", init, tmp_path) for init in (None, artifacts["full"]))

    assert torch.equal(next(head_of(cold).parameters()), next(head_of(warm).parameters()))


def test_fields_that_shape_no_weights_may_differ(
    base: Path, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """Another dropout trains the same adapter on; another alpha means another update, of the same shape."""

    def kind(strategy: peftune.strategies.Strategy) -> str:
        model, _ = peftune.prepare(
            str(base),
            strategy=strategy,
            labels=LABELS,
            max_length=16,
            use_cpu=True,
            init_from=artifacts["lora"],
            base_folder=tmp_path / "under",
        )
        start = preparation_of(model).initialized_from
        assert start is not None
        return start.kind

    assert kind(peftune.LoRA(r=2, lora_dropout=0.5)) == "adapter"
    assert kind(peftune.LoRA(r=2, lora_alpha=64)) == "base"


def test_an_artifact_of_another_base_is_refused(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """The bases are told apart by their weights."""
    other = write_base(tmp_path / "other", seed=1)

    with pytest.raises(ArtifactError) as caught:
        begun(other, "lora", artifacts["lora"], tmp_path)

    manifest = json.loads((artifacts["lora"] / "peftune.json").read_text(encoding="utf-8"))
    own = manifest["base"]["fingerprint"][:12]
    its = str(caught.value).split("has ")[1][:12]
    assert its != own
    assert str(caught.value) == (
        f"'{artifacts['lora']}' was made from the base 'tiny' with fingerprint {own}…, but '{other}' has {its}…. "
        "Start from an artifact of the same base, or name its base as the model."
    )


def test_a_damaged_artifact_is_refused(
    base: Path, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """The same checks hold as where an artifact is loaded."""
    torn = shutil.copytree(artifacts["lora"], tmp_path / "torn")
    weights = torn / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")

    with pytest.raises(ArtifactError, match="is not the file that was saved"):
        begun(base, "lora", torn, tmp_path)


def test_a_start_that_needs_a_folder_says_so(base: Path, artifacts: dict[str, Path]) -> None:
    """In Python the caller decides where a checkpoint is written."""
    with pytest.raises(UsageError) as caught:
        peftune.prepare(
            str(base),
            strategy=STRATEGIES["lora"],
            labels=LABELS,
            max_length=16,
            use_cpu=True,
            init_from=artifacts["full"],
        )

    assert str(caught.value) == (
        f"'{artifacts['full']}' changed weights that the strategy 'lora' freezes, so its backbone must be written as a "
        "checkpoint to be put under it. Say where: base_folder=…."
    )


def test_a_folder_with_something_else_in_it_is_left_alone(
    base: Path, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """The checkpoint under a strategy is written into a folder of its own; once is enough."""
    begun(base, "lora", artifacts["full"], tmp_path)
    written = (tmp_path / "under" / "model.safetensors").stat().st_mtime_ns
    begun(base, "lora", artifacts["full"], tmp_path)
    assert (tmp_path / "under" / "model.safetensors").stat().st_mtime_ns == written

    with pytest.raises(OutputFolderError) as caught:
        begun(base, "lora", artifacts["half"], tmp_path)

    assert str(caught.value) == (
        f"'{tmp_path / 'under'}' is not empty and holds something else than the backbone of '{artifacts['half']}'. "
        "Choose another folder, or remove it."
    )
    assert (tmp_path / "under" / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora", "head-only", "lora-8bit"])
def test_forgetting_is_measured_against_the_base_that_the_recipe_names(
    base: Path, artifacts: dict[str, Path], strategy: str, tmp_path: Path
) -> None:
    """Whatever the start: before is the base's own value, and the control is exactly zero."""
    cold = peftune.run(recipe(tmp_path, base, STRATEGIES[strategy], name="cold"))

    warm = peftune.run(
        recipe(tmp_path, base, STRATEGIES[strategy], name="warm", init_from=artifacts["full"])
    )

    [before], [probe] = cold.forgetting, warm.forgetting
    assert probe.before == pytest.approx(before.before, rel=1e-12)
    assert warm.forgetting.controls == {"adapter_off_forgetting": 0.0}
    assert [one.name for one in warm.forgetting.stages] == ["start", "warm"]
    first, last = (one.forgetting["probe"] for one in warm.forgetting.stages)
    assert first + last == pytest.approx(probe.forgetting, abs=1e-12)
    assert warm.run.base_fingerprint == cold.run.base_fingerprint
    assert cold.run.start is None
    if strategy == "head-only":  # a backbone that cannot change keeps what the start had forgotten
        assert last == 0.0
        assert first == pytest.approx(_forgotten(artifacts["full"], base, tmp_path), abs=1e-6)
    saved = load_prepared(
        warm.artifact, base=None if strategy != "full" else str(base), use_cpu=True
    )
    assert saved is not None


def _forgotten(artifact: Path, base: Path, folder: Path) -> float:
    probe = peftune.probes.LanguageModelLoss(file=str(folder / "probe.jsonl"))
    [found] = peftune.forget(artifact, [probe], base=str(base), use_cpu=True)
    return found.forgetting


def test_a_finished_run_answers_for_its_own_start(
    base: Path, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """Another artifact under the same name is another run."""
    init = shutil.copytree(artifacts["lora"], tmp_path / "init")
    chosen = recipe(tmp_path, base, STRATEGIES["lora"], init_from=init, probes=False)
    peftune.run(chosen)
    shutil.rmtree(init)
    shutil.copytree(artifacts["half"], init)

    with pytest.raises(OutputFolderError) as caught:
        peftune.run(chosen)

    assert str(caught.value) == (
        f"'{tmp_path / 'small'}' holds this run, but its starting points have changed since. "
        "Choose another output folder with --output, or remove it."
    )
