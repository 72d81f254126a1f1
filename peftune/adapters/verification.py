"""Verify an artifact: replay its reference logits on the base in float32, in int8, or merged."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peftune.adapters.artifact import Opened, open_artifact
from peftune.adapters.classifier import cleaned_for, read_rows
from peftune.adapters.full_model import load_whole_model
from peftune.adapters.loading import load_prepared
from peftune.adapters.manifest import Manifest, Precision
from peftune.adapters.reference_logits import Rows, arrays, largest_difference, replay, scale_of
from peftune.display import Block, Displayed, data_frame
from peftune.errors import ArtifactError, UsageError, suggestion
from peftune.files.reading import given_path
from peftune.models.architecture import unwrapped
from peftune.models.inference import predict_logits
from peftune.models.loading import choose_device
from peftune.models.merging import merged_into_base
from peftune.models.prepare import is_prepared, preparation_of
from peftune.progress import working
from peftune.tasks import methods_of

if TYPE_CHECKING:
    import pandas as pd

On = Literal["fp32", "int8", "merged"]
"""The base in float32, the base in int8, or one plain model: merged into the base in float32."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models lie apart.

    Args:
        largest: largest absolute difference of a logit, lower is better; of language modeling of
            a token's log-probability, in nats.
        label_flips: share of the texts of which they do not say the same labels; None where the
            task has no labels.
    """

    largest: float
    label_flips: float | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What an artifact made of its recorded texts, against the record.

    Args:
        on: what it was replayed on.
        texts: how far from the record, over the recorded texts.
        allowed: largest difference that passes.
        rows: over the rows of a file, how far from the model that it was trained as; None without
            a file, and of that model itself.
    """

    on: On
    texts: Difference
    allowed: float
    rows: Difference | None

    @property
    def passed(self) -> bool:
        """Whether it is the record again, up to what arithmetic of this precision leaves open."""
        return self.texts.largest <= self.allowed


@dataclass(frozen=True, slots=True)
class Parity:
    """How an adapter that was trained on the int8 base acts on the same base in float32.

    Args:
        texts: int8 against float32, over the recorded texts.
        rows: the same over the rows of a file; None without one.
    """

    texts: Difference
    rows: Difference | None


