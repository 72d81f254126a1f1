"""Plug-ins of other packages: found by entry point, each fault told with the package's name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peftune.cli.listings import plugin_rows
from peftune.cli.main import _exit_code
from peftune.errors import PluginError, RecipeError
from peftune.probes import (
    PROBES,
    Cloze,
    KLDivergence,
    LanguageModelLoss,
    LinearProbe,
    MinimalPairs,
    MultipleChoice,
)
from peftune.recipe import read_recipe, resolve, with_strategy
from peftune.recipe.schema import recipe_json_schema
from peftune.strategies import STRATEGIES, Full, HeadOnly, LoRA, LoRA8bit

NAMES = ["full", "head-only", "lora", "lora-8bit"]
GOOD = '''
from typing import ClassVar

from peftune.strategies import HeadOnly, TrainingDefaults


class Bias(HeadOnly):
    """Let the bias vectors learn: the smallest adapter."""

    name: ClassVar[str] = "bias"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(5.0e-4)

    every: int = 1
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package: real metadata and a real module, in a folder of its own on the path."""

    def _install(
        package: str, source: str, *, entry: str, group: str = "peftune.strategies"
    ) -> None:
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n", encoding="utf-8")
        module = package.replace("-", "_")
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return _install


def error_of(name: str) -> str:
    """Return what is said of a strategy that cannot be used."""
    with pytest.raises(PluginError) as caught:
        STRATEGIES.get(name)
    return str(caught.value)


def test_the_built_in_plug_ins_are_found_by_entry_point() -> None:
    """Ours enter by the road that others take."""
    assert STRATEGIES.load_all() == (
        {"full": Full, "head-only": HeadOnly, "lora": LoRA, "lora-8bit": LoRA8bit},
        {},
    )
    assert PROBES.load_all() == (
        {
            "cloze": Cloze,
            "kl": KLDivergence,
            "linear-probe": LinearProbe,
            "lm-loss": LanguageModelLoss,
            "minimal-pairs": MinimalPairs,
            "multiple-choice": MultipleChoice,
        },
        {},
    )
    assert STRATEGIES.package_of("lora") == "peftune"


def test_an_installed_strategy_is_one_like_ours(install: Install) -> None:
    """A plug-in is listed, checked, resolved and described for editors with no further step."""
    install("bias-tuning", GOOD, entry="bias = bias_tuning:Bias")

    recipe = with_strategy(read_recipe("quickstart", ["training.learning_rate="]), "bias")

    assert resolve(recipe).training.learning_rate == 5e-4
    assert read_recipe("quickstart", ["strategy={name: bias, every: 2}"]).strategy.fields() == {
        "name": "bias",
        "every": 2,
    }
    assert {"$ref": "#/$defs/Bias"} in recipe_json_schema()["properties"]["strategy"]["oneOf"]
    assert plugin_rows(STRATEGIES)[0] == {
        "strategy": "bias",
        "package": "bias-tuning",
        "what": "Let the bias vectors learn",
        "fields": "every",
    }


def test_listing_names_imports_no_plug_in(install: Install) -> None:
    """A recipe that does not use a plug-in does not wait for it, and is not broken by it."""
    install("costly", "raise RuntimeError('imported')", entry="costly = costly:Costly")

    assert STRATEGIES.names() == sorted([*NAMES, "costly"])
    assert read_recipe("quickstart").strategy.name == "lora"


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    """The message lists what is installed."""
    assert error_of("lora_8bit") == (
        "Unknown strategy 'lora_8bit'. Did you mean 'lora-8bit'? "
        "Available: full, head-only, lora, lora-8bit."
    )


def test_an_unknown_probe_is_called_a_probe() -> None:
    """Both groups speak with one voice."""
    with pytest.raises(PluginError) as caught:
        PROBES.get("perplexity")

    assert str(caught.value) == (
        f"Unknown probe 'perplexity'. Available: {', '.join(sorted(PROBES.names()))}."
    )


def test_two_packages_that_claim_one_name_are_both_named(install: Install) -> None:
    """Which of them would be taken is never left to the order of the path."""
    install("bias-tuning", GOOD, entry="bias = bias_tuning:Bias")
    install("other-bias", GOOD, entry="bias = other_bias:Bias")

    assert error_of("bias") == (
        "The strategy 'bias' is claimed by bias-tuning and other-bias. "
        "Uninstall all but one of them."
    )


def test_a_built_in_name_cannot_be_taken_over(install: Install) -> None:
    """A package cannot put itself in the place of `lora` unnoticed."""
    install("better-lora", GOOD, entry="lora = better_lora:Bias")

    assert error_of("lora") == (
        "The strategy 'lora' is claimed by better-lora and peftune. Uninstall all but one of them."
    )


