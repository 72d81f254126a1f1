"""A configuration that a person writes, and what is wrong with one in that person's words. Light."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from peftune.errors import UsageError, suggestion

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

FieldPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_LONGEST_SHOWN = 60
_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "an integer",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}


class _ExplainedConstruction(ModelMetaclass):
    """Turn what pydantic finds at `LoRA(...)` into one error of peftune; validation stays pydantic's."""

    if not TYPE_CHECKING:  # type checkers know the fields of each class by themselves

        def __call__(cls, *positional: object, **fields: object) -> object:  # noqa: N805 - of a metaclass
            if positional:
                raise UsageError(_positional(positional[0], cls))
            try:
                return super().__call__(**fields)
            except ValidationError as error:
                raise UsageError(*_construction_faults(error, cls)) from error


class Configuration(BaseModel, metaclass=_ExplainedConstruction):
    """What a person writes, in a recipe or in Python: frozen, strict, no unknown fields.

    Raises:
        UsageError: at construction, with every unknown, missing or impossible field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    not_fields: ClassVar[Mapping[str, str]] = {}
    """Names that people write here and this class lacks, each with the sentence that helps; those of
    the classes above hold too."""


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the names under which the fields of a configuration are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def field_messages(
    error: ValidationError,
    model: type[BaseModel],
    *,
    noun: str = "key",
    instead: Callable[[str], str | None] = lambda _: None,
) -> dict[FieldPath, str]:
    """Say what is wrong with each field, in one sentence or two.

    Args:
        error: what pydantic found.
        model: class that was validated.
        noun: what a field is called where it was written: a key of a file, a field in Python.
        instead: says of an unknown name, of which the class says nothing, what was meant.
    """
    by_path: dict[FieldPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_path(details["loc"], model), []).append(details)
    return {
        path: _message(found, path, model, noun, instead)
        for path, found in by_path.items()
        if not _has_faulty_entry(path, by_path)
    }


def _positional(value: object, model: type[BaseModel]) -> str:
    """Tell of a value without a name, as in `LoRA(8)`."""
    name, first = model.__name__, next(iter(keys_of(model)), None)
    how = (
        "has no fields"
        if first is None
        else f"takes its fields by name, such as {name}({first}=...)"
    )
    return f"{name} {how} (got {_shown(value)})."


def _construction_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Tell every fault of `LoRA(...)`, a line each."""
    lines = []
    for path, message in field_messages(error, model, noun="field").items():
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        lines.append(f"{model.__name__}{place}: {message}")
    return lines


def _has_faulty_entry(path: FieldPath, faulty: Mapping[FieldPath, object]) -> bool:
    """A list or mapping is not complained of where one of its entries is."""
    return any(len(other) > len(path) > 0 and other[: len(path)] == path for other in faulty)


def _path(location: tuple[int | str, ...], model: type[BaseModel]) -> FieldPath:
    """Drop what pydantic adds to a path, such as the names of union branches."""
    path: FieldPath = ()
    for part in location:
        parent = _model_at(model, path)
        is_branch = (
            isinstance(part, str)
            and parent is None
            and ("[" in part or part in {"bool", "str", "int", "float"})
        )
        if not is_branch:
            path = (*path, part)
    return path


def _message(
    found: list[ErrorDetails],
    path: FieldPath,
    model: type[BaseModel],
    noun: str,
    instead: Callable[[str], str | None],
) -> str:
    """Join what each branch of a union wants into one sentence."""
    first = found[0]
    if first["type"] == "extra_forbidden":
        parent = _model_in(_annotation_at(model, path[:-1]))
        return f"unknown {noun}. {_meant(str(path[-1]), parent, instead)}"
    if first["type"] == "missing":
        return f"this {noun} is missing; it must be given."
    for details in found:
        if details["type"] == "value_error":
            return details["msg"].removeprefix("Value error, ") + "."
    wishes = list(dict.fromkeys(_wish(details) for details in found))
    wanted = wishes[0] + "".join(f", or {wish.removeprefix('must be ')}" for wish in wishes[1:])
    hints = "".join(dict.fromkeys(_hint(details) for details in found))
    return f"{wanted} (got {_shown(first.get('input'))}).{hints}"


def _meant(name: str, parent: type[BaseModel] | None, instead: Callable[[str], str | None]) -> str:
    """Say what to write in the place of an unknown name: the reason if there is one, or all names."""
    reason = None if parent is None else why_no_field(name, parent)
    return reason or instead(name) or suggestion(name, keys_of(parent) if parent else ())


def why_no_field(name: str, model: type[BaseModel]) -> str | None:
    """Return the sentence that a class has for a name which is not a field of it."""
    for one in model.__mro__:
        reason: str | None = vars(one).get("not_fields", {}).get(name)
        if reason is not None:
            return reason
    return None


