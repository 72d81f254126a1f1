"""Overrides: against which strategy they are checked, and the forms in which they are given."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peftune
from peftune.cli.main import _exit_code
from peftune.errors import PeftuneError, RecipeError, UsageError
from peftune.experiments.compare import compare
from peftune.recipe import Recipe, read_for_each, read_recipe
from peftune.recipe.overrides import Overrides
from peftune.recipe.training import TrainingSection
from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy, StrategyChoice

RECIPE = """\
version: 1
name: tiny
data: {dataset_name: bundled:posts}
strategy: {name: lora, r: 4}
training: {learning_rate: 1.0e-3, seed: 3}
output_dir: run
"""
LORA_KEYS = (
    "layers_to_transform, lora_alpha, lora_dropout, r, target_modules, use_dora, use_rslora"
)


NO_VALUE = object()
"""What no recipe can hold; one for all, since its name is a part of the test's."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose strategy is `lora` with a rank of its own."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def _strategy(
    recipe: str | Path | Recipe, overrides: Overrides, strategy: StrategyChoice | None = None
) -> Strategy:
    return read_recipe(recipe, overrides, strategy=strategy).strategy


# Against which strategy they are checked.


@pytest.mark.parametrize(
    ("strategy", "overrides", "expected"),
    [
        ("lora-8bit", ["strategy.llm_int8_threshold=0"], LoRA8bit(r=4, llm_int8_threshold=0.0)),
        ("lora-8bit", ["strategy.r=2"], LoRA8bit(r=2)),
        ("full", ["strategy.freeze_layers=1"], Full(freeze_layers=1)),
        ("full", [], Full()),
        ("lora", ["strategy.name=lora", "strategy.r=2"], LoRA(r=2)),
        ("lora", ["strategy={name: lora, lora_alpha: 2}"], LoRA(lora_alpha=2)),
        (LoRA8bit(lora_alpha=3), ["strategy.r=2"], LoRA8bit(lora_alpha=3, r=2)),
        (LoRA, [], LoRA()),
        ({"name": "lora-8bit", "r": 1}, ["strategy.lora_alpha=2"], LoRA8bit(r=1, lora_alpha=2)),
        (None, ["strategy.name=full"], Full()),
        (None, ["strategy.name=lora-8bit", "strategy.r=2"], LoRA8bit(r=2)),
    ],
)
def test_overrides_are_those_of_the_strategy_that_is_put_in(
    recipe: Path, strategy: StrategyChoice | None, overrides: list[str], expected: Strategy
) -> None:
    """A strategy asked for beside the recipe is there before the overrides are."""
    assert _strategy(recipe, overrides, strategy) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.text_column=te\x1b[31mxt", "command line 'data.text_column=te\\x1b[31mxt': data.text_column: holds the control character U+001B; write it without."),
        ({"output_dir": "ru\nn"}, "overrides['output_dir']: output_dir: holds the control character U+000A; write it without."),
    ],
)  # fmt: skip
def test_an_override_holds_no_control_characters(override: Any, message: str) -> None:  # noqa: ANN401 - any overrides
    """On the command line and in Python, as in a file."""
    given = [override] if isinstance(override, str) else override

    with pytest.raises(RecipeError) as refused:
        read_recipe("quickstart", given)

    assert str(refused.value) == message


def test_a_template_may_have_several_lines() -> None:
    """And a delimiter may be a tab."""
    recipe = read_recipe("quickstart", {"data.template": "{text}\n\t{text}"})

    assert recipe.data.template == "{text}\n\t{text}"


def test_overrides_of_a_recipe_in_memory_are_not_lost(recipe: Path) -> None:
    """`overrides` hold for a `Recipe` as they hold for its file, with and without a strategy."""
    read = read_recipe(recipe)

    changed = read_recipe(read, {"training.seed": 5, "strategy.r": 2}, strategy="lora-8bit")

    assert changed.training.seed == 5
    assert changed.training.learning_rate == 1e-3
    assert changed.strategy == LoRA8bit(r=2)


