"""The forgetting callback in plain Trainer scripts: it measures, changes nothing, and keeps a budget."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from bases import teach, write_base
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorWithPadding,
    EvalPrediction,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from tuned import LABELS

import peftune
from peftune.errors import GuardError, UsageError
from peftune.forgetting.measurement import measure, measure_base, read_probe_texts
from peftune.models.architecture import trainable_parameters
from peftune.probes import LanguageModel, Measurement, Probe
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

DOCUMENTS = ("Rain again. The river stood high.", "Half a page about bread, and a long wait.")
"""Each shorter than the small base's 64 positions, so read in one window."""

KEY = "forgetting_prose"
ROWS = [
    ("so good", 1), ("so bad, so very bad", 0), ("fine", 1), ("never again, I say", 0),
    ("a lovely day", 1), ("the soup was cold", 0), ("what a delight it was", 1), ("awful", 0),
]  # fmt: skip
STEPS = 4
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small base with dropout that knows the text well."""
    return teach(write_base(tmp_path_factory.mktemp("base") / "small"), DOCUMENTS)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> peftune.probes.LanguageModelLoss:
    """Write the text that is measured."""
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    path.write_text("\n\n".join(DOCUMENTS), encoding="utf-8")
    return peftune.probes.LanguageModelLoss(file=str(path))


# Models as a script makes them, with peftune and without.


def prepared(base: Path, strategy: Strategy) -> nn.Module:
    """Let peftune prepare the model."""
    model, _ = peftune.prepare(
        str(base), strategy=strategy, labels=LABELS, max_length=32, use_cpu=True
    )
    return model


def by_hand(base: Path) -> nn.Module:
    """Take transformers' own classifier, of which every weight is trained."""
    torch.manual_seed(0)
    model: nn.Module = GPT2ForSequenceClassification.from_pretrained(
        base, num_labels=2, pad_token_id=0
    )
    return model


def by_peft(base: Path) -> nn.Module:
    """Put peft's own LoRA around it."""
    torch.manual_seed(1)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, target_modules=["c_attn", "c_fc"], lora_dropout=0.2,
        fan_in_fan_out=True,
    )  # fmt: skip
    model: nn.Module = get_peft_model(by_hand(base), config)
    return model


MODELS: dict[str, tuple[Callable[[Path], nn.Module], bool]] = {
    "prepared full": (lambda base: prepared(base, Full()), False),
    "prepared lora": (lambda base: prepared(base, LoRA(r=4, lora_dropout=0.2)), False),
    "prepared lora-8bit": (lambda base: prepared(base, LoRA8bit(r=4, lora_dropout=0.2)), False),
    "transformers": (by_hand, True),
    "peft": (by_peft, True),
}
"""How a model is made, and whether the callback must be told its base."""


class Snapshots(TrainerCallback):
    """Copy the weights after every step, and the metrics of every evaluation."""

    def __init__(self) -> None:
        self.weights: dict[int, Weights] = {}
        self.metrics: list[dict[str, float]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Copy the weights."""
        self.weights[args[1].global_step] = copied(kwargs["model"])

    def on_evaluate(self, *_: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Copy the metrics, which callbacks before this one may have added to."""
        self.metrics.append(dict(kwargs["metrics"]))


def copied(model: nn.Module | None) -> Weights:
    """Copy every entry of a model's state."""
    assert model is not None
    return {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def assert_same(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Compare without any tolerance."""
    assert set(actual) == set(expected)
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def script(
    model: nn.Module,
    base: Path,
    folder: Path,
    *callbacks: TrainerCallback,
    score: Callable[[EvalPrediction], dict[str, float]] | None = None,
    **arguments: Any,  # noqa: ANN401 - TrainingArguments' own
) -> Trainer:
    """Write the script of a user of transformers: two rows a batch, large steps, four of them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{**tokenizer(text), "labels": label} for text, label in ROWS]
    chosen = {
        "per_device_train_batch_size": 2,
        "max_steps": STEPS,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), **chosen),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=score,
        callbacks=list(callbacks),
    )


