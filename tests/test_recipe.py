"""Recipes: what is read, what is refused and in which words, and what is written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from peftune.errors import PeftuneError, PluginError, RecipeError, UsageError
from peftune.probes import PROBES
from peftune.recipe import Recipe, read_recipe, recipe_sha256, resolve, with_strategy, write_recipe
from peftune.recipe.data import DataSection, hidden_in
from peftune.recipe.recipe_files import shipped_recipes
from peftune.recipe.schema import recipe_json_schema
from peftune.recipe.training import TrainingSection
from peftune.strategies import STRATEGIES, Full, HeadOnly, LoRA, LoRA8bit

VALID = """\
version: 1
name: trial
data:
  dataset_name: bundled:posts
strategy:
  name: lora
  r: 8
training:
  learning_rate: 1.0e-3
output_dir: runs/trial
"""
DATA_KEYS = ", ".join(sorted(DataSection.model_fields))
TOP_KEYS = "compare, data, forgetting, model, name, output_dir, save, stages, strategy, task, training, tune, version"
TRAINING_KEYS = ", ".join(sorted(TrainingSection.model_fields))
LORA_KEYS = (
    "layers_to_transform, lora_alpha, lora_dropout, r, target_modules, use_dora, use_rslora"
)
STRATEGY_NAMES = "full, head-only, lora, lora-8bit"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Read a text as `recipe.yaml` in a working folder of its own."""
    monkeypatch.chdir(tmp_path)

    def _read(text: str | bytes, *overrides: str) -> Recipe:
        content = text if isinstance(text, bytes) else text.encode()
        Path("recipe.yaml").write_bytes(content)
        return read_recipe("recipe.yaml", overrides)

    return _read


def changed(old: str, new: str) -> str:
    """Replace one place of the valid recipe."""
    assert VALID.count(old) == 1
    return VALID.replace(old, new)


