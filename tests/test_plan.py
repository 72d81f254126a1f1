"""Plans: what a run would need, before any base is loaded, and how near that is to the run."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from bases import write_wide_base

import peftune
from peftune.bundled import MODELS, bundled_folder
from peftune.cli.main import _exit_code
from peftune.cli.plan import _print
from peftune.data.task_data import load_task
from peftune.errors import BaseModelError, PluginError, UsageError
from peftune.models.architecture import backbone_of, trainable_parameters
from peftune.models.prepare import prepare_model
from peftune.models.tokenizer import load_tokenizer
from peftune.planning import Plan, activations, training_step
from peftune.planning.activations import LiveBytes, Passes, measure_passes
from peftune.planning.batches import Batch, read_batches
from peftune.planning.memory import Memory, backbone_parameters
from peftune.planning.plan_results import StrategyPlan, advise
from peftune.planning.shapes import (
    OWN,
    SIZES,
    Shape,
    ShapeModel,
    describe_base,
    one_block,
    prepare_shape,
    sample_of,
    shapes_of,
)
from peftune.planning.training_step import (
    Conditions,
    conditions_of,
    few_tokens,
    loss_of,
    step,
    training_forward,
)
from peftune.recipe import Recipe, read_recipe, resolve
from peftune.stats.formats import size
from peftune.strategies import STRATEGIES, Full, LoRA, LoRA8bit, Strategy
from peftune.training.train import training_arguments, way_of

RECIPE = """\
version: 1
name: planned
model: {{name_or_path: {base}, max_length: 64}}
data: {{dataset_name: bundled:posts, max_train_examples: 96, max_validation_examples: 32, max_test_examples: 16}}
strategy: {{name: lora}}
training: {{max_steps: 3, per_device_train_batch_size: 16}}
output_dir: {output}
"""
BUNDLED = "bundled:tiny-gpt2"
CPU = torch.device("cpu")
Install = Callable[..., None]


def write_recipe(folder: Path, base: str | Path = BUNDLED) -> Path:
    """Write a recipe of three steps."""
    path = folder / "planned.yaml"
    path.write_text(RECIPE.format(base=base, output=folder / "run"), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A resolved recipe on the bundled base."""
    return resolve(read_recipe(write_recipe(tmp_path)))


def shape_model_of(shape: Shape, folder: Path, strategy: Strategy) -> ShapeModel:
    """Prepare a shape by its block; the block's folder is gone afterwards, its weights are not."""
    tokenizer = load_tokenizer(folder)
    with one_block(shape) as block:
        return prepare_shape(
            shape,
            block,
            strategy,
            tokenizer=tokenizer,
            labels=("a", "b", "c"),
            task="single-label",
            device=CPU,
        )


def passes_of(prepared: ShapeModel, conditions: Conditions, batch: Batch) -> Passes:
    """Measure passes of a shape at its own width."""
    sample = sample_of(prepared.model)
    measured = measure_passes(prepared.model, sample, conditions, longest=batch.time)
    return measured.of(sample.more, wider=1.0)


# The estimate and the run, each in a process of its own.

_RUN = """
import sys, peftune
found = peftune.run(sys.argv[1], strategy=sys.argv[2], output=sys.argv[3])
print(found.cost.peak_memory_bytes, found.cost.artifact_bytes)
"""
_PLAN = """
import sys, json, peftune
found = peftune.plan(sys.argv[1], strategies=sys.argv[2].split(","), sizes=["own"])
print(json.dumps({one.strategy: [one.memory.peak, one.artifact_bytes] for one in found.plans}))
"""


def fresh(program: str, *arguments: str) -> str:
    """Run a program in a new process, and return its last line."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.splitlines()[-1]


def assert_near(folder: Path, base: str | Path) -> None:
    """Plan and run three strategies; compare peak memory and artifacts."""
    recipe, names = str(write_recipe(folder, base)), ("full", "lora", "lora-8bit")
    planned = json.loads(fresh(_PLAN, recipe, ",".join(names)))
    for name in names:
        peak, artifact = map(int, fresh(_RUN, recipe, name, str(folder / name)).split())
        assert planned[name][0] == pytest.approx(peak, rel=0.15), name
        assert planned[name][1] == pytest.approx(artifact, rel=0.02), name


@pytest.mark.slow
def test_the_planned_peak_is_that_of_the_run_on_the_bundled_base(tmp_path: Path) -> None:
    """Within 15 % of the resident set that each strategy's run reports, libraries and all."""
    assert_near(tmp_path, BUNDLED)


