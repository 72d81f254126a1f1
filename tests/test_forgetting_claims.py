"""What a measurement of forgetting must pass before it is believed: its claims (checks 6 to 9).

As in `test_forgetting_acceptance.py`, a check raises AssertionError, holds for the code as it is,
and fails on faults that are planted by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from scipy import stats
from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedModel
from tuned import DOCUMENTS, PROBE, TEXTS, batch, forgetting, measurement, prepared, train

import peftune
from peftune.bundled import bundled_folder
from peftune.data import task_data as data_task
from peftune.data.rows import Rows
from peftune.data.task_data import load_task
from peftune.errors import DataError, GuardError, PeftuneError, UsageError
from peftune.experiments import Run
from peftune.experiments.report import Forgetting
from peftune.forgetting import measurement as measuring
from peftune.forgetting import results, scorer
from peftune.forgetting.measurement import ProbeText, measure, measure_base, measure_with
from peftune.forgetting.results import Verdict, assess_probe, forgetting_of, verdict
from peftune.forgetting.scorer import Output, TokenScores, read_out
from peftune.models import prepare as preparing
from peftune.models.architecture import backbone_of
from peftune.models.interpolation import at_strength
from peftune.models.prepare import acting_as_base, preparation_of
from peftune.models.tokenizer import encode_texts
from peftune.recipe.schema import DataSection
from peftune.stats.intervals import Interval, ratio_interval
from peftune.stats.tests import McNemar, mcnemar
from peftune.strategies import Full, LoRA, Strategy, TrainingDefaults

Fault = Callable[[pytest.MonkeyPatch], None]


# 6. No verdict without learning


def _posts(split: str) -> list[dict[str, Any]]:
    path = bundled_folder("bundled:posts", among=("posts",)) / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def learned_nothing(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train on shuffled labels, with steps so large that English is forgotten."""
    folder = tmp_path_factory.mktemp("shuffled")
    for split, count in (("train", 96), ("validation", 24), ("test", 90)):
        rows = _posts(split)[:count]
        labels = [row["label"] for row in rows]
        random.Random(0).shuffle(labels)  # noqa: S311 - not for secrets
        shuffled = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
        _write(shuffled, folder / f"{split}.jsonl")
    prose = bundled_folder("bundled:general-text", among=("general-text",)) / "test.jsonl"
    lines = prose.read_text(encoding="utf-8").splitlines()[:12]
    documents = [json.loads(line)["text"][:100].replace("\n", " ") for line in lines]
    (folder / "prose.txt").write_text("\f".join(documents), encoding="utf-8")
    (folder / "recipe.yaml").write_text(
        """\
version: 1
name: shuffled
model: {name_or_path: bundled:tiny-gpt2, max_length: 32}
data: {train_file: train.jsonl, validation_file: validation.jsonl, test_file: test.jsonl}
strategy: {name: lora}
training: {max_steps: 6, per_device_train_batch_size: 8, learning_rate: 3.0e-2, use_cpu: true}
forgetting: {probes: [{type: lm-loss, file: prose.txt}]}
output_dir: run
""",
        encoding="utf-8",
    )
    return peftune.run(folder / "recipe.yaml", output=folder / "run")


def check_nothing_learned(run: Run) -> None:
    """What was forgotten has no word where nothing was learned, however much it is."""
    interval, majority = run.learning.ci95["accuracy"], run.learning.baselines["majority"]
    assert interval is not None
    assert interval[0] <= majority["accuracy"] <= interval[1]
    [probe] = run.forgetting
    assert probe.ci95 is not None
    assert probe.margin is not None
    assert probe.ci95[0] > probe.margin
    assert run.forgetting.verdict == probe.verdict == "nothing learned"


@pytest.mark.slow
def test_shuffled_labels_teach_nothing_and_the_verdict_says_so(learned_nothing: Run) -> None:
    """Much was forgotten, but the word is neither "forgot" nor "retained"."""
    check_nothing_learned(learned_nothing)


