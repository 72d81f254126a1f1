"""`peftune plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

import peftune
from peftune.cli.console import console, print_json, print_rows, quiet_libraries, say, say_wrapped
from peftune.cli.options import (
    JsonFlag,
    OverridesArgument,
    RecipeArgument,
    SeedOption,
    listed,
    seeded,
)

if TYPE_CHECKING:
    from peftune.planning import Plan, StrategyPlan

_WIDE = 102
"""Columns of a terminal from which a table is readable."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("plan")(plan)


def plan(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    strategies: Annotated[
        str | None,
        typer.Option(help="Strategy names, separated by commas; otherwise all installed ones."),
    ] = None,
    sizes: Annotated[
        str,
        typer.Option(
            help="own for the recipe's base, and sizes of GPT-2: small, medium, large, xl."
        ),
    ] = "own,small,medium,large,xl",
    seed: SeedOption = None,
    json: JsonFlag = False,
) -> None:
    """Estimate memory, time and file size of every strategy on this machine; no base is loaded."""
    quiet_libraries()
    found = peftune.plan(
        recipe,
        overrides=seeded(overrides, seed),
        strategies=None if strategies is None else listed(strategies, "--strategies"),
        sizes=listed(sizes, "--sizes"),
    )
    if json:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: Plan) -> None:
    say(_heading(found))
    by_base: dict[str, list[StrategyPlan]] = {}
    for one in found.plans:
        by_base.setdefault(one.base, []).append(one)
    for base, plans in by_base.items():
        say(f"\n{base}, {plans[0].base_parameters / 1e6:,.0f} million weights")
        if console().width >= _WIDE:
            print_rows([_row(one) for one in plans], as_json=False)
        else:
            _print_narrow(plans)
    say("")
    for sentence in found.advice:
        say(sentence)
    for name, reason in found.unplanned.items():
        say(f"not planned: {name} ({reason})")


def _heading(found: Plan) -> str:
    from peftune.stats.formats import size

    rates = ", ".join(
        f"{min(by_width.values()):,.0f} to {max(by_width.values()):,.0f} GFLOP/s in {dtype}"
        for dtype, by_width in found.products.items()
    )
    return (
        f"{found.recipe} on {found.device}, {found.threads} threads, {size(found.available_bytes)} free: {rates}; copies {found.copied:.0f} GB/s\n"
        f"batches of {found.batch_size}; {found.lengths}"
    )


def _row(one: StrategyPlan) -> dict[str, str]:
    from peftune.stats.formats import seconds, size

    memory = one.memory
    return {
        "strategy": one.strategy,
        "peak": size(memory.peak),
        "weights": size(memory.weights),
        "copies": size(memory.copies),
        "gradients": size(memory.gradients),
        "optimizer": size(memory.optimizer),
        "activations": size(memory.activations),
        "process": size(memory.process),
        "other": size(memory.other),
        "artifact": size(one.artifact_bytes),
        "disk": size(one.disk_bytes),
        "epoch": seconds(one.seconds_per_epoch),
    }


def _print_narrow(plans: Sequence[StrategyPlan]) -> None:
    for one in plans:
        cells = iter(_row(one).items())
        _, name = next(cells)
        say_wrapped(f"{name}: " + ", ".join(f"{key} {value}" for key, value in cells))