def test_a_package_that_the_path_shows_twice_claims_a_name_once(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An editable install beside a built one is not a quarrel."""
    install("bias-tuning", GOOD, entry="bias = bias_tuning:Bias")
    copy = tmp_path / "copy"
    copy.symlink_to(tmp_path / "bias-tuning")
    monkeypatch.syspath_prepend(copy)

    assert STRATEGIES.get("bias").name == "bias"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        pytest.param("import nowhere_at_all", "ModuleNotFoundError: No module named "
                     "'nowhere_at_all'", id="missing dependency"),
        pytest.param("raise ValueError('no GPU')", "ValueError: no GPU", id="fails"),
        pytest.param("import sys; sys.exit(5)", "SystemExit: 5", id="exits"),
        pytest.param("def broken(:", "SyntaxError: invalid syntax (broken_plugin.py, line 1)",
                     id="no Python"),
        pytest.param("", "AttributeError: module 'broken_plugin' has no attribute 'Broken'",
                     id="no such class"),
    ],
)  # fmt: skip
def test_an_import_that_fails_names_the_package(install: Install, source: str, fault: str) -> None:
    """The user learns which package to mend, and the cause."""
    install("broken-plugin", source, entry="broken = broken_plugin:Broken")

    assert error_of("broken") == (
        f"The strategy 'broken' of package 'broken-plugin' cannot be imported: {fault}. "
        "Reinstall or remove that package."
    )


def test_an_object_that_is_no_strategy_is_refused(install: Install) -> None:
    """An entry point may name anything; only a class of ours is taken."""
    install("broken-plugin", "class Broken: pass", entry="broken = broken_plugin:Broken")

    assert error_of("broken") == (
        "'broken_plugin:Broken' of package 'broken-plugin' is registered as strategy 'broken' "
        "but is not a Strategy class."
    )


def test_a_strategy_object_is_no_strategy_class(install: Install) -> None:
    """An instance in the place of its class is told as such."""
    source = "from peftune.strategies import Full\nbroken = Full()"
    install("broken-plugin", source, entry="broken = broken_plugin:broken")

    assert error_of("broken") == (
        "'broken_plugin:broken' of package 'broken-plugin' is registered as strategy 'broken' "
        "but is not a Strategy class."
    )


def test_a_strategy_without_its_one_method_is_refused(install: Install) -> None:
    """What a plug-in lacks is told when it is found, not in the middle of a run."""
    source = (
        "from typing import ClassVar\nfrom peftune.strategies import Strategy\n"
        "class Broken(Strategy):\n    name: ClassVar[str] = 'broken'\n"
    )
    install("broken-plugin", source, entry="broken = broken_plugin:Broken")

    assert error_of("broken") == (
        "'broken_plugin:Broken' of package 'broken-plugin' is registered as strategy 'broken' "
        "but lacks prepare."
    )


def test_a_strategy_that_calls_itself_otherwise_is_refused(install: Install) -> None:
    """The name in a manifest must find the class again."""
    install("bias-tuning", GOOD, entry="biases = bias_tuning:Bias")

    assert error_of("biases") == (
        "'bias_tuning:Bias' of package 'bias-tuning' is registered as strategy 'biases' "
        "but calls itself 'bias'. Make the two names equal."
    )


def test_a_broken_plug_in_does_not_hide_the_others(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    """`peftune strategies` lists what works and says what is wrong with the rest."""
    install("broken-plugin", "import nowhere_at_all", entry="broken = broken_plugin:Broken")

    loaded, broken = STRATEGIES.load_all()
    code = _exit_code(["strategies", "--json"])

    assert sorted(loaded) == NAMES
    assert list(broken) == ["broken"]
    assert code == 0
    assert (
        "\"what\": \"BROKEN: The strategy 'broken' of package 'broken-plugin' cannot be imported"
        in capsys.readouterr().out
    )


def test_a_broken_plug_in_does_not_hide_the_others_from_editors(install: Install) -> None:
    """The JSON schema offers what can be used."""
    install("broken-plugin", "import nowhere_at_all", entry="broken = broken_plugin:Broken")

    assert len(recipe_json_schema()["properties"]["strategy"]["oneOf"]) == len(NAMES)


def test_a_shared_field_that_the_other_strategy_refuses_is_told(install: Install) -> None:
    """A field of the same name may have other bounds elsewhere."""
    source = (
        "from typing import ClassVar\nfrom pydantic import Field\n"
        "from peftune.strategies import LoRA\n"
        "class SmallLoRA(LoRA):\n    name: ClassVar[str] = 'small-lora'\n"
        "    r: int = Field(2, gt=0, le=4)\n"
    )
    install("small-lora", source, entry="small-lora = small_lora:SmallLoRA")

    with pytest.raises(RecipeError) as caught:
        with_strategy(read_recipe("quickstart", ["strategy.r=8"]), "small-lora")

    assert str(caught.value) == (
        "strategy 'small-lora', with the values that the recipe has for 'lora': r: "
        "must be less than or equal to 4 (got 8)."
    )


def test_a_recipe_that_names_a_broken_plug_in_says_where(install: Install) -> None:
    """The fault of a package stands beside the line that asks for it."""
    install("broken-plugin", "raise ValueError('no GPU')", entry="broken = broken_plugin:Broken")

    with pytest.raises(RecipeError) as caught:
        read_recipe("quickstart", ["strategy={name: broken}"])

    assert str(caught.value) == (
        "command line 'strategy={name: broken}': strategy.name: The strategy 'broken' of package "
        "'broken-plugin' cannot be imported: ValueError: no GPU. Reinstall or remove that package."
    )
