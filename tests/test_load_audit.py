"""What a load does to the machine: no socket, no process, no unpickling, no file of anyone else's."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import CASES
from hostile.case import Artifact, Draft
from hostile.good import LABELS, Good, write_good
from hostile.loader import Loader, loader_in
from hostile.misbehaviour import FORBIDDEN

import peftune

PACKAGE = Path(peftune.__file__).parent

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's count of a process's memory is read"
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Write the good artifacts and the bases."""
    return write_good(tmp_path_factory.mktemp("audited"))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """Give a process that loads, under an audit hook."""
    with loader_in(tmp_path_factory.mktemp("loader")) as one:
        yield one


@linux
@pytest.mark.parametrize(
    ("artifact", "door"),
    [
        *itertools.product(
            ("lora", "head-only", "lora-8bit", "full"), ("load", "forget", "verify")
        ),
        ("lora", "init_from"),
        ("head-only", "init_from"),
    ],
)
def test_a_load_opens_the_artifact_and_the_base_and_nothing_else(
    artifact: Artifact, door: str, good: Good, loader: Loader
) -> None:
    """By every public door; libraries read their own files, and nothing is written."""
    verdict = loader.ask(good.artifacts[artifact], base=good.bases["own"], door=door)

    assert (verdict.outcome, verdict.events) == ("loaded", ())


@linux
def test_a_plain_adapter_loads_as_quietly(good: Good, loader: Loader) -> None:
    """Its configuration names a base on the hub and classes to import."""
    verdict = loader.ask(good.artifacts["plain"], base=good.bases["own"], labels=LABELS)

    assert (verdict.outcome, verdict.events) == ("loaded", ())


@linux
def test_a_refused_load_is_as_quiet(good: Good, loader: Loader, tmp_path: Path) -> None:
    """A slice of the hostile corpus, in a process of its own; all of it is held to the same law."""
    heard = {}
    for number, case in enumerate(CASES[:: len(CASES) // 40]):
        workplace = tmp_path / str(number)
        workplace.mkdir()
        draft = Draft.of(good.artifacts[case.artifact], good.bases["own"], workplace)
        case.damage(draft)
        verdict = loader.ask(
            draft.folder,
            base=None if case.base is None else good.bases[case.base],
            labels=LABELS if case.artifact == "plain" else None,
        )
        if (verdict.outcome, verdict.events) != ("refused", ()):
            heard[case.name] = verdict

    assert heard == {}


@linux
@pytest.mark.parametrize("kind", FORBIDDEN)
def test_the_audit_hears_what_no_load_may_do(kind: str, loader: Loader, tmp_path: Path) -> None:
    """An audit that hears nothing would be silence, not a proof."""
    verdict = loader.ask(tmp_path, base=Path(kind), door="misbehave")

    assert verdict.events, verdict


# The source

_UNPICKLERS = frozenset(
    {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    | {"pickletools", "jsonpickle", "skops", "msgpack"}
)
_CALLS = frozenset({"eval", "exec", "compile", "__import__"})
_STARTS = {"peftune.experiments.compare.executors"}
"""Each run of a comparison is a process of its own."""
_IMPORTS = {"peftune.adapters"}
"""It loads `rescale`, which lies on a higher floor, by name."""
_KIT = "peftune.testing"
"""Loads what it has just saved in a fresh process, with and without peftune; no foreign file."""


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if not name.startswith(_KIT):
            yield name, ast.parse(path.read_bytes())


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_no_module_of_the_package_can_unpickle() -> None:
    """No import of a pickler, no `torch.load`, no lenient `numpy.load`, no unsafe YAML."""
    found = []
    for name, tree in _modules():
        found += [
            f"{name} imports {one}" for one in _imported(tree) if one.split(".")[0] in _UNPICKLERS
        ]
        for function, call in _calls(tree):
            base, _, method = function.rpartition(".")
            lenient = (
                (base == "torch" and method in {"load", "jit.load"})
                or function.startswith("torch.jit.load")
                or method in {"read_pickle", "unsafe_load", "full_load", "load_pickle"}
                or (
                    base in {"np", "numpy"}
                    and method == "load"
                    and _keywords(call).get("allow_pickle") != "False"
                )
                or (base == "yaml" and method in {"load", "load_all"})
            )
            if lenient:
                found.append(f"{name}:{call.lineno} calls {function}")

    assert found == []


def test_no_module_of_the_package_runs_what_it_reads() -> None:
    """No `eval`, no `exec`, no import of a name that was read, and one module starts processes."""
    found = []
    for name, tree in _modules():
        found += [
            f"{name} imports {one}"
            for one in _imported(tree)
            if one.split(".")[0] in {"subprocess", "multiprocessing", "pty", "code"}
            and name not in _STARTS
        ]
        for function, call in _calls(tree):
            if function in _CALLS or function in {"os.system", "os.popen", "os.fork"}:
                found.append(f"{name}:{call.lineno} calls {function}")
            if function.endswith("import_module") and name not in _IMPORTS:
                found.append(f"{name}:{call.lineno} calls {function}")

    assert found == []


@pytest.mark.slow
def test_every_checkpoint_is_read_from_this_machine_as_safetensors() -> None:
    """No `from_pretrained` may fetch, unpickle, or trust code that lies beside the weights."""
    found = []
    for name, tree in _modules():
        for function, call in _calls(tree):
            keywords = _keywords(call)
            assert "trust_remote_code" not in keywords, f"{name}:{call.lineno}"
            if not function.endswith(".from_pretrained"):
                continue
            found.append(name)
            assert keywords.get("local_files_only") == "True", f"{name}:{call.lineno}"
            is_model = "Tokenizer" not in function
            assert not is_model or keywords.get("use_safetensors") == "True", (
                f"{name}:{call.lineno}"
            )

    # One call for models, one for tokenizers.
    assert found == ["peftune.models.loading", "peftune.models.tokenizer"]
