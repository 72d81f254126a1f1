"""The shape of the package: floors, sizes, names, and what importing it loads."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from vocabulary import IN_NAMES, KEYS, REPLACED

import peftune

PACKAGE = Path(peftune.__file__).parent
FLOORS = {
    "_version": 0,
    "configuration": 0,
    "display": 0,
    "errors": 0,
    "files": 0,
    "plugins": 0,
    "processes": 0,
    "progress": 0,
    "seeds": 0,
    "stats": 0,
    "probes": 1,
    "regularizers": 1,
    "strategies": 1,
    "bundled": 2,
    "fastpath": 2,
    "recipe": 2,
    "data": 3,
    "models": 3,
    "forgetting": 4,
    "tasks": 4,
    "adapters": 5,
    "baselines": 5,
    "training": 5,
    "findings": 6,
    "planning": 6,
    "experiments": 7,
    "reporting": 8,
    "api": 9,
    "cli": 10,
    "testing": 10,
    "__main__": 10,
    "": 10,  # peftune/__init__.py, the facade
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "datasets", "optuna"}
LONGEST_FILE = 470
SHORT_FILE = 100
LONGEST_FUNCTION = 60


@cache
def modules() -> dict[str, ast.Module]:
    """Parse every module of the package, by dotted name."""
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 50
    return {_dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def _dotted(path: Path) -> str:
    parts = ("peftune", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> int:
    """Return the floor on which a module lies."""
    return FLOORS[_folder(module)]


def _folder(module: str) -> str:
    """Return the folder or file right below the package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def imported(module: str) -> Iterator[tuple[str, int]]:
    """List what a module imports of this package, anywhere in it, with the line."""
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "peftune":
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            source = node.module or ""
            if source.split(".")[0] != "peftune":
                continue
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield (name if name in modules() else source), node.lineno


def source_lines(module: str) -> list[str]:
    """Return a module's lines."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8").splitlines()


def test_every_module_has_a_floor() -> None:
    """A new folder of the package is given a floor before it is used."""
    folders = {_folder(name) for name in modules()}

    assert sorted(folders - set(FLOORS)) == []


def test_a_module_imports_only_from_its_own_floor_or_a_lower_one() -> None:
    """Dependencies point downward, in function bodies and type annotations too."""
    upward = [
        f"{module}:{line} imports {target}"
        for module in modules()
        for target, line in imported(module)
        if floor(target) > floor(module)
    ]

    assert upward == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """A module can be read and loaded after what it imports; nothing depends on itself."""
    graph = {module: {target for target, _ in imported(module)} for module in modules()}

    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' <- '.join(error.args[1])}")


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    """Folders on one floor have an order as well."""
    graph: dict[str, set[str]] = {}
    for module in modules():
        targets = {_folder(target) for target, _ in imported(module)}
        graph.setdefault(_folder(module), set()).update(targets - {_folder(module)})

    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these folders import each other: {' <- '.join(error.args[1])}")


def test_no_module_has_a_name_that_says_nothing() -> None:
    """A module is named after the one thing in it."""
    vague = [name for name in modules() if VAGUE_NAMES & set(name.split("."))]

    assert vague == []


def test_a_short_module_with_one_importer_stands_inside_it() -> None:
    """A module of less than 100 lines that one other imports is part of that one.

    Plug-ins and verbs have a file each, and the facades of packages import what others import.
    """
    importers: dict[str, set[str]] = {name: set() for name in modules()}
    for module in modules():
        for target, _ in imported(module):
            importers[target].add(module)
    of_its_own = {"probes", "regularizers", "strategies", "cli"}

    assert [
        f"{name} <- {next(iter(others))}"
        for name, others in importers.items()
        if len(others) == 1
        and len(source_lines(name)) < SHORT_FILE
        and _folder(name) not in of_its_own
        and not _is_package(name)
    ] == []


def _is_package(module: str) -> bool:
    return PACKAGE.joinpath(*module.split(".")[1:]).is_dir()


def test_no_identifier_holds_a_word_that_the_vocabulary_replaces() -> None:
    """A reader who knows the field knows the names."""
    found = [
        f"{module}:{line} {name}"
        for module, tree in modules().items()
        for name, line in _names(tree)
        if name not in KEYS and IN_NAMES & set(_words(name))
    ]

    assert found == []


def _words(name: str) -> list[str]:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")


def _names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """List the names that a module gives: of functions, classes, arguments, variables and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_no_text_holds_a_word_that_the_vocabulary_replaces() -> None:
    """Messages, descriptions and docstrings use the words of the glossary."""
    found = [
        f"{module}:{node.lineno} {word.group()}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value not in KEYS
        for word in REPLACED.finditer(" ".join(node.value.split()))
    ]

    assert found == []


@pytest.mark.parametrize("name", ["what_was_said", "Arm", "trunk", "isJudged"])
def test_a_replaced_word_in_a_name_is_noticed(name: str) -> None:
    """The test of identifiers can fail."""
    assert IN_NAMES & set(_words(name))


def test_no_file_is_too_long_to_read_in_one_go() -> None:
    """A file past 400 lines asks whether it holds two nouns; past 470 it does."""
    lengths = {name: len(source_lines(name)) for name in modules()}

    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_does_more_than_one_thing() -> None:
    """A function past 60 lines, its docstring apart, asks to be split."""
    long = {
        f"{module}.{node.name}": length
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := _length(node)) > LONGEST_FUNCTION
    }

    assert long == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


def test_only_the_command_line_prints() -> None:
    """A library returns values and logs; it does not write to a terminal."""
    prints = [
        f"{module}:{node.lineno}"
        for module, tree in modules().items()
        if floor(module) != FLOORS["cli"] or module.startswith("peftune.testing")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]

    assert prints == []


@pytest.mark.parametrize(
    "module",
    [
        "peftune",
        "peftune.bundled",
        "peftune.cli",
        "peftune.configuration",
        "peftune.errors",
        "peftune.plugins",
        "peftune.probes",
        "peftune.recipe",
        "peftune.regularizers",
        "peftune.seeds",
        "peftune.strategies",
    ],
)
def test_importing_a_light_module_loads_no_heavy_library(module: str) -> None:
    """Floors 0 to 2 and the command line import no torch, transformers, peft or data sets."""
    assert _heavy_modules_after(f"import {module}") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["tune", "--help"],
        ["validate", "quickstart"],
        ["strategies"],
        ["probes"],
        ["recipes"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_a_light_verb_loads_no_heavy_library(arguments: list[str]) -> None:
    """Help, validation and listings answer at once, and where torch is broken."""
    heavy = _heavy_modules_after(
        "from peftune.cli.main import _exit_code; import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    assert _exit_code({arguments!r}) == 0\n"
        "assert out.getvalue()"
    )

    assert heavy == []


def test_heavy_libraries_are_noticed() -> None:
    """The two tests above can fail: `peftune.prepare` loads what they look for."""
    assert "torch" in _heavy_modules_after("import peftune; peftune.prepare")


def _heavy_modules_after(statements: str) -> list[str]:
    program = f"{statements}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return sorted(HEAVY & set(json.loads(result.stdout)))


def test_every_package_is_shipped() -> None:
    """The wheel holds each folder of the package: one that is not listed would be missing in it."""
    listed = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    packages = {_dotted(path) for path in PACKAGE.rglob("__init__.py")}

    assert {name for name in packages if f'"{name}"' not in listed} == set()
