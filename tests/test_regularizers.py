"""Regularizers in training: the plain run where they are off, the term's own gradient where on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from tuned import TEXTS, prepared

import peftune
from peftune.configuration import TextSource
from peftune.data.tokens import padding_collator
from peftune.errors import DataError, PeftuneError, RecipeError, UsageError
from peftune.forgetting.measurement import adapter_off_forgetting, measure, measure_base
from peftune.models.architecture import backbone_of, trainable_parameters
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import encode_texts
from peftune.recipe import read_recipe
from peftune.recipe.resolve import recipe_sha256, write_recipe
from peftune.recipe.schema import recipe_json_schema
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
from peftune.strategies import STRATEGIES, Full, HeadOnly, LoRA, LoRA8bit, Strategy
from peftune.training.regularization import RegularizedTrainer, TrainedClassifier

ROWS = [
    ("so good", 1), ("so bad, so very bad", 0), ("fine", 1), ("never again, I say", 0),
    ("a lovely day", 1), ("the soup was cold", 0), ("what a delight it was", 1), ("awful", 0),
]  # fmt: skip
EQUAL_ROWS = [("so very good it is", 1), ("so very bad it was", 0)] * 4
"""Of one length, so that the mean over a batch is the mean of the means of its parts."""

GENERAL = "The river stood at the second step. Half a page about bread, and a long wait.\n\n" * 4
WITH_DROPOUT = LoRA(r=4, lora_dropout=0.2)


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> TextSource:
    """Write a general text to learn from."""
    path = tmp_path_factory.mktemp("text") / "general.txt"
    path.write_text(GENERAL, encoding="utf-8")
    return TextSource(file=str(path))


def small(kind: type[Regularizer], weight: float = 1.0) -> Regularizer:
    """Make a regularizer of small, generated texts."""
    sizes = {"length": 8, "pool": 6, "sequences": 4, "fraction": 0.5}
    return kind(**{"weight": weight, **{k: v for k, v in sizes.items() if k in kind.model_fields}})


def trainer_for(
    model: nn.Module,
    folder: Path,
    *,
    rows: Sequence[tuple[str, int]] = ROWS,
    kind: type[Trainer] = RegularizedTrainer,
    arguments: Mapping[str, Any] = {},
    **further: Any,  # noqa: ANN401 - what the trainer takes
) -> Trainer:
    """Make a trainer of two rows a batch and large steps, which saves nothing."""
    tokenizer = preparation_of(model).tokenizer
    ids = encode_texts(tokenizer, [text for text, _ in rows], max_length=32)
    dataset = Dataset.from_dict({"input_ids": ids, "labels": [label for _, label in rows]})
    chosen = {
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    return kind(
        model=model,
        args=TrainingArguments(str(folder), **chosen),
        train_dataset=dataset,
        eval_dataset=dataset,
        data_collator=padding_collator(tokenizer),
        **further,
    )


def trained(
    base: Path, folder: Path, *terms: Regularizer, strategy: Strategy = WITH_DROPOUT
) -> dict[str, torch.Tensor]:
    """Train for four steps with dropout, and return what learned."""
    model = prepared(base, strategy)
    trainer_for(model, folder, regularizers=terms).train()
    return {name: weight.detach() for name, weight in trainable_parameters(model).items()}


def plainly_trained(
    base: Path, folder: Path, *, strategy: Strategy = WITH_DROPOUT
) -> dict[str, torch.Tensor]:
    """Do the same with transformers' own Trainer."""
    model = prepared(base, strategy)
    trainer_for(model, folder, kind=Trainer).train()
    return {name: weight.detach() for name, weight in trainable_parameters(model).items()}


