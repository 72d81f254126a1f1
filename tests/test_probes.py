"""The probes: what each counts, against brute force, and what rows it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

import peftune
from peftune.bundled import bundled_folder
from peftune.cli.main import _exit_code
from peftune.data.documents import load_documents
from peftune.errors import DataError, UsageError
from peftune.experiments import forget
from peftune.forgetting.measurement import ProbeText, measure_with
from peftune.forgetting.results import forgetting_of
from peftune.models.tokenizer import load_tokenizer
from peftune.probes import (
    PROBES,
    Cloze,
    ContinuationScores,
    KLDivergence,
    LanguageModelLoss,
    LinearProbe,
    Measurement,
    MinimalPairs,
    MultipleChoice,
    Probe,
    TextScores,
)
from peftune.probes.linear_probe import LabeledText
from peftune.probes.minimal_pairs import MinimalPair
from peftune.probes.multiple_choice import Question
from peftune.recipe import read_probe

BASE = "bundled:tiny-gpt2"
LONG = "The old man went to the sea and the boats came home in the evening. " * 40
"""Longer than the bundled base's 256 positions."""

TEXTS = (
    "He was one of the",
    "She looked at him and said that she would never come",
    "The capital of the country is Xylophonistan",
    LONG + "In the end he was one of the most important of all the",
    "It was a matter of life and death",
    "line one\nline two of the United States",
)
PAIRS = (
    ("The cats sleep.", "The cats sleeps."),
    ("These books are old.", "This books are old."),
    ("He saw himself.", "Himself saw he."),
    ("The the the of of.", "She went to the house."),
)
QUESTIONS = (
    ("The sun rises in the", ("east", "spoon", "of"), 0),
    ("She put the letter in her", ("pocket and went away", "pocket", "zebra"), 1),
    ("", ("Once upon a time", "Upon time once a"), 0),
    (LONG + "The boats came", ("home", "xylophone", "of", "green"), 2),
    ("The king of", (" France", "\nFrance"), 1),
)


@pytest.fixture(scope="module")
def language_model() -> GPT2LMHeadModel:
    """Load the bundled base with transformers' own language-model head, the reference."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(_base(), dtype=torch.float32)
    model.eval()
    return model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Load the bundled base's tokenizer as transformers does."""
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(_base())
    return loaded


def _base() -> Path:
    return bundled_folder(BASE, among=("tiny-gpt2",))


def _measured(model: GPT2LMHeadModel, probe: Probe, documents: Sequence[Any]) -> Measurement:
    texts = [ProbeText(probe, tuple(documents))]
    return measure_with(model.transformer, load_tokenizer(_base()), texts)[0]


def _brute_force(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, context: str, continuation: str
) -> tuple[float, bool]:
    """Score a continuation token by token, each in a forward pass of its own."""
    start = tokenizer(context)["input_ids"] if context else [tokenizer.eos_token_id]
    whole = tokenizer(context + continuation)["input_ids"]
    targets = whole[len(start) :] if context else whole
    fed, nats, greedy = [*start, *targets], 0.0, True
    window = int(model.config.n_positions)
    begin = max(0, len(fed) - 1 - window)
    for place in range(len(start), len(fed)):
        with torch.inference_mode():
            logits = model(torch.tensor([fed[begin:place]])).logits[0, -1].double()
        nats -= float(torch.log_softmax(logits, -1)[fed[place]])
        greedy = greedy and int(logits.argmax()) == fed[place]
    return nats, greedy


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# What each counts


