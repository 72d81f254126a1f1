"""Build a run again from the content of its report, after a check against the shipped schema."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from peftune.errors import OutputFolderError
from peftune.experiments.environment import Environment, RunEnvironment
from peftune.experiments.report import (
    OF_FOLDS,
    SCHEMA_VERSION,
    Cost,
    Fold,
    Forgetting,
    Identity,
    InitialArtifact,
    PathPoint,
    Run,
    StageForgetting,
    Unfinished,
)
from peftune.findings.finding import Finding, report_from_json
from peftune.forgetting.results import Heads, ProbeResult, Quantization
from peftune.stats.intervals import Interval
from peftune.stats.tests import McNemar, Power
from peftune.tasks.scores import Learning, Significance

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError


SCHEMA = Path(__file__).with_name("report.schema.json")
_LONGEST_FAULT = 300


def run_from_json(values: Mapping[str, Any], folder: Path) -> Run:
    """Build a run from the content of its `report.json`.

    Raises:
        OutputFolderError: a value is of another kind than the report's JSON schema says.
        ValueError, LookupError, TypeError: a key is missing that every version has.
    """
    refuse_other_values(values, folder)
    forgetting, test = values["forgetting"], values.get("test")
    probes = [_probe(probe) for probe in forgetting["probes"]]
    path = tuple(PathPoint(**point) for point in forgetting["path"])
    stages = tuple(_stage(stage) for stage in forgetting.get("stages", ()))
    return Run(
        folder=folder,
        run=_identity(values["run"]),
        learning=_learning(values["learning"]),
        forgetting=Forgetting(**{**forgetting, "probes": probes, "path": path, "stages": stages}),
        cost=Cost(**values["cost"]),
        findings=[Finding(**finding) for finding in values["findings"]],
        environment=values["environment"],
        checks=report_from_json(values["checks"]),
        status=values["status"],
        folds=tuple(Fold(**fold) for fold in values.get("folds", ())),
        test=None if test is None else _learning(test),
    )


def refuse_other_values(values: Mapping[str, Any], folder: Path) -> None:
    """Refuse the report of a finished run that does not keep the shipped JSON schema.

    Keys that an earlier version did not write yet may be missing.

    Raises:
        OutputFolderError: naming the key that is wrong, and what it must be.
    """
    from jsonschema.exceptions import best_match

    fault = best_match(_validator().iter_errors(values))
    if fault is not None:
        key = fault.json_path.removeprefix("$").removeprefix(".") or "the whole"
        message = f"'{folder / 'report.json'}' is damaged, or of another version of peftune: {key}: {_explain(fault)}. Remove the folder and run it again, or name another one."
        raise OutputFolderError(message)


@functools.cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definitions = {
        name: {key: value for key, value in definition.items() if key != "required"}
        for name, definition in schema["$defs"].items()
    }
    return Draft202012Validator({"$ref": "#/$defs/Run", "$defs": definitions})


def _explain(fault: ValidationError) -> str:
    """Describe what is wrong with a value, without the whole value."""
    shown = json.dumps(fault.instance, ensure_ascii=False)[:80]
    if fault.validator == "type":
        kinds = fault.validator_value
        return f"must be {kinds if isinstance(kinds, str) else ' or '.join(kinds)}, not {shown}"
    if fault.validator in {"enum", "const"}:
        return f"must be {json.dumps(fault.validator_value)}, not {shown}"
    return str(fault.message)[:_LONGEST_FAULT]


def _learning(values: Mapping[str, Any]) -> Learning:
    pairs = {metric: _pair(interval) for metric, interval in values["ci95"].items()}
    known = values.get("significance")
    significance = None if known is None else Significance(**known)
    return Learning(**{**values, "ci95": pairs, "significance": significance})


def _identity(values: Mapping[str, Any]) -> Identity:
    start = values.get("start")
    return Identity(**{**values, "start": None if start is None else InitialArtifact(**start)})


def _stage(values: Mapping[str, Any]) -> StageForgetting:
    ci95 = {name: _pair(interval) for name, interval in values["ci95"].items()}
    return StageForgetting(**{**values, "ci95": ci95})


def _probe(values: Mapping[str, Any]) -> ProbeResult:
    parts = {"power": Power, "mcnemar": McNemar, "heads": Heads, "quantization": Quantization}
    built = {key: part(**values[key]) for key, part in parts.items() if values[key] is not None}
    pairs = {key: _pair(values[key]) for key in ("ci95", "ci90", "kl_ci95")}
    return ProbeResult(**{**values, **built, **pairs})


def _pair(interval: Sequence[float] | None) -> Interval | None:
    """Convert a JSON list to a pair."""
    return None if interval is None else (interval[0], interval[1])


Schema = dict[str, Any]

_NUMBER: Schema = {"type": "number"}
_FREE_KEYS: dict[tuple[str, str], Schema] = {
    ("Learning", "curve"): {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"step": {"type": "integer"}, "epoch": _NUMBER},
            "required": ["step", "epoch"],
            "additionalProperties": _NUMBER,
        },
    },
    ("Run", "environment"): {"$ref": "#/$defs/RunEnvironment"},
}
"""What the classes leave open: a mapping of anything there is more than that in a report."""


def report_json_schema() -> Schema:
    """Return the schema of a report: the numbers of a finished run, or the reason why there are none.

    Every key is required but those of a cross-validation, and no other is allowed; only mappings by label, metric, baseline or
    package are open.
    """
    definitions: Schema = {}
    for kind in (Run, Unfinished, RunEnvironment):
        described = TypeAdapter(kind).json_schema()
        definitions |= described.pop("$defs", {})
        definitions[kind.__name__] = described
    for name, definition in definitions.items():
        _refine(name, definition)
    del definitions["Run"]["properties"]["folder"]
    for name in ("Run", "Unfinished"):
        properties = definitions[name]["properties"]
        status = properties.pop("status")
        definitions[name]["properties"] = {**_head(), "status": status, **properties}
        required = [key for key in definitions[name]["properties"] if key not in OF_FOLDS]
        definitions[name]["required"] = required
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "peftune report",
        "oneOf": [{"$ref": "#/$defs/Run"}, {"$ref": "#/$defs/Unfinished"}],
        "$defs": dict(sorted(definitions.items())),
    }


def _head() -> Schema:
    return {
        "schema_version": {"const": SCHEMA_VERSION, "description": "Version of this layout."},
        "peftune_version": {"type": "string", "description": "Version that wrote it."},
    }


def _refine(name: str, definition: Schema) -> None:
    """Require every key, allow no other, and take descriptions from the class's docstring."""
    docstring = inspect.cleandoc(definition.pop("description"))
    meanings = _meanings(docstring)
    if name == RunEnvironment.__name__:
        meanings |= _meanings(inspect.getdoc(Environment) or "")
    definition["description"] = docstring.splitlines()[0]
    definition["additionalProperties"] = False
    definition["required"] = list(definition["properties"])
    definition.pop("title", None)
    for key, described in definition["properties"].items():
        described.pop("title", None)
        described.pop("default", None)
        if (name, key) in _FREE_KEYS:
            described.clear()
            described.update(_FREE_KEYS[name, key])
        if key in meanings:
            described["description"] = meanings[key]


def _meanings(docstring: str) -> dict[str, str]:
    """Read the `Args:` of a docstring: one entry a key, its lines joined."""
    section = re.search(r"^Args:\n((?:    .*\n?)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): ((?:.*\n?)(?:^ {5,}.*\n?)*)", section[1], re.MULTILINE)
    return {name: re.sub(r"\bNone\b", "null", " ".join(text.split())) for name, text in entries}
