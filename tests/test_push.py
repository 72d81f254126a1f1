"""Sharing an artifact on a hub and loading it from there, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_client import client_environment
from loopback_hub import TOKEN, LoopbackHub, running_hub

import peftune
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import prepare_model

LABELS = ("bad", "so-so", "good")
TEXTS = ["what a lovely day", "no", "the soup was cold and nobody said sorry"]
NAME = "ada/soups"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """Run an empty hub."""
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def artifact(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a LoRA adapter whose every weight has moved."""
    model = prepare_model(str(base), peftune.LoRA(r=2), labels=LABELS, max_length=48, use_cpu=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return peftune.save(model, tmp_path_factory.mktemp("saved") / "adapter")


_TWO_PUSHES = """
import sys
from peftune.cli.main import _exit_code

name, damaged, artifact, base = sys.argv[1:]
for folder in (damaged, artifact):
    code = _exit_code(["adapter", "push", folder, name, "--base", base, "--json"])
    print(f"exit {code}", flush=True)
"""


def in_a_process(
    *arguments: object, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def damaged(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the adapter, with one bit of its weights flipped."""
    folder = tmp_path_factory.mktemp("damaged") / "adapter"
    shutil.copytree(artifact, folder)
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return folder


@pytest.mark.slow
def test_a_sound_artifact_is_pushed_and_loaded_elsewhere_with_equal_logits(
    hub: LoopbackHub, artifact: Path, damaged: Path, base: Path, tmp_path: Path
) -> None:
    """One process pushes, another loads by the pinned name; of a damaged one nothing is asked."""
    owner = client_environment(hub.endpoint, tmp_path / "owner", HF_TOKEN=TOKEN)
    reader = client_environment(hub.endpoint, tmp_path / "reader")

    pushed = in_a_process("-c", _TWO_PUSHES, NAME, damaged, artifact, base, environment=owner)

    refused, _, answer = pushed.stdout.partition("exit 3\n")
    assert refused == ""
    assert (
        f"peftune: '{damaged}/adapter_model.safetensors' is not the file that was saved: "
        "its hash differs from the manifest's. Fetch it again."
    ) in pushed.stderr.splitlines()
    assert len(hub.asked("POST", "/api/repos/create")) == 1
    repository = hub.repositories[NAME]
    assert len(repository.commits) == 2  # the empty repository, and one push
    assert {path: repository.files[path] for path in repository.files if path[0] != "."} == {
        path.name: path.read_bytes() for path in artifact.iterdir()
    }
    pinned = f"{NAME}@{repository.head}"
    shown, _, code = answer.rpartition("exit ")
    assert code == "0\n"
    assert json.loads(shown) == {
        "artifact": pinned,
        "load": f'peftune.load("{pinned}", base="PATH/TO/THE/BASE")',
    }

    texts = [part for text in TEXTS for part in ("--text", text)]
    command = ("-m", "peftune", "predict", pinned, *texts, "--base", base)
    hub.requests.clear()
    loaded = in_a_process(*command, environment=reader)

    assert {one.path for one in hub.requests if not (one.to_store or NAME in one.path)} == set()
    assert loaded.returncode == 0, loaded.stderr
    assert "is not pinned" not in loaded.stderr
    classifier = peftune.load(artifact, base=str(base), use_cpu=True)
    for line, expected in zip(loaded.stdout.splitlines(), classifier.predict(TEXTS), strict=True):
        found = json.loads(line)
        assert found["label"] == expected.label
        np.testing.assert_allclose(found["score"], expected.score, atol=1e-6)


@pytest.mark.parametrize("name", ["soups", "./ada/soups", "ada/soups@main", "ada/so ups"])
def test_a_name_that_is_none_is_refused_at_once(name: str, artifact: Path) -> None:
    """Neither a path nor a revision can be pushed to."""
    with pytest.raises(peftune.PeftuneError) as refused:
        peftune.adapters.push(artifact, name)

    assert str(refused.value) == (
        f"'{name}' is not a name to push to. It must be user/name, without a revision: the push makes one."
    )
