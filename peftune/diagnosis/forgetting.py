"""General ability was lost."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall

PITFALL = Pitfall(
    code="forgetting",
    scope="run",
    looks_for="The model lost general ability that the base had.",
    threshold="The verdict on a probe is `forgot`: the 95% interval of the loss lies above zero, and its 90% interval is not below the probe's margin.",
)


def find_forgetting(facts: Facts) -> Finding | None:
    """Look for probes that are judged forgot; the one furthest past its margin comes first."""
    forgot = [probe for probe in facts.probes if probe.verdict == "forgot"]
    if not forgot:
        return None
    forgot.sort(key=lambda probe: probe.forgetting / (probe.margin or 1.0), reverse=True)
    losses = ", ".join(
        f"'{probe.name}' {probe.before:.3f} to {probe.after:.3f} {probe.unit} ({probe.forgetting:+.4f}, allowed {probe.margin:g})"
        for probe in forgot
    )
    return PITFALL.found("warning", f"The model forgot: {losses}.", _advice(facts))


def _advice(facts: Facts) -> str:
    """Name the dials that this run has not turned yet."""
    dials = ["lower training.learning_rate", "train for fewer epochs"]
    if not facts.recipe.forgetting.regularizers:
        dials.append("add a regularizer (forgetting.regularizers: kl-to-base or replay)")
    if facts.recipe.strategy.name == "full":
        dials.append("try lora or head-only")
    sentence = f"{', '.join(dials)}, or scale the change down after training with 'peftune adapter rescale'."
    return f"{sentence[0].upper()}{sentence[1:]} Each may cost accuracy: compare."
