"""Ten thousand random corruptions of good artifacts: every one of them is noticed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hostile.case import FILES, Artifact
from hostile.good import Good, write_good

import peftune
from peftune import plugins
from peftune.adapters.artifact import open_artifact
from peftune.errors import PeftuneError

CORRUPTIONS = 10_000
THROUGH_LOAD = 100
"""Of them, this many go through the whole of `peftune.load` as well."""

LARGEST = 1 << 20
ARTIFACTS: tuple[Artifact, ...] = ("lora", "head-only", "lora-8bit", "full")

Change = Callable[[random.Random, bytes], bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Write the good artifacts and the bases."""
    return write_good(tmp_path_factory.mktemp("corrupted"))


@pytest.fixture(autouse=True)
def _plugins_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what the installed packages say once, not ten thousand times: it takes most of the time."""
    monkeypatch.setattr(plugins, "entry_points", cache(entry_points))
    monkeypatch.setattr(plugins, "_package", cache(plugins._package))


def _place(chance: random.Random, content: bytes) -> int:
    return chance.randrange(len(content))


def _span(chance: random.Random, content: bytes) -> tuple[int, int]:
    start = _place(chance, content)
    return start, min(len(content), start + chance.choice((1, 2, 8, 64, 512, 4096)))


def _bit_flipped(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    changed[_place(chance, content)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _bytes_replaced(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.randbytes(end - start) + content[end:]


def _zeroed(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + bytes(end - start) + content[end:]


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: _place(chance, content)]


def _bytes_removed(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[end:]


def _bytes_inserted(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.randbytes(end - start) + content[start:]


def _space_inserted(chance: random.Random, content: bytes) -> bytes:
    """Change the layout of a text alone: in JSON it means nothing."""
    start = _place(chance, content)
    return content[:start] + chance.choice((b" ", b"\n", b"\t", b"\r\n")) + content[start:]


def _bytes_repeated(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:end] + content[start:]


def _places_swapped(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    one, other = _place(chance, content), _place(chance, content)
    changed[one], changed[other] = changed[other], changed[one]
    return bytes(changed)


def _spans_swapped(chance: random.Random, content: bytes) -> bytes:
    (a, b), (c, d) = sorted((_span(chance, content), _span(chance, content)))
    if b > c:
        return content
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _digit_changed(chance: random.Random, content: bytes) -> bytes:
    """Change one digit, wherever there is one: a text stays well-formed."""
    found = re.compile(rb"\d").search(content, _place(chance, content))
    if found is None:
        return content
    place = found.start()
    return content[:place] + chance.choice("0123456789").encode() + content[place + 1 :]


CHANGES: tuple[Change, ...] = (
    _bit_flipped,
    _bytes_replaced,
    _zeroed,
    _cut,
    _bytes_removed,
    _bytes_inserted,
    _space_inserted,
    _bytes_repeated,
    _places_swapped,
    _spans_swapped,
    _digit_changed,
)


def _corrupted(chance: random.Random, content: bytes) -> tuple[Change, bytes]:
    """Draw a corruption until one changes anything: equal bytes may have been swapped."""
    while True:
        change = chance.choice(CHANGES)
        changed = change(chance, content)
        if changed != content:
            return change, changed


def _read(folder: Path) -> str | None:
    """Read an artifact as far as its hashes reach, which is before a model is made."""
    try:
        open_artifact(folder).contents(limit=LARGEST)
    except PeftuneError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_ten_thousand_random_corruptions_are_noticed(good: Good) -> None:
    """Whatever happens to any byte of any file, in one line, before a model is made of it."""
    chance = random.Random(20_240_601)  # noqa: S311 - no secret
    unnoticed: list[str] = []
    kinds: Counter[str] = Counter()
    assert [_read(good.artifacts[artifact]) for artifact in ARTIFACTS] == [None] * len(ARTIFACTS)

    for number in range(CORRUPTIONS):
        artifact = ARTIFACTS[number % len(ARTIFACTS)]
        path = good.artifacts[artifact] / chance.choice(FILES[artifact])
        content = path.read_bytes()
        change, changed = _corrupted(chance, content)
        kinds[change.__name__] += 1
        path.write_bytes(changed)
        found = _read(good.artifacts[artifact])
        if found is None or not found.isprintable():
            unnoticed.append(f"{number}: {artifact}/{path.name} {change.__name__}: {found!r}")
        path.write_bytes(content)

    assert unnoticed == []
    assert min(kinds.values()) > CORRUPTIONS / len(CHANGES) / 4
    assert len(kinds) == len(CHANGES)
    assert [_read(good.artifacts[artifact]) for artifact in ARTIFACTS] == [None] * len(ARTIFACTS)


def test_a_load_goes_through_the_same_reading(good: Good) -> None:
    """What the reading notices, `peftune.load` refuses in the same words."""
    chance = random.Random(7)  # noqa: S311 - no secret

    for number in range(THROUGH_LOAD):
        artifact = ARTIFACTS[number % len(ARTIFACTS)]
        folder = good.artifacts[artifact]
        path = folder / chance.choice(FILES[artifact])
        content = path.read_bytes()
        _, changed = _corrupted(chance, content)
        path.write_bytes(changed)
        with pytest.raises(PeftuneError) as caught:
            peftune.load(
                folder,
                base=None if artifact == "full" else str(good.bases["own"]),
                use_cpu=True,
            )
        found = _read(folder)
        path.write_bytes(content)
        assert str(caught.value) == found
