"""What the tests share: the tiny model, and a log of their own."""

from __future__ import annotations

import gc
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# On models this small a second thread waits more than it works, above all on a busy machine. Set
# before torch is imported; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test asks the hub; one that does by mistake fails at once. Read when the library is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# What the product caches in a home folder goes into one that lasts as long as the tests.
_CACHE = tempfile.TemporaryDirectory(prefix="peftune-cache-")
os.environ["PEFTUNE_CACHE"] = _CACHE.name


# The processes that tests start hear what ends them, also where the tests themselves run in the
# background of a shell or under nohup: an ignored signal is inherited, and stays ignored.
for _name in ("SIGINT", "SIGHUP"):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        _own = signal.default_int_handler if _name == "SIGINT" else signal.SIG_DFL
        signal.signal(getattr(signal, _name), _own)


_BEGUN_FIRST = (
    "test_compare",
    "test_compare_interrupted",
    "test_docs",
    "test_command_line",
)
"""Files that take longest, mostly because their tests start processes."""


FAST_CASES = 6
"""Cases of one parametrized test in the fast run, one where it is marked `costly`; `make slow` runs the others."""

_STARTS_A_PROCESS = "test_a_fresh_process_loads_equal_logits"
"""A law of `peftune.testing` that takes nine seconds for each strategy."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of killed runs try every operation, where the slow run takes a sample."""
    parser.addoption("--every-operation", action="store_true", help="kill runs at every operation")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests on the CPU, also where there is a GPU, unless those marked `gpu` are asked for."""
    chosen = str(config.getoption("markexpr"))
    if "gpu" not in chosen or "not gpu" in chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave a sample of many cases to the fast run, and begin with what takes longest."""
    cases: dict[tuple[Path, object, str], list[pytest.Item]] = {}
    for item in items:
        name = getattr(item, "originalname", item.name)
        group = None if name == _STARTS_A_PROCESS else getattr(item, "cls", None)
        cases.setdefault((item.path, group, name), []).append(item)
    for (_, _, name), group in cases.items():
        costly = name == _STARTS_A_PROCESS or group[0].get_closest_marker("costly") is not None
        most = 1 if costly else FAST_CASES
        step = (len(group) - 1) / max(1, most - 1)
        kept = {round(number * step) for number in range(most)}
        for number, item in enumerate(group):
            if len(group) > most and number not in kept:
                item.add_marker(pytest.mark.slow)
    places = {name: place for place, name in enumerate(_BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True, scope="module")
def _libraries_out_of_the_collectors_way() -> None:
    """Let a garbage collection look at the objects of the tests alone.

    Trainer begins each training with one, which takes a third of a second among all that torch
    and transformers made when they were imported: as long as the training of a tiny model.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _language_model_read_once() -> None:
    """Unpack py3langid's model once in all tests: each run takes a second of processor time for it."""
    from warm_runs import read_language_model_once

    read_language_model_once()


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Let each test's command set up its log anew, on the stream that the test captures."""
    logger = logging.getLogger("peftune")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers = []
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a GPT-2 of two random layers, with the bundled tokenizer."""
    from peftune.testing import write_tiny_base

    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a GPT-2 of two random layers that reads single bytes; nothing may change it."""
    from bases import write_base

    return write_base(tmp_path_factory.mktemp("base") / "tiny")