@pytest.mark.slow
def test_the_planned_peak_is_that_of_the_run_on_a_wider_base(tmp_path: Path) -> None:
    """Where weights, gradients and activations outweigh the libraries, it is as near."""
    assert_near(tmp_path, write_wide_base(tmp_path / "wide"))


# What a strategy holds: counted on models of full shape in the memory of one block.


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        ("small", 124_439_808),
        ("medium", 354_823_168),
        ("large", 774_030_080),
        ("xl", 1_557_611_200),
    ],
)
def test_the_published_shapes_have_the_published_numbers_of_weights(
    size: str, weights: int
) -> None:
    """What transformers counts of the checkpoints gpt2 to gpt2-xl."""
    [_, shape] = shapes_of(describe_base(BUNDLED), (OWN, size))

    assert backbone_parameters(shape) == weights


def test_what_learns_is_counted_on_what_the_strategy_prepares() -> None:
    """LoRA of rank 8: eight times inputs and outputs of four maps a block, and the head."""
    source = describe_base(BUNDLED)
    [_, shape] = shapes_of(source, (OWN, "small"))
    prepared = shape_model_of(shape, source.folder, LoRA(r=8))

    learning = sum(weight.numel() for weight in trainable_parameters(prepared.model).values())

    assert learning == 12 * 8 * (4 + 2 + 5 + 5) * 768 + 3 * 768
    assert sum(weight.numel() for weight in backbone_of(prepared.model).parameters()) == (
        124_439_808 + learning - 3 * 768
    )


def test_the_blocks_of_a_shape_share_the_memory_of_one() -> None:
    """A shape of any depth fits; what each block learns is its own."""
    source = describe_base(BUNDLED)
    [_, shape] = shapes_of(source, (OWN, "xl"))
    prepared = shape_model_of(shape, source.folder, LoRA8bit())
    blocks = backbone_of(prepared.model).h

    places = {
        name: {block.get_parameter(name).data_ptr() for block in blocks}
        for name, _ in blocks[0].named_parameters()
    }

    learning = {name for name, weight in blocks[0].named_parameters() if weight.requires_grad}
    assert {name for name, found in places.items() if len(found) == 1} == set(places) - learning
    assert all(len(places[name]) == 48 for name in learning)
    assert blocks[47].get_parameter("mlp.c_fc.base_layer.weight").dtype == torch.int8


@pytest.mark.costly
@pytest.mark.parametrize(
    "strategy",
    [Full(), Full(freeze_layers=2), LoRA(layers_to_transform=(1,)), LoRA8bit()],
    ids=str,
)
def test_what_a_pass_keeps_is_what_the_whole_model_keeps(
    strategy: Strategy, recipe: Recipe
) -> None:
    """Added up from a few blocks and few tokens, it is what is alive after a real forward pass."""
    source, batch = describe_base(BUNDLED), Batch(3, 40)
    [shape] = shapes_of(source, (OWN,))
    real = prepare_model(BUNDLED, strategy, labels=("a", "b", "c"), max_length=64)
    chosen = recipe.model_copy(update={"strategy": strategy})
    conditions = conditions_of(real, chosen, tokens=300)
    passes = passes_of(shape_model_of(shape, source.folder, strategy), conditions, batch)

    with few_tokens(real), training_forward(real, conditions), LiveBytes(real) as live:
        step(real, batch)
        laid_out = live.now
        loss = loss_of(real, batch)
        kept = live.now - laid_out

    assert loss.requires_grad
    assert passes.training.saved.at(batch) == pytest.approx(kept, rel=0.01)
    assert passes.training.laid_out == pytest.approx(laid_out, abs=4096)


@pytest.mark.costly
@pytest.mark.parametrize("strategy", [Full(), LoRA(r=8), LoRA8bit(r=8)], ids=str)
def test_what_a_wide_shape_needs_follows_from_a_narrow_one(
    strategy: Strategy, recipe: Recipe
) -> None:
    """GPT-2 small in the depth of the bundled base: three times as wide as what is measured for it."""
    source, batch = describe_base(BUNDLED), Batch(16, 40)
    shape = Shape("small", "small", {"n_layer": 4, "n_embd": 768, "n_head": 12})
    wide = shape_model_of(shape, source.folder, strategy)
    narrow = shape_model_of(shape.narrowed(), source.folder, strategy)
    chosen = recipe.model_copy(update={"strategy": strategy})
    conditions = conditions_of(wide.model, chosen, tokens=300)
    sample = sample_of(narrow.model)

    carried = measure_passes(narrow.model, sample, conditions, longest=batch.time).of(
        sample.more, wider=768 / 256
    )

    measured = passes_of(wide, conditions, batch)
    assert sample.pattern == sample_of(wide.model).pattern
    assert carried.training.at(batch) == pytest.approx(measured.training.at(batch), rel=0.05)
    assert carried.training.laid_out == pytest.approx(
        measured.training.laid_out, rel=0.1, abs=2**20
    )
    assert carried.training.products == measured.training.products
    assert carried.evaluation.temporary.at(batch) == pytest.approx(
        measured.evaluation.temporary.at(batch), rel=0.05
    )


