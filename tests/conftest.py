"""What the tests share: the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a GPT-2 of two random layers, with the bundled tokenizer."""
    from peftune.testing import write_tiny_base

    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny-base")
