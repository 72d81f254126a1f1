"""The documentation is true: its code runs, its commands exist, its tables are complete."""

from __future__ import annotations

import configparser
import dataclasses
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from test_architecture import FLOORS
from typer.main import get_command
from vocabulary import REPLACED

import peftune
from peftune import errors
from peftune.cli.main import app
from peftune.cli.signals import MESSAGES
from peftune.configuration import keys_of
from peftune.experiments import environment, report
from peftune.experiments.folds import TEST_PREDICTIONS
from peftune.experiments.run_evidence import DOCUMENTS, TEXTS
from peftune.experiments.run_folder import PREDICTIONS
from peftune.findings import CHECKS, FINDING_TYPES, CheckReport, CheckResult
from peftune.findings.finding import LeakedScore, Lengths
from peftune.forgetting.results import ProbeResult
from peftune.probes import PROBES
from peftune.recipe import Recipe, read_recipe
from peftune.recipe.data import CleaningStep
from peftune.recipe.recipe_files import shipped_recipes
from peftune.strategies import STRATEGIES
from peftune.tasks.scores import Learning

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(
    r"(?P<not_run>^<!-- not run: [^\n]+ -->\n)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


_BLOCK_OF_OUTPUT = re.compile(
    r"^```(?:text|console|csv|python)[^\n]*\n.*?^```$", re.MULTILINE | re.DOTALL
)
_CODE = re.compile(r"`[^`\n]+`|\]\([^)\s]+\)|\btrunk_dropout\b|https?://\S+")


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Args:
        page: file that holds it.
        line: line of its first line, from 1.
        language: word behind the fence.
        title: name of the file that it shows; None where it is not a file.
        text: what stands between the fences.
    """

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        """Name the place, for messages and test ids."""
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Collect the blocks of all pages in some languages, those marked `not run` left out."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if match["not_run"] is None:
            line = text.count("\n", 0, match.start("text")) + 1
            yield Block(page, line, match["language"], match["title"], match["text"])


def _command_lines() -> list[tuple[str, str]]:
    """Collect `peftune …` commands with their place; a backslash joins lines."""
    return [
        (str(block), line.strip().removeprefix("$ "))
        for block in blocks("bash", "console")
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.strip().removeprefix("$ ").startswith("peftune ")
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a temporary folder from which modules and packages are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - loaded:
        module = sys.modules[name]
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def _install(page: Path, folder: Path) -> None:
    """Write the files that a page shows, and register the package as an installer would."""
    for block in _blocks(page):
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
    if not (folder / "pyproject.toml").is_file():
        return
    # The page's TOML is plain enough for the standard library of Python 3.10.
    project = configparser.ConfigParser(interpolation=None)
    project.read(folder / "pyproject.toml", encoding="utf-8")
    name, version = (project["project"][key].strip('"') for key in ("name", "version"))
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
    )
    lines = []
    for section in project.sections():
        prefix, quote, group = section.partition('project.entry-points."')
        if quote and not prefix:
            points = project[section].items()
            lines += [f"[{group[:-1]}]", *(f"{key} = {value[1:-1]}" for key, value in points)]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    importlib.invalidate_caches()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted({block.page for block in blocks("python")}), ids=lambda page: page.name
)
def test_the_python_blocks_of_a_page_run_in_order(page: Path, folder: Path) -> None:
    """Copied one after the other into a fresh session, they run."""
    _install(page, folder)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in _blocks(page):
        if block.language == "python" and block.title is None:
            padded = "\n" * (block.line - 1) + block.text
            exec(compile(padded, page, "exec", dont_inherit=True), namespace)  # noqa: S102 - the page's own code


@pytest.mark.slow
def test_the_strategy_of_the_page_keeps_the_contract(folder: Path) -> None:
    """The package that write-a-strategy shows passes the tests that it shows."""
    _install(DOCS / "write-a-strategy.md", folder)
    path = os.pathsep.join([str(folder), *sys.path])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(folder / "test_peftune_bitfit.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("yaml") if block.text.startswith("version: 1")],
    ids=str,
)
def test_the_recipes_of_the_pages_are_valid(block: Block, tmp_path: Path) -> None:
    """A recipe that a page shows is accepted by the schema."""
    path = tmp_path / "recipe.yaml"
    path.write_text(block.text, encoding="utf-8")
    read_recipe(path)


@pytest.mark.parametrize(("place", "line"), _command_lines())
def test_the_commands_of_the_pages_exist(place: str, line: str) -> None:
    """A command line that a page shows names a verb, its options, and keys of the recipe."""
    verb, *words = shlex.split(line, comments=True)[1:]
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        assert verb in command.commands, f"{place}: there is no verb '{verb}'."
        command = command.commands[verb]
        if hasattr(command, "commands"):
            verb, *words = words
    options = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= options, f"{place}: '{verb}' has no {sorted(given - options)}."
    overrides = [word for word in words if re.match(r"[a-z_]+(\.[a-z_]+)*=", word)]
    named = [Path(word).stem for word in words if Path(word).stem in shipped_recipes()]
    read_recipe(named[0] if named else "quickstart", overrides)


def test_every_public_name_is_documented() -> None:
    """A name in `peftune.__all__` appears in the pages as `peftune.NAME`."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = [name for name in peftune.__all__ if not name.startswith("__")]
    assert [name for name in names if not re.search(rf"\bpeftune\.{name}\b", text)] == []


def _first_cells(page: str) -> list[str]:
    """Collect what stands in backticks in the first column of a page's tables."""
    text = (DOCS / page).read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def _sections(page: str, *headings: str) -> str:
    """Return the sections of a page below some of its second-level headings."""
    text = (DOCS / page).read_text(encoding="utf-8")
    parts = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    return "\n".join(parts[heading] for heading in headings)


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_the_report_page_lists_exactly_the_keys_of_a_report() -> None:
    """Every key that a run writes is explained, and no other."""
    sections = {"run": report.Identity, "learning": Learning, "cost": report.Cost}
    keys = ["schema_version", "peftune_version", "status"]
    keys += [f"{section}.{name}" for section, kind in sections.items() for name in _names(kind)]
    keys += [f"forgetting.{name}" for name in _names(report.Forgetting)] + _names(ProbeResult)
    keys += ["train_loss", "validation_…", "train_sample_…"]  # of a point of the curve
    keys += [f"checks.{name}" for name in _names(CheckReport)]
    keys += [*_names(CheckResult), *_names(Lengths), *_names(LeakedScore)]
    facts = [*environment.environment(), "seed_streams", "dropped_rows", "dropped_tokens"]
    keys += [f"environment.{name}" for name in facts]
    keys += [
        *_names(report.PathPoint),
        *_names(report.StageForgetting),
        PREDICTIONS,
        TEXTS,
        DOCUMENTS,
    ]
    keys += [*(f"folds[].{name}" for name in _names(report.Fold)), "test", TEST_PREDICTIONS]
    assert sorted(_first_cells("report.md")) == sorted(keys)


def test_the_adapter_page_lists_exactly_the_keys_of_the_manifest() -> None:
    """Every key of `peftune.json` is explained, and no other."""
    from peftune.adapters.format import CARD, MANIFEST, PEFT_CONFIG, WEIGHTS
    from peftune.adapters.manifest import DIGEST, Manifest

    files = [WEIGHTS, PEFT_CONFIG, MANIFEST, CARD]
    checkpoint = ["config.json", "model.safetensors", "tokenizer*.json"]
    keys = [field.alias or name for name, field in Manifest.model_fields.items()]
    expected = [*files, *checkpoint, *keys, DIGEST]
    assert sorted(_first_cells("adapter-format.md")) == sorted(expected)


def test_the_guards_page_lists_exactly_the_guards() -> None:
    """Every guard that can refuse a strategy is explained, and no other."""
    source = (ROOT / "peftune/models/guards.py").read_text(encoding="utf-8")
    guards = set(re.findall(r'_fail\(\s*strategy,\s*"([a-z]+)"', source))
    assert set(_first_cells("write-a-strategy.md")) == guards


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    """The table of exit codes has every code that a fault or a signal leads to."""
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in kinds if issubclass(kind, errors.PeftuneError)}
    assert told == {0, *MESSAGES} | raised


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_links_of_the_pages_beside_the_site_lead_somewhere(page: str) -> None:
    """A file and a heading that a link names exist; `mkdocs build --strict` sees to the site's own."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)", text)
    assert [link for link, _ in links if not (ROOT / link).exists()] == []
    assert [
        f"{link}#{anchor}"
        for link, anchor in links
        if anchor and anchor not in _anchors(ROOT / (link or page))
    ] == []


def _anchors(page: Path) -> set[str]:
    """Make the anchors of a page's headings, as MkDocs and GitHub do."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_the_architecture_page_shows_the_floors_of_the_package() -> None:
    """The picture of the floors is that of tests/test_architecture.py, and each package is described."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"^## Floors$.*?^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert picture is not None
    shown = {
        name: int(number)
        for number, *names in map(str.split, picture[1].splitlines())
        for name in names
    }
    assert shown == {name: number for name, number in FLOORS.items() if name}
    packages = {path.parent.name for path in (ROOT / "peftune").glob("*/__init__.py")}
    assert packages - set(_first_cells("architecture.md")) == set()


def test_the_glossary_is_in_alphabetical_order() -> None:
    """A reader finds a term, and each stands there once."""
    page = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| ([a-zA-Z][^|]+) \|", page, re.MULTILINE)[1:]
    assert len(terms) > 20
    assert terms == sorted(set(terms), key=str.casefold)


def test_the_docs_use_the_words_of_the_glossary() -> None:
    """A word that the glossary replaces stands in no page, recipe or example."""
    sources = [
        *PAGES,
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "recipes").glob("*.yaml"),
        *(ROOT / "peftune" / "bundled").rglob("*.md"),
        *(path for path in EXAMPLES.rglob("*") if path.suffix in {".md", ".py", ".toml", ".yaml"}),
    ]
    assert [found for path in sources for found in _replaced_words(path)] == []


@pytest.mark.parametrize(
    "sentence",
    [
        "What learns is the head.",
        "The base is no GPT-2.",
        "Rows are judged once.",
        "They cannot be told apart.",
        "A ladder of baselines.",
        "Kinds of task",
        "The trunk is frozen.",
    ],
)
def test_a_replaced_word_is_noticed(sentence: str, tmp_path: Path) -> None:
    """The test above can fail."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{sentence}\n", encoding="utf-8")

    assert len(_replaced_words(page)) == 1


