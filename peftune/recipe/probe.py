"""One probe in a few words, as the command line names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from peftune.errors import UsageError
from peftune.probes import PROBES, LanguageModelLoss, Probe
from peftune.recipe.document import control_faults, parse_document
from peftune.recipe.plugin import build_plugin
from peftune.recipe.positions import Fault, Positions, raise_faults

_FILES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_BUNDLED = "bundled"


def read_probe(text: str) -> Probe:
    """Build the probe that a command line names.

    Args:
        text: a file, a bundled text, a saved data set or a hub id, which `lm-loss` reads; one of
            them behind a type, such as `cloze:lambada.jsonl`; or what a recipe would say, such as
            `{type: cloze, file: lambada.jsonl, max_documents: 500}`.

    Raises:
        UsageError: the text names no probe or no file, or a field is wrong; each with its place.
    """
    if text.lstrip().startswith("{"):
        document = parse_document(text, source="--probe")
        return _built(document.values, document.positions, document.faults)
    kind, colon, source = text.partition(":")
    if not colon or kind == _BUNDLED or _exists(text):
        kind, source = LanguageModelLoss.type, text
    values = {PROBES.name_field: kind}
    if kind in PROBES.names():
        values["file" if _names_file(source.strip()) else "dataset_name"] = source.strip()
    return _built(values, Positions(f"--probe '{text}'"))


def _built(
    values: Mapping[str, object], positions: Positions, known: Sequence[Fault] = ()
) -> Probe:
    faults = [*known, *control_faults(values, (), positions)]
    probe = build_plugin(PROBES, values, (), positions, faults)
    raise_faults(faults)
    if probe is None:
        message = f"{positions.source}: the probe cannot be used."
        raise UsageError(message)
    return probe


def _names_file(source: str) -> bool:
    """Say whether a text is read from a file, which must be there if the name ends as one does.

    Raises:
        UsageError: there is no such file, or no name.
    """
    if not source:
        message = "The probe names no text. Write TYPE:TEXT, such as cloze:lambada.jsonl."
        raise UsageError(message)
    if not _exists(source) and source.lower().endswith(_FILES):
        message = f"There is no file '{source}'."
        raise UsageError(message)
    return _exists(source) and Path(source).is_file()


def _exists(name: str) -> bool:
    """Say whether there is such a file or folder; a name that cannot be one is none."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False
