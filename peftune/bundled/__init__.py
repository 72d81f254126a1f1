"""What peftune carries so that everything works with no hub: a small GPT-2, a task, general text.

Light: importing it loads no torch.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from peftune.errors import UsageError
from peftune.errors import suggestion

PREFIX = "bundled:"
MODELS = ("tiny-gpt2",)
TASKS = ("posts",)
TEXTS = ("general-text",)


def is_bundled(name: str) -> bool:
    """Say whether a name asks for something bundled."""
    return name.startswith(PREFIX)


def bundled_folder(name: str, *, among: tuple[str, ...]) -> Path:
    """Return the folder of a bundled model, task or text.

    Args:
        name: such as `bundled:tiny-gpt2`.
        among: names that make sense where it is asked for.

    Raises:
        UsageError: nothing of that name is bundled.
    """
    short = name.removeprefix(PREFIX)
    if short not in among:
        message = f"Nothing called '{name}' is bundled here. {suggestion(name, [PREFIX + known for known in among])}"
        raise UsageError(message)
    return Path(str(files(__name__))) / short
