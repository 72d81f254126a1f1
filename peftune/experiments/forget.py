"""Measure forgetting alone: of an artifact, of a PEFT adapter made elsewhere, or of a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.adapters.artifact import base_named_inside, base_of, find_artifact, open_artifact
from peftune.adapters.format import MANIFEST
from peftune.adapters.loading import load_prepared
from peftune.adapters.manifest import Manifest
from peftune.adapters.third_party import base_named_by, is_peft_folder, load_third_party_adapter
from peftune.data.documents import load_documents
from peftune.display import Block, Displayed
from peftune.errors import ArtifactError, UsageError
from peftune.experiments.evaluate import seen_by
from peftune.experiments.report import CONTROL, Forgetting, summarized
from peftune.files.reading import SharedFolder
from peftune.findings.finding import Finding
from peftune.forgetting.before_and_after import Before, Measured, measure_before
from peftune.forgetting.measurement import (
    ProbeText,
    measure,
    measure_off,
    measure_with,
    read_probe_texts,
)
from peftune.forgetting.scorer import LanguageModelScorer, Reference
from peftune.forgetting.self_test import Check, self_test
from peftune.models.base_files import find_base
from peftune.models.loading import choose_device, load_backbone
from peftune.models.prepare import prepare_model
from peftune.models.tokenizer import load_tokenizer
from peftune.probes import LanguageModelLoss, Probe
from peftune.progress import working
from peftune.stats.formats import with_interval


@dataclass(frozen=True, slots=True, repr=False)
class MeasuredForgetting(Displayed, Forgetting):
    """What an artifact forgot, with what stands in the way of believing it.

    Its `repr` is a line for each probe; the intervals speak of this one model.

    Args:
        findings: such as a probe whose documents the artifact was trained on.
        self_test: the controls of the measurement on this machine; empty where they were not asked
            for.
    """

    findings: Sequence[Finding] = ()
    self_test: Sequence[Check] = ()

    def _blocks(self) -> Iterator[Block]:
        yield "95% intervals over documents, of this one model; positive is worse"
        for probe in self.probes:
            yield f"{probe.name}: {with_interval(probe.forgetting, probe.ci95, '+.4f')} {probe.unit}"
        yield f"verdict: {self.verdict or f'none: {self.reason}'}"
        for check in self.self_test:
            yield f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.found}"

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it; `self_test` only where it was asked for."""
        values = {"findings": [], **dataclasses.asdict(self)}
        if not self.self_test:
            del values["self_test"]
        return values


@working("measuring forgetting")
def forget(
    artifact: str | Path,
    probes: Sequence[Probe],
    *,
    base: str | None = None,
    use_cpu: bool = False,
) -> MeasuredForgetting:
    """Measure what an artifact forgot.

    The base is loaded by itself for "before", in the precision in which the artifact was trained
    on it, so the control (the artifact's model with its adapter disabled) is a second, independent way
    to the same numbers.

    Args:
        artifact: peftune's adapter or model folder, a PEFT LoRA folder, or a plain GPT-2 checkpoint.
        probes: what to measure.
        base: where the base lies; a plain checkpoint needs it.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base cannot be found.
        DataError: a probe's text cannot be used.
    """
    texts = read_probe_texts(probes)
    folder = find_artifact(artifact)
    device = choose_device(use_cpu=use_cpu)
    seen: Sequence[Finding] = ()
    if MANIFEST in folder.entries:
        result, seen = _forget_own(folder, texts, base, use_cpu=use_cpu)
    elif is_peft_folder(folder):
        result = _forget_third_party(folder, texts, base, device)
    else:
        result = _forget_checkpoint(Path(artifact), texts, base, device)
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return MeasuredForgetting(**values, findings=seen)