def _replaced_words(path: Path) -> list[str]:
    """Find replaced words in prose and comments; output of programs and code are left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = _BLOCK_OF_OUTPUT.sub(lambda match: "\n" * match[0].count("\n"), text)
    text = _CODE.sub("", text)
    return [
        f"{path.name}:{number}: {word[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        for word in REPLACED.finditer(line)
    ]


def test_the_error_lines_of_troubleshooting_are_those_of_the_code() -> None:
    """A user who searches the page for the line that they got finds it."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "peftune").rglob("*.py"))
    assert headings
    assert [heading for heading in headings if heading not in code] == []


@pytest.fixture(scope="module")
def tables() -> Any:  # noqa: ANN401 - a module of no package
    """Load the program that makes the tables."""
    spec = importlib.util.spec_from_file_location("schema_tables", DOCS / "hooks/schema_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Walk the pydantic models themselves, a second way to the keys beside the JSON schema."""
    for name, field in zip(keys_of(model), model.model_fields.values(), strict=True):
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            if name != "strategy":
                yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_recipe_tables_hold_every_key(tables: Any) -> None:  # noqa: ANN401 - a module
    """A key of the schema, of a strategy or of a probe cannot be missing from the page."""
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    rendered = tables.on_page_markdown(page + (DOCS / "strategies.md").read_text(encoding="utf-8"))
    keys = [*_keys(Recipe), "strategy"]
    for group in (STRATEGIES, PROBES):
        for plugin in group.load_all()[0].values():
            keys += keys_of(plugin)
    assert "<!-- table:" not in rendered
    assert [key for key in keys if f"| `{key}` |" not in rendered] == []


def test_the_verbs_table_holds_every_verb_and_option(tables: Any) -> None:  # noqa: ANN401 - a module
    """A verb cannot be missing from the page."""
    rendered = tables.on_page_markdown((DOCS / "command-line.md").read_text(encoding="utf-8"))
    assert "### run\n" in rendered
    assert "| `--strategy` | Strategy in the place of the recipe's own. |" in rendered
    assert "### adapter rescale\n" in rendered
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    assert [
        verb for verb in verbs if not re.search(rf"^### {verb}( \w+)?$", rendered, re.MULTILINE)
    ] == []


def test_the_findings_table_holds_every_type_of_finding(tables: Any) -> None:  # noqa: ANN401 - a module
    """A code that a report may hold is explained, with its threshold."""
    rendered = tables.on_page_markdown(_sections("findings.md", "Findings of a run"))
    rows = [line for line in rendered.splitlines() if line.startswith("| `")]
    assert "<!-- table:" not in rendered
    assert rows == [
        f"| `{each.code}` | {each.looks_for} | {each.threshold} |"
        for each in FINDING_TYPES
        if each.scope != "data"
    ]


def test_the_checks_table_holds_every_check(tables: Any) -> None:  # noqa: ANN401 - a module
    """A code that a report may hold is explained, with its gravest status and its remedy."""
    rendered = tables.on_page_markdown(_sections("findings.md", "Check the data", "Cleaning"))
    rows = [line for line in rendered.splitlines() if line.startswith("| `")]
    assert "<!-- table:" not in rendered
    steps = get_args(CleaningStep)
    assert [row.split("`")[1] for row in rows] == [*(check.code for check in CHECKS), *steps]
    for row, check in zip(rows, CHECKS, strict=False):
        cells = [check.worst.upper(), check.looks_for, check.threshold, check.remedy]
        assert row == f"| `{check.code}` | {' | '.join(cells)} |"


def test_a_table_says_type_bounds_default_and_meaning(tables: Any) -> None:  # noqa: ANN401 - a module
    """One row of the strategies' table, word for word."""
    row = (
        "| `r` | integer, > 0, ≤ 1024 | `8` | Rank: higher learns more and makes a larger file. |"
    )
    assert row in tables.strategies_table().splitlines()
