"""The recipes of real work, as they are, through the real clients and a hub on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_client import client_environment
from loopback_hub import LoopbackHub, Request, running_hub
from published import LEAKED, TWEETS, WIKITEXT, publish, tweet_files

STEPS = 20


@dataclass(frozen=True)
class Ran:
    """A run in a process of its own."""

    code: int
    output: str
    errors: str
    folder: Path
    asked: list[Request]

    @property
    def report(self) -> dict[str, Any]:
        """What its `report.json` holds."""
        values: dict[str, Any] = json.loads((self.folder / "report.json").read_text("utf-8"))
        return values


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """Run a hub that holds what the recipes name."""
    with running_hub() as hub:
        publish(hub)
        yield hub


def run_recipe(
    name: str, hub: LoopbackHub, home: Path, folder: Path, changes: Mapping[str, str] | None = None
) -> Ran:
    """Run a shipped recipe by its name, for a few steps, as a user of that hub."""
    environment = client_environment(hub.endpoint, home, **(changes or {}))
    environment |= {"HF_HUB_ETAG_TIMEOUT": "30", "HF_HUB_DOWNLOAD_TIMEOUT": "30"}
    before = len(hub.requests)
    command = ["run", name, f"training.max_steps={STEPS}", "--output", str(folder)]
    ended = subprocess.run(
        [sys.executable, "-m", "peftune", *command],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    asked = hub.requests[before:]
    return Ran(ended.returncode, ended.stdout, ended.stderr, folder, asked)


def judge(ran: Ran, strategy: str) -> None:
    """Check what holds of every such run."""
    assert ran.code == 0, ran.errors
    report = ran.report
    assert report["run"]["strategy"] == strategy
    assert report["learning"]["curve"][-1]["step"] == STEPS
    assert report["learning"]["n"] == 90
    assert report["forgetting"]["controls"]["adapter_off_forgetting"] == 0.0
    names = [probe["name"] for probe in report["forgetting"]["probes"]]
    assert names == ["wikitext", "general-text"]
    checks = report["checks"]
    dropped = {"step": "drop-leaked", "split": "train", "changed": 0, "dropped": LEAKED}
    assert checks["cleaned"] == [dropped]
    statuses = {result["code"]: result["status"] for result in checks["results"]}
    assert statuses["leakage"] == "pass"
    assert statuses["empty-text"] == statuses["duplicate-text"] == "warn"
    assert report["environment"]["dropped_rows"] == {"train": 1, "test": 0}
    assert f"\ncleaned train: drop-leaked left out {LEAKED} rows\n" in ran.output
    for page in ("report.html", "report.md"):
        text = (ran.folder / page).read_text(encoding="utf-8")
        assert "Rows that cleaning touched" in text
        assert "drop-leaked" in text


@pytest.mark.slow
def test_the_recipe_runs_on_a_cold_cache_a_warm_one_and_without_a_hub(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    """Named by its name alone: the same numbers each time, and each file fetched once."""
    home = tmp_path / "home"
    home.mkdir()
    cold = run_recipe("tweets-lora", hub, home, tmp_path / "cold")
    with ThreadPoolExecutor(2) as pool:
        warm, offline = pool.map(
            lambda name, changes: run_recipe("tweets-lora", hub, home, tmp_path / name, changes),
            ("warm", "offline"),
            ({}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}),
        )

    for ran in (cold, warm, offline):
        judge(ran, "lora")
        assert ran.report["learning"] == cold.report["learning"]
        assert ran.report["forgetting"] == cold.report["forgetting"]
    paths = {request.path for request in cold.asked}
    assert "/api/models/gpt2/revision/main" in paths
    assert "/api/models/openai-community/gpt2/revision/main" in paths
    assert any(path.startswith(f"/datasets/{TWEETS}/resolve/") for path in paths)
    assert not any("wikitext-103" in path and "/resolve/" in path for path in paths)
    assert any(WIKITEXT in path and "wikitext-2-raw-v1/validation" in path for path in paths)
    fetched = [
        request.path for request in warm.asked if request.method == "GET" and "/api/" not in request.path
    ]  # fmt: skip
    assert fetched == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora-8bit"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_recipe_of_every_strategy_runs(strategy: str, kind: str, tmp_path: Path) -> None:
    """Whether the hub holds the rows as they were put there or converted."""
    with running_hub() as hub:
        publish(hub)
        del hub.repositories[f"datasets/{TWEETS}"]
        hub.add(f"datasets/{TWEETS}", tweet_files(kind))

        ran = run_recipe(f"tweets-{strategy}", hub, tmp_path, tmp_path / "out")

    judge(ran, strategy)


def test_the_recipes_differ_by_their_strategy_alone() -> None:
    """What one of them was tested with holds for the others."""
    folder = Path(__file__).parent.parent / "recipes"
    texts = [
        (folder / f"tweets-{name}.yaml").read_text(encoding="utf-8")
        for name in ("full", "lora", "lora-8bit")
    ]
    data = [text.split("\ndata:\n")[1].split("\nstrategy:\n")[0] for text in texts]

    assert data[0] == data[1] == data[2]
    assert "clean: [drop-leaked]" in data[0]