@pytest.mark.slow
def test_all_published_sizes_are_planned_from_the_same_few_passes(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sizes there are: passes at the own shape, and at four heads of the published ones.

    Those are measured again from the size on whose adapter is so large that gradients are kept.
    """
    widths: list[int] = []
    passes: list[Batch] = []

    def measured(model: torch.nn.Module, *args: object, **kwargs: object) -> object:
        widths.append(backbone_of(model).config.n_embd)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(activations, "loss_of", lost)
            patch.setattr(training_step, "loss_of", lost)
            return measure_passes(model, *args, **kwargs)  # type: ignore[arg-type]

    def lost(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        passes.append(batch)
        return loss_of(model, batch)

    module = import_module("peftune.planning.plan")  # the package has a function of this name
    monkeypatch.setattr(module, "measure_passes", measured)
    plenty = SimpleNamespace(available=2**40)  # no size needs checkpointing, all are laid out anew
    monkeypatch.setattr(psutil, "virtual_memory", lambda: plenty)
    monkeypatch.setattr(module, "available_bytes", lambda _: plenty.available)

    found = peftune.plan(recipe, strategies=["lora"])

    assert [one.size for one in found.plans] == list(SIZES)
    assert len(widths) == 3
    assert set(widths) == {256}
    assert (
        len(passes) == len(widths) * 2 * 4
    )  # with and without a further block: a first, then three
    assert sum(batch.tokens for batch in passes) < 2000


def test_live_bytes_are_those_of_tensors_that_something_still_refers_to() -> None:
    """A temporary counts at the peak alone; a view counts once; weights do not count."""
    model = torch.nn.Linear(256, 256)
    x = torch.ones(4, 256)
    with LiveBytes(model) as live:
        doubled = x * 2  # 4 KiB
        found = (doubled + 1).exp().view(2, 512)  # two more, of which one is gone
        model(x)

    assert live.now == 2 * 4096
    assert live.peak == 3 * 4096
    del doubled, found
    assert live.now == 0


def test_products_are_counted_by_what_onednn_makes_code_for() -> None:
    """Once for all of the same sizes and strides; those in float32 that MKL takes are not counted."""
    x, weight = torch.ones(32, 16), torch.ones(16, 8)
    with LiveBytes(torch.nn.Linear(1, 1)) as live:
        x @ weight
        assert len(live.products) == 0
        for _ in range(3):
            x.bfloat16() @ weight.bfloat16()
        assert len(live.products) == 1
        x.bfloat16()[:24] @ weight.bfloat16()

    assert len(live.products) == 2


# What is read, and how.


def test_the_planned_batches_are_those_that_the_trainer_reads(
    recipe: Recipe, tmp_path: Path
) -> None:
    """In the same order, with the same padding: the longest texts come first."""
    task = load_task(recipe.data, recipe.task)
    tokenizer = load_tokenizer(bundled_folder(BUNDLED.removeprefix("bundled:"), among=MODELS))
    way = way_of(task.task_type)
    tokens = way.tokens(task.train, tokenizer, max_length=64)
    trainer = way.trainer(
        model=prepare_model(BUNDLED, recipe.strategy, labels=task.labels, max_length=64),
        args=training_arguments(recipe.training, device=CPU, checkpoints=tmp_path / "state"),
        tokenizer=tokenizer,
        train=tokens.dataset,
        validation=tokens.dataset,
        run_identity="",
    )
    loader = trainer.get_train_dataloader()
    read = [Batch(*batch["input_ids"].shape) for batch in loader]

    planned = read_batches(recipe, tokenizer)

    assert planned.training == read[:3]
    assert planned.epoch == len(read)
    assert planned.largest == read[0]
    assert planned.labels == task.labels


def test_a_data_set_that_is_not_here_is_taken_at_its_longest(recipe: Recipe) -> None:
    """Nothing is fetched for a plan, and the plan says so."""
    data = recipe.data.model_copy(update={"dataset_name": "someone/rows"})
    tokenizer = load_tokenizer(describe_base(BUNDLED).folder)

    planned = read_batches(recipe.model_copy(update={"data": data}), tokenizer)

    assert planned.training == [Batch(16, 64)]
    assert planned.epoch is None
    assert planned.source == (
        "every text is taken to have max_length tokens (64): 'someone/rows' is not on this machine yet"
    )


# A whole plan.


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Plan two strategies on a base of which only the description is here."""
    folder = tmp_path_factory.mktemp("described")
    base = folder / "base"
    base.mkdir()
    for file in bundled_folder(BUNDLED.removeprefix("bundled:"), among=MODELS).glob("*.json"):
        (base / file.name).write_bytes(file.read_bytes())
    recipe = read_recipe(write_recipe(folder, base))
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        found = peftune.plan(
            recipe, strategies=["full", "lora", "lora-8bit"], sizes=["own", "small"]
        )
    assert not list(temporary.iterdir())
    return found


@pytest.mark.slow
def test_a_base_is_planned_by_its_description_alone(planned: Plan) -> None:
    """Its folder holds no weights, so none can have been read."""
    assert [(one.strategy, one.size) for one in planned.plans] == [
        (name, size) for size in ("own", "small") for name in ("full", "lora", "lora-8bit")
    ]
    assert planned.unplanned == {}
    assert planned.of("lora").base == "base"


def test_gradients_and_moments_are_those_of_what_learns(planned: Plan) -> None:
    """Float32: four bytes of gradient and eight of AdamW's moments for each learning weight."""
    for one in planned.plans:
        assert one.memory.gradients == 4 * one.learning_parameters
        assert one.memory.optimizer == 8 * one.learning_parameters
    assert planned.of("full", "small").learning_parameters == 124_439_808 + 3 * 768


def test_an_int8_base_is_held_as_bitsandbytes_holds_it(planned: Plan) -> None:
    """The bundled base: a byte for each linear weight, a scale for each output, the rest in float32."""
    linear = 4 * 12 * 256 * 256
    scales = 4 * (3 + 1 + 4 + 1) * 256
    update = 4 * 8 * 16 * 256
    heads = 2 * 3 * 256  # PEFT keeps the untrained head beside the one that learns
    floats = backbone_parameters(shapes_of(describe_base(BUNDLED), (OWN,))[0]) - linear

    assert planned.of("lora-8bit").memory.weights == linear + 4 * (
        scales + update + heads + floats
    )


def test_a_plan_says_what_takes_how_long(planned: Plan) -> None:
    """A pass on a larger shape takes longer, and all weights longer than a few."""
    for one in planned.plans:
        assert one.seconds_per_epoch is not None
        assert 0 < one.seconds_per_step < one.seconds_per_epoch
    assert planned.of("lora", "small").seconds_per_step > planned.of("lora").seconds_per_step
    assert set(planned.products["float32"]) == {256, 768}


def test_a_plan_is_json(planned: Plan) -> None:
    """What `--json` prints holds every number."""
    values = json.loads(json.dumps(planned.as_json()))

    assert values["plans"][0]["memory"] == dataclasses.asdict(planned.plans[0].memory)
    assert values["advice"] == list(planned.advice)


@pytest.mark.parametrize("columns", [50, 120])
def test_a_plan_is_readable_on_any_terminal(
    columns: int,
    planned: Plan,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every figure is whole: between words a narrow terminal breaks lines, never within one."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))

    _print(planned)

    out = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    told = out[: out.index(planned.advice[0])].partition("\n\n")[2]
    assert max(map(len, told.splitlines())) <= columns
    assert size(planned.of("full").memory.peak) in told
    assert all(one.strategy in told and one.base in told for one in planned.plans)


# Advice.


def planned_as(strategy: str, size: str, peak: float, **changes: object) -> StrategyPlan:
    """Make up a plan with a peak in GiB."""
    total = round(peak * 2**30)
    made = StrategyPlan(
        strategy=strategy,
        size=size,
        base={"own": "mine"}.get(size, f"GPT-2 {size}"),
        learning_parameters=100,
        base_parameters=1000,
        computes_in="float32",
        integers=strategy.endswith("8bit"),
        memory=Memory(0, total, 0, 0, 0, 0, 0, total),
        artifact_bytes=1,
        disk_bytes=3,
        seconds_per_step=1.0,
        seconds_per_epoch=1.0,
        fits=True,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_where_8_bits_pay_is_said_by_the_peaks() -> None:
    """A tenth of the peak is worth it; less is not, nor is more memory than before."""
    plans = [
        planned_as("lora", "own", 1.0),
        planned_as("lora-8bit", "own", 1.05),
        planned_as("lora", "small", 1.0),
        planned_as("lora-8bit", "small", 0.95),
        planned_as("lora", "medium", 2.0),
        planned_as("lora-8bit", "medium", 1.5),
        planned_as("full", "medium", 5.0, learning_parameters=1000),
    ]

    assert advise(plans, available=2**34, checkpointing=False, base="mine") == [
        (
            "lora-8bit against lora: 5% more of the peak memory at mine, where it does not pay; "
            "from GPT-2 medium on it does (small 5% saved, medium 25% saved)."
        ),
        "Everything fits into the 16.0 GiB that a run can have here; activation checkpointing is not needed.",
    ]


def test_what_does_not_fit_is_said_with_what_would_help() -> None:
    """Activation checkpointing, if it is enough."""
    plans = [
        planned_as("full", "own", 3.0, fits=False, checkpointed_peak=2**30),
        planned_as("full", "small", 5.0, fits=False, checkpointed_peak=2**32),
        planned_as("lora", "small", 1.0),
    ]

    assert advise(plans, available=2**31, checkpointing=False, base="mine") == [
        "full on mine needs 3.0 GiB of the 2.0 GiB that a run can have here; with training.activation_checkpointing=true 1.0 GiB, which fits.",
        "full on GPT-2 small needs 5.0 GiB of the 2.0 GiB that a run can have here; even activation checkpointing, 4.0 GiB, does not make it fit.",
    ]


# Faults.

BROKEN = '''
from typing import ClassVar

from peftune.strategies import HeadOnly, TrainingDefaults


class Stubborn(HeadOnly):
    """Refuse every model."""

    name: ClassVar[str] = "stubborn"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(5.0e-4)

    def prepare(self, model):
        raise RuntimeError("no model is good enough.\\nReally.")
'''


@pytest.mark.slow
def test_a_strategy_that_cannot_be_planned_is_listed_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, with what it says."""
    info = tmp_path / "stubborn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stubborn\nVersion: 1.0\n")
    entries = "[peftune.strategies]\nstubborn = stubborn:Stubborn\ngone = gone:Gone\n"
    (info / "entry_points.txt").write_text(entries)
    (tmp_path / "stubborn.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stubborn", raising=False)
    recipe = write_recipe(tmp_path)

    found = peftune.plan(recipe, sizes=["own"], overrides=["model.max_length=16"])

    assert sorted(found.unplanned) == ["gone", "stubborn"]
    assert found.unplanned["stubborn"] == "no model is good enough"
    assert "gone" in found.unplanned["gone"]
    assert [one.strategy for one in found.plans] == ["full", "head-only", "lora", "lora-8bit"]


def test_an_unknown_strategy_or_size_is_named(tmp_path: Path) -> None:
    """With the nearest one, and all that there are."""
    recipe = write_recipe(tmp_path)

    with pytest.raises(PluginError) as strategy:
        peftune.plan(recipe, strategies=["lroa"])
    with pytest.raises(UsageError) as other:
        peftune.plan(recipe, sizes=["smal"])

    assert str(strategy.value) == (
        f"Unknown strategy 'lroa'. Did you mean 'lora'? Available: {', '.join(STRATEGIES.names())}."
    )
    assert str(other.value) == (
        f"Unknown size 'smal'. Did you mean 'small'? Available: {', '.join(sorted(SIZES))}."
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"n_layer": 0},
            "The config.json of 'odd' has n_layer: 0, which must be a whole number from 1 to 128. Mend it, or save the model again with save_pretrained.",
        ),
        (
            {"n_head": 7},
            "The config.json of 'odd' divides a width of 256 among 7 heads, which leaves a rest.",
        ),
        (
            {"model_type": "llama"},
            "'odd' is a 'llama' model; peftune fine-tunes GPT-2 (model_type 'gpt2').",
        ),
    ],
    ids=["blocks", "heads", "kind"],
)
def test_a_base_that_is_no_gpt2_is_refused_in_one_line(
    changes: dict[str, object], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured; the command line ends with 3."""
    base = tmp_path / "odd"
    base.mkdir()
    described = describe_base(BUNDLED).folder
    for file in described.glob("tokenizer*.json"):
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((described / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **changes}))
    recipe = write_recipe(tmp_path, base)

    with pytest.raises(BaseModelError) as caught:
        peftune.plan(recipe)

    assert str(caught.value) == fault
    assert _exit_code(["plan", str(recipe)]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == f"peftune: {fault}"