def watching(
    name: str,
    base: Path,
    *probes: Probe,
    **options: Any,  # noqa: ANN401 - the callback's own
) -> peftune.ForgettingCallback:
    """Make the callback as a model needs it."""
    named: dict[str, Any] = {"base": str(base)} if MODELS[name][1] else {}
    return peftune.ForgettingCallback(*probes, **named, **options)


def losses(trainer: Trainer) -> list[tuple[float, float]]:
    """Return what Trainer logged of each step: loss and norm of the gradient."""
    history = trainer.state.log_history
    return [(entry["loss"], entry["grad_norm"]) for entry in history if "loss" in entry]


# It works, and changes nothing.


@pytest.mark.costly
@pytest.mark.parametrize("name", MODELS)
def test_measuring_in_mid_training_changes_nothing(
    name: str, base: Path, probe: Probe, tmp_path: Path
) -> None:
    """With dropout on, losses, gradients and weights of every step are those of the bare script."""
    make, needs_base = MODELS[name]
    kl = [] if needs_base else [peftune.probes.KLDivergence(file=probe.file, name="kl")]
    bare, seen = Snapshots(), Snapshots()
    plain = script(make(base), base, tmp_path, bare)
    plain.train()

    watch = watching(name, base, probe, *kl)
    watched = script(make(base), base, tmp_path, watch, seen)
    watched.train()

    assert len(watch.curve) == STEPS
    assert watch.curve[-1][KEY] != 0.0, "nothing moved, so nothing is shown"
    assert losses(watched) == losses(plain)
    assert len(losses(plain)) == STEPS
    for step in range(1, STEPS + 1):
        assert_same(seen.weights[step], bare.weights[step])
    assert_same(copied(watched.model), copied(plain.model))