def _wish(details: ErrorDetails) -> str:
    """Say what a value must be."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}"
    if kind == "too_short":
        return f"must have at least {context['min_length']} entries"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}"
    message = details["msg"].replace("Input should be", "must be").replace("Input should", "must")
    return f"{message[0].lower()}{message[1:]}"


def _hint(details: ErrorDetails) -> str:
    """Say what was probably meant."""
    kind, got = details["type"], details.get("input")
    if kind == "literal_error" and isinstance(got, str):
        expected = str(details.get("ctx", {}).get("expected", ""))
        options = [
            option.strip("'")
            for option in expected.replace(" or ", ", ").split(", ")
            if option.startswith("'")
        ]
        nearest = difflib.get_close_matches(got, options, n=1)
        return f" Did you mean '{nearest[0]}'?" if nearest else ""
    if kind == "string_type" and isinstance(got, bool | int | float):
        return f" Write it in quotes: '{_shown(got)}'."
    return ""


def _shown(value: object) -> str:
    """Write a value as a recipe would, cut short."""
    names = {None: "null", True: "true", False: "false"}
    plain = value is None or isinstance(value, bool)
    text = names[value] if plain else repr(value)  # type: ignore[index]
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _model_at(model: type[BaseModel], path: FieldPath) -> type[BaseModel] | None:
    """Return the section that stands at a path, or None for a plain value or a choice."""
    found = _annotation_at(model, path)
    return found if _is_model(found) else None


def _annotation_at(model: type[BaseModel], path: FieldPath) -> Any:  # noqa: ANN401 - any type
    current: Any = model
    for part in path:
        if get_origin(current) is dict:
            current = get_args(current)[1]
            continue
        section = _model_in(current)
        fields = (
            {}
            if section is None
            else dict(zip(keys_of(section), section.model_fields.values(), strict=True))
        )
        if part not in fields:
            return None
        current = fields[str(part)].annotation
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type
    """Return the section that a type is, or the one among its choices."""
    found = (choice for choice in (annotation, *get_args(annotation)) if _is_model(choice))
    return next(found, None)


def _is_model(annotation: Any) -> bool:  # noqa: ANN401 - any type
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def quoted(names: Sequence[str]) -> str:
    """List names for a message: `'a' and 'b'`."""
    *first, last = (f"'{name}'" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


@dataclass(frozen=True, slots=True)
class PathInRecipe:
    """Annotation of a field that holds a path, relative to the recipe file.

    Args:
        or_name: whether the field may hold a name instead, such as a hub id; it holds a path where
            it looks like one, or where there is such a folder.
    """

    or_name: bool = False


def with_paths(section: Model, change: Callable[[str, FieldPath, PathInRecipe], str]) -> Model:
    """Return a section with every path in it changed, those of its parts and plug-ins too.

    Args:
        section: a recipe, a section or a plug-in.
        change: returns the new value of a field, by its value, its place and its annotation.
    """
    return _with_paths(section, change, ())


def _with_paths(
    section: Model, change: Callable[[str, FieldPath, PathInRecipe], str], path: FieldPath
) -> Model:
    changed: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value, place = getattr(section, name), (*path, name)
        if isinstance(value, BaseModel):
            changed[name] = _with_paths(value, change, place)
        elif isinstance(value, tuple):
            changed[name] = tuple(
                _with_paths(one, change, (*place, index)) if isinstance(one, BaseModel) else one
                for index, one in enumerate(value)
            )
        elif isinstance(value, str):
            for marker in field.metadata:
                if isinstance(marker, PathInRecipe):
                    changed[name] = change(value, place, marker)
    # What is not changed stays out of the fields that were set.
    changed = {name: new for name, new in changed.items() if new != getattr(section, name)}
    return section.model_copy(update=changed) if changed else section


class TextSource(Configuration):
    """Name one set of documents: `file`, or `dataset_name` with its configuration and split."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Fields that every row must have; empty where `text_column` names the only one."""

    plain: ClassVar[bool] = True
    """Whether documents are prose, which may be joined and cut."""

    dataset_name: str | None = Field(
        None, description="bundled:general-text, a hub id, or a saved datasets folder."
    )
    dataset_config_name: str | None = Field(None, description="Configuration of the hub data set.")
    split: str = Field("test", description="Split of the data set.")
    text_column: str = Field("text", description="Column that holds one document a row.")
    file: Annotated[str | None, PathInRecipe()] = Field(
        None,
        description="A .jsonl (field `text`) or .txt file (documents separated by form feeds, or by blank lines); relative to the recipe.",
    )
    articles: bool = Field(
        False,
        description="Rows are lines of WikiText: join them to articles, each from its ` = Title = ` on.",
    )
    max_characters: int | None = Field(
        None, gt=0, description="Read at most this much of each document, up to a whole word."
    )
    max_documents: int | None = Field(
        None, gt=0, description="Use at most this many documents, chosen evenly over the text."
    )

    @model_validator(mode="after")
    def _reads_one_text(self) -> TextSource:
        if (self.dataset_name is None) == (self.file is None):
            message = "needs either 'dataset_name' or 'file', and not both"
            raise ValueError(message)
        if self.columns and self.text_column != "text":
            message = f"'text_column' does not apply: each row needs {quoted(self.columns)}"
            raise ValueError(message)
        for name in () if self.plain else ("articles", "max_characters"):
            if getattr(self, name):
                message = f"'{name}' does not apply: each row is read whole"
                raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """How messages and reports call the text."""
        if self.file is not None:
            return PurePath(self.file).stem
        return str(self.dataset_name).rsplit(":", 1)[-1].rsplit("/", 1)[-1]

    def needed_columns(self) -> tuple[str, ...]:
        """List the fields that a row must have."""
        return self.columns or (self.text_column,)

    def document(self, row: dict[str, Any]) -> Any:  # noqa: ANN401 - what a subclass measures
        """Make one document of a row that has the needed fields.

        Returns:
            A string, or a named tuple of what a subclass compares. A blank string is left out.

        Raises:
            ValueError: a field does not hold what it must; the message says what.
        """
        value = row[self.text_column]
        return "" if value is None else str(value).strip("\r\n")


class Section(Configuration):
    """A part of a recipe: frozen, strict, no unknown keys."""