@pytest.mark.parametrize(
    ("strategy", "overrides", "message"),
    [
        pytest.param(
            "full",
            ["strategy.r=2"],
            "command line 'strategy.r=2': strategy.r: unknown key. Available: freeze_layers.",
            id="key of the recipe's old strategy",
        ),
        pytest.param(
            "lora",
            ["strategy.llm_int8_threshold=0"],
            "command line 'strategy.llm_int8_threshold=0': strategy.llm_int8_threshold: "
            "unknown key. It belongs to the strategy 'lora-8bit'.",
            id="key of another strategy",
        ),
        pytest.param(
            "lora",
            ["strategy.name=full"],
            "command line 'strategy.name=full': the strategy is 'lora', which was asked for "
            "beside the recipe. Leave one of the two out, or set keys such as strategy.r alone.",
            id="two names",
        ),
        pytest.param(
            Full(),
            {"strategy": {"name": "lora"}},
            "overrides['strategy']: the strategy is 'full', which was asked for "
            "beside the recipe. Leave one of the two out, or set keys such as strategy.r alone.",
            id="two strategies",
        ),
        pytest.param(
            None,
            ["strategy.name=lroa"],
            "command line 'strategy.name=lroa': strategy.name: Unknown strategy 'lroa'. "
            "Did you mean 'lora'? Available: full, head-only, lora, lora-8bit.",
            id="no such strategy",
        ),
    ],
)
def test_an_override_that_does_not_fit_the_strategy_is_refused(
    recipe: Path, strategy: StrategyChoice | None, overrides: Overrides, message: str
) -> None:
    """The keys that are allowed are those of the strategy that would train."""
    with pytest.raises(UsageError) as caught:
        read_recipe(recipe, overrides, strategy=strategy)

    assert str(caught.value) == message


def test_a_fault_of_the_recipes_own_strategy_is_told_whatever_takes_its_place(
    recipe: Path,
) -> None:
    """Another strategy does not hide a misspelled key of the file."""
    recipe.write_text(RECIPE.replace("r: 4", "rr: 4"), encoding="utf-8")

    with pytest.raises(RecipeError) as caught:
        read_recipe(recipe, strategy="full")

    assert str(caught.value) == (
        f"{recipe}:4:24: strategy.rr: unknown key. Did you mean 'r'? Available: {LORA_KEYS}."
    )


