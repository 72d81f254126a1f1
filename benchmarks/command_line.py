"""The command line: measure, or write the table of what was measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.result import read_result
from benchmarks.settings import FLOOR, PARTS, SMALL, STRATEGIES, Settings, Sizes
from benchmarks.shapes import SHAPES
from benchmarks.table import write_table

_TABLE = "table"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [_TABLE]:
        return _write_table(given[1:])
    from benchmarks.runner import failures, run

    settings = _settings(_parser().parse_args(given))
    result = run(settings, _say)
    failed = list(failures(result["parts"]))
    for line in failed:
        _say(f"failed: {line}")
    _say(f"written to {settings.out}")
    return 1 if failed else 0


def _write_table(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks table", description="Write a result's table between a page's markers."
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("page", type=Path)
    chosen = parser.parse_args(given)
    write_table(read_result(chosen.result), chosen.page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description="Measure peftune beside what a user would run instead. 'benchmarks table RESULT PAGE' writes the table.",
    )
    parser.add_argument("--shape", choices=SHAPES, default="gpt2", help="size of the base")
    parser.add_argument("--base", type=Path, help="folder of a base of your own, of that shape")
    parser.add_argument("--rows", type=Path, help="csv with the columns text and label")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strategies", type=_among(STRATEGIES), default=STRATEGIES)
    parser.add_argument("--batch", type=_numbers, default=(4, 32), help="rows of a step: 4,32")
    parser.add_argument(
        "--every-batch", action="store_true", help="all strategies at all batches, not lora alone"
    )
    parser.add_argument(
        "--contenders", type=_among((*CONTENDERS, FLOOR)), default=(*CONTENDERS, FLOOR)
    )
    parser.add_argument(
        "--only", type=_among(PARTS), default=PARTS, help="parts to measure; others are kept"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0 is the default")
    parser.add_argument("--minutes", type=float, default=60.0, help="no round ends much later")
    parser.add_argument("--small", action="store_true", help="few steps: does everything work?")
    parser.add_argument("--out", type=Path, default=Path("build/bench/result.json"))
    return parser


def _settings(chosen: argparse.Namespace) -> Settings:
    return Settings(
        shape=chosen.shape,
        out=chosen.out,
        work=chosen.out.parent / "work",
        base=chosen.base,
        rows=chosen.rows,
        rounds=chosen.rounds,
        strategies=chosen.strategies,
        batches=chosen.batch,
        every_batch=chosen.every_batch,
        contenders=chosen.contenders,
        parts=chosen.only,
        device=_device() if chosen.device == "auto" else chosen.device,
        threads=chosen.threads,
        minutes=chosen.minutes,
        sizes=SMALL if chosen.small else Sizes(),
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class _among:  # noqa: N801 - argparse names the type in its messages
    """Read names that are separated by commas, each one of a few."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        odd = [name for name in names if name not in self._known]
        if odd:
            message = f"'{odd[0]}' is none of {', '.join(self._known)}"
            raise argparse.ArgumentTypeError(message)
        return names


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        message = f"'{text}' is not a list of numbers such as 4,32"
        raise argparse.ArgumentTypeError(message)
    return numbers


def _say(line: str) -> None:
    print(line, flush=True)