@pytest.mark.parametrize("name", MODELS)
def test_a_measurement_leaves_modes_gradients_weights_and_random_state(
    name: str, base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Asked in the middle of an accumulated step, it leaves everything as it was."""
    make, needs_base = MODELS[name]
    kl = [] if needs_base else [peftune.probes.KLDivergence(file=probe.file, name="kl")]
    watch = watching(name, base, probe, *kl)
    model = make(base)
    trainer = script(model, base, tmp_path, watch)
    arguments = (trainer.args, trainer.state, trainer.control)
    watch.on_train_begin(*arguments, model=model)
    model.train()
    next(iter(model.children())).eval()  # as someone who freezes a part's dropout does
    batch = next(iter(trainer.get_train_dataloader()))
    model(**batch).loss.backward()
    weights = copied(model)
    objects = {name: (id(weight), weight.data_ptr()) for name, weight in model.named_parameters()}
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()

    watch.on_evaluate(*arguments, model=model, metrics={})

    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert_same(copied(model), weights)
    assert_same({n: w.grad for n, w in model.named_parameters() if w.grad is not None}, gradients)
    assert gradients
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == learning
    assert objects == {
        name: (id(weight), weight.data_ptr()) for name, weight in model.named_parameters()
    }


# The curve.


@pytest.mark.costly
@pytest.mark.parametrize("name", MODELS)
def test_each_point_is_the_forgetting_of_that_steps_weights(
    name: str, base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Bits per byte after minus before: of a prepared model as peftune measures a copy of it.

    Of another model as transformers alone computes them, one document at a time.
    """
    make, needs_base = MODELS[name]
    seen = Snapshots()
    watch = watching(name, base, probe)
    script(make(base), base, tmp_path, watch, seen, eval_steps=2, learning_rate=0.05).train()

    assert [point["step"] for point in watch.curve] == [2, 4]
    assert [point["epoch"] for point in watch.curve] == [0.5, 1.0]
    texts = read_probe_texts([probe])
    for point in watch.curve:
        model = make(base)
        put(seen.weights[int(point["step"])], model)
        if needs_base:
            expected = plain_bits_per_byte(model, base) - plain_bits_per_byte(by_hand(base), base)
            assert point[KEY] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        else:
            [before], [after] = measure_base(model, texts), measure(model, texts)
            assert point[KEY] == (after.total - before.total).sum() / before.weight.sum()
        assert abs(point[KEY]) > 1e-3


def put(weights: Weights, model: nn.Module) -> None:
    """Give a model the trained weights in another one."""
    for name, weight in trainable_parameters(model).items():
        weight.data.copy_(weights[name])


def plain_bits_per_byte(model: nn.Module, base: Path) -> float:
    """Read each document after an end token, with the tied head of a plain language model."""
    inner: Any = model.merge_and_unload() if isinstance(model, PeftModel) else model
    language_model = GPT2LMHeadModel.from_pretrained(base).eval()
    language_model.transformer.load_state_dict(inner.transformer.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(base)
    nats = 0.0
    for document in DOCUMENTS:
        ids = tokenizer(document)["input_ids"]
        with torch.no_grad():
            logits = language_model(torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])).logits[0]
        nats += float(nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum"))
    return nats / math.log(2) / sum(len(document.encode()) for document in DOCUMENTS)


def test_the_curve_stands_in_the_log_history_and_in_the_metrics(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Trainer's own history has each point; who looks at an evaluation finds it there too."""
    kl = peftune.probes.KLDivergence(file=probe.file, name="drift")
    watch, seen = peftune.ForgettingCallback(probe, kl), Snapshots()
    trainer = script(prepared(base, Full()), base, tmp_path, watch, seen)
    trainer.train()

    history = [entry for entry in trainer.state.log_history if KEY in entry]
    assert history == watch.curve
    assert [set(entry) for entry in history] == [{"epoch", "step", KEY, "forgetting_drift"}] * 4
    assert [entry["step"] for entry in history] == [1, 2, 3, 4]
    for name in (KEY, "forgetting_drift"):
        assert [metrics[f"eval_{name}"] for metrics in seen.metrics] == [p[name] for p in history]


def test_without_evaluations_it_measures_at_every_epochs_end(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Eight rows, two a batch: an epoch is four steps."""
    watch, seen = peftune.ForgettingCallback(probe), Snapshots()
    epochs: dict[str, Any] = {"num_train_epochs": 2, "max_steps": -1, "eval_strategy": "no"}
    trainer = script(prepared(base, Full()), base, tmp_path, watch, seen, **epochs)
    trainer.train()

    assert [point["step"] for point in watch.curve] == [4, 8]
    assert [point["epoch"] for point in watch.curve] == [1.0, 2.0]
    assert [entry for entry in trainer.state.log_history if KEY in entry] == watch.curve
    model, texts = prepared(base, Full()), read_probe_texts([probe])
    [before] = measure_base(model, texts)
    for point in watch.curve:
        put(seen.weights[int(point["step"])], model)
        [after] = measure(model, texts)
        assert point[KEY] == (after.total - before.total).sum() / before.weight.sum()


def test_where_epochs_are_evaluated_each_is_measured_once(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """The evaluation is the measurement, and the end of the epoch is not a second one."""
    watch = peftune.ForgettingCallback(probe)
    trainer = script(prepared(base, Full()), base, tmp_path, watch, eval_strategy="epoch")
    trainer.train()

    assert [point["step"] for point in watch.curve] == [4]


def test_several_evaluation_sets_are_one_point_of_the_curve(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Trainer evaluates set after set; the model is the same for all, and so is its forgetting."""
    watch, seen = peftune.ForgettingCallback(probe), Snapshots()
    trainer = script(prepared(base, Full()), base, tmp_path, watch, seen)
    trainer.eval_dataset = {"one": trainer.eval_dataset, "other": trainer.eval_dataset}
    trainer.train()

    assert [point["step"] for point in watch.curve] == [1, 2, 3, 4]
    assert [entry for entry in trainer.state.log_history if KEY in entry] == watch.curve
    assert [metrics[f"eval_{KEY}"] for metrics in seen.metrics] == [
        point[KEY] for point in watch.curve for _ in range(2)
    ]


def test_an_evaluation_after_training_is_not_recorded(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """The best weights may be back by then, so the step would be the wrong one."""
    watch = peftune.ForgettingCallback(probe)
    trainer = script(prepared(base, Full()), base, tmp_path, watch)
    trainer.train()

    metrics = trainer.evaluate()

    assert f"eval_{KEY}" not in metrics
    assert len(watch.curve) == STEPS


def test_a_second_training_begins_a_new_curve(base: Path, probe: Probe, tmp_path: Path) -> None:
    """One callback can watch one model after another."""
    watch = peftune.ForgettingCallback(probe)
    for strategy in (LoRA(r=4), Full()):
        script(prepared(base, strategy), base, tmp_path, watch, max_steps=2).train()
    alone = peftune.ForgettingCallback(probe)
    script(prepared(base, Full()), base, tmp_path, alone, max_steps=2).train()

    assert watch.curve == alone.curve


class Likelihood(peftune.probes.LanguageModelLoss):
    """A probe of which more is better: a hundred times the log-likelihood."""

    name: ClassVar[str] = "likelihood"
    higher_is_better: ClassVar[bool] = True

    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Turn the loss around."""
        found = super().measure(model, documents)
        return Measurement(-100 * found.total, found.weight, found.tokens)


def test_worse_is_positive_whichever_way_a_probe_counts(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """A likelihood that falls is as much forgetting as a loss that rises."""
    watch = peftune.ForgettingCallback(probe, Likelihood(file=probe.file, name="turned"))
    script(prepared(base, Full()), base, tmp_path, watch).train()

    assert watch.curve[-1][KEY] > 0
    for point in watch.curve:
        assert point["forgetting_turned"] == pytest.approx(100 * point[KEY], rel=1e-12)


# The budget.


@dataclass(frozen=True)
class Growth:
    """What the training forgets at every step where no budget is set, and the weights there."""

    forgetting: list[float]
    weights: dict[int, Weights]

    def between(self, step: int, following: int) -> float:
        """Give a budget that one step keeps and the following one does not."""
        low, high = self.forgetting[step - 1], self.forgetting[following - 1]
        return (low + high) / 2


@pytest.fixture(scope="module")
def growth(base: Path, probe: Probe, tmp_path_factory: pytest.TempPathFactory) -> Growth:
    """Train once without a budget."""
    watch, seen = peftune.ForgettingCallback(probe), Snapshots()
    script(prepared(base, Full()), base, tmp_path_factory.mktemp("plain"), watch, seen).train()
    forgetting = [point[KEY] for point in watch.curve]
    assert 0 < forgetting[0] < forgetting[1] < forgetting[2] < forgetting[3], "it always grows"
    return Growth(forgetting, seen.weights)


def scoring(sign: int) -> Callable[[EvalPrediction], dict[str, float]]:
    """Score every evaluation better than the one before."""
    count = itertools.count(1)
    return lambda _: {"score": float(sign * next(count))}


def budgeted(
    model: nn.Module,
    base: Path,
    folder: Path,
    *callbacks: TrainerCallback,
    greater: bool = True,
    **arguments: Any,  # noqa: ANN401 - TrainingArguments' own
) -> Trainer:
    """Write a script that keeps its best checkpoint, which without a budget is the last one."""
    return script(
        model,
        base,
        folder,
        *callbacks,
        score=scoring(1 if greater else -1),
        **{
            "save_strategy": "steps",
            "save_steps": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "score",
            "greater_is_better": greater,
            "save_only_model": True,
            **arguments,
        },
    )


@pytest.mark.parametrize(("metric", "greater"), [("score", True), ("eval_score", False)])
def test_a_checkpoint_over_the_budget_is_not_the_best_although_it_scores_better(
    *, metric: str, greater: bool, base: Path, probe: Probe, growth: Growth, tmp_path: Path
) -> None:
    """Of four checkpoints, each better than the last, the best under the budget is the second."""
    watch = peftune.ForgettingCallback(probe, budget=growth.between(2, 3))
    trainer = budgeted(
        prepared(base, Full()), base, tmp_path, watch,
        greater=greater, metric_for_best_model=metric,
    )  # fmt: skip
    trainer.train()

    assert trainer.state.best_global_step == 2
    assert_same(copied(trainer.model), growth.weights[2])
    assert [point[KEY] for point in watch.curve] == growth.forgetting


def test_the_budget_itself_may_be_spent(
    base: Path, probe: Probe, growth: Growth, tmp_path: Path
) -> None:
    """Exactly as much as allowed is allowed."""
    watch = peftune.ForgettingCallback(probe, budget=growth.forgetting[2])
    trainer = budgeted(prepared(base, Full()), base, tmp_path, watch)
    trainer.train()

    assert trainer.state.best_global_step == 3


@pytest.mark.parametrize("loud_first", [True, False])
def test_any_probe_over_the_budget_counts(
    loud_first: bool, base: Path, probe: Probe, growth: Growth, tmp_path: Path
) -> None:
    """One probe forgets a hundred times as much as the other, which always keeps the budget."""
    loud = Likelihood(file=probe.file, name="loud")
    probes = (loud, probe) if loud_first else (probe, loud)
    watch = peftune.ForgettingCallback(*probes, budget=100 * growth.between(2, 3))
    assert watch.budget is not None
    assert growth.forgetting[3] < watch.budget
    trainer = budgeted(prepared(base, Full()), base, tmp_path, watch)
    trainer.train()

    assert trainer.state.best_global_step == 2


def test_training_stops_at_the_first_checkpoint_over_the_budget_if_it_is_told_to(
    base: Path, probe: Probe, growth: Growth, tmp_path: Path
) -> None:
    """It ends with the best of those before."""
    watch = peftune.ForgettingCallback(
        probe, budget=growth.between(2, 3), over_budget="stop-training"
    )
    trainer = budgeted(prepared(base, Full()), base, tmp_path, watch)
    trainer.train()

    assert trainer.state.global_step == 3
    assert trainer.state.best_global_step == 2
    assert_same(copied(trainer.model), growth.weights[2])


@pytest.mark.parametrize(
    ("over_budget", "greater", "last"), [("skip-checkpoint", True, 4), ("stop-training", False, 1)]
)
def test_where_every_checkpoint_is_over_the_budget_the_last_weights_stay(
    *,
    over_budget: Literal["skip-checkpoint", "stop-training"],
    greater: bool,
    last: int,
    base: Path,
    probe: Probe,
    growth: Growth,
    tmp_path: Path,
) -> None:
    """A budget of zero allows no change for the worse; nothing is the best then."""
    watch = peftune.ForgettingCallback(probe, budget=0.0, over_budget=over_budget)
    trainer = budgeted(prepared(base, Full()), base, tmp_path, watch, greater=greater)
    trainer.train()

    assert trainer.state.best_global_step is None
    assert trainer.state.best_model_checkpoint is None
    assert trainer.state.global_step == last
    assert_same(copied(trainer.model), growth.weights[last])


def test_a_frozen_backbone_keeps_a_budget_of_zero(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Its forgetting is zero exactly, so every checkpoint may be the best."""
    watch = peftune.ForgettingCallback(probe, budget=0.0, over_budget="stop-training")
    trainer = budgeted(prepared(base, HeadOnly()), base, tmp_path, watch)
    trainer.train()

    assert [point[KEY] for point in watch.curve] == [0.0] * 4
    assert trainer.state.best_global_step == 4


@pytest.mark.parametrize("budget", [1e9, None], ids=["huge", "none"])
def test_a_budget_that_nothing_reaches_is_none(
    budget: float | None, base: Path, probe: Probe, growth: Growth, tmp_path: Path
) -> None:
    """The checkpoint that scores best is chosen."""
    watch = peftune.ForgettingCallback(probe, budget=budget, over_budget="stop-training")
    trainer = budgeted(prepared(base, Full()), base, tmp_path, watch)
    trainer.train()

    assert trainer.state.best_global_step == 4
    assert_same(copied(trainer.model), growth.weights[4])


class Breaks(TrainerCallback):
    """Make a weight no number after the second step."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Break an embedding that the text needs."""
        if args[1].global_step > 2:
            kwargs["model"].base_model.wte.weight.data.fill_(math.nan)


def test_what_is_no_number_is_over_any_budget(base: Path, probe: Probe, tmp_path: Path) -> None:
    """A broken model is never the best, however well it is scored."""
    watch = peftune.ForgettingCallback(probe, budget=1e9)
    trainer = budgeted(prepared(base, Full()), base, tmp_path, watch, Breaks())
    trainer.train()

    assert [math.isnan(point[KEY]) for point in watch.curve] == [False, False, True, True]
    assert trainer.state.best_global_step == 2


# A resume.


@pytest.mark.parametrize("name", ["prepared lora", "peft"])
def test_a_resumed_training_goes_on_with_its_curve(
    name: str, base: Path, probe: Probe, tmp_path: Path
) -> None:
    """The points before come from the checkpoint; a model that has moved is not asked to be its base."""
    make, _ = MODELS[name]
    whole, first, second = (watching(name, base, probe) for _ in range(3))
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 0.05}
    uninterrupted = script(make(base), base, tmp_path / "whole", whole, **saving)
    uninterrupted.train()
    script(make(base), base, tmp_path / "parts", first, max_steps=2, **saving).train()
    assert len(first.curve) == 2
    assert abs(first.curve[-1][KEY]) > 1e-3

    resumed = script(make(base), base, tmp_path / "parts", second, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))

    assert second.curve == whole.curve
    assert [entry for entry in resumed.state.log_history if KEY in entry] == whole.curve
    assert_same(copied(resumed.model), copied(uninterrupted.model))


def test_a_resumed_training_keeps_its_budget(
    base: Path, probe: Probe, growth: Growth, tmp_path: Path
) -> None:
    """Where everything before was over the budget, so is everything after."""

    def watch() -> peftune.ForgettingCallback:
        return peftune.ForgettingCallback(probe, budget=0.0)

    whole: dict[str, Any] = {"save_only_model": False}
    budgeted(prepared(base, Full()), base, tmp_path, watch(), max_steps=2, **whole).train()
    resumed = budgeted(prepared(base, Full()), base, tmp_path, watch(), **whole)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))

    assert resumed.state.best_model_checkpoint is None
    assert_same(copied(resumed.model), growth.weights[4])


