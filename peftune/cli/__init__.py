"""The command line: one file a verb, each a thin shell over a Python function."""

from peftune.cli.main import main

__all__ = ["main"]
