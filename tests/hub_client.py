"""A process of its own that fetches and pushes on demand, with the environment of a user.

The hub's client reads its settings when it is imported, so that a test which sets them needs a
new process. Run as a program, this module is that process: commands come in as lines of JSON.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peftune

ROOT = Path(peftune.__file__).parents[1]


def client_environment(endpoint: str, home: Path, **changes: str) -> dict[str, str]:
    """Make the environment of a user of a hub at this address, whose home is an empty folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_PROXY": "*",
        **changes,
    }


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    name: str | None
    entries: dict[str, str]
    error: str | None
    message: str | None
    log: list[str]
    modules: list[str]


class Client:
    """The other process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def fetch(self, name: str) -> Outcome:
        """Fetch an artifact."""
        return self._ask(do="fetch", name=name)

    def push(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        private: bool = False,
        message: str = "Push",
    ) -> Outcome:
        """Push files."""
        content = {file: base64.b64encode(value).decode() for file, value in files.items()}
        return self._ask(do="push", name=name, files=content, private=private, message=message)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, **command: object) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _done(command: dict[str, Any]) -> tuple[str, dict[str, str]]:
    from peftune.adapters.hub.client import parse_hub_name
    from peftune.adapters.hub.fetch import fetch
    from peftune.adapters.hub.push import push_files

    name = parse_hub_name(command["name"])
    assert name is not None
    if command["do"] == "fetch":
        folder = fetch(name)
        return folder.name, {file: str(path) for file, path in folder.entries.items()}
    files = {file: base64.b64decode(value) for file, value in command["files"].items()}
    pushed = push_files(name, files, private=command["private"], message=command["message"])
    return str(pushed), {}


def _serve() -> None:
    from peftune.errors import PeftuneError

    for line in sys.stdin:
        kept = _Kept()
        logging.getLogger("peftune").handlers = [kept]
        name = error = message = None
        entries: dict[str, str] = {}
        try:
            name, entries = _done(json.loads(line))
        except PeftuneError as fault:
            error, message = type(fault).__name__, str(fault)
        modules = sorted({"torch", "hf_xet", "transformers"} & set(sys.modules))
        outcome = Outcome(name, entries, error, message, kept.messages, modules)
        sys.stdout.write(json.dumps(outcome.__dict__) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
