"""A process that loads what it is told to, and one that watches it: a hang or a death is an answer."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TESTS = Path(__file__).resolve().parent.parent
SECONDS_TO_START = 240
SECONDS_TO_ANSWER = 30
"""Long enough for a busy machine; a load that waits for a pipe or a pattern never answers."""

Outcome = Literal["loaded", "refused", "raised", "hung", "died"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one load.

    Args:
        outcome: `refused` is a PeftuneError; `raised` is anything else that was raised.
        message: of the error, or a digest of the logits of what was loaded.
        seconds: of work of the process, the fewest of a few tries where they were many.
        megabytes: by which the peak of the resident memory lay above what was in use before.
        events: forbidden things that it did or tried, as the audit hook saw them.
    """

    outcome: Outcome
    message: str
    seconds: float = 0.0
    megabytes: float = 0.0
    events: tuple[str, ...] = ()


class Loader:
    """Asks a process to load artifacts, and starts another one when it hangs or dies."""

    def __init__(self, workplace: Path) -> None:
        self._workplace = workplace
        self._process: subprocess.Popen[bytes] | None = None

    def ask(
        self,
        folder: Path,
        *,
        base: Path | None = None,
        door: str = "load",
        allowed: tuple[Path, ...] = (),
        labels: tuple[str, ...] | None = None,
        without: tuple[str, ...] = (),
        patience: float = SECONDS_TO_ANSWER,
    ) -> Verdict:
        """Let the process load an artifact.

        Args:
            folder: the artifact.
            base: where its base lies; None gives none.
            door: one of those in `hostile.worker`.
            allowed: further files and folders that may be opened.
            labels: for an artifact that carries none.
            without: guards to switch off, as `module:function`.
            patience: seconds to wait for an answer.
        """
        # Each case is a machine that has met no base of this fingerprint before.
        shutil.rmtree(self._workplace / "cache" / "base-places", ignore_errors=True)
        process = self._process or self._start()
        request = {
            "folder": str(folder),
            "base": None if base is None else str(base),
            "door": door,
            "allowed": [str(path) for path in (folder, *allowed, *((base,) if base else ()))],
            "labels": labels,
            "without": without,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answer = self._answer(patience)
        if answer is not None:
            return Verdict(**{**answer, "events": tuple(answer["events"])})
        code = process.poll()
        self.stop()
        return Verdict("hung" if code is None else "died", f"exit code {code}")

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"
        } | {
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "HF_HOME": str(self._workplace / "hub"),
            "HF_ENDPOINT": "http://127.0.0.1:9",  # should the audit hook let anything through
            "OMP_NUM_THREADS": "1",
            "PEFTUNE_CACHE": str(self._workplace / "cache"),
            "TMPDIR": str(self._workplace),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "hostile.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=self._workplace,
        )
        if self._answer(SECONDS_TO_START) is None:
            code = self._process.poll()
            self.stop()
            message = f"the loading process did not start (exit code {code})"
            raise RuntimeError(message)
        return self._process

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """Read one line, or give up."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._process.stdout.readline()
        answer: dict[str, Any] | None = json.loads(line) if line else None
        if answer is None:
            self._process.wait(10)
        return answer


@contextmanager
def loader_in(workplace: Path) -> Iterator[Loader]:
    """Give a loader whose processes end with the block."""
    loader = Loader(workplace)
    try:
        yield loader
    finally:
        loader.stop()