def test_the_command_line_checks_against_its_strategy(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run --strategy full strategy.r=2` is refused before anything is read."""
    monkeypatch.chdir(recipe.parent)

    code = _exit_code(["run", "recipe.yaml", "--strategy", "full", "strategy.r=2"])

    assert (code, capsys.readouterr().err) == (
        3,
        (
            "peftune: command line 'strategy.r=2': strategy.r: unknown key. "
            "Available: freeze_layers.\n"
        ),
    )


# Several strategies.


def test_a_key_that_some_strategies_have_is_set_in_those(
    recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which have it and which have not."""
    with caplog.at_level(logging.INFO, logger="peftune"):
        found = read_for_each(
            recipe, ["strategy.r=2", "training.seed=1"], ["full", LoRA(lora_alpha=8), "lora-8bit"]
        )

    assert {name: one.strategy for name, one in found.items()} == {
        "full": Full(),
        "lora": LoRA(lora_alpha=8, r=2),
        "lora-8bit": LoRA8bit(r=2),
    }
    assert {one.training.seed for one in found.values()} == {1}
    assert caplog.messages == ["'strategy.r' holds for lora, lora-8bit; full has no such key"]


def test_a_key_that_no_compared_strategy_has_is_refused(recipe: Path, tmp_path: Path) -> None:
    """An override that could not change any run is a mistake, in every verb of several strategies."""
    told = []
    for verb in (compare, peftune.plan, peftune.tune):
        more: dict[str, Any] = {"seeds": [0]} if verb is compare else {}
        with pytest.raises(UsageError) as caught:
            verb(recipe, strategies=["full", "head-only"], overrides=["strategy.r=2"], **more)
        told.append(str(caught.value))

    assert told == 3 * [
        "command line 'strategy.r=2': strategy.r: unknown key. Available: freeze_layers."
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


# Forms.


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"training.max_steps": 5}, {"max_steps": 5, "learning_rate": 1e-3}),
        ({"training": {"max_steps": 5}}, {"max_steps": 5, "learning_rate": 1e-3, "seed": 3}),
        ({"training.learning_rate": None}, {"learning_rate": None}),
        ({"training.bf16": False, "training.trunk_dropout": False}, {"bf16": False}),
        ({"training.report_to": ["wandb", "mlflow"]}, {"report_to": ("wandb", "mlflow")}),
        ({"training.report_to": ("wandb",)}, {"report_to": ("wandb",)}),
        ({"training.seed": np.int64(7)}, {"seed": 7}),
        ({"training.learning_rate": np.float32(0.5)}, {"learning_rate": 0.5}),
        ("training.seed=8", {"seed": 8}),
        ([], {"seed": 3}),
        ({}, {"seed": 3}),
    ],
    ids=str,
)
def test_overrides_are_taken_as_python_people_write_them(
    recipe: Path, overrides: Overrides, expected: Mapping[str, object]
) -> None:
    """Values of a mapping are values, not text to be read; a section keeps its other keys."""
    training = read_recipe(recipe, overrides).training

    assert {name: getattr(training, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (LoRA8bit(r=2), LoRA8bit(r=2)),
        ({"name": "head-only"}, HeadOnly()),
        ({"r": 2}, LoRA(r=2)),
    ],
    ids=repr,
)
def test_a_strategy_can_stand_in_a_mapping(
    recipe: Path, value: object, expected: Strategy
) -> None:
    """A strategy or a mapping that names one is whole; a mapping without a name sets its keys."""
    assert _strategy(recipe, {"strategy": value}) == expected


def test_probes_and_paths_can_stand_in_a_mapping(recipe: Path, tmp_path: Path) -> None:
    """Objects of peftune and of pathlib are what they are in a recipe."""
    text = tmp_path / "text.txt"
    text.write_text("A cat sat by the fire.\n", encoding="utf-8")
    probe = peftune.probes.LanguageModelLoss(file=str(text))

    read = read_recipe(recipe, {"forgetting": {"probes": [probe]}, "data.test_file": text})

    assert read.forgetting.probes == (probe,)
    assert read.data.test_file == str(text)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"training.seed": "x"},
            "overrides['training.seed']: training.seed: must be an integer (got 'x').",
        ),
        (
            {"training": {"sed": 1}},
            (
                "overrides['training']: training.sed: unknown key. Did you mean 'seed'? Available: "
                f"{', '.join(sorted(TrainingSection.model_fields))}."
            ),
        ),
        (
            {"training.seed": NO_VALUE},
            (
                "overrides['training.seed']: a value is text, a number, True, False, None, a list or "
                "a mapping (got object)."
            ),
        ),
        ({3: 1}, "overrides[3]: a key is a dotted name, such as 'training.seed'."),
        ({"": 1}, "overrides['']: a key is a dotted name, such as 'training.seed'."),
        (
            [{"training.seed": 1}],
            (
                "overrides are a list of key=value, such as ['training.seed=1'], or a mapping, such "
                "as {'training.seed': 1} (got dict in a list)."
            ),
        ),
        (
            {"forgetting.probes[2].file": "x"},
            (
                "overrides['forgetting.probes[2].file']: the recipe has no list entry "
                "'forgetting.probes[2].file'; entries count from 0."
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_faulty_mapping_is_told_by_its_key(
    recipe: Path, overrides: Overrides, message: str
) -> None:
    """The place of a fault is the key of the mapping."""
    with pytest.raises(UsageError) as caught:
        read_recipe(recipe, overrides)

    assert str(caught.value) == message


def test_every_function_with_overrides_takes_a_mapping(recipe: Path) -> None:
    """One reader serves all: the fault of a mapping is the same everywhere."""
    verbs: Sequence[Any] = (
        peftune.run,
        peftune.tune,
        peftune.plan,
        peftune.check,
        peftune.fewshot,
        peftune.learning_curve,
        lambda recipe, overrides: compare(
            recipe, strategies=["full"], seeds=[0], overrides=overrides
        ),
    )
    told = set()
    for verb in verbs:
        with pytest.raises(PeftuneError) as caught:
            verb(recipe, overrides={"training.seed": -1})
        told.add(str(caught.value))

    assert told == {
        "overrides['training.seed']: training.seed: must be greater than or equal to 0 (got -1)."
    }


# Keys and values that no recipe could have.


@pytest.mark.parametrize(
    "key",
    [
        ".".join("a" * 1100),
        "data.labels[" + "9" * 5000 + "]",
        "data.labels" + "[0]" * 1100,
        "data.labels[\u0661]",
        "training." + "x" * 100_000 + ".",
    ],
    ids=["dotted parts", "digits", "entries", "other digits", "length"],
)
def test_a_key_that_is_deeper_or_longer_than_any_is_refused_in_one_line(
    recipe: Path, key: str
) -> None:
    """On the command line and in a mapping alike; the message shows its beginning."""
    for overrides in ([f"{key}=1"], {key: 1}):
        with pytest.raises(RecipeError) as caught:
            read_recipe(recipe, overrides)
        assert re.search(r"key=value, such as|a key is a dotted name", str(caught.value))
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def test_a_value_that_contains_itself_is_refused(recipe: Path) -> None:
    """So is one that is nested without end; a recipe is a few levels deep."""
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(UsageError) as caught:
        read_recipe(recipe, {"forgetting.probes": endless})
    assert str(caught.value) == (
        "overrides['forgetting.probes']: a value is nested at most 16 deep."
    )