# What is refused.

NUMBER = r"(nan|\d+(\.\d+)?(e[+-]\d+)?)"


def refused_at_start(trainer: Trainer) -> str:
    """Return the message with which training does not begin."""
    with pytest.raises((UsageError, GuardError)) as refused:
        trainer.train()
    assert trainer.state.global_step == 0
    return str(refused.value)


def test_a_callback_without_a_probe_is_refused() -> None:
    """There is nothing to measure."""
    with pytest.raises(UsageError) as refused:
        peftune.ForgettingCallback()

    assert str(refused.value) == (
        "ForgettingCallback needs a probe, such as peftune.probes.LanguageModelLoss(file='general.txt')."
    )


def test_two_probes_of_one_name_are_refused(probe: Probe) -> None:
    """One would overwrite the other in the log."""
    kl = peftune.probes.KLDivergence(file=probe.file)
    other = peftune.probes.LanguageModelLoss(file=probe.file, name="other")

    with pytest.raises(UsageError) as refused:
        peftune.ForgettingCallback(probe, other, kl)

    assert str(refused.value) == (
        "ForgettingCallback has two probes named 'prose'; give each its own 'name'."
    )


def test_an_unknown_answer_to_the_budget_is_refused(probe: Probe) -> None:
    """A slip of the pen must not turn a stop into something milder."""
    word: Any = "stop_training"

    with pytest.raises(UsageError) as refused:
        peftune.ForgettingCallback(probe, budget=0.1, over_budget=word)

    assert str(refused.value) == (
        "over_budget is 'stop_training'. Did you mean 'stop-training'? Available: skip-checkpoint, stop-training."
    )


