"""A comparison that was killed and started again gives the table of one that ran through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
version: 1
name: killed
model: {name_or_path: bundled:tiny-gpt2, max_length: 32}
data:
  dataset_name: bundled:posts
  max_train_examples: 96
  max_validation_examples: 16
  max_test_examples: 16
strategy: {name: lora, r: 2}
training: {num_train_epochs: 2, per_device_train_batch_size: 4, learning_rate: 1.0e-3, eval_steps: 6, eval_strategy: steps}
forgetting:
  probes:
    - {type: lm-loss, dataset_name: bundled:general-text, max_documents: 10}
output_dir: runs/killed
"""
ENDED = 143
"""What a command that SIGTERM ended exits with."""


def _command(folder: Path) -> list[str]:
    (folder.parent / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    recipe = str(folder.parent / "recipe.yaml")
    grid = ["--strategies", "lora,head-only", "--seeds", "0", "--output", str(folder)]
    return [sys.executable, "-m", "peftune", "compare", recipe, *grid]


def _without_seconds(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Drop what a clock or the memory says, which no two runs share.

    And Trainer's running mean of the training loss, which begins anew after a resume.
    """
    measured = {
        "train_loss",
        "train_seconds",
        "train_examples_per_second",
        "latency_median_ms",
        "latency_p95_ms",
        "peak_memory_bytes",
        "fronts",
        "seconds",
        "order_sha256",
        "reason",
    }
    if isinstance(value, dict):
        return {key: _without_seconds(one) for key, one in value.items() if key not in measured}
    return [_without_seconds(one) for one in value] if isinstance(value, list) else value


def _comparison(folder: Path) -> Any:  # noqa: ANN401 - any JSON
    return _without_seconds(json.loads((folder / "comparison.json").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_table(tmp_path: Path) -> None:
    """SIGTERM in the middle of a run's training, and the same command again."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    through, killed = tmp_path / "a" / "through", tmp_path / "b" / "killed"
    through.parent.mkdir()
    killed.parent.mkdir()
    subprocess.run(_command(through), check=True, env=environment, capture_output=True)

    process = subprocess.Popen(
        _command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = killed / "lora-seed0" / "checkpoints" / "checkpoint-6" / "peftune_digest.json"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == ENDED
    assert not (killed / "comparison.json").exists()
    assert json.loads((killed / "lora-seed0" / "report.json").read_text())["status"] != "complete"
    subprocess.run(_command(killed), check=True, env=environment, capture_output=True)

    assert _comparison(killed) == _comparison(through)
    assert (killed / "report.html").is_file()
