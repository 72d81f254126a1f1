"""The verdict speaks of bits per byte only."""

from __future__ import annotations

import dataclasses

from peftune.forgetting.measure import ProbeResult
from peftune.forgetting.verdict import verdict

_LOST = ProbeResult(
    name="text",
    type="lm-loss",
    metric="bits_per_byte",
    unit="bits/byte",
    before=1.0,
    after=1.2,
    forgetting=0.2,
    ci95=(0.1, 0.3),
    kl=None,
    n_documents=10,
    n_tokens=100,
    data_sha256="",
    protocol={},
    reason=None,
)


def test_a_probe_in_another_unit_has_no_say_in_the_verdict() -> None:
    """The margin is in bits per byte; a probe in another unit is not held against it."""
    points = dataclasses.replace(_LOST, unit="points")
    kept = dataclasses.replace(_LOST, ci95=(-0.001, 0.002))

    assert verdict([_LOST], learned=True) == "forgot"
    assert verdict([points], learned=True) is None
    assert verdict([points, kept], learned=True) == "retained"