def assert_bit_equal(
    actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Compare weights without any tolerance."""
    assert set(actual) == set(expected)
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


class Silent(Regularizer):
    """Ask the model everything, and add nothing."""

    name: ClassVar[str] = "silent"

    def begin(self, model: TrainedModel) -> Penalty:
        """Read, let the base write, measure its information."""
        texts = model.generated(5, length=8)
        importance = model.fisher(texts[:2])

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor:
            rows = [*batch["input_ids"].tolist(), *model.chosen(texts, 2, draw=draw)]
            terms = [
                model.divergence(rows),
                model.language_loss(rows),
                model.drift(),
                model.drift(importance),
                model.head_norm(),
            ]
            return 0.0 * torch.stack(terms).sum()

        return penalty


class Noisy(Regularizer):
    """Add nothing either, but draw one random number: the planted fault."""

    name: ClassVar[str] = "noisy"

    def begin(self, model: TrainedModel) -> Penalty:  # noqa: ARG002 - it is not asked
        """Get nothing ready."""

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor:  # noqa: ARG001 - neither is read
            return 0.0 * torch.rand(())

        return penalty


@pytest.mark.parametrize("strategy", [WITH_DROPOUT, Full()], ids=["lora", "full"])
def test_a_weight_of_zero_gives_the_plain_run_bit_for_bit(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """With dropout on, and every regularizer at weight zero, against a stock Trainer.

    Planted fault: a weight that is not zero, however small.
    """
    plain = plainly_trained(base, tmp_path, strategy=strategy)
    off = [small(kind, 0.0) for kind in REGULARIZERS.load_all()[0].values()]

    assert len(off) >= 4
    assert_bit_equal(trained(base, tmp_path, *off, strategy=strategy), plain)
    with pytest.raises(AssertionError):
        assert_bit_equal(trained(base, tmp_path, small(L2SP, 1e-3), strategy=strategy), plain)


@pytest.mark.parametrize("strategy", [WITH_DROPOUT, Full()], ids=["lora", "full"])
def test_reading_the_model_leaves_batches_and_dropout_as_they_were(
    strategy: Strategy, base: Path, tmp_path: Path
) -> None:
    """A term that asks for everything and is multiplied by zero changes no bit.

    Planted fault: a term of zero that draws one random number.
    """
    plain = plainly_trained(base, tmp_path, strategy=strategy)

    assert_bit_equal(trained(base, tmp_path, Silent(), strategy=strategy), plain)
    with pytest.raises(AssertionError):
        assert_bit_equal(trained(base, tmp_path, Noisy(), strategy=strategy), plain)


class Undivided(RegularizedTrainer):
    """The planted fault: the terms of a step's batches are summed instead of averaged."""

    def _terms(self, batch: dict[str, Any]) -> torch.Tensor:
        return super()._terms(batch) * self.args.gradient_accumulation_steps


def mean_over_items(
    outputs: Any,  # noqa: ANN401 - Trainer's signature
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Sum a loss of one's own over a batch, and divide by all rows of the step."""
    total = nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    return total / (num_items_in_batch or len(labels))


def first_step(
    base: Path,
    folder: Path,
    term: Regularizer,
    *,
    parts: int,
    kind: type[Trainer] = RegularizedTrainer,
    **further: Any,  # noqa: ANN401 - what the trainer takes
) -> tuple[dict[str, torch.Tensor], float]:
    """Take one step of four rows in some parts, without dropout, from a model that has moved."""
    model = prepared(base, LoRA(r=4, lora_dropout=0.0))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    seen: dict[str, torch.Tensor] = {}

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
            for name, weight in trainable_parameters(model).items():
                assert weight.grad is not None
                seen[name] = weight.grad.clone()

    trainer = trainer_for(
        model,
        folder,
        rows=EQUAL_ROWS,
        kind=kind,
        regularizers=[term],
        callbacks=[Look()],
        arguments={
            "max_steps": 1,
            "max_grad_norm": 0.0,
            "per_device_train_batch_size": 4 // parts,
            "gradient_accumulation_steps": parts,
        },
        **further,
    )
    trainer.train()
    return seen, trainer.state.log_history[0][f"penalty_{term.name}"]


def assert_same_step(
    actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Compare gradients, relative to the largest."""
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-5 * largest)


@pytest.mark.costly
@pytest.mark.parametrize("term", [L2SP(weight=3.0), KLToBase(weight=3.0)], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "loss", [None, mean_over_items], ids=["model's loss", "loss of one's own"]
)
def test_accumulating_gradients_does_not_multiply_a_term(
    term: Regularizer, loss: Callable[..., torch.Tensor] | None, base: Path, tmp_path: Path
) -> None:
    """Four rows at once, or in two parts or four: one gradient, and one logged value.

    Trainer divides the model's own loss by the parts, but not a loss of the user's own. Planted
    fault: terms that are summed over the parts.
    """
    whole, value = first_step(base, tmp_path, term, parts=1, compute_loss_func=loss)

    for parts in (2, 4):
        split, logged = first_step(base, tmp_path, term, parts=parts, compute_loss_func=loss)
        assert_same_step(split, whole)
        assert logged == pytest.approx(value, rel=1e-5)
    assert value > 0.001
    summed, _ = first_step(base, tmp_path, term, parts=2, kind=Undivided, compute_loss_func=loss)
    with pytest.raises(AssertionError):
        assert_same_step(summed, whole)


def test_the_gradient_is_the_tasks_and_the_weighted_terms(base: Path, tmp_path: Path) -> None:
    """Twice the weight, twice the term: nothing else enters the sum."""
    off, _ = first_step(base, tmp_path, L2SP(weight=1e-12), parts=1)
    once, _ = first_step(base, tmp_path, L2SP(weight=1.0), parts=1)
    twice, _ = first_step(base, tmp_path, L2SP(weight=2.0), parts=1)

    doubled = {name: off[name] + 2 * (once[name] - off[name]) for name in off}
    assert_same_step(twice, doubled)
    with pytest.raises(AssertionError):
        assert_same_step(once, off)


def test_the_evaluation_loss_is_the_tasks_alone(base: Path, tmp_path: Path) -> None:
    """During training and after it, the same number as a stock Trainer finds on that model."""
    model = prepared(base, WITH_DROPOUT)
    trainer = trainer_for(
        model,
        tmp_path,
        regularizers=[L2SP(weight=100.0)],
        arguments={"eval_strategy": "steps", "eval_steps": 4},
    )

    trainer.train()

    [during] = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    plain = trainer_for(model, tmp_path, kind=Trainer).evaluate()["eval_loss"]
    assert during["eval_loss"] == trainer.evaluate()["eval_loss"] == plain
    assert not any(key.startswith("penalty") for key in during)


def test_each_term_is_logged_before_its_weight(base: Path, tmp_path: Path) -> None:
    """Two of one type have a name each; a term that adds nothing at a step is not averaged in."""
    model = prepared(base, WITH_DROPOUT)
    terms = [
        KLToBase(weight=0.5),
        L2SP(weight=2.0),
        KLToBase(text="generated", length=8, pool=4, sequences=2, weight=0.1),
    ]
    trainer = trainer_for(model, tmp_path, regularizers=terms)

    trainer.train()

    logged = [
        {key: value for key, value in entry.items() if key.startswith("penalty_")}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    assert [set(entry) for entry in logged] == [
        {"penalty_kl-to-base", "penalty_l2-sp", "penalty_kl-to-base_2"}
    ] * 4
    assert set(logged[0].values()) == {0.0}, "nothing has moved before the first step"
    assert all(value > 0 for value in logged[-1].values())


def test_a_resumed_run_draws_the_same_sequences(base: Path, tmp_path: Path) -> None:
    """From the checkpoint in the middle, the same weights as without the interruption, bit for bit.

    Each batch of an accumulated step draws text of its own, and so does each step.
    """
    terms = [small(KLToBase).model_copy(update={"text": "generated"}), small(Replay), small(EWC)]
    arguments = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2}
    whole, resumed = prepared(base, WITH_DROPOUT), prepared(base, WITH_DROPOUT)
    trainer_for(whole, tmp_path, regularizers=terms, arguments=arguments).train()

    trainer_for(resumed, tmp_path, regularizers=terms, arguments=arguments).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )

    assert_bit_equal(trainable_parameters(resumed), trainable_parameters(whole))


class Recorder(Regularizer):
    """Remember the number of every batch."""

    name: ClassVar[str] = "recorder"
    draws: ClassVar[list[int]] = []

    def begin(self, model: TrainedModel) -> Penalty:  # noqa: ARG002 - it is not asked
        """Get nothing ready."""

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> None:  # noqa: ARG001 - the batch is not read
            self.draws.append(draw)

        return penalty


def test_batches_are_numbered_from_the_beginning_of_each_training(
    base: Path, tmp_path: Path
) -> None:
    """One number a batch, in order; a second training with the same trainer begins anew."""
    trainer = trainer_for(
        prepared(base, WITH_DROPOUT),
        tmp_path,
        regularizers=[Recorder()],
        arguments={"gradient_accumulation_steps": 2, "max_steps": 1},
    )
    Recorder.draws.clear()

    trainer.train()
    trainer.train()

    assert Recorder.draws == [0, 1, 0, 1]


# What the regularizers ask for.


class Counting(TrainedClassifier):
    """Count what is replayed, and compute nothing."""

    counts: ClassVar[list[int]] = []

    def language_loss(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Remember how many tokens were asked for."""
        self.counts.append(sum(map(len, sequences)))
        return torch.zeros(())


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.9])
def test_replay_is_the_fraction_of_all_tokens(
    fraction: float, base: Path, general: TextSource
) -> None:
    """Over many batches of 37 tokens of the task, the replayed share is the one asked for."""
    model = Counting(prepared(base, WITH_DROPOUT), seed=0, task_tokens=lambda: 37.0)
    penalty = Replay(text=general, fraction=fraction, length=16).begin(model)
    Counting.counts.clear()

    values = [penalty({}, draw) for draw in range(2000)]

    replayed = sum(Counting.counts)
    assert replayed / (replayed + 2000 * 37) == pytest.approx(fraction, rel=0.02)
    assert values.count(None) == 2000 - len(Counting.counts)


def test_a_text_is_cut_into_whole_sequences_with_an_end_token_between_documents(
    base: Path, tmp_path: Path
) -> None:
    """Nothing is padded, nothing is left out but the last tokens; drawing is by seed and number."""
    (tmp_path / "text.txt").write_text("abc\n\ndefgh", encoding="utf-8")
    model = TrainedClassifier(prepared(base, LoRA(r=4)), seed=0, task_tokens=lambda: 1.0)

    found = model.sequences_of(TextSource(file=str(tmp_path / "text.txt")), length=3)

    [ids] = encode_texts(
        preparation_of(prepared(base, LoRA(r=4))).tokenizer, ["abcdefgh"], max_length=None
    )
    a, b, c, d, e, f, g, h = ids
    assert found == [[a, b, c], [0, d, e], [f, g, h]], "the last end token is left over"
    draws = [tuple(map(tuple, model.chosen(found, 2, draw=draw))) for draw in range(20)]
    assert draws == [tuple(map(tuple, model.chosen(found, 2, draw=draw))) for draw in range(20)]
    assert len(set(draws)) > 3
    assert all(len(set(pair)) == 2 for pair in draws), "none is drawn twice while others are left"
    assert len(model.chosen(found, 5, draw=0)) == 5


def test_l2_sp_is_half_the_squared_distance_and_the_heads_share(base: Path) -> None:
    """By hand: half of ||s B A||² and half of `head_weight` times the head's own squared norm."""
    model = prepared(base, LoRA(r=4))
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1)
    weights = trainable_parameters(model)
    [head] = [weight for name, weight in weights.items() if "score" in name]
    distance = sum(
        (4.0 * weights[name.replace("_A", "_B")] @ down).square().sum().item()
        for name, down in weights.items()
        if "lora_A" in name
    )
    asked = TrainedClassifier(model, seed=0, task_tokens=lambda: 1.0)

    backbone, both = (L2SP(head_weight=share).begin(asked)({}, 0) for share in (0.0, 0.5))

    assert backbone is not None
    assert both is not None
    assert backbone.item() == pytest.approx(0.5 * distance, rel=1e-5)
    norm = head.square().sum().item()
    assert both.item() == pytest.approx(0.5 * (distance + 0.5 * norm), rel=1e-5)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            Replay(text=TextSource(file="short.txt"), length=32),
            "'short' has 9 tokens, too few for one sequence of 32. Give a longer text, or a smaller length.",
        ),
        (
            KLToBase(text="generated", length=65),
            "A regularizer's length must be at most the 64 positions of 'tiny' (got 65).",
        ),
        (
            EWC(text=TextSource(file="short.txt"), length=65),
            "A regularizer's length must be at most the 64 positions of 'tiny' (got 65).",
        ),
        (
            Replay(text=TextSource(file="nowhere.txt"), length=4),
            "There is no file 'nowhere.txt' to read documents from. Check 'file'; a relative path starts from the recipe.",
        ),
    ],
    ids=["short text", "long generated", "long text", "no file"],
)
def test_a_text_that_does_not_fit_is_refused_before_the_first_step(
    term: Regularizer, message: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what is wrong and what to change."""
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("12345678", encoding="utf-8")
    trainer = trainer_for(prepared(base, LoRA(r=4)), tmp_path, regularizers=[term])

    with pytest.raises(DataError) as refused:
        trainer.train()

    assert str(refused.value) == message
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("term", [L2SP(), EWC(sequences=4, length=8)], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            HeadOnly(),
            "No weight but the head is trainable, so there is no drift from the base to hold down. Remove the regularizer, or choose another strategy.",
        ),
        (
            LoRA(use_dora=True),
            "The change that DoRA makes is not a plain low-rank update, so its distance from the base cannot be held down. Set use_dora: false.",
        ),
    ],
    ids=["head-only", "DoRA"],
)
def test_a_distance_that_cannot_be_held_down_is_refused_before_the_first_step(
    term: Regularizer, strategy: Strategy, message: str, base: Path, tmp_path: Path
) -> None:
    """The strategy is named by what it does, with the way out."""
    trainer = trainer_for(prepared(base, strategy), tmp_path, regularizers=[term])

    with pytest.raises(UsageError) as refused:
        trainer.train()

    assert str(refused.value) == message
    assert trainer.state.global_step == 0


def test_a_share_of_tokens_that_cannot_be_counted_is_refused(base: Path, tmp_path: Path) -> None:
    """Rows that are made on the fly have no number of tokens to take a share of."""
    model = prepared(base, LoRA(r=4))
    trainer = trainer_for(model, tmp_path, regularizers=[small(Replay)])
    trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()  # type: ignore[union-attr]

    with pytest.raises(UsageError) as refused:
        trainer.train()

    assert str(refused.value) == (
        "A share of the task's tokens needs a train_dataset with a length whose rows hold 'input_ids'."
    )


def test_a_model_that_peftune_did_not_prepare_is_refused(base: Path, tmp_path: Path) -> None:
    """Without its base there is nothing to stay near to."""
    model = prepared(base, Full())
    trainer = trainer_for(model, tmp_path, regularizers=[L2SP()])
    del model.__dict__["peftune_preparation"]

    with pytest.raises(UsageError) as refused:
        trainer.train()

    assert str(refused.value) == (
        "This GPT2ForSequenceClassification was not made by peftune.prepare, so its base and labels are unknown. Pass the model that peftune.prepare returned."
    )


STRONG: dict[str, Regularizer] = {
    "ewc": EWC(weight=1e4, sequences=4, length=8),
    "kl-to-base": KLToBase(weight=30.0),
    "l2-sp": L2SP(weight=10.0),
    "replay": Replay(weight=30.0, fraction=0.95, length=32, pool=150),
}
"""Each at a weight that holds the small base; replay of little text would be learned by heart."""

SMALL_STRATEGIES: dict[str, Strategy] = {
    "full": Full(),
    "head-only": HeadOnly(),
    "lora": LoRA(r=4),
    "lora-8bit": LoRA8bit(r=4),
}


def drift_of(model: nn.Module) -> float:
    """Measure KL(base || model) on general text, as the probe does."""
    probe = peftune.probes.KLDivergence(dataset_name="bundled:general-text")
    [found] = measure(model, [type(TEXTS[0])(probe, TEXTS[0].documents)])
    return found.value


@pytest.fixture(scope="module")
def plain_drift(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Measure how far each strategy drifts without a regularizer."""
    found = {}
    for name, strategy in SMALL_STRATEGIES.items():
        model = prepared(base, strategy)
        trainer_for(model, tmp_path_factory.mktemp("plain"), arguments={"max_steps": 8}).train()
        found[name] = drift_of(model)
    return found


@pytest.mark.costly
@pytest.mark.parametrize("strategy", SMALL_STRATEGIES)
@pytest.mark.parametrize("kind", sorted(STRONG))
def test_every_regularizer_holds_forgetting_down_for_every_strategy(
    kind: str,
    strategy: str,
    base: Path,
    plain_drift: Mapping[str, float],
    tmp_path: Path,
) -> None:
    """A strong term, and the backbone drifts less; with the adapter off it still is the base exactly."""
    model = prepared(base, SMALL_STRATEGIES[strategy])
    before = measure_base(model, TEXTS)
    trainer = trainer_for(model, tmp_path, regularizers=[STRONG[kind]], arguments={"max_steps": 8})
    if strategy == "head-only" and kind in {"ewc", "l2-sp"}:
        with pytest.raises(UsageError, match="No weight but the head is trainable"):
            trainer.train()
        return

    trainer.train()

    assert adapter_off_forgetting(before, measure_base(model, TEXTS)) == 0.0
    if strategy == "head-only":
        assert drift_of(model) == plain_drift[strategy] == 0.0
    else:
        assert 0 < drift_of(model) < 0.8 * plain_drift[strategy]


def test_every_registered_regularizer_and_strategy_is_tried() -> None:
    """None escapes the test above."""
    assert set(STRONG) == set(REGULARIZERS.names())
    assert set(SMALL_STRATEGIES) == set(STRATEGIES.names())


# In a recipe.

RECIPE = """\
version: 1
name: held
model: {{name_or_path: {base}, max_length: 32}}
data:
  dataset_name: bundled:posts
  max_train_examples: 16
  max_validation_examples: 16
  max_test_examples: 16
strategy: {{name: lora, r: 2}}
training: {{max_steps: 2, per_device_train_batch_size: 4, logging_steps: 1, learning_rate: 0.01, use_cpu: true}}
forgetting:
  probes:
    - {{type: lm-loss, dataset_name: bundled:general-text, max_documents: 2}}
  regularizers:
{terms}
output_dir: run
"""


def write(folder: Path, terms: str, base: Path | str = "bundled:tiny-gpt2") -> Path:
    """Write a recipe with the lines of some regularizers."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(base=base, terms=terms), encoding="utf-8")
    return path


def test_a_recipe_trains_with_its_regularizers(base: Path, tmp_path: Path) -> None:
    """The terms stand in the curve of the report, and the control is zero."""
    (tmp_path / "general.txt").write_text(GENERAL, encoding="utf-8")
    recipe = write(
        tmp_path,
        "    - {type: kl-to-base, sequences: 2, length: 8, text: {file: general.txt}}\n"
        "    - {type: l2-sp}",
        base,
    )

    run = peftune.run(recipe, output=tmp_path / "run")

    points = [point for point in run.learning.curve if "train_loss" in point]
    assert [{"penalty_kl-to-base", "penalty_l2-sp"} <= set(point) for point in points] == [
        True
    ] * 2
    assert points[0]["penalty_kl-to-base"] == 0.0 < points[1]["penalty_kl-to-base"]
    assert run.forgetting.controls == {"adapter_off_forgetting": 0.0}


@pytest.mark.slow
def test_a_finished_run_does_not_answer_for_another_text(base: Path, tmp_path: Path) -> None:
    """The text that a regularizer learns from is an input like the rows: changed, it is told."""
    (tmp_path / "general.txt").write_text(GENERAL, encoding="utf-8")
    recipe = write(tmp_path, "    - {type: replay, length: 8, text: {file: general.txt}}", base)
    first = peftune.run(recipe, output=tmp_path / "run")
    assert peftune.run(recipe, output=tmp_path / "run") == first
    (tmp_path / "general.txt").write_text(GENERAL.upper() + "And more.", encoding="utf-8")

    with pytest.raises(PeftuneError) as refused:
        peftune.run(recipe, output=tmp_path / "run")

    assert str(refused.value) == (
        f"'{tmp_path / 'run'}' holds this run, but its texts read in training have changed since. "
        "Choose another output folder with --output, or remove it."
    )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            "    - {type: l3-sp}",
            ":15:8: forgetting.regularizers[0].type: Unknown regularizer 'l3-sp'. Did you mean 'l2-sp'? Available: ewc, kl-to-base, l2-sp, replay.",
        ),
        (
            "    - {weight: 1.0}",
            ":15:7: forgetting.regularizers[0].type: must name a regularizer. Available: ewc, kl-to-base, l2-sp, replay.",
        ),
        (
            "    - l2-sp",
            ":15:7: forgetting.regularizers[0]: must be a mapping with the key 'type' (got 'l2-sp').",
        ),
        (
            "    - {type: l2-sp, weight: -1.0}",
            ":15:21: forgetting.regularizers[0].weight: must be greater than or equal to 0 (got -1.0).",
        ),
        (
            "    - {type: l2-sp, strength: 1.0}",
            ":15:21: forgetting.regularizers[0].strength: unknown key. Available: head_weight, weight.",
        ),
        (
            "    - {type: replay, fraction: 1.0}",
            ":15:22: forgetting.regularizers[0].fraction: must be less than 1 (got 1.0).",
        ),
        (
            "    - {type: replay, text: task}",
            ":15:22: forgetting.regularizers[0].text: must be 'generated', or a mapping (got 'task').",
        ),
        (
            "    - {type: kl-to-base, text: tasks}",
            ":15:26: forgetting.regularizers[0].text: must be 'task' or 'generated', or a mapping (got 'tasks'). Did you mean 'task'?",
        ),
        (
            "    - {type: replay, text: {files: a.txt}}",
            ":15:29: forgetting.regularizers[0].text.files: unknown key. Did you mean 'file'? Available: articles, dataset_config_name, dataset_name, file, max_characters, max_documents, split, text_column.",
        ),
        (
            "    - {type: replay, text: {file: a.txt, max_documents: 0}}",
            ":15:42: forgetting.regularizers[0].text.max_documents: must be greater than 0 (got 0).",
        ),
        (
            "    - {type: replay, text: {split: train}}",
            ":15:22: forgetting.regularizers[0].text: needs either 'dataset_name' or 'file', and not both.",
        ),
    ],
    ids=lambda value: value.strip(" -") if value.startswith(" ") else "message",
)
def test_a_faulty_regularizer_is_told_with_its_place(
    terms: str, message: str, tmp_path: Path
) -> None:
    """One line: where, what was read, what is allowed, the nearest name."""
    recipe = write(tmp_path, terms)

    with pytest.raises(RecipeError) as refused:
        read_recipe(recipe)

    assert str(refused.value) == f"{recipe}{message}"


def test_a_recipe_with_regularizers_goes_out_and_comes_back(tmp_path: Path) -> None:
    """Written beside its results it names the same files and has the same hash.

    The hash is of what is computed, not of where a text lies; another weight is another run.
    """
    lines = (
        "    - {type: kl-to-base, text: {file: texts/general.txt}}\n"
        "    - {type: ewc, sequences: 8}\n"
        "  during_training:\n"
        "    probe: {type: lm-loss, file: texts/watched.txt}\n"
        "    over_budget: stop-training"
    )
    recipe = read_recipe(write(tmp_path, lines))
    (tmp_path / "run").mkdir()
    write_recipe(recipe, tmp_path / "run" / "recipe.yaml")

    text = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    again = read_recipe(tmp_path / "run" / "recipe.yaml")

    assert "file: ../texts/general.txt" in text
    assert "file: ../texts/watched.txt" in text
    assert str(tmp_path) not in text
    assert again == recipe
    [divergence, information] = recipe.forgetting.regularizers
    assert isinstance(divergence, KLToBase)
    assert isinstance(divergence.text, TextSource)
    assert divergence.text.file == str(tmp_path / "texts" / "general.txt")
    assert information == EWC(sequences=8)
    assert recipe.forgetting.during_training is not None
    assert recipe.forgetting.during_training.probe.file == str(tmp_path / "texts" / "watched.txt")
    (tmp_path / "elsewhere").mkdir()
    moved = read_recipe(write(tmp_path / "elsewhere", lines))
    other = read_recipe(write(tmp_path, lines.replace("sequences: 8", "sequences: 9")))
    assert recipe_sha256(again) == recipe_sha256(recipe) == recipe_sha256(moved)
    assert recipe_sha256(other) != recipe_sha256(recipe)


def test_the_command_line_sets_regularizers(tmp_path: Path) -> None:
    """As a list in YAML, or one key of one of them; a file may lie in the working folder."""
    recipe = write(tmp_path, "    - {type: l2-sp}")

    whole = read_recipe(
        recipe, ["forgetting.regularizers=[{type: replay, fraction: 0.1}, {type: l2-sp}]"]
    )

    assert whole.forgetting.regularizers == (Replay(fraction=0.1), L2SP())
    assert read_recipe(recipe, ["forgetting.regularizers=[]"]).forgetting.regularizers == ()


def test_the_json_schema_offers_every_regularizer() -> None:
    """Editors complete them, their fields and what is measured during training."""
    schema = recipe_json_schema()
    fields = schema["$defs"]["ForgettingSection"]["properties"]

    offered = [option["$ref"] for option in fields["regularizers"]["items"]["oneOf"]]
    assert offered == [f"#/$defs/{name}" for name in ("EWC", "KLToBase", "L2SP", "Replay")]
    assert schema["$defs"]["Replay"]["properties"]["type"] == {"const": "replay"}
    assert "TextSource" in schema["$defs"]
    watched = schema["$defs"]["DuringTrainingSection"]["properties"]["probe"]
    assert {"$ref": "#/$defs/LanguageModelLoss"} in watched["oneOf"]
    json.dumps(schema)


def test_a_term_is_its_own_configuration() -> None:
    """Frozen, strict, and ready for a recipe."""
    assert Replay(fraction=0.1).fields() == {
        "type": "replay",
        "weight": 1.0,
        "text": "generated",
        "fraction": 0.1,
        "length": 64,
        "pool": 512,
    }
    with pytest.raises(ValueError, match="frozen"):
        L2SP().weight = 1.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        L2SP(weight=-1.0)


def test_terms_are_read_in_the_backbones_own_positions(base: Path) -> None:
    """A sequence as long as the model has positions fits, since its last token is not fed."""
    model = prepared(base, LoRA(r=4))
    asked = TrainedClassifier(model, seed=0, task_tokens=lambda: 1.0)

    [ids] = asked.generated(1, length=int(backbone_of(model).config.n_positions))

    assert len(ids) == 64
    assert asked.divergence([ids]).item() == 0.0
