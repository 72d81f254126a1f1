"""The command line: one file a verb, each a thin shell over a Python function."""

from __future__ import annotations

from typing import Any

__all__ = ["main"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a function of the package
    # Not before it is asked for: signals are heard before the verbs are imported.
    if name != "main":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from peftune.cli.main import main

    globals()["main"] = main
    return main