def test_a_verdict_that_ignores_the_accuracy_is_noticed(learned_nothing: Run) -> None:
    """Planted: the intervals are judged without a look at the task, as in published tables."""
    judged = []
    for probe in learned_nothing.forgetting:
        word = assess_probe(
            margin=probe.margin,
            ci95=probe.ci95,
            ci90=probe.ci90,
            excludes_loss=True,
            learned=True,
        )
        judged.append(dataclasses.replace(probe, verdict=word))
    found = Forgetting(judged, {}, verdict([probe.verdict for probe in judged]))

    with pytest.raises(AssertionError):
        check_nothing_learned(dataclasses.replace(learned_nothing, forgetting=found))
    assert found.verdict == "forgot"


def check_every_class_is_judged(folder: Path) -> None:
    """A capped sample of rows that are sorted by class holds each class with its share."""
    rows = sorted(_posts("test"), key=lambda row: str(row["label"]))
    section = DataSection(
        train_file=str(_write(_posts("train"), folder / "train.jsonl")),
        test_file=str(_write(rows, folder / "test.jsonl")),
        max_test_examples=60,
    )
    task = load_task(section)
    whole = Counter(row["label"] for row in rows)
    _, judged = task.evaluation
    shares = Counter(task.labels[label] for label in judged.labels)
    assert all(abs(shares[name] - 60 * whole[name] / len(rows)) <= 1 for name in whole)


def test_rows_sorted_by_class_are_judged_fairly(tmp_path: Path) -> None:
    """Published files often are; the first rows of one would all be of one class."""
    check_every_class_is_judged(tmp_path)


def test_the_first_rows_of_a_sorted_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the first 60 rows are the sample, as in CURLoRA; a constant would score 1.00."""

    def first(rows: Rows, maximum: int | None, **_: object) -> Rows:
        return rows.take(range(min(maximum or len(rows), len(rows))))

    monkeypatch.setattr(data_task, "limit", first)
    with pytest.raises(DataError) as caught:
        check_every_class_is_judged(tmp_path)
    assert str(caught.value) == (
        "'test.jsonl': all 60 rows have the label 'negative'. At least two classes must occur; "
        "check the file and data.label_column."
    )


# 7. No trace of measuring


def _traces(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "random": torch.get_rng_state(),
        "weights": {name: weight.detach().clone() for name, weight in model.named_parameters()},
        "gradients": {name: weight.grad for name, weight in model.named_parameters()},
        "learning": [weight.requires_grad for weight in model.parameters()],
    }


def check_no_trace(base: Path, strategy: Strategy, *, strength: float = 1.0) -> None:
    """Modes, gradients, weights and random state are as before; the next loss is bit-identical."""

    def next_loss(*, measured: bool) -> tuple[torch.Tensor, dict[str, Any]]:
        torch.manual_seed(0)
        model = prepared(base, strategy)
        train(model, rate=0.1)
        model(**batch(model), labels=torch.tensor([1, 0])).loss.backward()
        if measured:
            with at_strength(model, preparation_of(model).before, strength):
                measure(model, TEXTS)
        traces = _traces(model)
        return model(**batch(model), labels=torch.tensor([1, 0])).loss, traces

    (plain, expected), (loss, traces) = next_loss(measured=False), next_loss(measured=True)
    assert torch.equal(loss, plain)
    assert any(traces["modes"])
    torch.testing.assert_close(traces, expected, rtol=0, atol=0)


def check_no_dropout(base: Path) -> None:
    """Two measurements of a model in train mode agree bit for bit."""
    model = prepared(base, LoRA(lora_dropout=0.5)).train()
    train(model)
    [first], [second] = measure(model, TEXTS), measure(model, TEXTS)
    assert first.total.tolist() == second.total.tolist()


@pytest.mark.costly
@pytest.mark.parametrize("strategy", [LoRA(lora_dropout=0.5), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_measuring_between_two_steps_leaves_no_trace(
    strategy: Strategy, strength: float, base: Path
) -> None:
    """Also at a strength between the base and what was learned."""
    check_no_trace(base, strategy, strength=strength)


def test_dropout_is_off_while_measuring(base: Path) -> None:
    """Of GPT-2 and of the adapter."""
    check_no_dropout(base)


@contextlib.contextmanager
def _never_back_in_train_mode(model: nn.Module) -> Iterator[None]:
    model.eval()
    with torch.inference_mode():
        yield


@contextlib.contextmanager
def _always_in_train_mode(model: nn.Module) -> Iterator[None]:
    with torch.inference_mode():
        yield
    model.train()


@contextlib.contextmanager
def _seeded_on_the_way(model: nn.Module) -> Iterator[None]:
    modes = [module.training for module in model.modules()]
    torch.manual_seed(0)
    with torch.inference_mode():
        yield
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode


@contextlib.contextmanager
def _base_for_ever(model: nn.Module) -> Iterator[nn.Module]:
    with torch.no_grad():
        for name, weight in preparation_of(model).before.items():
            model.get_parameter(name).copy_(weight)
    yield model


@pytest.mark.parametrize("planted", [_never_back_in_train_mode, _seeded_on_the_way])
def test_a_trace_of_measuring_is_noticed(
    planted: Callable[[nn.Module], Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: train mode does not come back; the random state is set."""
    monkeypatch.setattr(scorer, "evaluating", planted)
    with pytest.raises(AssertionError):
        check_no_trace(base, LoRA(lora_dropout=0.5))