def test_a_budget_that_cannot_choose_is_refused(base: Path, probe: Probe, tmp_path: Path) -> None:
    """Without load_best_model_at_end the last checkpoint would be kept, over the budget or not."""
    watch = peftune.ForgettingCallback(probe, budget=1.0)

    assert refused_at_start(script(prepared(base, Full()), base, tmp_path, watch)) == (
        "A forgetting budget chooses among checkpoints. Set load_best_model_at_end=True and "
        "metric_for_best_model in TrainingArguments."
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("transformers", "GPT2ForSequenceClassification"),
        ("peft", "PeftModelForSequenceClassification"),
    ],
)
def test_a_model_of_unknown_base_is_refused(
    name: str, kind: str, base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Who did not let peftune prepare the model says what it was made from."""
    trainer = script(MODELS[name][0](base), base, tmp_path, peftune.ForgettingCallback(probe))

    assert refused_at_start(trainer) == (
        f"This {kind} was not made by peftune.prepare, so its base is unknown. "
        "Name it: ForgettingCallback(probe, base='gpt2')."
    )


def test_a_comparison_token_by_token_needs_a_prepared_model(
    base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Only a prepared model can be its own base in the same pass."""
    kl = peftune.probes.KLDivergence(file=probe.file, name="drift")
    watch = peftune.ForgettingCallback(probe, kl, base=str(base))

    assert refused_at_start(script(by_hand(base), base, tmp_path, watch)) == (
        "The probe 'drift' compares with the base token by token, which needs a model made by "
        "peftune.prepare."
    )


def test_a_quantized_model_must_be_prepared(base: Path, probe: Probe, tmp_path: Path) -> None:
    """Rounding would be counted as forgetting."""
    quantized = GPT2ForSequenceClassification.from_pretrained(
        base,
        num_labels=2,
        pad_token_id=0,
        quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["score"]),
    )
    config = LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["c_attn"])
    watch = peftune.ForgettingCallback(probe, base=str(base))

    trainer = script(get_peft_model(quantized, config), base, tmp_path, watch)

    assert refused_at_start(trainer) == (
        "The base of a quantized model must be measured in the same precision. Make the model "
        "with peftune.prepare."
    )


