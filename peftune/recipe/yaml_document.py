"""Read YAML into plain values with positions, refusing what YAML readers disagree on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from peftune.configuration import field_messages
from peftune.errors import RecipeError
from peftune.recipe.schema import SECTIONS, Recipe

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """Write a path the way users do: `forgetting.probes[0].file`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written.

    Args:
        source: name of the file, as the user gave it, or an override.
        line: line from 1; None for the whole source.
        column: column from 1; None for the whole source.
    """

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Write the place the way compilers do: `recipe.yaml:12:3`."""
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"

    @property
    def order(self) -> tuple[bool, int, int]:
        """Key that sorts places from top to bottom, and those of no line after them."""
        return (self.line is None, self.line or 0, self.column or 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a recipe.

    Args:
        place: where it stands.
        path: which key it concerns; empty for the whole file.
        message: what is wrong, what is allowed, and what to do.
    """

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        """Tell place first, then key, then message."""
        key = f"{dotted(self.path)}: " if self.path else ""
        return f"{self.place}: {key}{self.message}"


@dataclass(slots=True)
class Positions:
    """Where each key of a document was written.

    Args:
        source: name of the file, as the user gave it.
        known: place of each path.
    """

    source: str
    known: dict[KeyPath, Place] = field(default_factory=dict)

    def record(self, path: KeyPath, line: int, column: int) -> None:
        """Remember the place of a key; lines and columns count from 1."""
        self.known[path] = Place(self.source, line, column)

    def record_override(self, path: KeyPath, place: Place) -> None:
        """Remember that a key was set by an override, with new keys above it and all below."""
        for known in [known for known in self.known if known[: len(path)] == path]:
            del self.known[known]
        for length in range(1, len(path)):
            self.known.setdefault(path[:length], place)
        self.known[path] = place

    def of(self, path: KeyPath) -> Place:
        """Return the place of a path, or of the nearest key above it."""
        while path and path not in self.known:
            path = path[:-1]
        return self.known.get(path, Place(self.source))


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise all faults as one `RecipeError`, one line each, in the order of the file."""
    ordered = sorted(faults, key=lambda fault: fault.place.order)
    if ordered:
        raise RecipeError(*map(str, ordered))


MAX_CHARACTERS = 64 * 1024
MAX_DEPTH = 20

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})$")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?$")
_BARE_EXPONENT = re.compile(
    r"(?P<digits>[-+]?[0-9]+)(?P<point>\.[0-9]*)?[eE](?P<sign>[-+]?)(?P<power>[0-9]+)$"
)
_OLD_BOOLEAN = re.compile(r"(yes|no|on|off)$", re.IGNORECASE)
_OLD_NUMBER = re.compile(
    r"[-+]?(0[0-9]+|0[xob][0-9a-fA-F]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(:[0-5]?[0-9])+|\.inf|\.nan)$",
    re.IGNORECASE,
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters but those that end or indent a line, and halves of characters."""

_LINES = re.compile("[\t\n\r\x85]")
_LAID_OUT = ("template", "delimiter")
"""Keys whose text may have tabs and several lines."""

_NULLS = ("", "~", "null", "Null", "NULL")
_TRUES = ("true", "True", "TRUE")
_FALSES = ("false", "False", "FALSE")


@dataclass(slots=True)
class Document:
    """The values of a recipe file, where each was written, and what is wrong with the YAML.

    Args:
        values: the mapping.
        positions: where its keys and entries were written.
        faults: what is wrong with the YAML.
        doubtful: keys whose value readers disagree on, so that no other fault is reported for it.
    """

    values: dict[str, Any]
    positions: Positions
    faults: list[Fault] = field(default_factory=list)
    doubtful: set[KeyPath] = field(default_factory=set)

    def forget_faults(self, path: KeyPath) -> None:
        """Drop the faults at and below a key whose value is replaced."""
        self.faults = [fault for fault in self.faults if fault.path[: len(path)] != path]
        self.doubtful = {doubt for doubt in self.doubtful if doubt[: len(path)] != path}


def parse_document(text: str, *, source: str) -> Document:
    """Parse one YAML mapping.

    Args:
        text: content of the file.
        source: name of the file in messages.

    Returns:
        Values of the YAML 1.2 core types. What YAML 1.1 and 1.2 read differently, and duplicate
        keys, are listed in `faults`; such a value is the text as written.

    Raises:
        RecipeError: the text is not a YAML mapping, is too large, or uses anchors, aliases or tags.
    """
    positions = Positions(source)
    _refuse_oversize(text, source)
    _refuse_control(text, source)
    _refuse_tabs(text, source)
    try:
        _refuse_advanced_yaml(text, source)
        node = YAML(typ="safe", pure=True).compose(text)
    except RecipeError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        message = f"{place}: this is not valid YAML: {error.problem or error.context}."
        raise RecipeError(message) from error
    except (YAMLError, RecursionError, ValueError) as error:
        message = f"{source}: this is not valid YAML: {str(error).splitlines()[0]}."
        raise RecipeError(message) from error
    if not isinstance(node, MappingNode):
        message = (
            f"{source}: a recipe is a mapping of keys such as 'version: 1'; this file holds none."
        )
        raise RecipeError(message)
    document = Document({}, positions)
    document.values = _mapping(node, (), document)
    return document


def parse_scalar(text: str) -> Any:  # noqa: ANN401 - any recipe value
    """Read one value of a command-line override, where `1e-4` can only mean a number."""
    if _BARE_EXPONENT.match(text):
        return float(text)
    if text.startswith(("[", "{")):
        document = parse_document(f"value: {text}", source="command line")
        return document.values["value"]
    return _plain(text)[0]


def _refuse_oversize(text: str, source: str) -> None:
    if len(text) > MAX_CHARACTERS:
        message = f"{source}: a recipe has at most {MAX_CHARACTERS} characters; this file has {len(text)}."
        raise RecipeError(message)


def control_faults(values: object, path: KeyPath, positions: Positions) -> Iterator[Fault]:
    """Find keys and texts with control characters, which nobody means and nobody sees.

    Line ends and tabs may stand in a template, as a delimiter, and in the fields of plug-ins.
    """
    if isinstance(values, dict):
        for key, value in values.items():
            if found := _CONTROL.search(str(key)) or _LINES.search(str(key)):
                yield _control_fault(found[0], (*path, str(key)), positions)
            else:
                yield from control_faults(value, (*path, key), positions)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from control_faults(value, (*path, index), positions)
    elif isinstance(values, str):
        in_plugin = path[:1] in (("strategy",), ("forgetting",)) and path[-1] != "name"
        laid_out = in_plugin or path[-1:] in {(key,) for key in _LAID_OUT}
        found = _CONTROL.search(values) or (None if laid_out else _LINES.search(values))
        if found:
            yield _control_fault(found[0], path, positions)


def _control_fault(character: str, path: KeyPath, positions: Positions) -> Fault:
    message = f"holds the control character U+{ord(character):04X}; write it without."
    return Fault(positions.of(path), path, message)


def _refuse_control(text: str, source: str) -> None:
    for number, line in enumerate(re.split("\r\n|[\r\n\x85\u2028\u2029]", text), start=1):
        if found := _CONTROL.search(line):
            message = f"{source}:{number}:{found.start() + 1}: the control character U+{ord(found[0]):04X} stands here; write the recipe without it."
            raise RecipeError(message)


def _refuse_tabs(text: str, source: str) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            message = f"{source}:{number}:{indent.index(chr(9)) + 1}: a tab indents this line; YAML allows spaces only."
            raise RecipeError(message)


def _refuse_advanced_yaml(text: str, source: str) -> None:
    """Refuse what a recipe does not need and what can surprise, before any value is built."""
    documents = depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        documents += isinstance(event, DocumentStartEvent)
        depth += event.__class__.__name__.endswith(("MappingStartEvent", "SequenceStartEvent"))
        depth -= event.__class__.__name__.endswith(("MappingEndEvent", "SequenceEndEvent"))
        mark = event.start_mark
        place = Place(source, mark.line + 1, mark.column + 1)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            message = (
                f"{place}: anchors and aliases (& and *) are not allowed; write the value out."
            )
            raise RecipeError(message)
        if getattr(event, "tag", None) is not None:
            message = f"{place}: tags (!) are not allowed; write a plain value."
            raise RecipeError(message)
        if documents > 1:
            message = f"{place}: a recipe is one YAML document; remove what follows '---'."
            raise RecipeError(message)
        if depth > MAX_DEPTH:
            message = f"{place}: more than {MAX_DEPTH} levels of nesting."
            raise RecipeError(message)


def _value(node: Node, path: KeyPath, document: Document) -> Any:  # noqa: ANN401 - any recipe value
    if isinstance(node, MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, SequenceNode):
        document.positions.record(path, node.start_mark.line + 1, node.start_mark.column + 1)
        items = []
        for index, item in enumerate(node.value):
            document.positions.record(
                (*path, index), item.start_mark.line + 1, item.start_mark.column + 1
            )
            items.append(_value(item, (*path, index), document))
        return items
    return _scalar(node, path, document) if isinstance(node, ScalarNode) else None


def _mapping(node: MappingNode, path: KeyPath, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, ScalarNode):
            _fault(document, path, key_node, "a key must be a plain name.")
            continue
        key = str(key_node.value)
        if key in values:
            first = document.positions.of((*path, key))
            message = f"this key stands twice, first in line {first.line}; remove one."
            _fault(document, (*path, key), key_node, message)
            continue
        document.positions.record((*path, key), line, column)
        values[key] = _value(value_node, (*path, key), document)
    return values


def _scalar(node: ScalarNode, path: KeyPath, document: Document) -> Any:  # noqa: ANN401 - any recipe value
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    value, problem = _plain(text)
    if problem:
        _fault(document, path, node, problem)
        document.doubtful.add(path)
    return value


def reads_as_text(text: str) -> bool:
    """Say whether a text can stand in YAML without quotes and still be that text to all readers."""
    return _plain(text) == (text, "")


def _plain(text: str) -> tuple[Any, str]:  # noqa: PLR0911 - one line a kind of scalar
    """Read an unquoted scalar; the second item says why readers would disagree on it."""
    if text in _NULLS:
        return None, ""
    if text in _TRUES + _FALSES:
        return text in _TRUES, ""
    if _INTEGER.match(text):
        return int(text), ""
    if _FLOAT.match(text):
        return float(text), ""
    if exponent := _BARE_EXPONENT.match(text):
        point = exponent["point"] if exponent["point"] not in (None, ".") else ".0"
        better = f"{exponent['digits']}{point}e{exponent['sign'] or '+'}{exponent['power']}"
        return (
            text,
            f"YAML readers disagree on {text}: some read text, some a number; write {better}.",
        )
    if _OLD_BOOLEAN.match(text):
        meant = "true" if text.lower() in ("yes", "on") else "false"
        return (
            text,
            f"YAML readers disagree on {text}: some read text, some {meant}; write '{text}' in quotes, or {meant}.",
        )
    if _OLD_NUMBER.match(text) or _DATE.match(text):
        return (
            text,
            f"YAML readers disagree on {text}: write '{text}' in quotes for text, or a plain decimal number.",
        )
    return text, ""


def _fault(document: Document, path: KeyPath, node: Node, message: str) -> None:
    mark = node.start_mark
    place = Place(document.positions.source, mark.line + 1, mark.column + 1)
    document.faults.append(Fault(place, path, message))


def explain(
    error: ValidationError, model: type[BaseModel], prefix: KeyPath, positions: Positions
) -> list[Fault]:
    """Turn what pydantic found into one fault for each key, with its place.

    Args:
        error: what pydantic found.
        model: class that was validated.
        prefix: where in the recipe that class stands.
        positions: where each key was written.
    """
    messages = field_messages(error, model, instead=_where_it_belongs)
    return [
        Fault(positions.of((*prefix, *path)), (*prefix, *path), message)
        for path, message in messages.items()
    ]


def _where_it_belongs(name: str) -> str | None:
    """Name the parts of a recipe that have a key which stands where there is none of that name."""
    places = [name] if name in Recipe.model_fields and name not in SECTIONS else []
    for section in SECTIONS:
        annotation = Recipe.model_fields[section].annotation
        if isinstance(annotation, type) and name in getattr(annotation, "model_fields", ()):
            places.append(f"{section}.{name}")
    if not places:
        return None
    *others, last = (f"'{place}'" for place in places)
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"
