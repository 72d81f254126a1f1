"""`peftune forget`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, quiet_libraries, say
from peftune.errors import GateError
from peftune.stats.formats import with_interval

if TYPE_CHECKING:
    from peftune.experiments import Forgetting
    from peftune.forgetting.results import ProbeResult
    from peftune.forgetting.self_test import Check

DEFAULT_PROBE = "bundled:general-text"
ONE_MODEL = "95% interval over documents, of this one model"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("forget")(forget)


def forget(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT_OR_MODEL",
            help="A folder: of a run, peftune's adapter or model, any PEFT LoRA adapter, or a plain GPT-2 checkpoint; or user/name@commit on the hub.",
        ),
    ],
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROBE",
            help="Text to measure on: bundled:general-text, a .txt or .jsonl file, or a hub id; behind a probe's type to measure something else, such as cloze:lambada.jsonl; or all its fields, such as '{type: cloze, file: lambada.jsonl, max_documents: 500}'. May be given several times.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base to compare with; needed for a plain checkpoint.")
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Also run the controls of the measurement on this machine: pass or fail for each.",
        ),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Measure what any adapter or checkpoint forgot, with intervals and controls."""
    quiet_libraries()
    from peftune.recipe import read_probe

    probes = [read_probe(text) for text in probe or [DEFAULT_PROBE]]
    from peftune.experiments.forget import forget as forget_artifact
    from peftune.experiments.forget import self_test_of

    result = forget_artifact(artifact, probes, base=base)
    checks = self_test_of(artifact, result, base=base) if self_test else []
    if json:
        values = {"findings": [], **dataclasses.asdict(result)}
        if self_test:
            values["self_test"] = [dataclasses.asdict(check) for check in checks]
        print_json(values)
    else:
        _print_result(artifact, result)
        _print_checks(checks)
    if failed := [check.name for check in checks if not check.passed]:
        message = f"The self-test failed: {'; '.join(failed)}. Do not use the figures of this machine; report the versions that 'peftune env' prints."
        raise GateError(message)


def _print_result(artifact: str, result: Forgetting) -> None:
    for found in result:
        print_facts(f"{artifact}, {found.type} on {found.name}", probe_facts(found))
    control = result.controls["adapter_off_forgetting"]
    shown = "not measured: a plain checkpoint has none" if control is None else repr(control)
    say(f"control, adapter disabled: {shown}")
    say(f"verdict: {result.verdict or f'none: {result.reason}'}")


def probe_facts(found: ProbeResult) -> Iterator[tuple[str, str]]:
    """List what one probe found, each with its name and unit."""
    yield "before", f"{found.before:.4f} {found.unit}"
    yield "after", f"{found.after:.4f} {found.unit}"
    worse = (
        f"{with_interval(found.forgetting, found.ci95, '+.4f')} {found.unit} (positive is worse)"
    )
    yield "forgetting", worse
    if found.ci95 is not None:
        yield "  brackets", ONE_MODEL
    if found.heads is not None:
        yield (
            "  backbone alone",
            f"{found.heads.base:+.4f} {found.unit} (under the base's own head)",
        )
    if found.quantization is not None:
        cost, total = found.quantization.cost, found.quantization.total
        yield "  8-bit base", f"{cost:+.4f} {found.unit}, apart; {total:+.4f} in all"
    if found.kl is not None:
        yield "KL(base || tuned)", f"{with_interval(found.kl, found.kl_ci95, '.4f')} nats/token"
    for name, value in found.details.items():
        yield name.replace("_", " "), "-" if value is None else f"{value:.4f}"
    if found.mcnemar is not None:
        test = found.mcnemar
        yield (
            "right to wrong",
            f"{test.n10}, wrong to right {test.n01} (McNemar p {test.p_value:.2g})",
        )
    yield "documents", f"{found.n_documents} ({found.n_tokens} tokens)"
    if found.power is not None:
        enough = "enough" if found.power.enough else "too few"
        needed = f"{found.power.needed_documents} documents show a change of {found.margin:g} {found.unit}"
        yield "power", f"{needed}: {enough}"
    if found.ci95 is None and found.reason:
        yield "note", found.reason


def _print_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        say(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.found}")
