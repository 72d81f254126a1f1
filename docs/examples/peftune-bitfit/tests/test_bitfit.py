"""BitFit passes the contract of strategies and trains the parameters of its paper."""

from __future__ import annotations

from pathlib import Path

from peftune_bitfit import BitFit

import peftune
from peftune.models.architecture import trainable_parameters
from peftune.testing import StrategyContract, write_tiny_base


class TestBitFit(StrategyContract):
    """Every law, with the default fields."""

    strategy = BitFit()


class TestBitFitWithoutLayerNorms(StrategyContract):
    """Every law, with the biases of layer norms frozen."""

    strategy = BitFit(layer_norms=False)


def test_only_biases_and_the_head_are_trainable(tmp_path: Path) -> None:
    """On GPT-2 each block has six biases, two of them in layer norms; one more norm ends it."""
    base = str(write_tiny_base(tmp_path / "base"))

    counts = {}
    for layer_norms in (True, False):
        strategy = BitFit(layer_norms=layer_norms)
        model, _ = peftune.prepare(base, strategy=strategy, labels=["no", "yes"], use_cpu=True)
        trainable = set(trainable_parameters(model))
        assert {name.rpartition(".")[2] for name in trainable - {"score.weight"}} == {"bias"}
        counts[layer_norms] = len(trainable)

    assert counts == {True: 2 * 6 + 1 + 1, False: 2 * 4 + 1}