@working("testing the measurement")
def self_test_of(
    artifact: str | Path, result: Forgetting, *, base: str | None = None, use_cpu: bool = False
) -> list[Check]:
    """Run the controls of the measurement on the base of an artifact.

    Args:
        artifact: what `forget` took.
        result: what it returned.
        base: what it took.
        use_cpu: stay on the CPU even where there is a GPU.
    """
    folder = find_artifact(artifact)
    if MANIFEST in folder.entries:
        source = base_of(open_artifact(folder), base)
    else:
        source = (
            find_base(base)
            if base is not None
            else base_named_inside(base_named_by(folder), artifact=folder.name)
        )
    documents = load_documents(LanguageModelLoss(dataset_name="bundled:general-text"))
    return self_test(
        source,
        documents,
        control=result.controls[CONTROL],
        device=choose_device(use_cpu=use_cpu),
    )


def _forget_own(
    folder: SharedFolder, texts: Sequence[ProbeText], base: str | None, *, use_cpu: bool
) -> tuple[Forgetting, Sequence[Finding]]:
    opened = open_artifact(folder)
    manifest = opened.manifest
    seen = [
        finding
        for text in texts
        for finding in seen_by(
            manifest,
            [document for document in text.documents if isinstance(document, str)],
            what=f"documents of probe '{text.label}'",
            consequence="the probe shows what was learned of them, not what was forgotten",
        )
    ]
    untouched = prepare_model(
        base_of(opened, base),
        opened.strategy,
        labels=manifest.labels,
        task=manifest.task_name,
        max_length=manifest.max_length,
        use_cpu=use_cpu,
    )
    before = measure_before(untouched, texts)
    del untouched
    tuned = load_prepared(opened, base=base, use_cpu=use_cpu)
    after = measure(tuned, texts)
    # Of a full checkpoint nothing can be switched off; its reference is the base loaded again.
    off = None if manifest.kind == "model" else measure_off(tuned, texts, after)
    return summarized(texts, Measured(before, after, off), learned=_learned(manifest)), seen


def _learned(manifest: Manifest) -> bool | None:
    """Say whether the task was learned, as the manifest recorded it; None where it did not."""
    task = manifest.task or {}
    if isinstance(recorded := task.get("learned"), bool):
        return recorded
    # Artifacts that were saved before this was recorded.
    intervals = task.get("ci95") or {}
    if gain := intervals.get("bits_per_byte_gain"):
        return bool(gain[0] > 0)
    interval = intervals.get("accuracy")
    majority = task.get("majority_accuracy")
    return None if not interval or majority is None else bool(interval[0] > majority)


def _as(model: nn.Module) -> Reference:
    """Let another model be the base."""
    return lambda: contextlib.nullcontext(model)


def _forget_third_party(
    folder: SharedFolder, texts: Sequence[ProbeText], base: str | None, device: torch.device
) -> Forgetting:
    tuned, source = load_third_party_adapter(folder, base, device)
    tokenizer = load_tokenizer(source.folder)
    untouched = load_backbone(source, device)
    before = _plain_before(untouched, tokenizer, texts)
    after = measure_with(tuned, tokenizer, texts, reference=_as(untouched))
    with tuned.disable_adapter():
        off = measure_with(tuned, tokenizer, texts)
    return summarized(texts, Measured(before, after, off), learned=None)


def _forget_checkpoint(
    folder: Path, texts: Sequence[ProbeText], base: str | None, device: torch.device
) -> Forgetting:
    if base is None:
        message = f"'{folder}' is a plain checkpoint, which does not say what it was made from. Pass --base."
        raise UsageError(message)
    tuned_source, source = find_base(str(folder)), find_base(base)
    tokenizer = load_tokenizer(source.folder)
    tuned = load_backbone(tuned_source, device)
    untouched = load_backbone(source, device)
    if tuned.wte.weight.shape != untouched.wte.weight.shape:
        message = f"'{folder}' and '{base}' have vocabularies of different sizes, so one was not made from the other."
        raise ArtifactError(message)
    before = _plain_before(untouched, tokenizer, texts)
    after = measure_with(tuned, tokenizer, texts, reference=_as(untouched))
    return summarized(texts, Measured(before, after, None), learned=None)


def _plain_before(
    untouched: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[ProbeText]
) -> Before:
    scoring = LanguageModelScorer(untouched, tokenizer).protocol()
    measured = measure_with(untouched, tokenizer, texts)
    return Before(measured, None, scoring, cached=False)