def starts_elsewhere(base: Path) -> nn.Module:
    """Put an update beside the base that is not zero at the start."""
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, target_modules=["c_attn"], fan_in_fan_out=True,
        init_lora_weights=False,
    )  # fmt: skip
    model: nn.Module = get_peft_model(by_hand(base), config)
    return model


def is_broken(base: Path) -> nn.Module:
    """Begin with a weight that is no number."""
    model = by_hand(base)
    model.get_parameter("transformer.ln_f.bias").data.fill_(math.nan)
    return model


@pytest.mark.parametrize("make", [by_hand, by_peft, starts_elsewhere, is_broken])
def test_a_model_that_does_not_begin_as_its_base_is_refused(
    make: Callable[[Path], nn.Module], base: Path, probe: Probe, tmp_path: Path
) -> None:
    """Another base, or an adapter that is a change from the start: forgetting would not begin at 0."""
    own = make in {starts_elsewhere, is_broken}
    named = base if own else write_base(tmp_path / "other", seed=1)
    watch = peftune.ForgettingCallback(probe, base=str(named))

    message = refused_at_start(script(make(base), base, tmp_path, watch))

    assert re.sub(f"by {NUMBER}", "by NUMBER", message) == (
        f"Before the first step the model already differs from the base '{named}' by NUMBER. "
        "Name the base that it was made from; an adapter must not change it at first."
    )
