"""Readers of what others wrote, on ten thousand made-up inputs: read, or refused in printable lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet
import pytest
from bases import write_base
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes
from torch import zeros

import peftune
from peftune import plugins
from peftune.recipe import read_recipe
from peftune.recipe.recipe_files import shipped_recipes
from peftune.recipe.resolve import recipe_values
from tools.fuzz import TARGETS, refusal

pytestmark = pytest.mark.slow

T = TypeVar("T")

EXAMPLES = {
    "recipe": 1500,
    "overrides": 1500,
    "csv": 1000,
    "tsv": 500,
    "jsonl": 1000,
    "json": 500,
    "parquet": 500,
    "report": 1000,
    "predictions": 500,
    "manifest": 1000,
    "header": 1000,
    "config": 500,
}
"""More than 10,000 together."""

ODD: tuple[Any, ...] = (
    *("", " ", "\x00", "\x1b[2J", "\u202e", "\ud7ff\ufeff", "no", "1e999", "[" * 300, "x" * 5000),
    *(
        "../..",
        "/dev/zero",
        "\u200b",
        "data.labels[99999999999]",
        "'",
        '"',
        "&a *a",
        "!!python/none",
    ),
    *(None, True, -0.0, -1, 10**30, 1e308, [], {}, [[]], {"": None}),
)

odd = st.sampled_from(ODD)
text = st.one_of(st.text(max_size=30), odd.filter(lambda one: isinstance(one, str)))
scalars = st.one_of(odd, st.integers(), st.floats(), st.booleans(), text, st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=10,
)


@pytest.fixture(scope="module", autouse=True)
def _plugins_listed_once() -> Any:  # noqa: ANN401 - a fixture
    """Read what the installed packages say once: it takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", cache(entry_points))
        patch.setattr(plugins, "_package", cache(plugins._package))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a finished run, whose files are written over one at a time."""
    place = tmp_path_factory.mktemp("fuzz")
    base = write_base(place / "base")
    peftune.run(
        "quickstart",
        overrides={
            "model.name_or_path": str(base),
            "model.max_length": 16,
            "data.max_train_examples": 12,
            "data.max_validation_examples": 6,
            "data.max_test_examples": 6,
            "training.max_steps": 1,
            "forgetting.probes": [
                {"type": "lm-loss", "dataset_name": "bundled:general-text", "max_documents": 2}
            ],
        },
        output=place / "run",
    )
    return place / "run"


def fuzz(name: str, inputs: st.SearchStrategy[bytes], folder: Path) -> None:
    """Give a reader as many inputs as it is due; the same ones every time."""
    refused = 0

    @settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def read(content: bytes) -> None:
        nonlocal refused
        refused += refusal(TARGETS[name], content, folder) is not None

    read()

    assert refused > EXAMPLES[name] // 10, "most of it should not be readable"


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """Change good bytes in up to four places: replaced, removed, or something put in."""
    piece = st.one_of(
        st.binary(max_size=6),
        text.map(lambda one: one.encode("utf-8", "replace")),
        st.sampled_from(
            [b"\n", b'"', b"{", b"}", b"[", b"]", b":", b",", b"-0", b"1e999", b"NaN"]
        ),
    )
    change = st.tuples(st.integers(0, len(content)), st.integers(0, 20), piece)

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        found = content
        for at, length, new in changes:
            found = found[:at] + new + found[at + length :]
        return found

    return st.lists(change, max_size=4).map(apply)


def with_value(document: Any, write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:  # noqa: ANN401 - JSON
    """Put an odd value into one place of a good document."""
    places = list(_places(document))

    def put(choice: tuple[tuple[Any, ...], Any]) -> bytes:
        place, value = choice
        changed = json.loads(json.dumps(document))
        level = changed
        for key in place[:-1]:
            level = level[key]
        level[place[-1]] = value
        return write(changed)

    return st.tuples(st.sampled_from(places), values).map(put)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:  # noqa: ANN401 - JSON
    if path:
        yield path
    items = list(value.items()) if isinstance(value, dict) else []
    for key, inner in items or (enumerate(value) if isinstance(value, list) else ()):
        yield from _places(inner, (*path, key))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def test_recipes(folder: Path) -> None:
    """Shipped ones with an odd value or changed letters, and anything else."""
    good = [path.read_bytes() for path in shipped_recipes().values()]
    # What is JSON is YAML too.
    document = recipe_values(read_recipe("quickstart"))

    changed = st.sampled_from(good).flatmap(mutated)
    fuzz(
        "recipe", st.one_of(changed, with_value(document, _json), st.binary(max_size=200)), folder
    )


def test_overrides(folder: Path) -> None:
    """Keys of a recipe, parts of them, and anything else."""
    keys = st.sampled_from(
        ["training.seed", "data.labels", "strategy", "forgetting.probes[0].name"]
    )
    key = st.one_of(keys, st.lists(text, max_size=5).map(".".join), text)
    one = st.tuples(key, text).map("=".join)
    many = st.lists(one, min_size=1, max_size=3).map("\0".join)
    fuzz("overrides", many.map(lambda joined: joined.encode("utf-8", "surrogateescape")), folder)


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_tables_of_text(name: str, folder: Path) -> None:
    """Quotes, ends of lines, cells too many and too few, bytes that are not a text."""
    between = {"csv": b",", "tsv": b"\t"}[name]
    good = b"\n".join(between.join([b"a day", b"good"]) for _ in range(3))
    content = between.join([b"text", b"label"]) + b"\n" + good + b"\n"
    cells = st.lists(st.one_of(text, st.just('"')), min_size=1, max_size=4)
    rows = st.lists(cells.map(between.decode().join), max_size=5).map("\n".join)
    made = rows.map(lambda one: one.encode("utf-8", "replace"))
    fuzz(name, st.one_of(mutated(content), made, st.binary(max_size=100)), folder)


@pytest.mark.parametrize("name", ["jsonl", "json"])
def test_tables_of_json(name: str, folder: Path) -> None:
    """Rows of any values, and changed letters."""
    rows = [{"text": "a day", "label": "good"}, {"text": "a night", "label": "bad"}]
    made = st.lists(st.one_of(st.just(rows[0]), values), max_size=4)
    if name == "jsonl":
        good = b"\n".join(map(_json, rows))
        odd_rows = made.map(lambda some: b"\n".join(map(_json, some)))
    else:
        good, odd_rows = _json(rows), made.map(_json)
    fuzz(name, st.one_of(mutated(good), odd_rows, values.map(_json)), folder)


def test_parquet(folder: Path) -> None:
    """Changed bytes of a good file."""
    buffer = io.BytesIO()
    table = pa.table({"text": ["a day", "a night"] * 20, "label": ["good", "bad"] * 20})
    pyarrow.parquet.write_table(table, buffer)
    fuzz("parquet", st.one_of(mutated(buffer.getvalue()), st.binary(max_size=100)), folder)


@pytest.mark.parametrize("name", ["report", "predictions"])
def test_run_folders(name: str, folder: Path) -> None:
    """The report of a finished run with an odd value, or its predictions with changed letters."""
    path = folder / {"report": "report.json", "predictions": "predictions.jsonl"}[name]
    good = path.read_bytes()
    try:
        if name == "report":
            inputs = st.one_of(
                with_value(json.loads(good), _json), mutated(good), values.map(_json)
            )
        else:
            inputs = mutated(good)
        fuzz(name, inputs, folder)
    finally:
        path.write_bytes(good)


def test_manifests(folder: Path) -> None:
    """An odd value in a good one, and changed letters."""
    good = (folder / "adapter" / "peftune.json").read_bytes()
    fuzz("manifest", st.one_of(with_value(json.loads(good), _json), mutated(good)), folder)


def test_headers_of_tensors(folder: Path) -> None:
    """An odd value, changed letters, and lengths that lie."""
    good = safetensors_bytes({"a.weight": zeros(2, 3), "b": zeros(4)})
    length = int.from_bytes(good[:8], "little")
    header, data = good[8 : 8 + length], good[8 + length :]

    def framed(raw: bytes) -> bytes:
        return len(raw).to_bytes(8, "little") + raw + data

    changed = mutated(header.rstrip(b" ")).map(framed)
    valued = with_value(json.loads(header), lambda value: framed(_json(value)))
    fuzz("header", st.one_of(changed, valued, mutated(good), st.binary(max_size=64)), folder)


def test_configurations(folder: Path) -> None:
    """Of a base: an odd value in a good one."""
    good = json.loads((folder.parent / "base" / "config.json").read_bytes())
    fuzz("config", st.one_of(with_value(good, _json), values.map(_json)), folder)


def test_there_are_ten_thousand() -> None:
    """Of all readers together, and every reader has some."""
    assert sum(EXAMPLES.values()) >= 10_000
    assert set(EXAMPLES) == set(TARGETS)