def test_cloze_counts_last_words_whose_tokens_are_all_likeliest(
    language_model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The word after the last space, given all before it, as one token after the other finds it."""
    measured = _measured(language_model, Cloze(file="a.jsonl"), TEXTS)

    scored = [
        _brute_force(language_model, tokenizer, *_last_word(text, tokenizer)) for text in TEXTS
    ]
    nats, greedy = zip(*scored, strict=True)
    assert 0 < sum(greedy) < len(TEXTS)
    assert measured.total.tolist() == [float(right) for right in greedy]
    assert measured.weight.tolist() == [1.0] * len(TEXTS)
    np.testing.assert_allclose(measured.extra["nats"], nats, rtol=1e-5, atol=1e-5)


def _last_word(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    border = text.rindex(" ")
    # The reference cuts token ids, so the border must be one between tokens.
    whole, before = (tokenizer(part)["input_ids"] for part in (text, text[:border]))
    assert whole[: len(before)] == before
    return text[:border], text[border:]


def test_the_details_of_cloze_are_nats_and_perplexity_of_a_word() -> None:
    """The perplexity is that of lm-evaluation-harness: the mean over words, then the exponential."""
    before, after = (
        Measurement(np.zeros(2), np.ones(2), np.ones(2, dtype=np.int64), {"nats": np.array(nats)})
        for nats in ([1.0, 3.0], [2.0, 5.0])
    )

    assert Cloze(file="a.jsonl").details(before, after) == {
        "nats_per_word_before": 2.0,
        "nats_per_word_after": 3.5,
        "nats_per_word_forgetting": 1.5,
        "perplexity_before": math.exp(2.0),
        "perplexity_after": math.exp(3.5),
    }


def test_a_perplexity_that_no_number_can_hold_is_null_with_a_reason() -> None:
    """A base with huge weights has a finite loss whose exponential is not."""
    text = ProbeText(LanguageModelLoss(file="a.txt"), ("one two", "three four"))
    sizes, words = np.ones(2, dtype=np.int64), {"words": np.full(2, 2.0)}
    before, after = (
        Measurement(np.full(2, bits), np.full(2, 7.0), sizes, words) for bits in (2.0, 4000.0)
    )

    found = forgetting_of(text, before=before, after=after, scoring={})

    assert found.details["nats_per_token_after"] == pytest.approx(4000 * math.log(2))
    assert found.details["perplexity_ratio"] is None
    assert found.details["word_perplexity_after"] is None
    assert found.details["word_perplexity_before"] == pytest.approx(2.0)
    assert found.reason is not None
    assert found.reason.endswith(
        "details: perplexity_ratio, word_perplexity_after too large for a number of 64 bits"
    )


@pytest.mark.parametrize("leading_space", [True, False])
def test_minimal_pairs_counts_pairs_whose_good_sentence_is_likelier(
    language_model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, *, leading_space: bool
) -> None:
    """Whole sentences after an end token, with or without a space before them."""
    probe = MinimalPairs(file="a.jsonl", leading_space=leading_space)
    measured = _measured(language_model, probe, [MinimalPair(*pair) for pair in PAIRS])

    space = " " if leading_space else ""
    nats = [
        [_brute_force(language_model, tokenizer, "", space + text)[0] for text in pair]
        for pair in PAIRS
    ]
    expected = [float(good < bad) for good, bad in nats]
    assert 0 < sum(expected) < len(PAIRS)
    assert measured.total.tolist() == expected
    tokens = [sum(len(tokenizer(space + text)["input_ids"]) for text in pair) for pair in PAIRS]
    assert measured.tokens.tolist() == tokens


@pytest.mark.parametrize("normalization", ["none", "characters"])
def test_multiple_choice_counts_questions_whose_answer_is_the_likeliest_option(
    normalization: Any,  # noqa: ANN401 - one of the two words
    language_model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """An option follows a space unless it brings white space; characters exclude that space."""
    probe = MultipleChoice(file="a.jsonl", normalization=normalization)
    measured = _measured(language_model, probe, [Question(*row) for row in QUESTIONS])

    expected = []
    for context, options, answer in QUESTIONS:
        continuations = [o if o[0] in " \n" else " " + o for o in options]
        nats = [_brute_force(language_model, tokenizer, context, c)[0] for c in continuations]
        if normalization == "characters":
            nats = [n / len(option) for n, option in zip(nats, options, strict=True)]
        expected.append(float(nats.index(min(nats)) == answer))
    assert 0 < sum(expected) < len(QUESTIONS)
    assert measured.total.tolist() == expected
    assert measured.extra["chance"].tolist() == [1 / 3, 1 / 3, 1 / 2, 1 / 4, 1 / 2]


class Priced:
    """A language model that knows what each continuation costs, and no other.

    Args:
        nats: negative log-likelihood of a continuation, by the whole of it.
    """

    def __init__(self, nats: dict[str, float]) -> None:
        self.nats = nats

    def score_continuations(self, pairs: Sequence[tuple[str, str]]) -> ContinuationScores:
        """Look every continuation up."""
        found = np.array([self.nats[continuation] for _, continuation in pairs])
        return ContinuationScores(found, np.ones(len(pairs), np.int64), np.zeros(len(pairs), bool))

    def score_text(
        self, documents: Sequence[str], *, disjoint_windows: bool = False
    ) -> TextScores:
        """Refuse: no text is priced."""
        raise NotImplementedError

    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Refuse: there are no features."""
        raise NotImplementedError


@pytest.mark.parametrize(("normalization", "right"), [("none", 0.0), ("characters", 1.0)])
def test_characters_are_those_of_the_option_without_its_space(
    normalization: Any,  # noqa: ANN401 - one of the two words
    right: float,
) -> None:
    """2 characters at 1.0 nats against 8 at 0.9; counting the space, the first would cost less."""
    question = Question("He fell off", ("of", "the wall"), 1)
    model = Priced({" of": 2.0, " the wall": 7.2})

    measured = MultipleChoice(file="a", normalization=normalization).measure(model, [question])

    assert measured.value == right


def test_an_option_with_white_space_of_its_own_gets_no_other() -> None:
    """A line break or a space that the option brings is what stands between it and the context."""
    question = Question("They went", (" home", "\nhome", "home"), 1)
    model = Priced({" home": 2.0, "\nhome": 1.0})

    assert MultipleChoice(file="a").measure(model, [question]).value == 1.0


@pytest.mark.parametrize(("leading_space", "right"), [(True, 1.0), (False, 0.0)])
def test_a_sentence_is_read_after_a_space_or_as_it_stands(
    leading_space: bool,
    right: float,
) -> None:
    """The space is part of what is scored."""
    model = Priced({" He is.": 1.0, " He are.": 2.0, "He is.": 4.0, "He are.": 3.0})
    probe = MinimalPairs(file="a", leading_space=leading_space)

    assert probe.measure(model, [MinimalPair("He is.", "He are.")]).value == right


def _labeled(count: int) -> list[LabeledText]:
    """Make texts of two kinds that are told apart by their words, and a few that lie."""
    kinds = {"sea": "The boats on the water", "law": "The court and its judges"}
    return [
        LabeledText(f"{text} number {index}.", kind if index % 7 else "law")
        for index in range(count)
        for kind, text in kinds.items()
    ]


def test_the_linear_probe_is_a_logistic_regression_on_the_other_half(
    language_model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Mean states of transformers' own backbone, standardized by hand, fitted on the half of weight 0."""
    documents = _labeled(20)
    measured = _measured(language_model, LinearProbe(file="a.jsonl", C=0.5), documents)

    states = []
    for document in documents:
        ids = torch.tensor([tokenizer(document.text)["input_ids"]])
        with torch.inference_mode():
            states.append(language_model.transformer(ids).last_hidden_state[0].mean(0).numpy())
    features, labels = np.stack(states).astype(np.float64), np.array([d.label for d in documents])
    held = measured.weight == 1
    mean, spread = features[~held].mean(0), features[~held].std(0)
    features = (features - mean) / spread
    regression = LogisticRegression(C=0.5, max_iter=1000).fit(features[~held], labels[~held])
    right = regression.predict(features) == labels
    assert set(measured.weight.tolist()) == {0.0, 1.0}
    assert measured.value == right[held].mean()
    assert 0 < measured.value < 1
    assert measured.total.tolist() == (right & held).astype(float).tolist()
    majority = max(np.mean(labels[held] == label) for label in ("sea", "law"))
    assert measured.extra["majority"].sum() / measured.weight.sum() == pytest.approx(majority)


def test_the_linear_probe_splits_by_the_text_alone(language_model: GPT2LMHeadModel) -> None:
    """Neither order nor the other documents move a text to the other half; equal texts stay together."""
    documents = _labeled(12)
    repeated = [*documents[::-1], *documents[:5]]
    probe = LinearProbe(file="a.jsonl")

    first, second = (
        dict(zip(texts, _measured(language_model, probe, texts).weight.tolist(), strict=True))
        for texts in (documents, repeated)
    )

    assert first == second


def test_documents_of_weight_0_are_no_evidence(language_model: GPT2LMHeadModel) -> None:
    """Count, value, test, interval and power of a linear probe rest on the scored half alone."""
    documents = _labeled(30)
    probe = LinearProbe(file="a.jsonl")
    text = ProbeText(probe, tuple(documents))
    before = _measured(language_model, probe, documents)
    right = before.total.copy()
    changed = np.flatnonzero(before.total)[:3]
    right[changed] = 0.0
    after = Measurement(right, before.weight, before.tokens, before.extra)
    kept = before.weight == 1
    only = [
        Measurement(
            m.total[kept], m.weight[kept], m.tokens[kept], {"majority": m.extra["majority"][kept]}
        )
        for m in (before, after)
    ]

    result = forgetting_of(text, before=before, after=after, scoring={}, learned=True)

    alone = forgetting_of(text, before=only[0], after=only[1], scoring={}, learned=True)
    assert result == alone
    assert result.n_documents == int(kept.sum()) < len(documents)
    assert result.forgetting == pytest.approx(3 / kept.sum())
    assert result.mcnemar is not None
    assert (result.mcnemar.n10, result.mcnemar.n01) == (3, 0)


# Against chance


def _answers(right: str, chance: float) -> Measurement:
    values = np.array([float(mark) for mark in right])
    ones = np.ones(len(right))
    return Measurement(values, ones, ones.astype(np.int64), {"chance": chance * ones})


def test_losses_and_gains_are_told_apart_from_luck() -> None:
    """By hand: 10 questions of 4 options; 4 lost, 1 gained, and guessers would swap 0.4 * 0.7 / 3."""
    before, after = _answers("1111110000", 0.25), _answers("1100000001", 0.25)

    details = MultipleChoice(file="a.jsonl").details(before, after)

    assert details == pytest.approx(
        {
            "chance": 0.25,
            "headroom": (4 * 0.6 - 1) / 3,
            "forgot_true": 0.4 - 0.4 * 0.7 / 3,
            "gained_true": 0.1 - 0.4 * 0.7 / 3,
        }
    )


def test_below_chance_there_is_nothing_to_lose() -> None:
    """Head-room and true changes are never negative: a coin that lands badly forgot nothing."""
    before, after = _answers("1000", 0.5), _answers("0100", 0.5)

    assert MinimalPairs(file="a.jsonl").details(before, after) == {
        "chance": 0.5,
        "headroom": 0.0,
        "forgot_true": 0.0,
        "gained_true": 0.0,
    }


def test_a_task_of_one_label_has_no_headroom() -> None:
    """Where the majority is everything, chance is 1 and nothing is divided by zero."""
    ones = _answers("1111", 1.0)
    extra = {"majority": np.ones(4)}
    before = Measurement(ones.total, ones.weight, ones.tokens, extra)

    assert LinearProbe(file="a.jsonl").details(before, before) == {
        "chance": 1.0,
        "headroom": 0.0,
        "forgot_true": 0.0,
        "gained_true": 0.0,
    }


# Rows


GOOD_ROWS: dict[str, dict[str, Any]] = {
    "cloze": {"text": "one two"},
    "minimal-pairs": {"sentence_good": "He sleeps.", "sentence_bad": "He sleep."},
    "multiple-choice": {"context": "The sun is", "options": ["hot", "cold"], "answer": 0},
    "linear-probe": {"text": "one two", "label": "sea"},
}


@pytest.mark.parametrize(
    ("probe", "row", "message"),
    [
        (
            "cloze",
            {"text": " word "},
            "'text' is a single word; the last word is read after others",
        ),
        ("minimal-pairs", {"sentence_bad": " "}, "'sentence_bad' must be a sentence"),
        ("minimal-pairs", {"sentence_good": None}, "'sentence_good' must be a sentence"),
        (
            "minimal-pairs",
            {"sentence_bad": "He sleeps."},
            "'sentence_good' and 'sentence_bad' are the same",
        ),
        ("multiple-choice", {"context": None}, "'context' must be text; it may be empty"),
        (
            "multiple-choice",
            {"options": "hot or cold"},
            "'options' must be a list of two or more texts, none of them blank",
        ),
        (
            "multiple-choice",
            {"options": ["hot"]},
            "'options' must be a list of two or more texts, none of them blank",
        ),
        (
            "multiple-choice",
            {"options": ["hot", ""]},
            "'options' must be a list of two or more texts, none of them blank",
        ),
        (
            "multiple-choice",
            {"options": [1, 2]},
            "'options' must be a list of two or more texts, none of them blank",
        ),
        ("multiple-choice", {"options": ["a", "a"]}, "'options' has the same text twice"),
        (
            "multiple-choice",
            {"answer": 2},
            "'answer' must be one of the options, or an index from 0 to 1 (got '2')",
        ),
        (
            "multiple-choice",
            {"answer": "warm"},
            "'answer' must be one of the options, or an index from 0 to 1 (got 'warm')",
        ),
        (
            "multiple-choice",
            {"options": ["1", "2"], "answer": 1},
            "'answer' '1' is the text of one option and the index of another; a .parquet file tells numbers from text",
        ),
        ("linear-probe", {"label": None}, "'label' holds no label"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_with_its_file_and_number(
    probe: str, row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """One line: the file, the row from 1, the field."""
    good = GOOD_ROWS[probe]
    path = _write(tmp_path / "rows.jsonl", [good, {**good, **row}])

    with pytest.raises(DataError) as caught:
        load_documents(PROBES.get(probe)(file=path))
    assert str(caught.value) == f"'rows.jsonl', row 2: {message}."


# A recipe, a command line and an object


ROWS: dict[str, list[dict[str, Any]]] = {
    "cloze": [{"text": text} for text in TEXTS],
    "minimal-pairs": [{"sentence_good": good, "sentence_bad": bad} for good, bad in PAIRS],
    "multiple-choice": [
        {"context": context, "options": options, "answer": answer}
        for context, options, answer in QUESTIONS
    ],
    "linear-probe": [document._asdict() for document in _labeled(12)],
}
RECIPE = """
version: 1
name: all-probes
data: {dataset_name: "bundled:posts", max_train_examples: 16, max_validation_examples: 8, max_test_examples: 8}
model: {max_length: 32}
strategy: {name: lora}
training: {max_steps: 2, per_device_train_batch_size: 8, learning_rate: 1.0e-2}
forgetting:
  probes:
    - {type: cloze, file: cloze.jsonl}
    - {type: minimal-pairs, file: minimal-pairs.jsonl}
    - {type: multiple-choice, file: multiple-choice.jsonl, normalization: characters}
    - {type: linear-probe, file: linear-probe.jsonl, C: 0.5}
output_dir: run
"""
SPECS = {
    "cloze": "cloze:cloze.jsonl",
    "minimal-pairs": "minimal-pairs:minimal-pairs.jsonl",
    "multiple-choice": "{type: multiple-choice, file: multiple-choice.jsonl, normalization: characters}",
    "linear-probe": "{type: linear-probe, file: linear-probe.jsonl, C: 0.5}",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a recipe with the four probes has been run, into `run`."""
    folder = tmp_path_factory.mktemp("finished")
    for name, rows in ROWS.items():
        _write(folder / f"{name}.jsonl", rows)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    peftune.run(folder / "recipe.yaml", overrides=["training.use_cpu=true"], output=folder / "run")
    return folder


def _objects(folder: Path) -> dict[str, Probe]:
    return {
        "cloze": peftune.probes.Cloze(file=str(folder / "cloze.jsonl")),
        "minimal-pairs": peftune.probes.MinimalPairs(file=str(folder / "minimal-pairs.jsonl")),
        "multiple-choice": peftune.probes.MultipleChoice(
            file=str(folder / "multiple-choice.jsonl"), normalization="characters"
        ),
        "linear-probe": peftune.probes.LinearProbe(file=str(folder / "linear-probe.jsonl"), C=0.5),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_recipe_a_command_line_and_an_object_say_the_same(
    name: str,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three ways to the same figures, with the control at exactly zero on each."""
    monkeypatch.chdir(finished)

    of_the_run = peftune.read_run(finished / "run").forgetting
    code = _exit_code(["forget", "run/adapter", "--probe", SPECS[name], "--json"])
    printed = json.loads(capsys.readouterr().out)
    of_the_object = forget(finished / "run/adapter", [_objects(finished)[name]], use_cpu=True)

    assert code == 0
    told, found = of_the_run[name], of_the_object[name]
    assert told.name == name
    assert told.metric == "accuracy"
    assert told.higher_is_better
    assert told.mcnemar is not None
    assert (found.before, found.after, found.details) == (told.before, told.after, told.details)
    assert found.data_sha256 == told.data_sha256
    assert found.protocol == told.protocol
    assert printed["probes"][0]["before"] == told.before
    assert printed["probes"][0]["protocol"] == told.protocol
    assert of_the_run.controls == {"adapter_off_forgetting": 0.0}
    assert of_the_object.controls == {"adapter_off_forgetting": 0.0}
    assert printed["controls"] == {"adapter_off_forgetting": 0.0}


def test_the_resolved_recipe_of_the_four_probes_can_be_read_again(finished: Path) -> None:
    """Every field is filled in, `text_column` too, and the file is still a recipe."""
    recipe = peftune.read_recipe(finished / "run/recipe.yaml")

    assert [probe.name for probe in recipe.forgetting.probes] == list(SPECS)


@pytest.mark.parametrize(
    ("text", "probe"),
    [
        ("bundled:general-text", LanguageModelLoss(dataset_name="bundled:general-text")),
        ("some/hub-id", LanguageModelLoss(dataset_name="some/hub-id")),
        ("here.jsonl", LanguageModelLoss(file="here.jsonl")),
        ("a:b.txt", LanguageModelLoss(file="a:b.txt")),
        ("folder", LanguageModelLoss(dataset_name="folder")),
        ("kl:bundled:general-text", KLDivergence(dataset_name="bundled:general-text")),
        ("cloze:here.jsonl", Cloze(file="here.jsonl")),
        ("cloze: here.jsonl", Cloze(file="here.jsonl")),
        ("cloze:folder", Cloze(dataset_name="folder")),
        (
            "{type: cloze, file: here.jsonl, max_documents: 500, margin: 0.02}",
            Cloze(file="here.jsonl", max_documents=500, margin=0.02),
        ),
        (
            '{"type": "minimal-pairs", "dataset_name": "some/hub-id", "split": "train"}',
            MinimalPairs(dataset_name="some/hub-id", split="train"),
        ),
    ],
)
def test_a_few_words_name_a_probe(
    text: str, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text alone is for `lm-loss`; a type, a colon and a text, or a mapping, is for any probe."""
    monkeypatch.chdir(tmp_path)
    for name in ("here.jsonl", "a:b.txt"):
        Path(name).touch()
    Path("folder").mkdir()

    assert read_probe(text) == probe
    assert type(read_probe(text)) is type(probe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.txt", "There is no file 'nowhere.txt'."),
        ("cloze:nowhere.JSONL", "There is no file 'nowhere.JSONL'."),
        ("cloze:", "The probe names no text. Write TYPE:TEXT, such as cloze:lambada.jsonl."),
        (
            "cloz:here.jsonl",
            "--probe 'cloz:here.jsonl': type: Unknown probe 'cloz'. Did you mean 'cloze'? Available: cloze, kl, linear-probe, lm-loss, minimal-pairs, multiple-choice.",
        ),
        (
            "{type: cloze, fil: a}",
            "--probe:1:15: fil: unknown key. Did you mean 'file'? Available: articles, dataset_config_name, dataset_name, file, margin, max_characters, max_documents, name, split, text_column.",
        ),
        (
            "{type: cloze, file: a.jsonl, max_documents: few}",
            "--probe:1:30: max_documents: must be an integer (got 'few').",
        ),
        (
            "{file: a.jsonl}",
            "--probe: type: must name a probe. Available: cloze, kl, linear-probe, lm-loss, minimal-pairs, multiple-choice.",
        ),
        (
            "{type: cloze, file: a.jsonl, name: no}",
            "--probe:1:36: name: YAML readers disagree on no: some read text, some false; write 'no' in quotes, or false.",
        ),
        (
            "{type: minimal-pairs, file: a.jsonl, text_column: prose}",
            "--probe: 'text_column' does not apply: each row needs 'sentence_good' and 'sentence_bad'.",
        ),
        (
            "{type: multiple-choice, file: a.jsonl, text_column: prose}",
            "--probe: 'text_column' does not apply: each row needs 'context', 'options' and 'answer'.",
        ),
        (
            "{type: cloze, file: a.jsonl, max_characters: 100}",
            "--probe: 'max_characters' does not apply: each row is read whole.",
        ),
        (
            "{type: linear-probe, file: a.jsonl, articles: true}",
            "--probe: 'articles' does not apply: each row is read whole.",
        ),
        (
            "{type: linear-probe, file: a.jsonl, label_column: text}",
            "--probe: 'text_column' and 'label_column' name the same column.",
        ),
    ],
)
def test_words_that_name_no_probe_are_refused_in_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read, what is allowed, and the nearest name."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError) as caught:
        read_probe(text)
    assert str(caught.value) == message


# Where rows come from


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "folder"])
def test_options_are_a_list_or_its_json(kind: str, tmp_path: Path) -> None:
    """Files of JSON arrive as text, data sets as lists: both are the same questions."""
    rows: list[dict[str, Any]] = [
        {"context": "It is", "options": ["hot", "cold"], "answer": "cold"},
        {"context": "", "options": ["1", "2", "3"], "answer": "3"},
    ]
    path = tmp_path / f"rows.{kind}"
    data = datasets.Dataset.from_list(rows)
    if kind == "folder":
        datasets.DatasetDict({"test": data}).save_to_disk(str(path))
    elif kind == "parquet":
        data.to_parquet(str(path))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        _write(path, rows)
    where = {"dataset_name": str(path)} if kind == "folder" else {"file": str(path)}

    documents = load_documents(MultipleChoice.model_validate(where))

    assert documents == (
        Question("It is", ("hot", "cold"), 1),
        Question("", ("1", "2", "3"), 2),
    )


@pytest.mark.parametrize(
    ("answer", "index"), [(1, 1), ("cold", 1), ("0", 0)], ids=["index", "text", "digits"]
)
def test_the_answer_is_an_index_or_the_text_of_an_option(answer: object, index: int) -> None:
    """Indices count from 0, as numbers or as their digits."""
    row = {"context": "It is", "options": ["hot", "cold"], "answer": answer}

    assert MultipleChoice(file="a.jsonl").document(row).answer == index


def test_an_index_among_numbers_is_an_index_where_types_are_kept() -> None:
    """In a data set the number 1 is an index and the text '1' an option, whatever the options are."""
    row = {"context": "", "options": ["1", "2"], "answer": 1}

    assert MultipleChoice(file="a.jsonl").document(row).answer == 1


def test_cloze_reads_text_files_and_leaves_white_space_at_the_end(tmp_path: Path) -> None:
    """The last word is the last one that is written, and a blank document is none."""
    (tmp_path / "a.txt").write_text("one two three  \n\n \n\nfour five")

    assert load_documents(Cloze(file=str(tmp_path / "a.txt"))) == ("one two three", "four five")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("minimal-pairs", "'sentence_good' and 'sentence_bad'"),
        ("multiple-choice", "'context', 'options' and 'answer'"),
        ("linear-probe", "'text' and 'label'"),
    ],
)
def test_plain_text_and_rows_without_the_fields_are_refused(
    name: str, fields: str, tmp_path: Path
) -> None:
    """What a row needs is told by name."""
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    rows = _write(tmp_path / "a.jsonl", [{"prose": "one"}])
    first = fields.split("'")[1]

    messages = []
    for path in (str(tmp_path / "a.txt"), rows):
        with pytest.raises(DataError) as caught:
            load_documents(PROBES.get(name)(file=path))
        messages.append(str(caught.value))
    assert messages == [
        f"'a.txt' is plain text, but rows with {fields} are needed. Give a .jsonl file.",
        f"'a.jsonl' has no column '{first}'. Available: prose. Each row needs {fields}.",
    ]


def test_the_linear_probe_reads_the_columns_it_is_told(tmp_path: Path) -> None:
    """A number is a label too, and a blank text is left out with its row."""
    rows: list[dict[str, Any]] = [
        {"tweet": "one", "mood": 1},
        {"tweet": " ", "mood": None},
        {"tweet": "two", "mood": 0},
    ]
    path = _write(tmp_path / "rows.jsonl", rows)

    documents = load_documents(LinearProbe(file=path, text_column="tweet", label_column="mood"))

    assert documents == (LabeledText("one", "1"), LabeledText("two", "0"))


def test_a_linear_probe_without_two_labels_is_refused(language_model: GPT2LMHeadModel) -> None:
    """One label can be told from nothing."""
    documents = [LabeledText(f"text {index}", "sea") for index in range(20)]

    with pytest.raises(DataError) as caught:
        _measured(language_model, LinearProbe(file="sea.jsonl"), documents)
    assert str(caught.value) == (
        "The probe 'sea' cannot be measured: it takes texts of two labels or more in the half "
        "that is fitted, and one in the other; give more documents."
    )


def test_a_continuation_longer_than_the_window_is_refused(language_model: GPT2LMHeadModel) -> None:
    """A sentence that does not fit is an error, not a part of a sentence."""
    documents = [MinimalPair(LONG, LONG + "no")]

    with pytest.raises(DataError) as caught:
        _measured(language_model, MinimalPairs(file="long.jsonl"), documents)
    assert str(caught.value).startswith("The probe 'long' cannot be measured: a continuation of ")