def test_a_reference_that_overwrites_what_was_learned_is_noticed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the base is copied into the model, and the learned weights never come back."""
    monkeypatch.setattr(measuring, "acting_as_base", _base_for_ever)
    with pytest.raises(AssertionError):
        check_no_trace(base, Full())


def test_dropout_while_measuring_is_noticed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a measurement in train mode."""
    monkeypatch.setattr(scorer, "evaluating", _always_in_train_mode)
    with pytest.raises(AssertionError):
        check_no_dropout(base)


# 8. An honest base


def check_refused(action: Callable[[], object], kind: type[PeftuneError], message: str) -> None:
    """Where the base is not the base there is no number, but one line that says why."""
    found: object = None
    try:
        found = action()
    except PeftuneError as error:
        found = error
    assert (type(found), str(found)) == (kind, message)


CHANGED = (
    "Frozen weights of the base 'tiny' have changed since the model was prepared, so its "
    "forgetting cannot be measured. Train only what has requires_grad, and merge nothing before "
    "measuring or saving."
)


def _merged(model: nn.Module) -> None:
    assert isinstance(model, PeftModel)
    model.merge_adapter()


def _merged_and_unloaded(model: nn.Module) -> None:
    assert isinstance(model, PeftModel)
    model.merge_and_unload()


def _one_frozen_number_changed(model: nn.Module) -> None:
    with torch.no_grad():
        backbone_of(model).ln_f.bias[0] += 1e-3


def _frozen_weights_trained(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.requires_grad_(True)
    model(**batch(model), labels=torch.tensor([1, 0])).loss.backward()
    optimizer.step()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in preparation_of(model).before)


def _rewritten_as_pissa_does(model: nn.Module) -> None:
    """Take the update out of the base's weight, so that their sum stays as it was."""
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    with torch.no_grad():
        layer.base_layer.weight -= layer.get_delta_weight("default")


DISHONEST = [
    _merged,
    _merged_and_unloaded,
    _one_frozen_number_changed,
    _frozen_weights_trained,
    _rewritten_as_pissa_does,
]


@pytest.mark.parametrize("change", DISHONEST)
@pytest.mark.parametrize("ask", [measure, measure_base])
def test_a_base_that_changed_gives_no_number(
    change: Callable[[nn.Module], None], ask: Callable[..., object], base: Path
) -> None:
    """Merged, rewritten, or trained although frozen: neither before nor after is measured."""
    model = prepared(base, LoRA(r=2))
    train(model)
    ask(model, TEXTS)

    change(model)

    check_refused(lambda: ask(model, TEXTS), GuardError, CHANGED)


def _no_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measuring, "refuse_changed_base", lambda _: None)


