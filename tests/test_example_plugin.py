"""The example plug-in installs, is found, runs from the command line, and its artifact loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import peftune

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "peftune-bitfit"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and install the example, without a network, into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")  # building writes into the source tree
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--disable-pip-version-check", "--no-build-isolation"]
    command += ["--target", str(folder / "packages"), str(folder / "source")]
    subprocess.run(command, check=True)
    return folder / "packages"


def peftune_cli(installed: Path, *arguments: str) -> str:
    """Run the command line in a process that sees the plug-in."""
    paths = os.pathsep.join([str(installed), *(path or str(Path.cwd()) for path in sys.path)])
    result = subprocess.run(
        [sys.executable, "-m", "peftune", *arguments],
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_an_installed_plugin_is_listed(installed: Path) -> None:
    """Installing the package is all it takes for `peftune strategies` to know the strategy."""
    rows = json.loads(peftune_cli(installed, "strategies", "--json"))

    assert {
        "strategy": "bitfit",
        "package": "peftune-bitfit",
        "what": "Freeze every weight but the bias terms and the classification head",
        "fields": "layer_norms",
    } in rows
    assert "lora" in [row["strategy"] for row in rows]


@pytest.mark.slow
def test_a_plugin_runs_by_name_and_its_artifact_loads(
    installed: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe trains the plug-in's strategy; its artifact loads where the plug-in is installed."""
    output = tmp_path / "run"
    peftune_cli(
        installed,
        "run",
        "quickstart",
        f"model.name_or_path={tiny_base}",
        "data.max_train_examples=64",
        "data.max_validation_examples=30",
        "data.max_test_examples=30",
        "training.max_steps=3",
        "training.use_cpu=true",
        "forgetting.probes=[]",
        "--strategy",
        "bitfit",
        "--output",
        str(output),
    )
    report = json.loads((output / "report.json").read_text())
    assert report["run"]["strategy_config"] == {"name": "bitfit", "layer_norms": True}

    with monkeypatch.context() as patch:
        patch.syspath_prepend(installed)
        classifier = peftune.load(output / "adapter", base=str(tiny_base), use_cpu=True)
        (prediction,) = classifier.predict(["what a lovely day"])
    assert prediction.label in {"negative", "neutral", "positive"}
