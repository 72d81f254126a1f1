"""`peftune forget`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from peftune import api
from peftune.cli.console import print_facts, print_json, quiet_libraries, say
from peftune.cli.options import JsonFlag
from peftune.errors import GateError
from peftune.stats.formats import with_interval

if TYPE_CHECKING:
    from peftune.experiments.forget import MeasuredForgetting
    from peftune.forgetting.results import ProbeResult

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
    try:
        result = api.forget(artifact, probe or [api.GENERAL_TEXT], base=base, self_test=self_test)
    except GateError as error:
        if error.forgetting is not None:
            _print(artifact, error.forgetting, as_json=json)
        raise
    _print(artifact, result, as_json=json)


def _print(artifact: str, result: MeasuredForgetting, *, as_json: bool) -> None:
    if as_json:
        print_json(result.as_json())
        return
    for found in result:
        print_facts(f"{artifact}, {found.type} on {found.name}", probe_facts(found))
    control = result.controls["adapter_off_forgetting"]
    shown = "not measured: a plain checkpoint has none" if control is None else repr(control)
    say(f"control, adapter disabled: {shown}")
    say(f"verdict: {result.verdict or f'none: {result.reason}'}")
    for check in result.self_test:
        say(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.found}")


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