def _hash_of_shapes(patch: pytest.MonkeyPatch) -> None:
    def shapes(model: nn.Module, _: object) -> str:
        return str([tuple(weight.shape) for weight in model.parameters()])

    patch.setattr(preparing, "frozen_sha256", shapes)


@pytest.mark.parametrize("plant", [_no_hash, _hash_of_shapes])
def test_a_base_that_is_believed_unseen_is_noticed(
    plant: Fault, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: no hash is taken, or one of shapes alone; a number comes out that means nothing."""
    plant(monkeypatch)
    model = prepared(base, LoRA(r=2))
    train(model)
    _rewritten_as_pissa_does(model)

    with pytest.raises(AssertionError):
        check_refused(lambda: measure(model, TEXTS), GuardError, CHANGED)


def test_a_model_that_was_unloaded_has_no_base(base: Path) -> None:
    """What peft returns after a merge is a plain model: nobody knows what it was made from."""
    model = prepared(base, LoRA(r=2))
    assert isinstance(model, PeftModel)
    plain = model.merge_and_unload()

    check_refused(
        lambda: measure(plain, TEXTS),
        UsageError,
        "This GPT2ForSequenceClassification was not made by peftune.prepare, so its base and "
        "labels are unknown. Pass the model that peftune.prepare returned.",
    )


class TrainsBiases(Strategy):
    """LoRA with peft's `bias="all"`: biases of the base learn in place."""

    name: ClassVar[str] = "trains-biases"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(1.0e-3)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Adapt the attention weights, and let every bias learn."""
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=2,
            target_modules=["c_attn"],
            fan_in_fan_out=True,
            bias="all",
        )
        adapted: nn.Module = get_peft_model(model, config)
        return adapted


def check_biases_come_back(model: nn.Module, off: Callable[[nn.Module], Any]) -> None:
    """With the adapter off, after training, the biases are the base's."""
    before = measure_base(model, TEXTS)
    train(model)
    with off(model):
        off_again = measure_with(model, preparation_of(model).tokenizer, TEXTS)
    assert forgetting(before, off_again) == 0.0


def test_biases_that_learn_are_part_of_the_reference(base: Path) -> None:
    """The reference restores all that learned, not the low-rank update alone."""
    check_biases_come_back(prepared(base, TrainsBiases()), acting_as_base)


@contextlib.contextmanager
def _switched_off_by_peft(model: nn.Module) -> Iterator[None]:
    assert isinstance(model, PeftModel)
    with model.disable_adapter():
        yield


def test_an_adapter_off_that_leaves_biases_changed_is_noticed(base: Path) -> None:
    """Planted: peft's `disable_adapter` as the reference, which does not restore the biases."""
    model = prepared(base, TrainsBiases())
    with pytest.warns(UserWarning, match="bias"), pytest.raises(AssertionError):
        check_biases_come_back(model, _switched_off_by_peft)


def _cross_entropy(states: torch.Tensor, head: torch.Tensor, ids: Sequence[int]) -> float:
    """Sum the loss in bits: states (time, hidden), head (vocabulary, hidden)."""
    log_shares = (states.double() @ head.double().T).log_softmax(-1)
    return -float(log_shares[range(len(ids)), list(ids)].sum()) / math.log(2)


def check_heads(base: Path, strategy: Strategy) -> None:
    """Under the tied head and under the base's, forgetting is what a loop over documents gives."""
    model = prepared(base, strategy)
    own = GPT2LMHeadModel.from_pretrained(base).eval()
    texts = [ProbeText(PROBE, tuple(text for text in DOCUMENTS if len(text.encode()) < 64))]
    [before] = measure_base(model, texts)
    train(model)
    if isinstance(strategy, Full):
        torch.manual_seed(0)
        with torch.no_grad():
            backbone_of(model).wte.weight += 0.1 * torch.randn_like(backbone_of(model).wte.weight)
    [after] = measure(model, texts)
    found = forgetting_of(texts[0], before=before, after=after, scoring={})
    model.eval()
    base_bits, tied_bits, backbone_bits = 0.0, 0.0, 0.0
    for document in texts[0].documents:
        [ids] = encode_texts(preparation_of(model).tokenizer, [document], max_length=None)
        inputs = torch.tensor([[0, *ids]])[:, :-1]
        with torch.no_grad():
            untouched = own.transformer(inputs).last_hidden_state[0]
            states = backbone_of(model)(inputs).last_hidden_state[0]
        base_bits += _cross_entropy(untouched, own.lm_head.weight.data, ids)
        tied_bits += _cross_entropy(states, backbone_of(model).wte.weight.data, ids)
        backbone_bits += _cross_entropy(states, own.lm_head.weight.data, ids)
    size = before.weight.sum()
    assert found.forgetting == pytest.approx((tied_bits - base_bits) / size, rel=1e-4)
    if isinstance(strategy, Full):
        assert found.heads is not None
        assert found.heads.tied == found.forgetting
        assert found.heads.base == pytest.approx((backbone_bits - base_bits) / size, rel=1e-4)
        assert found.heads.tied != pytest.approx(found.heads.base, rel=1e-2)
    else:
        assert found.heads is None
        assert tied_bits == backbone_bits


@pytest.mark.parametrize("strategy", [LoRA(r=2), Full()], ids=["lora", "full"])
def test_forgetting_is_told_apart_under_both_heads(strategy: Strategy, base: Path) -> None:
    """Where the embedding learned, the head moved too; LoRA leaves it as it was."""
    check_heads(base, strategy)


def _head_of_the_tuned_model(patch: pytest.MonkeyPatch) -> None:
    def one_head(
        tuned: Output, targets: torch.Tensor, *, base: Output | None = None, greedy: bool = False
    ) -> TokenScores:
        return read_out(
            tuned, targets, base=base and Output(base.states, tuned.head), greedy=greedy
        )

    patch.setattr(scorer, "read_out", one_head)


def _states_of_the_base(patch: pytest.MonkeyPatch) -> None:
    def other_states(
        tuned: Output, targets: torch.Tensor, *, base: Output | None = None, greedy: bool = False
    ) -> TokenScores:
        found = read_out(tuned, targets, base=base, greedy=greedy)
        return dataclasses.replace(found, base_head_nats=found.base_nats)

    patch.setattr(scorer, "read_out", other_states)


@pytest.mark.parametrize("plant", [_head_of_the_tuned_model, _states_of_the_base])
def test_a_wrong_head_beside_the_tied_one_is_noticed(
    plant: Fault, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: no copy of the base's head is kept; the base's own states are read under it."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_heads(base, Full())


# 9. Statistics that hold

Estimate = Callable[[NDArray[np.float64]], Interval | None]
"""Makes an interval of losses (documents, tokens)."""

REPETITIONS = 500


def _over_documents(losses: NDArray[np.float64]) -> Interval | None:
    return ratio_interval(losses.sum(-1), np.full(len(losses), float(losses.shape[1])))


def _over_tokens(losses: NDArray[np.float64]) -> Interval:
    half = 1.96 * float(losses.std(ddof=1)) / math.sqrt(losses.size)
    return float(losses.mean()) - half, float(losses.mean()) + half


def _coverage(estimate: Estimate, repetitions: int = REPETITIONS) -> float:
    """Count how often the interval holds the planted loss.

    Tokens of a document share its fate: correlation 0.15 here, 30 tokens a document.
    """
    generator = np.random.default_rng(0)
    documents, tokens, truth = 60, 30, 0.02
    covered = 0
    for _ in range(repetitions):
        shared = generator.normal(0, math.sqrt(0.15), (documents, 1))
        own = generator.normal(0, math.sqrt(0.85), (documents, tokens))
        interval = estimate(truth + shared + own)
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    return covered / repetitions


def check_coverage(estimate: Estimate) -> None:
    """A 95% interval holds the truth in 90 to 98 of 100 repetitions."""
    assert 0.90 <= _coverage(estimate) <= 0.98


def test_the_interval_over_documents_covers() -> None:
    """Documents are what varies, so they are what is counted."""
    check_coverage(_over_documents)


def test_an_interval_over_tokens_is_noticed() -> None:
    """Planted: tokens counted as independent.

    Too narrow by sqrt(1 + 29 * 0.15) = 2.3, it holds the truth 60 times in 100: for a normal
    distribution 2 * Phi(1.96 / 2.3) - 1 = 0.60.
    """
    with pytest.raises(AssertionError):
        check_coverage(_over_tokens)
    assert _coverage(_over_tokens) == pytest.approx(0.60, abs=0.06)


Test = Callable[[NDArray[np.float64], NDArray[np.float64]], McNemar]


def check_mcnemar(test: Test) -> None:
    """A table by hand: 2 * (1 + 10 + 45) / 1024, 2 / 32, 2 / 2, nothing, and an even split."""
    table = [(8, 2, 112 / 1024), (5, 0, 2 / 32), (1, 0, 1.0), (0, 0, 1.0), (6, 6, 1.0)]
    for n10, n01, p_value in table:
        before = np.r_[np.ones(n10), np.zeros(n01), np.ones(3), np.zeros(2)]
        after = np.r_[np.zeros(n10), np.ones(n01), np.ones(3), np.zeros(2)]
        found = test(before, after)
        assert (found.n10, found.n01) == (n10, n01)
        assert found.p_value == pytest.approx(p_value, abs=1e-12)


def test_mcnemar_agrees_with_a_table_by_hand() -> None:
    """Right then wrong, wrong then right, and an exact probability."""
    check_mcnemar(mcnemar)


def _by_chi_square(before: NDArray[np.float64], after: NDArray[np.float64]) -> McNemar:
    found = mcnemar(before, after)
    changed = max(1, found.n10 + found.n01)
    statistic = (found.n10 - found.n01) ** 2 / changed
    return dataclasses.replace(found, p_value=float(stats.chi2.sf(statistic, 1)))


def _one_sided(before: NDArray[np.float64], after: NDArray[np.float64]) -> McNemar:
    found = mcnemar(before, after)
    return dataclasses.replace(found, p_value=found.p_value / 2)


def _other_way_round(before: NDArray[np.float64], after: NDArray[np.float64]) -> McNemar:
    return mcnemar(after, before)


@pytest.mark.parametrize("test", [_by_chi_square, _one_sided, _other_way_round])
def test_another_test_than_mcnemars_exact_one_is_noticed(test: Test) -> None:
    """Planted: the chi-square approximation; one tail; lost counted as gained."""
    with pytest.raises(AssertionError):
        check_mcnemar(test)


def check_no_loss_is_hidden() -> None:
    """Whatever the documents say, fewer than 59 of them never say "retained"; more can."""
    generator = np.random.default_rng(0)
    words: Counter[Verdict | None] = Counter()
    few = 0
    for _ in range(60):
        count, spread = int(generator.integers(10, 120)), float(generator.choice([0.004, 0.1]))
        weight = generator.uniform(50, 500, count)
        loss = weight * generator.normal(generator.choice([-0.06, 0.0, 0.06]), spread, count)
        found = forgetting_of(
            ProbeText(PROBE, ("one",) * count),
            before=measurement(weight, weight),
            after=measurement(weight + loss, weight),
            scoring={},
            learned=True,
        )
        words[found.verdict] += 1
        if count < 59:
            few += 1
            assert found.verdict != "retained"
    assert min(words[word] for word in ("improved", "retained", "forgot", "inconclusive")) > 0
    assert few > 10


def test_retained_is_never_said_of_too_few_documents() -> None:
    """A loss in one of twenty documents is in none of 58 with a chance above 5%."""
    check_no_loss_is_hidden()


def test_a_verdict_of_too_few_documents_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: that no loss was found is taken for a proof that there is none."""

    def careless(**facts: Any) -> Verdict | None:  # noqa: ANN401 - those of assess_probe
        return assess_probe(**{**facts, "excludes_loss": True})

    monkeypatch.setattr(results, "assess_probe", careless)
    with pytest.raises(AssertionError):
        check_no_loss_is_hidden()
