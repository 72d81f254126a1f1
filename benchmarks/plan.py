"""Who is measured at what, in which round, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.contenders import ACCURACY_ALONE, CONTENDERS, contender
from benchmarks.settings import EVERY_ROUND, FIRST_ROUNDS, FLOOR, Settings

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender at one piece of work.

    Args:
        contender: its short name.
        strategy: what it trains with; empty for the floor, which serves all.
        batch: rows of a step; 0 for the floor.
    """

    contender: str
    strategy: str = ""
    batch: int = 0


def planned(settings: Settings) -> tuple[list[list[Entry]], list[dict[str, str]]]:
    """List what is measured, those who do the same work together, and who cannot be, and why."""
    groups: list[list[Entry]] = [[Entry(FLOOR)]] if FLOOR in settings.contenders else []
    absent: list[dict[str, str]] = []
    for strategy in settings.strategies:
        able = []
        for name in CONTENDERS:
            if name not in settings.contenders or name in ACCURACY_ALONE:
                continue
            chosen = contender(name)
            if strategy not in chosen.strategies:
                continue
            reason = chosen.absent(strategy)
            if reason is None:
                able.append((name, chosen.batch_is_accumulated))
            else:
                absent.append({"contender": name, "strategy": strategy, "reason": reason})
        for batch in settings.batches_of(strategy):
            first = batch == settings.batches[0]
            group = [Entry(name, strategy, batch) for name, slow in able if first or not slow]
            if group:
                groups.append(group)
    return groups, absent


def order_of_round(groups: Sequence[Sequence[Entry]], number: int) -> list[Entry]:
    """Return the entries of a round, rotated so that none always goes first or after the same one.

    Args:
        groups: from `planned`.
        number: of the round, from 0.
    """
    entries = [entry for group in rotated(groups, number) for entry in rotated(group, number)]
    return [entry for entry in entries if number < FIRST_ROUNDS or entry.contender in EVERY_ROUND]


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """Begin a sequence further on, and end it with what was passed over."""
    if not items:
        return []
    start = by % len(items)
    return [*items[start:], *items[:start]]
