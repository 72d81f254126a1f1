"""Every probe and regularizer of ours passes the contract that plug-ins of others pass; faulty ones do not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import peftune
from peftune.forgetting.measurement import ProbeText, measure_base
from peftune.probes import (
    PROBES,
    Cloze,
    KLDivergence,
    LanguageModel,
    LanguageModelLoss,
    LinearProbe,
    Measurement,
    MinimalPairs,
    MultipleChoice,
    Probe,
)
from peftune.regularizers import (
    EWC,
    L2SP,
    REGULARIZERS,
    KLToBase,
    Penalty,
    Regularizer,
    Replay,
    TrainedModel,
)
from peftune.strategies import LoRA
from peftune.testing import ProbeContract, RegularizerContract

SENTENCES = (
    "The river stood at the second step of the quay",
    "Half a page about bread, and a long wait",
    "Nobody came to look when the door fell shut",
    "A letter from the coast took eleven days",
)


def written(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as JSON lines."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class TestLanguageModelLoss(ProbeContract):
    """`lm-loss`."""

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Read four sentences."""
        return LanguageModelLoss(file=written(folder, [{"text": one} for one in SENTENCES]))


class TestKLDivergence(ProbeContract):
    """`kl`."""

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Read four sentences."""
        return KLDivergence(file=written(folder, [{"text": one} for one in SENTENCES]))


class TestCloze(ProbeContract):
    """`cloze`."""

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Ask for the last word of four sentences."""
        return Cloze(file=written(folder, [{"text": one} for one in SENTENCES]))


class TestMinimalPairs(ProbeContract):
    """`minimal-pairs`."""

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Compare four sentences with their words in reverse order."""
        rows = [
            {"sentence_good": one, "sentence_bad": " ".join(reversed(one.split()))}
            for one in SENTENCES
        ]
        return MinimalPairs(file=written(folder, rows))


class TestMultipleChoice(ProbeContract):
    """`multiple-choice`."""

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Choose among the words of a sentence."""
        rows = [
            {
                "context": one,
                "options": [f" {word}" for word in dict.fromkeys(other.split())],
                "answer": 2,
            }
            for one in SENTENCES
            for other in SENTENCES
        ]
        return MultipleChoice(file=written(folder, rows))


class TestLinearProbe(ProbeContract):
    """`linear-probe`."""

    @classmethod
    def make_probe(cls, folder: Path) -> Probe:
        """Read a label that no feature gives away, so that other features answer otherwise."""
        rows = [
            {"text": f"{one} {number}", "label": (number * number + place) % 3 % 2}
            for number in range(12)
            for place, one in enumerate(SENTENCES)
        ]
        return LinearProbe(file=written(folder, rows))


class TestKLToBase(RegularizerContract):
    """`kl-to-base`."""

    regularizer = KLToBase(length=8, pool=6, sequences=4)


class TestReplay(RegularizerContract):
    """`replay`."""

    regularizer = Replay(length=8, pool=6)


class TestL2SP(RegularizerContract):
    """`l2-sp`."""

    regularizer = L2SP()


class TestEWC(RegularizerContract):
    """`ewc`."""

    regularizer = EWC(length=8, sequences=4)


def test_every_probe_and_regularizer_of_ours_has_a_contract(tmp_path: Path) -> None:
    """A new one is checked before it is shipped."""
    here = [one for one in globals().values() if isinstance(one, type)]
    terms = {
        one.regularizer.name
        for one in here
        if issubclass(one, RegularizerContract) and one.__name__.startswith("Test")
    }
    probes = {
        one.make_probe(tmp_path).name
        for one in here
        if issubclass(one, ProbeContract) and one.__name__.startswith("Test")
    }

    assert terms == set(REGULARIZERS.names())
    assert probes == set(PROBES.names())


class _Blind(Probe):
    """A probe that sees nothing."""

    name: ClassVar[str] = "blind"
    metric: ClassVar[str] = "ones"
    unit: ClassVar[str] = "one"

    def measure(self, model: LanguageModel, documents: Sequence[Any]) -> Measurement:  # noqa: ARG002 - that is the fault
        """Return ones."""
        ones = np.ones(len(documents))
        return Measurement(ones, ones, ones.astype(np.int64))


class _Unsteady(_Blind):
    """A probe that never says the same twice."""

    def measure(self, model: LanguageModel, documents: Sequence[Any]) -> Measurement:
        """Return random numbers."""
        found = super().measure(model, documents)
        drawn = np.random.default_rng().normal(size=len(documents))
        return Measurement(drawn, found.weight, found.tokens)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> nn.Module:
    """Prepare a LoRA model that nothing has trained."""
    prepared, _ = peftune.prepare(
        str(tiny_base), strategy=LoRA(r=4), labels=["a", "b", "c"], max_length=64, use_cpu=True
    )
    return prepared


def test_a_probe_that_sees_nothing_fails(
    tiny_base: Path, model: nn.Module, tmp_path: Path
) -> None:
    """The contract can fail: the numbers of this probe do not depend on the model."""
    text = ProbeText(_Blind(file=written(tmp_path, [{"text": SENTENCES[0]}])), SENTENCES)
    [before] = measure_base(model, [text])

    with pytest.raises(pytest.fail.Exception, match="no number of the measurement did"):
        ProbeContract().test_a_changed_model_is_noticed(tiny_base, text, before)


def test_a_probe_that_does_not_repeat_fails(model: nn.Module, tmp_path: Path) -> None:
    """The contract can fail: this probe says something else at every call."""
    text = ProbeText(_Unsteady(file=written(tmp_path, [{"text": SENTENCES[0]}])), SENTENCES)
    [before] = measure_base(model, [text])

    with pytest.raises(pytest.fail.Exception, match="is not that of the base"):
        ProbeContract().test_an_untrained_adapter_forgets_exactly_nothing(model, text, before)


class _Noisy(Regularizer):
    """A term that draws from the training's random state."""

    name: ClassVar[str] = "noisy"

    def begin(self, model: TrainedModel) -> Penalty:
        """Draw at each call."""
        return lambda batch, draw: model.head_norm() * torch.rand(())  # noqa: ARG005 - a penalty's signature


class _OfNoisy(RegularizerContract):
    """Not collected: its name begins with an underscore."""

    regularizer = _Noisy()


def test_a_term_that_uses_up_random_numbers_fails(model: nn.Module) -> None:
    """The contract can fail for a regularizer too."""
    contract = _OfNoisy()

    with pytest.raises(pytest.fail.Exception, match="for the same batch and draw"):
        contract.test_the_same_draw_gives_the_same_penalty(model)
    with pytest.raises(pytest.fail.Exception, match="used up random numbers"):
        contract.test_computing_it_leaves_the_training_as_it_was(model)