def with_line(line: str, *, after: str) -> str:
    """Add a line to the valid recipe."""
    return changed(f"{after}\n", f"{after}\n{line}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            with_line("  learning_rat: 1.0e-3", after="training:"),
            "recipe.yaml:9:3: training.learning_rat: unknown key. "
            f"Did you mean 'learning_rate'? Available: {TRAINING_KEYS}.",
            id="unknown key, with the nearest one",
        ),
        pytest.param(
            VALID + "trainig: {}\n",
            f"recipe.yaml:11:1: trainig: unknown key. Did you mean 'training'? Available: {TOP_KEYS}.",
            id="unknown key at the top",
        ),
        pytest.param(
            VALID + "<<: {name: other}\n",
            f"recipe.yaml:11:1: <<: unknown key. Available: {TOP_KEYS}.",
            id="merge key",
        ),
        pytest.param(
            changed("name: trial\n", ""),
            "recipe.yaml: name: this key is missing; it must be given.",
            id="missing key",
        ),
        pytest.param(
            changed("strategy:\n  name: lora\n  r: 8\n", ""),
            "recipe.yaml: strategy: this key is missing; it must be given.",
            id="missing section",
        ),
        pytest.param(
            with_line("  r: 4", after="  r: 8"),
            "recipe.yaml:8:3: strategy.r: this key stands twice, first in line 7; remove one.",
            id="duplicate key",
        ),
        pytest.param(
            changed("  r: 8", "\tr: 8"),
            "recipe.yaml:7:1: a tab indents this line; YAML allows spaces only.",
            id="tab",
        ),
        pytest.param(
            changed("1.0e-3", "no"),
            "recipe.yaml:9:18: training.learning_rate: YAML readers disagree on no: "
            "some read text, some false; write 'no' in quotes, or false.",
            id="no as a number",
        ),
        pytest.param(
            with_line("  use_dora: yes", after="  r: 8"),
            "recipe.yaml:8:13: strategy.use_dora: YAML readers disagree on yes: "
            "some read text, some true; write 'yes' in quotes, or true.",
            id="yes as a boolean",
        ),
        pytest.param(
            changed("trial\ndata", "on\ndata"),
            "recipe.yaml:2:7: name: YAML readers disagree on on: "
            "some read text, some true; write 'on' in quotes, or true.",
            id="on as a name",
        ),
        pytest.param(
            with_line("  labels: [yes, maybe]", after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:12: data.labels[0]: YAML readers disagree on yes: "
            "some read text, some true; write 'yes' in quotes, or true.",
            id="no among labels",
        ),
        pytest.param(
            changed("1.0e-3", "1e-4"),
            "recipe.yaml:9:18: training.learning_rate: YAML readers disagree on 1e-4: "
            "some read text, some a number; write 1.0e-4.",
            id="exponent without a point",
        ),
        pytest.param(
            changed("1.0e-3", "1.5e2"),
            "recipe.yaml:9:18: training.learning_rate: YAML readers disagree on 1.5e2: "
            "some read text, some a number; write 1.5e+2.",
            id="exponent without a sign",
        ),
        pytest.param(
            changed("r: 8", "r: 010"),
            "recipe.yaml:7:6: strategy.r: YAML readers disagree on 010: "
            "write '010' in quotes for text, or a plain decimal number.",
            id="octal",
        ),
        pytest.param(
            changed("r: 8", "r: 12:30"),
            "recipe.yaml:7:6: strategy.r: YAML readers disagree on 12:30: "
            "write '12:30' in quotes for text, or a plain decimal number.",
            id="base sixty",
        ),
        pytest.param(
            changed("r: 8", "r: eight"),
            "recipe.yaml:7:3: strategy.r: must be an integer (got 'eight').",
            id="wrong type",
        ),
        pytest.param(
            changed("r: 8", "r: 8.0"),
            "recipe.yaml:7:3: strategy.r: must be an integer (got 8.0).",
            id="float for an integer",
        ),
        pytest.param(
            changed("r: 8", "r:"),
            "recipe.yaml:7:3: strategy.r: must be an integer (got null).",
            id="nothing for an integer",
        ),
        pytest.param(
            changed("r: 8", "r: " + "9" * 5000),
            f"recipe.yaml:7:3: strategy.r: must be an integer (got '{'9' * 56}...).",
            id="integer too long for Python",
        ),
        pytest.param(
            with_line("  labels: [0, true]", after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:12: data.labels[0]: must be text (got 0). Write it in quotes: '0'.\n"
            "recipe.yaml:5:15: data.labels[1]: must be text (got true). Write it in quotes: 'true'.",
            id="number for text",
        ),
        pytest.param(
            with_line("  bf16: maybe", after="training:"),
            "recipe.yaml:9:3: training.bf16: must be true or false, or 'auto' (got 'maybe').",
            id="text for a boolean or a word",
        ),
        pytest.param(
            with_line("  metric_for_best_model: macrof1", after="training:"),
            "recipe.yaml:9:3: training.metric_for_best_model: must be 'loss', 'accuracy', 'balanced_accuracy', "
            "'macro_f1', 'weighted_f1', 'micro_f1', 'binary_f1', 'mcc', 'roc_auc', 'log_loss', 'mse', 'mae', 'pearson' or 'spearman' "
            "(got 'macrof1'). "
            "Did you mean 'macro_f1'?",
            id="no such choice",
        ),
        pytest.param(
            changed("r: 8", "r: 0"),
            "recipe.yaml:7:3: strategy.r: must be greater than 0 (got 0).",
            id="out of bounds",
        ),
        pytest.param(
            changed("1.0e-3", "1.0e+999"),
            "recipe.yaml:9:3: training.learning_rate: must be a finite number (got inf).",
            id="infinite",
        ),
        pytest.param(
            with_line("  labels: [one]", after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:11: data.labels: must have at least 2 entries (got ['one']).",
            id="one label",
        ),
        pytest.param(
            with_line("  labels: [one, one]", after="  dataset_name: bundled:posts"),
            "recipe.yaml:3:1: data: 'labels' names a label twice.",
            id="label twice",
        ),
        pytest.param(
            with_line('  labels: ["po\\u200bs", neg]', after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:11: data.labels: the label 'po\\u200bs' holds the character U+200B, which is not seen; "
            "write each so that a reader can tell it.",
            id="label with what is not seen",
        ),
        pytest.param(
            with_line('  labels: ["\\u00e9", "e\\u0301"]', after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:11: data.labels: the labels '\\xe9' and 'e\\u0301' look alike; "
            "write each so that a reader can tell it.",
            id="labels that look alike",
        ),
        pytest.param(
            changed("version: 1", "version: 1\x00"),
            "recipe.yaml:1:11: the control character U+0000 stands here; write the recipe without it.",
            id="a NUL in the file",
        ),
        pytest.param(
            with_line('  text_column: "te\\x1b[31mxt"', after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:3: data.text_column: holds the control character U+001B; write it without.",
            id="a terminal escape in a value",
        ),
        pytest.param(
            with_line('  labels: [good, "ba\\u0000d"]', after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:11: data.labels: the label 'ba\\x00d' holds the character U+0000, which is not seen; "
            "write each so that a reader can tell it.\n"
            "recipe.yaml:5:18: data.labels[1]: holds the control character U+0000; write it without.",
            id="a NUL in an entry",
        ),
        pytest.param(
            with_line('  test_file: "te\\nst.csv"', after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:3: data.test_file: holds the control character U+000A; write it without.",
            id="a line break in a path",
        ),
        pytest.param(
            with_line('  "te\\x9bst": 1', after="  dataset_name: bundled:posts"),
            "recipe.yaml:5:3: data.te\\x9bst: holds the control character U+009B; write it without.",
            id="a one-byte escape in a key",
        ),
        pytest.param(
            changed("version: 1", "version: 2"),
            "recipe.yaml:1:1: version: must be 1 (got 2).",
            id="other version",
        ),
        pytest.param(
            changed("trial\ndata", "my trial\ndata"),
            "recipe.yaml:2:1: name: must match the pattern ^[A-Za-z0-9][A-Za-z0-9._-]*$ "
            "(got 'my trial').",
            id="name with a space",
        ),
        pytest.param(
            with_line("  train_file: train.csv", after="  dataset_name: bundled:posts"),
            "recipe.yaml:3:1: data: needs either 'dataset_name' or 'train_file', and not both.",
            id="two sources of data",
        ),
        pytest.param(
            with_line("  eval_steps: 5", after="training:"),
            "recipe.yaml:8:1: training: 'eval_steps' and 'eval_strategy: steps' go together; "
            "give both or neither.",
            id="steps without their strategy",
        ),
        pytest.param(
            changed("data:\n  dataset_name: bundled:posts", "data: posts"),
            "recipe.yaml:3:1: data: must be a mapping (got 'posts').",
            id="section that is none",
        ),
        pytest.param(
            changed("lora", "lroa"),
            "recipe.yaml:6:3: strategy.name: Unknown strategy 'lroa'. "
            f"Did you mean 'lora'? Available: {STRATEGY_NAMES}.",
            id="unknown strategy",
        ),
        pytest.param(
            changed("  name: lora\n", ""),
            f"recipe.yaml:5:1: strategy.name: must name a strategy. Available: {STRATEGY_NAMES}.",
            id="strategy without a name",
        ),
        pytest.param(
            changed("strategy:\n  name: lora\n  r: 8", "strategy: lora"),
            "recipe.yaml:5:1: strategy: must be a mapping with the key 'name' (got 'lora').",
            id="strategy that is not a mapping",
        ),
        pytest.param(
            changed("r: 8", "rank: 8"),
            "recipe.yaml:7:3: strategy.rank: unknown key. Did you mean 'r'? "
            "The rank is called as in peft.LoraConfig.",
            id="unknown field of a strategy",
        ),
        pytest.param(
            changed("r: 8", "target_modules: all_linear"),
            "recipe.yaml:7:3: strategy.target_modules: must be 'all-linear', or a list "
            "(got 'all_linear'). Did you mean 'all-linear'?",
            id="field of a strategy that is a list or a word",
        ),
        pytest.param(
            changed("r: 8", "target_modules: ['c_.*']"),
            "recipe.yaml:7:20: strategy.target_modules[0]: must match the pattern ^[A-Za-z0-9_.]+$ "
            "(got 'c_.*').",
            id="pattern among module names",
        ),
        pytest.param(
            VALID + "forgetting:\n  probes:\n    - {type: lmloss, file: a.txt}\n",
            "recipe.yaml:13:8: forgetting.probes[0].type: Unknown probe 'lmloss'. "
            f"Did you mean 'lm-loss'? Available: {', '.join(sorted(PROBES.names()))}.",
            id="unknown probe",
        ),
        pytest.param(
            VALID + "forgetting:\n  probes:\n    - {file: a.txt}\n",
            "recipe.yaml:13:7: forgetting.probes[0].type: must name a probe. "
            f"Available: {', '.join(sorted(PROBES.names()))}.",
            id="probe without a type",
        ),
        pytest.param(
            VALID + "forgetting:\n  probes:\n    - {type: lm-loss}\n",
            "recipe.yaml:13:7: forgetting.probes[0]: needs either 'dataset_name' or 'file', "
            "and not both.",
            id="probe without a text",
        ),
        pytest.param(
            VALID + "forgetting:\n  probes:\n    - {type: lm-loss, fil: a.txt}\n",
            "recipe.yaml:13:23: forgetting.probes[0].fil: unknown key. Did you mean 'file'? "
            "Available: articles, dataset_config_name, dataset_name, file, margin, max_characters, max_documents, name, "
            "split, text_column, windows.",
            id="unknown field of a probe",
        ),
        pytest.param(
            VALID + "forgetting:\n  probes:\n"
            "    - {type: lm-loss, file: a.txt}\n    - {type: lm-loss, file: b/a.txt}\n",
            "recipe.yaml:11:1: forgetting: two probes are named 'a'; give each its own 'name'.",
            id="two probes of one name",
        ),
        pytest.param(
            VALID
            + "compare:\n  training:\n    fulll: {seed: 1}\n    full: {sed: 1}\n    lora: 3\n",
            "recipe.yaml:13:5: compare.training.fulll: unknown strategy 'fulll'. "
            f"Did you mean 'full'? Available: {STRATEGY_NAMES}.\n"
            "recipe.yaml:14:12: compare.training.full.sed: unknown key. "
            f"Did you mean 'seed'? Available: {TRAINING_KEYS}.\n"
            "recipe.yaml:15:5: compare.training.lora: must be a mapping (got 3).",
            id="faults in compare.training",
        ),
        pytest.param(
            changed("name: trial", "name: &name trial"),
            "recipe.yaml:2:7: anchors and aliases (& and *) are not allowed; write the value out.",
            id="anchor",
        ),
        pytest.param(
            changed("runs/trial", "*name"),
            "recipe.yaml:10:13: anchors and aliases (& and *) are not allowed; write the value out.",
            id="alias",
        ),
        pytest.param(
            changed("r: 8", "r: !!int '8'"),
            "recipe.yaml:7:6: tags (!) are not allowed; write a plain value.",
            id="tag on a value",
        ),
        pytest.param(
            changed("data:\n", "data: !!python/object:os.system\n"),
            "recipe.yaml:3:7: tags (!) are not allowed; write a plain value.",
            id="tag on a mapping",
        ),
        pytest.param(
            changed("name: trial", "!mine name: trial"),
            "recipe.yaml:2:1: tags (!) are not allowed; write a plain value.",
            id="tag on a key",
        ),
        pytest.param(
            VALID + "---\nversion: 1\n",
            "recipe.yaml:11:1: a recipe is one YAML document; remove what follows '---'.",
            id="second document",
        ),
        pytest.param(
            VALID + "? [a, b]\n: 1\n",
            "recipe.yaml:11:3: a key must be a plain name.",
            id="key that is not a name",
        ),
        pytest.param(
            changed("data:\n", "data: {\n"),
            "recipe.yaml:5:9: this is not valid YAML: expected ',' or '}', but got ':'.",
            id="no YAML",
        ),
        pytest.param(
            VALID + "a: \x01\n",
            "recipe.yaml:11:4: the control character U+0001 stands here; write the recipe without it.",
            id="control character",
        ),
        pytest.param(
            "- version: 1\n",
            "recipe.yaml: a recipe is a mapping of keys such as 'version: 1'; this file holds none.",
            id="list",
        ),
        pytest.param(
            "",
            "recipe.yaml: a recipe is a mapping of keys such as 'version: 1'; this file holds none.",
            id="empty file",
        ),
        pytest.param(
            b"version: 1\nname: caf\xe9\n",
            "recipe.yaml: byte 20 is not UTF-8; save the recipe as UTF-8.",
            id="not UTF-8",
        ),
        pytest.param(
            VALID + "#" * 65536,
            f"recipe.yaml: a recipe has at most 65536 characters; this file has {len(VALID) + 65536}.",
            id="too large",
        ),
        pytest.param(
            "a: " + "[" * 30000,
            "recipe.yaml:1:23: more than 20 levels of nesting.",
            id="too deep",
        ),
        pytest.param(
            "version: 2\nname: trial\ndata:\n  dataset_nam: x\nstrategy:\n  name: lora\n  r: -1\n"
            "  rank: 3\ntraining:\n  learning_rate: 1e-4\n  seed: -1\n  seed: 2\ncolor: red\n",
            "recipe.yaml:1:1: version: must be 1 (got 2).\n"
            "recipe.yaml:4:3: data.dataset_nam: unknown key. "
            f"Did you mean 'dataset_name'? Available: {DATA_KEYS}.\n"
            "recipe.yaml:7:3: strategy.r: must be greater than 0 (got -1).\n"
            "recipe.yaml:8:3: strategy.rank: unknown key. Did you mean 'r'? "
            "The rank is called as in peft.LoraConfig.\n"
            "recipe.yaml:10:18: training.learning_rate: YAML readers disagree on 1e-4: "
            "some read text, some a number; write 1.0e-4.\n"
            "recipe.yaml:11:3: training.seed: must be greater than or equal to 0 (got -1).\n"
            "recipe.yaml:12:3: training.seed: this key stands twice, first in line 11; remove one.\n"
            f"recipe.yaml:13:1: color: unknown key. Available: {TOP_KEYS}.\n"
            "recipe.yaml: output_dir: this key is missing; it must be given.",
            id="several faults, in the order of the file",
        ),
    ],
)
def test_a_malformed_recipe_is_refused_with_place_and_remedy(
    read: Callable[..., Recipe], text: str | bytes, message: str
) -> None:
    """The error says where, what was read, what is allowed, and what to do; all faults at once."""
    with pytest.raises(RecipeError) as caught:
        read(text)

    assert str(caught.value) == message


def test_an_unknown_recipe_is_refused_with_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is not a file is looked up among the shipped recipes."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RecipeError) as caught:
        read_recipe("quickstrat")

    assert str(caught.value) == (
        "quickstrat: there is no such recipe file or shipped recipe. "
        f"Did you mean 'quickstart'? Available: {', '.join(shipped_recipes())}."
    )


ROWS = "this is a file of rows, not a recipe. To learn from it: peftune run local-csv"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(
            (name, "text,label\n" * 9000, f"{ROWS} data.train_file={name}")
            for name in ("my.csv", "MY.TSV", "my.jsonl", "my.parquet", "my.arrow", "my.txt")
        ),
        ("my.json", '[{"text": "x", "label": "a"}]', f"{ROWS} data.train_file=my.json"),
        (
            "train.py",
            "import peftune",
            "this is a program, not a recipe, which is a YAML file. Run a script of your own with python train.py",
        ),
        (
            "runs/recipe.yaml",
            VALID,
            "this is a run folder, not a recipe. Its recipe: runs/recipe.yaml",
        ),
        (
            "mine/adapter_config.json",
            "{}",
            "this is an artifact, not a recipe. To start from it: peftune run RECIPE model.init_from=mine; to use it: peftune predict mine --text TEXT",
        ),
        (
            "base/config.json",
            "{}",
            "this is a model, not a recipe. To learn on it: peftune run RECIPE model.name_or_path=base",
        ),
        (
            "rows/train.csv",
            "text,label",
            "this is a folder of rows, not a recipe. To learn from it: peftune run local-csv data.train_file=null data.dataset_name=rows",
        ),
        (
            "all/one.yaml",
            VALID,
            "this is a folder; name a recipe file, or a shipped recipe. It holds one.yaml.",
        ),
    ],
)
def test_what_is_no_recipe_is_told_by_what_it_is(
    name: str, content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, a program, or a folder in the place of a recipe: what it is, and the command for it."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(content)
    given = Path(name).parts[0]

    with pytest.raises(RecipeError) as caught:
        read_recipe(given)

    assert str(caught.value) == f"{given}: {message}"


def test_a_recipe_may_be_json(tmp_path: Path) -> None:
    """JSON is YAML, and a recipe says its version."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(YAML(typ="safe").load(VALID)))

    assert read_recipe(path).name == "trial"


@pytest.mark.parametrize("key", ["training.max_steps", "compare.training.lora.max_steps"])
def test_no_steps_at_all_are_refused(read: Callable[..., Recipe], key: str) -> None:
    """Trainer takes 0 for no limit, and trained."""
    with pytest.raises(RecipeError) as caught:
        read(VALID, f"{key}=0")

    assert str(caught.value) == (
        f"command line '{key}=0': {key}: 0 steps would train nothing, and transformers takes 0 "
        "for no limit; give 1 or more, or -1 to train num_train_epochs (got 0)."
    )


@pytest.mark.parametrize("written", ['";"', '"\\t"', "'|'", "tab"])
def test_a_delimiter_survives_writing(
    read: Callable[..., Recipe], written: str, tmp_path: Path
) -> None:
    """A tab too, which YAML keeps in double quotes alone."""
    place = "dataset_name: bundled:posts"
    recipe = read(changed(place, f"{place}\n  delimiter: {written}"))

    write_recipe(recipe, tmp_path / "written.yaml")

    assert recipe.data.delimiter in (";", "\t", "|")
    assert read_recipe(tmp_path / "written.yaml").data.delimiter == recipe.data.delimiter


@pytest.mark.parametrize("written", ["''", ";;", '"\\n"', "'\"'"])
def test_a_delimiter_is_one_character(read: Callable[..., Recipe], written: str) -> None:
    """Neither a quote nor a line end, which have a meaning of their own."""
    place = "dataset_name: bundled:posts"
    with pytest.raises(RecipeError) as caught:
        read(changed(place, f"{place}\n  delimiter: {written}"))

    got = {"''": "", '"\\n"': "\n", "'\"'": '"'}.get(written, written)
    assert str(caught.value) == (
        'recipe.yaml:5:3: data.delimiter: must be one character, such as ";" or "\\t", and neither '
        f"a quote nor a line end (got {got!r})."
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [("true", True), ("True", True), ("FALSE", False), ("'auto'", "auto"), ("auto", "auto")],
)
def test_booleans_are_read_as_all_yaml_readers_do(
    read: Callable[..., Recipe], written: str, value: object
) -> None:
    """YAML 1.1 and 1.2 agree on three spellings of true and false."""
    recipe = read(with_line(f"  bf16: {written}", after="training:"))

    assert recipe.training.bf16 == value


# Overrides.


@pytest.mark.parametrize(
    ("override", "read_value"),
    [
        ("training.learning_rate=1e-4", lambda recipe: recipe.training.learning_rate == 1e-4),
        ("training.learning_rate=2.0e-4", lambda recipe: recipe.training.learning_rate == 2e-4),
        ("training.seed=7", lambda recipe: recipe.training.seed == 7),
        ("training.bf16=true", lambda recipe: recipe.training.bf16 is True),
        ("training.weight_decay=", lambda recipe: recipe.training.weight_decay is None),
        ("data.labels=[no, yes]", lambda recipe: recipe.data.labels == ("no", "yes")),
        ("name=010", lambda recipe: recipe.name == "010"),
        ("strategy.r=2", lambda recipe: recipe.strategy == LoRA(r=2)),
        ("model.max_length=32", lambda recipe: recipe.model.max_length == 32),
        (
            "forgetting.probes=[{type: lm-loss, file: a.txt}]",
            lambda recipe: recipe.forgetting.probes,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_override_sets_one_key(
    read: Callable[..., Recipe], override: str, read_value: Callable[[Recipe], bool]
) -> None:
    """On a command line `1e-4` can only mean a number, and words need no quotes."""
    recipe = read(VALID, override)

    assert read_value(recipe)
    assert not read_value(read(VALID)) or override.startswith("training.weight_decay")


def test_an_override_mends_the_fault_that_it_replaces(read: Callable[..., Recipe]) -> None:
    """What the command line sets is no longer complained of in the file."""
    recipe = read(changed("1.0e-3", "1e-4"), "training.learning_rate=1e-4")

    assert recipe.training.learning_rate == 1e-4


def test_an_override_of_training_wins_over_a_strategys_own_keys(
    read: Callable[..., Recipe],
) -> None:
    """What is typed holds for every strategy; the other keys of `compare.training` stay."""
    text = VALID + "compare:\n  training:\n    full: {learning_rate: 1e-5, seed: 5}\n"

    recipe = read(text, "training.learning_rate=3e-4")
    full = resolve(with_strategy(recipe, "full"))

    assert (full.training.learning_rate, full.training.seed) == (3e-4, 5)


def test_an_override_reaches_a_list_entry(read: Callable[..., Recipe]) -> None:
    """A key of an entry is written the way errors write it."""
    text = VALID + "forgetting:\n  probes:\n    - {type: lm-loss, file: a.txt}\n"

    recipe = read(text, "forgetting.probes[0].max_documents=3")

    assert recipe.forgetting.probes[0].max_documents == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param(
            "training.learning_rat=1e-4",
            "command line 'training.learning_rat=1e-4': training.learning_rat: unknown key. "
            f"Did you mean 'learning_rate'? Available: {TRAINING_KEYS}.",
        ),
        pytest.param(
            "trainin.seed=1",
            "command line 'trainin.seed=1': trainin: unknown key. "
            f"Did you mean 'training'? Available: {TOP_KEYS}.",
        ),
        pytest.param(
            "training.seed",
            "command line 'training.seed': an override is key=value, such as training.seed=1.",
        ),
        pytest.param(
            "=1", "command line '=1': an override is key=value, such as training.seed=1."
        ),
        pytest.param(
            "training..seed=1",
            "command line 'training..seed=1': an override is key=value, such as training.seed=1.",
        ),
        pytest.param(
            "training.seed=x",
            "command line 'training.seed=x': training.seed: must be an integer (got 'x').",
        ),
        pytest.param(
            "training.seed=010",
            "command line 'training.seed=010': training.seed: must be an integer (got '010').",
        ),
        pytest.param(
            "training.seed.x=3",
            "command line 'training.seed.x=3': training.seed: must be an integer (got {'x': 3}).",
        ),
        pytest.param(
            "training=3", "command line 'training=3': training: must be a mapping (got 3)."
        ),
        pytest.param(
            "forgetting.probes[0].max_documents=3",
            "command line 'forgetting.probes[0].max_documents=3': the recipe has no list entry "
            "'forgetting.probes[0].max_documents'; entries count from 0.",
        ),
        pytest.param(
            "data.labels=[a",
            "command line:1:10: this is not valid YAML: "
            "expected ',' or ']', but got '<stream end>'.",
        ),
        pytest.param(
            "data.labels=[&a x, *a]",
            "command line:1:9: anchors and aliases (& and *) are not allowed; "
            "write the value out.",
        ),
    ],
)
def test_an_override_that_the_schema_lacks_is_refused(
    read: Callable[..., Recipe], override: str, message: str
) -> None:
    """An override cannot add a key, and its fault is told as one of the command line."""
    with pytest.raises(RecipeError) as caught:
        read(VALID, override)

    assert str(caught.value) == message


# Where files lie.


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that names files relative to itself, read from another working folder."""
    folder, working = tmp_path / "recipes", tmp_path / "working"
    (folder / "base").mkdir(parents=True)
    working.mkdir()
    (folder / "recipe.yaml").write_text(
        changed("dataset_name: bundled:posts", "train_file: data/train.csv")
        + "model:\n  name_or_path: base\n"
        + "forgetting:\n  probes:\n    - {type: lm-loss, file: ../probe.txt}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(working)
    return tmp_path


def test_relative_paths_start_from_the_recipe(elsewhere: Path) -> None:
    """Files beside a recipe are found from every working folder."""
    recipe = read_recipe(elsewhere / "recipes" / "recipe.yaml")

    assert recipe.data.train_file == str(elsewhere / "recipes" / "data" / "train.csv")
    assert recipe.model.name_or_path == str(elsewhere / "recipes" / "base")
    probe_file = recipe.forgetting.probes[0].file
    assert probe_file is not None
    assert Path(probe_file).resolve() == elsewhere / "probe.txt"


@pytest.mark.parametrize(
    ("override", "find"),
    [
        ("data.train_file=own.csv", lambda recipe: recipe.data.train_file),
        ("data={train_file: own.csv}", lambda recipe: recipe.data.train_file),
        ("forgetting.probes[0].file=own.csv", lambda recipe: recipe.forgetting.probes[0].file),
        (
            "forgetting.probes=[{type: lm-loss, file: own.csv}]",
            lambda recipe: recipe.forgetting.probes[0].file,
        ),
    ],
)
def test_relative_paths_on_the_command_line_start_from_the_working_folder_too(
    elsewhere: Path, override: str, find: Callable[[Recipe], str]
) -> None:
    """A typed path means what it means to the shell, and the recipe's folder otherwise."""
    recipe_file = elsewhere / "recipes" / "recipe.yaml"
    assert find(read_recipe(recipe_file, [override])) == str(elsewhere / "recipes" / "own.csv")

    Path("own.csv").touch()

    assert find(read_recipe(recipe_file, [override])) == str(elsewhere / "working" / "own.csv")


def test_a_hub_id_stays_a_hub_id(read: Callable[..., Recipe]) -> None:
    """Only what looks like a path, or is a folder beside the recipe, becomes one."""
    text = changed("bundled:posts", "owner/rows") + "model:\n  name_or_path: gpt2\n"

    recipe = read(text)

    assert (recipe.data.dataset_name, recipe.model.name_or_path) == ("owner/rows", "gpt2")


def test_a_folder_of_nobody_is_left_for_the_data_to_refuse(read: Callable[..., Recipe]) -> None:
    """Looking for a folder in a home that is none finds none, and does not fail."""
    recipe = read(changed("bundled:posts", '"~nobody-here/rows"'))

    assert recipe.data.dataset_name is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "x" * 400,
            "data.dataset_name: .* cannot be a path: a part of it has 400 bytes, and may have 255",
        ),
        (
            "a\\0b",
            "recipe.yaml:4:3: data.dataset_name: holds the control character U.0000; write it without",
        ),
    ],
    ids=["long", "NUL"],
)
def test_a_name_that_can_be_no_path_is_refused_by_its_key(
    read: Callable[..., Recipe], name: str, reason: str
) -> None:
    """Before anything is looked for under it."""
    with pytest.raises(UsageError, match=rf"^{reason}\."):
        read(changed("bundled:posts", f'"{name}"'))


# Writing and naming.


@pytest.mark.parametrize("strategy", STRATEGIES.names())
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_written_recipe_reads_as_itself(tmp_path: Path, name: str, strategy: str) -> None:
    """Writing a resolved recipe and reading it back changes neither a value nor the hash."""
    recipe = resolve(with_strategy(read_recipe(name), strategy))

    write_recipe(recipe, tmp_path / "recipe.yaml")
    again = read_recipe(tmp_path / "recipe.yaml")

    assert again == recipe
    assert resolve(again) == recipe
    assert recipe_sha256(again) == recipe_sha256(recipe)


def test_any_text_survives_writing(read: Callable[..., Recipe]) -> None:
    """Labels such as `no`, `1e-4` or an emoji come back as they were, whatever YAML thinks of them."""
    generator = random.Random(0)  # noqa: S311 - no secret
    alphabet = "abyn019-+.:,#&*!|>%@`'\"{}[]?=~ \t\n\r\u200bß\x85\xa0\u2028\ufeff\U0001f600"
    words = ["no", "yes", "on", "1e-4", "010", "12:30", "2020-01-01", "null", "~", "True", "0x1F"]
    words += ["1_000", ".inf", "<<"]
    words += ["a: b", "# x", "- a", " lead", "trail ", "gap      " + "x" * 200]
    words += [
        "".join(generator.choices(alphabet, k=generator.randint(1, 12))) + str(number)
        for number in range(200)
    ]
    recipe = read(VALID)
    labels = tuple(word for word in words if not hidden_in(word))
    assert len(labels) > 80
    labeled = recipe.data.model_copy(update={"labels": labels})
    recipe = recipe.model_copy(update={"data": labeled})

    write_recipe(recipe, Path("written.yaml"))

    assert read_recipe("written.yaml") == recipe


def test_a_written_recipe_names_files_from_where_it_lies(elsewhere: Path) -> None:
    """A run folder and its data can move together."""
    recipe = read_recipe(elsewhere / "recipes" / "recipe.yaml")
    run = elsewhere / "working" / "runs"
    run.mkdir()

    write_recipe(recipe, run / "recipe.yaml")

    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert "  train_file: ../../recipes/data/train.csv\n" in text
    assert "  name_or_path: ../../recipes/base\n" in text
    assert "    file: ../../probe.txt\n" in text
    assert str(elsewhere) not in text


def test_the_hash_ignores_where_files_lie(elsewhere: Path) -> None:
    """Moving a recipe with its files, or writing elsewhere, leaves it the same run."""
    recipe = read_recipe(elsewhere / "recipes" / "recipe.yaml")
    moved = elsewhere / "moved"
    (elsewhere / "recipes").rename(moved)

    again = read_recipe(moved / "recipe.yaml", ["output_dir=elsewhere"])

    assert again != recipe
    assert recipe_sha256(again) == recipe_sha256(recipe)


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "model.max_length=32",
        "model.revision=abc",
        "model.name_or_path=gpt2",
        "data.dataset_name=owner/rows",
        "data.splits={test: held_out}",
        "data.text_column=body",
        "data.labels=[a, b]",
        "data.seed=1",
        "data.validation_split=0.2",
        "data.empty_text=drop",
        "data.max_train_examples=10",
        "strategy.r=4",
        "training.seed=1",
        "training.learning_rate=2.0e-3",
        "training.max_steps=3",
        "training.metric_for_best_model=accuracy",
        "forgetting.budget=0.1",
        "forgetting.probes=[]",
        "forgetting.probes[0].max_documents=3",
        "forgetting.probes[0].name=other",
    ],
)
def test_the_hash_changes_with_everything_else(override: str) -> None:
    """Two recipes that compute different numbers have different hashes."""
    before = recipe_sha256(resolve(read_recipe("quickstart")))

    assert recipe_sha256(resolve(read_recipe("quickstart", [override]))) != before


# Strategies and their defaults.


def test_a_strategy_keeps_the_fields_that_both_have() -> None:
    """A comparison compares like with like: `r` of lora serves lora-8bit, and full has none."""
    recipe = read_recipe("quickstart", ["strategy.r=3"])

    assert with_strategy(recipe, "lora-8bit").strategy == LoRA8bit(r=3)
    assert with_strategy(recipe, "full").strategy == Full()
    assert with_strategy(recipe, "lora") is recipe
    assert with_strategy(recipe, HeadOnly()).strategy == HeadOnly()


def test_an_unknown_strategy_is_refused_in_the_place_of_the_recipes_own() -> None:
    """`--strategy` and `strategy.name` speak alike."""
    with pytest.raises(PluginError) as caught:
        with_strategy(read_recipe("quickstart"), "lroa")

    assert str(caught.value) == (
        f"Unknown strategy 'lroa'. Did you mean 'lora'? Available: {STRATEGY_NAMES}."
    )


def test_the_strategys_defaults_fill_what_the_recipe_leaves_open(
    read: Callable[..., Recipe],
) -> None:
    """Learning rate and weight decay come from the recipe, and from the strategy otherwise."""
    silent = changed("  learning_rate: 1.0e-3", "  learning_rate: null")

    resolved = resolve(with_strategy(read(silent), "full"))

    defaults = Full.training_defaults
    assert resolved.training.learning_rate == defaults.learning_rate
    assert resolved.training.weight_decay == defaults.weight_decay
    assert resolve(read(VALID)).training.learning_rate == 1e-3


def test_a_comparisons_own_training_keys_apply_to_their_strategy_alone(
    read: Callable[..., Recipe],
) -> None:
    """`compare.training` goes before `training`, for one strategy, and is then used up."""
    recipe = read(VALID + "compare:\n  training:\n    full: {learning_rate: 1, seed: 5}\n")

    full, lora = resolve(with_strategy(recipe, "full")), resolve(recipe)

    assert (full.training.learning_rate, full.training.seed) == (1.0, 5)
    assert (lora.training.learning_rate, lora.training.seed) == (1e-3, 0)
    assert not full.compare.training
    # An integer where the schema wants a float is one, so that the hash survives a round trip.
    assert isinstance(full.training.learning_rate, float)


# Nothing but our own errors.


def _mutants(lines: list[str], generator: random.Random) -> list[str]:
    """Change a recipe in one to four random places."""
    lines = list(lines)
    for _ in range(generator.randint(1, 4)):
        first, second = generator.randrange(len(lines)), generator.randrange(len(lines))
        match generator.randrange(6):
            case 0:
                del lines[first]
                lines = lines or [""]
            case 1:
                lines.insert(second, lines[first])
            case 2:
                lines[first] = lines[first].replace("e", generator.choice("x:E #"), 1)
            case 3:
                key, colon, _ = lines[first].partition(":")
                _, _, value = lines[second].partition(":")
                lines[first] = f"{key}{colon}{value}"
            case 4:
                lines[first] = generator.choice(["", " ", "   ", "- "]) + lines[first].lstrip()
            case _:
                junk = generator.choice(JUNK)
                at = generator.randrange(len(lines[first]) + 1)
                lines[first] = lines[first][:at] + junk + lines[first][at:]
    return lines


JUNK = (
    *"\t\x00\x07:#&*!|>%@`'\"{}[]?,-~\x85\u2028\ufeff",
    "\udcff",  # one byte that is not UTF-8
    "!!binary ",
    "!!python/object:os.system ",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "{" * 40,
    "9" * 5000,
    "1.0e+999",
    "x" * 400,
    "~nobody-here/x",
    "'\\ud800'",
    "[]",
    "{}",
    ": {a: 1}",
)


@pytest.mark.costly
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_mutated_recipe_is_read_or_refused(read: Callable[..., Recipe], name: str) -> None:
    """Whatever bytes a recipe holds, reading it gives a recipe or one of our errors."""
    generator = random.Random(name)  # noqa: S311 - no secret
    lines = shipped_recipes()[name].read_text(encoding="utf-8").splitlines()
    refusals: list[str] = []

    for _ in range(-(-300 // len(shipped_recipes()))):
        text = "\n".join(_mutants(lines, generator))
        try:
            read(text.encode("utf-8", "surrogateescape"))
        except PeftuneError as error:
            refusals.append(str(error))

    assert len(refusals) > 10
    assert all(refusals)


# The JSON schema.


def _plain_values(name: str) -> dict[str, Any]:
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))
    return values


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """An independent validator of the schema that editors get."""
    schema = recipe_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_json_schema_accepts_every_shipped_recipe(
    validator: jsonschema.Draft202012Validator, name: str
) -> None:
    """An editor that knows the schema marks nothing in a good recipe."""
    assert [error.message for error in validator.iter_errors(_plain_values(name))] == []


@pytest.mark.parametrize(
    "path",
    [(), ("model",), ("data",), ("strategy",), ("training",), ("forgetting",), ("compare",)],
    ids=lambda path: ".".join(path) or "top",
)
def test_the_json_schema_refuses_an_unknown_key(
    validator: jsonschema.Draft202012Validator, path: tuple[str, ...]
) -> None:
    """What the reader refuses, an editor marks."""
    values = _plain_values("quickstart")
    section = values
    for key in path:
        section = section[key]
    section["color"] = "red"

    assert not validator.is_valid(values)


def test_the_json_schema_refuses_an_unknown_field_of_a_probe(
    validator: jsonschema.Draft202012Validator,
) -> None:
    """Plug-ins are described field by field."""
    values = _plain_values("quickstart")
    values["forgetting"]["probes"][0]["color"] = "red"

    assert not validator.is_valid(values)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_the_json_schema_offers_every_strategy(
    validator: jsonschema.Draft202012Validator, name: str
) -> None:
    """Each installed strategy can be written, with every field that it has."""
    values = {**_plain_values("quickstart"), "strategy": STRATEGIES.get(name)().fields()}

    assert [error.message for error in validator.iter_errors(values)] == []


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("class_weights: {negative: 1.0, positve: 3.0}", "recipe.yaml: training.class_weights: there is no label 'positve'. Did you mean 'positive'? Available: negative, positive."),
        ("class_weights: {positive: 0}", "recipe.yaml:6:28: training.class_weights.positive: must be greater than 0 (got 0)."),
        ("class_weights: {positive: often}", "recipe.yaml:6:28: training.class_weights.positive: must be a number (got 'often')."),
        ("class_weights: rare", "recipe.yaml:6:12: training.class_weights: must be 'balanced', or a mapping (got 'rare')."),
        ("label_smoothing_factor: 1.0", "recipe.yaml:6:12: training.label_smoothing_factor: must be less than 1 (got 1.0)."),
    ],
)  # fmt: skip
def test_weights_and_smoothing_that_cannot_be_are_refused_in_one_line(
    training: str, message: str, read: Callable[..., Recipe]
) -> None:
    """Weights are positive numbers by label name; a label that there is not is named."""
    text = (
        "version: 1\nname: x\ndata: {dataset_name: bundled:posts, labels: [negative, positive]}\n"
        f"strategy: {{name: lora}}\noutput_dir: x\ntraining: {{{training}}}\n"
    )

    with pytest.raises(RecipeError) as caught:
        read(text)

    assert str(caught.value) == message


def test_f1_of_the_positive_label_needs_two_labels(read: Callable[..., Recipe]) -> None:
    """Of three labels the second is not the positive one; it is said before anything is read."""
    with pytest.raises(RecipeError) as caught:
        read(VALID, "training.metric_for_best_model=binary_f1", "data.labels=[a, b, c]")

    assert str(caught.value) == (
        "recipe.yaml: training.metric_for_best_model: binary_f1 is the F1 of the second of two "
        "labels, and there are 3. Choose macro_f1 or mcc."
    )
