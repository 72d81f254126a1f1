"""Arguments and options that several verbs share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from peftune.errors import UsageError

if TYPE_CHECKING:
    from peftune.recipe.overrides import Assignment

RecipeArgument = Annotated[
    str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to set, such as training.seed=1."),
]
SeedOption = Annotated[
    int | None, typer.Option(help="Seed of the training, as the override training.seed=N.")
]
ArtifactArgument = Annotated[
    str,
    typer.Argument(
        help="A run folder, the adapter/ or model/ folder in it, or user/name@commit on the hub."
    ),
]
BaseOption = Annotated[
    str | None, typer.Option(help="Where the base lies, if not under the name in the manifest.")
]
TextColumnOption = Annotated[
    str | None,
    typer.Option(help="Column that holds the text, if not the one that was learned from."),
]
EmptyTextOption = Annotated[
    str, typer.Option(help="What to do with rows without text: error, drop or keep.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def seeded(overrides: Sequence[str] | None, seed: int | None) -> Sequence[str | Assignment]:
    """Add `--seed` to the overrides.

    Raises:
        UsageError: an override names another seed.
    """
    if seed is None:
        return overrides or ()
    from peftune.recipe.overrides import Assignment, read_overrides
    from peftune.recipe.yaml_document import Place

    path = ("training", "seed")
    for one in read_overrides(overrides or ()):
        section = one.value if one.path == path[:1] and isinstance(one.value, dict) else {}
        other = one.value if one.path == path else section.get("seed", seed)
        if other != seed:
            message = f"--seed is {seed}, but {one.place} names the seed {other}. Leave one of the two out."
            raise UsageError(message)
    return [*(overrides or ()), Assignment(path, seed, "training.seed", Place(f"--seed {seed}"))]


def listed(text: str, option: str) -> list[str]:
    """Read values separated by commas.

    Raises:
        UsageError: there is none.
    """
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        message = f"{option} takes values separated by commas (got '{text}')."
        raise UsageError(message)
    return values


def listed_numbers(text: str, option: str) -> list[int]:
    """Read whole numbers separated by commas.

    Raises:
        UsageError: there is none, or a value is not a whole number.
    """
    values = listed(text, option)
    for value in values:
        if not value.isdecimal():
            message = f"{option} takes whole numbers separated by commas (got '{value}')."
            raise UsageError(message)
    return [int(value) for value in values]