@dataclass(frozen=True, slots=True, repr=False)
class Verification(Displayed):
    """What `peftune.adapters.verify` found.

    Args:
        artifact: how it was named.
        sha256: hash of its manifest, by which it is known.
        trained_on: precision of the base that it was trained on.
        n_texts: recorded texts.
        n_rows: rows of the file; None without one.
        replays: one for each precision, in the order asked for.
        parity: for an adapter that was trained on the int8 base; else None.
    """

    artifact: str
    sha256: str
    trained_on: On
    n_texts: int
    n_rows: int | None
    replays: tuple[Replay, ...]
    parity: Parity | None

    @property
    def passed(self) -> bool:
        """Whether every replay passed; parity is a number and decides nothing."""
        return all(replay.passed for replay in self.replays)

    def _blocks(self) -> Iterator[Block]:
        yield f"{self.artifact}, {self.n_texts} recorded texts, trained on {self.trained_on}"
        yield [
            {
                "on": each.on,
                "off the record": f"{each.texts.largest:.2e}",
                "allowed": f"{each.allowed:.2e}",
                "": "reproduced" if each.passed else "NOT REPRODUCED",
            }
            for each in self.replays
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a replay."""
        return data_frame(self.as_json()["replays"])

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        values = dataclasses.asdict(self)
        replays = [
            {**found, "passed": each.passed}
            for found, each in zip(values["replays"], self.replays, strict=True)
        ]
        return {**values, "replays": replays, "passed": self.passed}


def load_model(
    opened: Opened, *, base: str | None, use_cpu: bool, in_float32: bool = False
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load the model of an artifact, whatever it makes of its recorded texts.

    Args:
        opened: the artifact.
        base: where its base lies, as for `peftune.load`.
        use_cpu: stay on the CPU even where there is a GPU.
        in_float32: hold the base in float32 even where the strategy would not.

    Returns:
        The model in eval mode, and its tokenizer.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base cannot be found.
    """
    if opened.manifest.kind == "model" and opened.manifest.task_type.has_head:
        return load_whole_model(opened, base=base, device=choose_device(use_cpu=use_cpu))
    model = load_prepared(opened, base=base, use_cpu=use_cpu, in_float32=in_float32)
    return model, preparation_of(model).tokenizer


def merged_model(model: nn.Module) -> PreTrainedModel:
    """Merge a model, held in float32, into its base; it is taken apart.

    Raises:
        UsageError: what was learned cannot be written as weights of a plain GPT-2.
    """
    return merged_into_base(model) if is_prepared(model) else unwrapped(model)


TOLERANCES: Mapping[On, float] = {"fp32": 1e-4, "int8": 0.1, "merged": 1e-4}
"""Largest difference from the record, relative to its largest number (or to 1).

In float32 a hundred times what another batch makes of the same weights; int8 kernels round the
inputs of every layer, and not all of them alike.
"""

_RECORDS: Mapping[On, Precision] = {"fp32": "float32", "int8": "int8", "merged": "float32"}


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What one model made of the recorded texts, and of the rows of a file."""

    texts: Rows
    rows: NDArray[np.float32] | None


@working("verifying")
def verify(
    artifact: str | Path,
    *,
    base: str | None = None,
    on: Sequence[On] = (),
    file: str | Path | None = None,
    text_column: str | None = None,
    use_cpu: bool = False,
) -> Verification:
    """Replay every recorded text of an artifact, each alone, and say how far the logits are off.

    Args:
        artifact: an adapter folder, or the `model/` folder of full fine-tuning.
        base: where the base lies, as for `peftune.load`.
        on: what to replay on: `fp32`, `int8`, `merged`; those that are recorded if none is named.
        file: rows on which the models are set against each other: csv, tsv, json, jsonl, parquet,
            or .txt with a text a line. Labels are not needed.
        text_column: column that holds the text, if not the one that was learned from.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is refused.
        BaseModelError: the base cannot be found.
        DataError: the file cannot be used.
        UsageError: it cannot be replayed on what was named.
    """
    opened = open_artifact(artifact)
    manifest = opened.manifest
    chosen = _chosen(on, opened)
    rows = None if file is None else _read_rows(given_path(file, "file"), opened, text_column)
    trained_on: On = "int8" if manifest.precision == "int8" else "fp32"
    needed = list(chosen)
    if rows is not None:
        # What a file shows is set against the model that was trained; parity needs both.
        needed += [trained_on] if trained_on == "fp32" else ["fp32", "int8"]
    made = {
        each: _make(each, opened, rows, base=base, use_cpu=use_cpu)
        for each in dict.fromkeys(needed)
    }
    return Verification(
        artifact=opened.name,
        sha256=opened.digest,
        trained_on=trained_on,
        n_texts=len(manifest.reference_logits.texts),
        n_rows=None if rows is None else len(rows),
        replays=tuple(_replayed(each, made, trained_on, manifest) for each in chosen),
        parity=_parity(made, manifest) if trained_on == "int8" else None,
    )


def _chosen(on: Sequence[On], opened: Opened) -> tuple[On, ...]:
    recorded = opened.manifest.reference_logits.logits
    known: tuple[On, ...] = get_args(On)
    for each in on:
        if each not in known:
            message = f"An artifact is not replayed on '{each}'. {suggestion(each, known)}"
            raise UsageError(message)
        if _RECORDS[each] not in recorded:
            message = f"'{opened.name}' was trained on the base in float32, so there is no record of it on {each}. Name fp32 or merged."
            raise UsageError(message)
    asked = tuple(dict.fromkeys(on))
    return asked or tuple(
        each for each in known if each != "merged" and _RECORDS[each] in recorded
    )


def _read_rows(file: Path, opened: Opened, text_column: str | None) -> Sequence[str]:
    manifest = opened.manifest
    if not manifest.task_type.has_head:
        message = f"'{opened.name}' has learned {manifest.task_name} and says nothing of rows. Leave the file out."
        raise UsageError(message)
    return cleaned_for(manifest, read_rows(file, manifest, text_column))


def _make(
    on: On, opened: Opened, rows: Sequence[str] | None, *, base: str | None, use_cpu: bool
) -> _Made:
    """Load one model, let it read the texts, and let it go before the next one is loaded."""
    manifest = opened.manifest
    model, tokenizer = load_model(opened, base=base, use_cpu=use_cpu, in_float32=on != "int8")
    if on == "merged":
        model = merged_model(model)
    length, scored = manifest.max_length, None
    try:
        texts = replay(
            model,
            tokenizer,
            manifest.reference_logits.texts,
            max_length=length,
            task=manifest.task_name,
        )
        if rows is not None:
            scored = predict_logits(model, tokenizer, rows, max_length=length)
    except FloatingPointError as error:
        message = f"'{opened.name}' on {on}: {error}, so it is of no use. Fetch it again, or save a better one."
        raise ArtifactError(message) from error
    del model
    gc.collect()  # modules refer to each other
    return _Made(texts, scored)


def _replayed(on: On, made: Mapping[On, _Made], trained_on: On, manifest: Manifest) -> Replay:
    recorded = manifest.reference_logits.logits[_RECORDS[on]]
    rows = None
    mine, reference = made[on].rows, made[trained_on].rows if trained_on in made else None
    if on != trained_on and mine is not None and reference is not None:
        rows = difference_of(list(reference), list(mine), manifest)
    return Replay(
        on=on,
        texts=difference_of(arrays(recorded), made[on].texts, manifest),
        allowed=TOLERANCES[on] * scale_of(recorded),
        rows=rows,
    )


def _parity(made: Mapping[On, _Made], manifest: Manifest) -> Parity:
    """Set int8 against float32: as replayed here, or as recorded where it was not."""
    int8, fp32 = (
        made[on].texts if on in made else arrays(manifest.reference_logits.logits[_RECORDS[on]])
        for on in ("int8", "fp32")
    )
    rows = None
    if "int8" in made and "fp32" in made:
        first, second = made["int8"].rows, made["fp32"].rows
        if first is not None and second is not None:
            rows = difference_of(list(first), list(second), manifest)
    return Parity(difference_of(int8, fp32, manifest), rows)


def difference_of(expected: Rows, actual: Rows, manifest: Manifest) -> Difference:
    """Say how far apart two models' logits of the same texts lie."""
    largest = largest_difference(expected, actual)
    flips = None
    if manifest.task_type.has_head:
        flips = methods_of(manifest.task_name).count_flips(
            np.stack(expected), np.stack(actual), manifest.label_thresholds
        )
    return Difference(largest, None if flips is None else flips / len(expected))
