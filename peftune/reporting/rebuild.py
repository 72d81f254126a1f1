"""Make a report again from run folders alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from peftune.baselines.kept import read_ladder
from peftune.baselines.scores import Baseline
from peftune.compare.clean_rows import CleanRows, baselines_of, clean_rows
from peftune.compare.grid import BASELINES, COMPARISON
from peftune.compare.jobs import Failure
from peftune.compare.pitfalls import pitfalls_found, pitfalls_of_runs
from peftune.compare.summarise import summarise_clean
from peftune.compare.summary import HeldEqual
from peftune.diagnosis import Finding
from peftune.diagnosis.linear_probe_gap import PITFALL as BELOW_LINEAR_PROBE
from peftune.errors import UsageError
from peftune.files.paths import given_path
from peftune.progress import working
from peftune.reporting.write import Report, write_reports
from peftune.runs.evidence import Evidence, read_evidence
from peftune.runs.folder import REPORT, read_own_text


@dataclass(frozen=True, slots=True)
class Terms:
    """What `comparison.json` says beside its runs; runs named one by one have none of it.

    Args:
        held_equal: what the strategies share besides rows and seeds.
        budgets: trials of each strategy's tuning.
        ladder: the baselines, with what each says of every row where `baselines.json` lies there.
        findings: what was found in the comparison; None where nothing says what was looked for.
    """

    held_equal: HeldEqual = "examples_seen"
    budgets: Mapping[str, int] = field(default_factory=dict)
    ladder: Sequence[Baseline] = ()
    findings: Sequence[Finding] | None = None


class _RunIn(BaseModel):
    """Which folder of a comparison holds a run; the rest of the entry is the run's own report."""

    folder: str

    @field_validator("folder")
    @classmethod
    def _lies_there(cls, folder: str) -> str:
        if folder in {"", ".", ".."} or Path(folder).name != folder:
            message = "a run lies in a folder of the comparison's own"
            raise ValueError(message)
        return folder


class _Written(BaseModel):
    """What is read of a `comparison.json`."""

    runs: list[_RunIn]
    failures: list[Failure]
    held_equal: HeldEqual = "examples_seen"
    budgets: dict[str, int] | None = None
    ladder: list[dict[str, Any]] | None = None
    findings: list[Finding] | None = None


@working("writing the report")
def report(
    *folders: str | Path, output: str | Path | None = None, row_texts: bool = True
) -> Report:
    """Write the report of run folders, or of the folder of a comparison; nothing is trained.

    Args:
        folders: run folders, or folders that hold a `comparison.json`.
        output: where to; otherwise into the folder, if it is one.
        row_texts: show the texts of rows; False for a page that people will read who may not read
            the rows.

    Returns:
        Where `report.html`, `report.md` and `report.csv` lie.

    Raises:
        UsageError: a folder holds neither a run nor a comparison, or the runs do not fit together.
    """
    if not folders:
        message = "There is nothing to report on. Name run folders, or the folder of a comparison."
        raise UsageError(message)
    if output is None and len(folders) > 1:
        message = "The report of several folders needs a place of its own: output=… in Python, --output on the command line."
        raise UsageError(message)
    runs: list[Path] = []
    failures: list[Failure] = []
    terms = Terms()
    for folder in (given_path(folder, "folder") for folder in folders):
        if (folder / COMPARISON).is_file():
            found, failed, terms = _read_comparison(folder)
            runs += found
            failures += failed
        else:
            runs.append(_run_folder(folder))
    evidence: Sequence[Evidence] = [read_evidence(folder) for folder in dict.fromkeys(runs)]
    if not row_texts:
        evidence = [_without_texts(item) for item in evidence]
    _refuse_what_does_not_fit(evidence)
    place = Path(folders[0]) if output is None else given_path(output, "output")
    clean = clean_rows(
        evidence, terms.ladder or [one for run in evidence[:1] for one in baselines_of(run)]
    )
    # Strategies are compared on the rows that none had read; runs alone are shown as they are.
    several = len({item.run.run.strategy for item in evidence}) > 1
    return write_reports(
        summarise_clean(clean, held_equal=terms.held_equal, budgets=terms.budgets or None)
        if several
        else None,
        clean.evidence if several else evidence,
        failures,
        place,
        findings=_findings(clean, terms),
    )


def _findings(clean: CleanRows, terms: Terms) -> Sequence[Finding]:
    """Give what the comparison had found, or look for it in runs that were named one by one."""
    if terms.findings is None:
        return pitfalls_of_runs(clean.evidence, clean.ladder)
    if clean.leaked is None:
        return terms.findings
    # What an earlier version found in rows that had been read in training is looked at again.
    kept = [finding for finding in terms.findings if finding.code != BELOW_LINEAR_PROBE.code]
    return [*kept, *pitfalls_found(clean.evidence, clean.ladder)]


def _run_folder(folder: Path) -> Path:
    if not (folder / REPORT).is_file():
        message = f"'{folder}' holds neither a run ({REPORT}) nor a comparison ({COMPARISON}). Name the output folder of 'peftune run' or 'peftune compare'."
        raise UsageError(message)
    return folder


def _read_comparison(folder: Path) -> tuple[list[Path], list[Failure], Terms]:
    """Read which runs a comparison has, which did not finish, and on what terms it is held."""
    try:
        values = _Written.model_validate_json(read_own_text(folder / COMPARISON), strict=True)
        terms = Terms(
            held_equal=values.held_equal,
            budgets=values.budgets or {},
            ladder=read_ladder(folder / BASELINES)
            or [_baseline(one) for one in values.ladder or ()],
            findings=values.findings,
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        message = f"'{folder / COMPARISON}' is damaged ({_reason(error)}). Run 'peftune compare' again; finished runs are kept."
        raise UsageError(message) from error
    runs = [folder / run.folder for run in values.runs]
    failures = values.failures
    return runs, failures, terms


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _baseline(rung: Mapping[str, Any]) -> Baseline:
    """Read what `comparison.json` says of a baseline, where its answers are not in the folder."""
    interval = rung["ci95"]
    return Baseline(
        name=rung["name"],
        title=rung["title"],
        rows=(),
        predicted=None,
        accuracy=rung["accuracy"],
        macro_f1=rung["macro_f1"],
        ci95=interval and (interval[0], interval[1]),
        seconds=0.0,
        details=rung["details"],
        reason=rung["reason"],
    )


def _refuse_what_does_not_fit(evidence: Sequence[Evidence]) -> None:
    """Runs stand side by side if they saw the same rows, and differ in strategy or seed."""
    runs = [item.run for item in evidence]
    if len({run.run.data_fingerprint for run in runs}) > 1:
        message = "These runs did not see the same rows, so their numbers cannot be set side by side. Report on each by itself."
        raise UsageError(message)
    names = [(run.run.strategy, run.run.seed) for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = (
            f"Two of these runs are of strategy '{twice[0]}' with seed {twice[1]}. Leave one out."
        )
        raise UsageError(message)


def _without_texts(evidence: Evidence) -> Evidence:
    rows = dataclasses.replace(evidence.rows, texts=["(left out)"] * len(evidence.rows.ids))
    return dataclasses.replace(evidence, rows=rows)
