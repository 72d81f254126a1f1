"""The baselines: by hand on tiny cases, against scikit-learn and transformers on a real base."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from bases import write_base
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase
from tuned import prepared

from peftune.baselines.baseline import Baseline, scored_baseline
from peftune.baselines.measure import (
    Prompting,
    baselines_identity,
    kept_baselines,
    measure_baselines,
    measure_prompted,
    read_baselines,
    write_baselines,
)
from peftune.baselines.prompting import (
    CONTENT_FREE,
    Answers,
    NoRoom,
    Questions,
    ask,
    calibrated,
    draw_examples,
    few_shot,
    fit_prompts,
    log_prior,
    token_count,
    write_prompt,
)
from peftune.baselines.simple import (
    baseline_scores,
    linear_probe_predictions,
    majority_predictions,
)
from peftune.data.rows import Rows
from peftune.data.task_data import Task, load_task
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.architecture import head_of
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.probes import ContinuationScores, TextScores
from peftune.recipe import Recipe, resolve, with_strategy
from peftune.recipe.schema import DataSection, ModelSection
from peftune.strategies import HeadOnly, LoRA
from peftune.tasks import methods_of

NAMES = ("bad", "good")
SMALL = Prompting(shots=(0, 2), seeds=(0, 1), most_rows=6)


def rows(texts: Sequence[str], labels: Sequence[int], name: str = "") -> Rows:
    """Make rows whose ids are numbered."""
    return Rows(tuple(f"{name}{i}" for i in range(len(texts))), tuple(texts), tuple(labels))


TRAIN = rows([f"train {i}" for i in range(12)], [0, 1, 1] * 4, "train-")
JUDGED = rows(["sun", "rain", "sun again", "more rain"], [1, 0, 1, 0], "judged-")


class Planted:
    """A language model of a known bias: it finds ` good` likelier after whatever prompt.

    Args:
        bias: nats by which ` good` is likelier.
        evidence: nats that the last text adds to the label that it speaks for.
    """

    def __init__(self, bias: float, evidence: float) -> None:
        self.bias = bias
        self.evidence = evidence
        self.asked: list[str] = []

    def score_continuations(self, pairs: Sequence[tuple[str, str]]) -> ContinuationScores:
        """Score by the bias and by the word in the last text."""
        self.asked += [prompt for prompt, _ in pairs]
        nats = np.array([self._nats(*pair) for pair in pairs])
        count = len(pairs)
        return ContinuationScores(
            nats, np.ones(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
        )

    def _nats(self, prompt: str, label: str) -> float:
        question = prompt.rpartition("Text: ")[2]
        if label == " good":
            return 5.0 - self.bias - self.evidence * ("sun" in question)
        return 5.0 - self.evidence * ("rain" in question)

    def score_text(
        self, documents: Sequence[str], *, disjoint_windows: bool = False
    ) -> TextScores:
        """Nothing asks for it."""
        raise NotImplementedError

    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Nothing asks for it."""
        raise NotImplementedError


class Erratic(Planted):
    """A language model whose answer to one prompt says nothing of its answer to another."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0)

    def _nats(self, prompt: str, label: str) -> float:
        return hashlib.sha256(f"{prompt}{label}".encode()).digest()[0] / 256


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Load its tokenizer."""
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def case(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Task]:
    """Give a recipe for a base of 128 positions, and its rows: 16 to learn, 10 judged."""
    folder = tmp_path_factory.mktemp("rows")
    for split, count in (("train", 16), ("validation", 4), ("test", 10)):
        lines = [
            json.dumps(
                {"text": f"{'warm' if i % 2 else 'cold'} {split} {i}", "label": NAMES[i % 2]}
            )
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = resolve(
        Recipe(
            version=1,
            name="warm",
            output_dir="runs/warm",
            model=ModelSection(name_or_path=str(tiny_base), max_length=16),
            data=DataSection(
                train_file=str(folder / "train.jsonl"),
                validation_file=str(folder / "validation.jsonl"),
                test_file=str(folder / "test.jsonl"),
            ),
            strategy=LoRA(),
        )
    )
    return recipe, load_task(recipe.data)


@pytest.fixture(scope="module")
def measured(case: tuple[Recipe, Task]) -> list[Baseline]:
    """Measure its baselines."""
    recipe, task = case
    return measure_baselines(recipe, task, SMALL)


def questions(shots: int, *, window: int = 1000, max_length: int = 100) -> Questions:
    """Ask about the judged rows."""
    return Questions(TRAIN, JUDGED, NAMES, shots, window, max_length)


# Without a model


def test_the_baselines_are_the_majority_of_train_and_words() -> None:
    """The majority class comes from train, not from the judged rows; words tell sun from rain."""
    train = rows(["sun sun", "sun out", "rain rain", "rain", "rain falls"], [1, 1, 0, 0, 0])
    judged = rows(["sun", "sun again", "more sun", "rain"], [1, 1, 1, 0])

    scores = baseline_scores(Task(NAMES, train, judged, None, {}), judged)

    # Majority says 0 four times: accuracy 1/4; F1 of 0 is 2/5, of 1 it is 0.
    assert scores["majority"] == pytest.approx({"accuracy": 0.25, "macro_f1": 0.2})
    assert scores["tfidf_logistic_regression"] == {"accuracy": 1.0, "macro_f1": 1.0}


def test_a_baseline_is_compared_with_the_model_row_by_row() -> None:
    """Majority says 0 for all and is right on the last; the model is right on the first two.

    Macro F1 of the model is (2/3 + 4/5) / 2, of the majority 0.2; four answers differ in three rows,
    and of the 2^3 swaps only the one that was seen gains as much.
    """
    train = rows(["sun sun", "sun out", "rain rain", "rain", "rain falls"], [1, 1, 0, 0, 0])
    judged = rows(["sun", "sun again", "more sun", "rain"], [1, 1, 1, 0])
    task = Task(NAMES, train, judged, None, {})

    scores = baseline_scores(task, judged, logits=np.eye(2)[[1, 1, 1, 0]], seed=3)
    worse = baseline_scores(task, judged, logits=np.eye(2)[[1, 1, 0, 1]], seed=3)

    assert scores["majority"]["right_alone"] == 0
    assert scores["majority"]["wrong_alone"] == 3
    assert scores["majority"]["macro_f1_p_value"] == pytest.approx(1 / 8, abs=0.025)
    assert worse["tfidf_logistic_regression"]["right_alone"] == 2
    assert worse["tfidf_logistic_regression"]["wrong_alone"] == 0
    assert worse["tfidf_logistic_regression"]["macro_f1_p_value"] == 1.0
    assert worse["majority"]["right_alone"] == 1
    assert worse["majority"]["wrong_alone"] == 2


def test_the_baselines_macro_f1_is_averaged_over_the_same_labels_as_the_models() -> None:
    """A label without judged rows counts as 0 for baseline and model alike."""
    train = rows(["sun", "rain", "snow"] * 2, [0, 1, 2] * 2)
    judged = rows(["sun", "sun", "rain"], [0, 0, 1])
    logits = np.eye(3)[[0, 0, 1]]

    scores = baseline_scores(Task(NAMES, train, judged, None, {}), judged)[
        "tfidf_logistic_regression"
    ]
    model = methods_of("single-label").score(
        logits, judged.labels, names=("a", "b", "c"), split="test"
    )

    assert scores["accuracy"] == model.accuracy == 1.0
    assert scores["macro_f1"] == model.macro_f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["!", "日", "a"])
def test_texts_without_words_do_not_stop_the_baseline(text: str) -> None:
    """Texts of one character still make a vocabulary."""
    both = rows([text, text], [0, 1])

    assert (
        baseline_scores(Task(NAMES, both, both, None, {}), both)["tfidf_logistic_regression"][
            "accuracy"
        ]
        == 0.5
    )


@pytest.mark.parametrize("labels", [[1, 2, 2, 1], [2, 1, 1, 2]])
def test_of_equally_frequent_labels_the_majority_is_the_first_id(labels: list[int]) -> None:
    """The order of the rows decides nothing."""
    assert majority_predictions(rows(["a", "b", "c", "d"], labels), JUDGED) == [1, 1, 1, 1]


# The score of a baseline


def test_a_baseline_has_the_interval_that_a_strategy_with_its_predictions_has() -> None:
    """Equal predictions have equal figures and intervals."""
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 3, 997), generator.integers(0, 3, 997)
    model = methods_of("single-label").score(
        np.eye(3)[predicted], truth.tolist(), names=("a", "b", "c"), split="test"
    )

    found = scored_baseline(
        "x",
        title="X",
        evaluation=rows([""] * 997, truth.tolist()),
        predicted=[predicted.tolist()],
        labels=3,
        seconds=0.0,
    )

    assert (found.accuracy, found.macro_f1) == pytest.approx((model.accuracy, model.macro_f1))
    assert found.ci95 == pytest.approx(model.ci95["accuracy"])


def test_choices_of_examples_are_averaged_row_by_row() -> None:
    """Two choices that are right on opposite halves are half right on every row.

    No spread is left, so the interval is Wilson's of 4 of 8 independent answers.
    """
    found = scored_baseline(
        "x",
        title="X",
        evaluation=JUDGED,
        predicted=[[1, 1, 1, 1], [0, 0, 0, 0]],
        labels=2,
        seconds=0.0,
    )

    # F1 of the label that is always said is 2/3, of the other 0.
    assert (found.accuracy, found.macro_f1) == pytest.approx((0.5, 1 / 3))
    wilson = stats.binomtest(4, 8).proportion_ci(0.95, method="wilson")
    assert found.ci95 == pytest.approx((wilson.low, wilson.high), abs=1e-5)
    assert found.predicted == ((1, 1, 1, 1), (0, 0, 0, 0))
    assert found.rows == JUDGED.ids


def test_one_row_has_figures_and_no_interval() -> None:
    """The reason stands where the interval would."""
    found = scored_baseline(
        "x", title="X", evaluation=JUDGED.take([0]), predicted=[[1]], labels=2, seconds=0.0
    )

    assert (found.accuracy, found.ci95) == (1.0, None)
    assert found.reason == "ci95: one row has no spread"


# Calibration


def test_calibration_divides_by_what_content_free_texts_give() -> None:
    """By hand: p_cf is the mean of (4/5, 1/5) and (7/10, 3/10), so (3/4, 1/4).

    Then (3/5, 2/5) becomes (4/5, 8/5), that is (1/3, 2/3); and p_cf itself becomes even.
    """
    # Likelihoods of the names need not sum to one: each text's are made to, first.
    content_free = np.log([[0.08, 0.02], [0.7, 0.3]])
    likelihood = np.log([[0.6, 0.4], [0.003, 0.001]])

    found = calibrated(likelihood, content_free)

    np.testing.assert_allclose(np.exp(log_prior(content_free)), [0.75, 0.25])
    np.testing.assert_allclose(found, [[1 / 3, 2 / 3], [0.5, 0.5]])


def test_calibration_survives_a_label_that_a_prompt_all_but_excludes() -> None:
    """A label 2,000 nats behind has probability 0 in float64, and still divides by no zero."""
    found = calibrated(np.array([[0.0, -2000.0]]), np.array([[0.0, -2001.0]]))

    np.testing.assert_allclose(found, [[1 / (1 + np.e), np.e / (1 + np.e)]])


def test_calibration_corrects_a_model_that_prefers_one_label(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """It says `good` of everything; what the text adds decides once the preference is divided out."""
    model = Planted(bias=3.0, evidence=1.0)

    found = few_shot(model, tokenizer, questions(0), seeds=(0,))

    # `good` is likelier by 4 nats where the text says so, right, and by 2 where it does not, wrong.
    sure, surer = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-4))
    assert found.details["uncalibrated"] == pytest.approx(
        {
            "accuracy": 0.5,
            "macro_f1": 1 / 3,
            "log_loss": (-np.log(1 - sure) - np.log(surer)) / 2,
            "ece": (sure + 1 - surer) / 2,
        }
    )
    assert (found.accuracy, found.macro_f1) == (1.0, 1.0)
    assert found.predicted == ((1, 0, 1, 0),)
    # exp(3) to 1 for `good`, after every content-free text.
    assert found.details["choices"][0]["prior"]["0"] == pytest.approx(
        [1 / (1 + np.exp(3)), np.exp(3) / (1 + np.exp(3))]
    )


# Examples and prompts


def test_the_prompt_is_written_as_documented() -> None:
    """Examples, the first drawn nearest to the question; the label's name follows after a space."""
    found = write_prompt([("so so", "bad"), ("{text} is kept", "good")], "what now")

    assert found == (
        "Text: {text} is kept\nLabel: good\n\nText: so so\nLabel: bad\n\nText: what now\nLabel:"
    )


def test_examples_are_balanced_over_labels_as_far_as_they_go() -> None:
    """Three labels of 6, 2 and 9 rows: rounds of one each, then what is left."""
    train = rows([""] * 17, [0] * 6 + [1] * 2 + [2] * 9)

    counts = [
        Counter(train.labels[row] for row in draw_examples(train, shots, seed=3))
        for shots in (3, 6, 10, 17, 99)
    ]

    assert counts[:3] == [{0: 1, 1: 1, 2: 1}, {0: 2, 1: 2, 2: 2}, {0: 4, 1: 2, 2: 4}]
    assert counts[3] == counts[4] == {0: 6, 1: 2, 2: 9}


def test_fewer_examples_are_the_first_of_many() -> None:
    """A prompt with room for 5 of 16 examples asks what one of 5 would."""
    many = draw_examples(TRAIN, 12, seed=0)

    assert sorted(many) == list(range(12))
    assert [draw_examples(TRAIN, shots, seed=0) for shots in range(13)] == [
        many[:shots] for shots in range(13)
    ]


def test_the_seed_decides_the_examples_and_their_order() -> None:
    """Equal seeds draw the same; ten seeds draw ten choices, not always the same label first."""
    drawn = [tuple(draw_examples(TRAIN, 4, seed=seed)) for seed in range(10)]

    assert drawn == [tuple(draw_examples(TRAIN, 4, seed=seed)) for seed in range(10)]
    assert len(set(drawn)) == 10
    assert {TRAIN.labels[choice[0]] for choice in drawn} == {0, 1}


def test_examples_come_from_train_and_only_the_question_from_the_judged_rows(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Every prompt holds four train rows with their own labels, and ends with what is asked."""
    model = Planted(bias=0.0, evidence=1.0)

    found = few_shot(model, tokenizer, questions(4), seeds=(0, 1))

    labeled = {
        f"{text}\nLabel: {NAMES[label]}"
        for text, label in zip(TRAIN.texts, TRAIN.labels, strict=True)
    }
    assert len(model.asked) == 2 * 2 * (len(JUDGED) + len(CONTENT_FREE))
    for prompt in model.asked:
        *examples, question = prompt.removeprefix("Text: ").split("\n\nText: ")
        assert len(examples) == 4
        assert set(examples) <= labeled
        assert question.removesuffix("\nLabel:") in {*JUDGED.texts, *CONTENT_FREE}
    for choice in found.details["choices"]:
        assert set(choice["examples"]) <= set(TRAIN.ids)
        assert choice["examples_fitted"] == {"fewest": 4, "mean": 4.0, "most": 4}
    assert found.details["n"] == 4


def test_the_figures_are_means_over_the_choices_and_show_each(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """With a base that answers at random the choices differ; the mean is theirs."""
    judged = rows([f"words {i}" for i in range(30)], [0, 1, 1] * 10)
    asked = dataclasses.replace(questions(3), evaluation=judged)

    found = few_shot(Erratic(), tokenizer, asked, seeds=(0, 1, 2))

    choices = found.details["choices"]
    assert [choice["seed"] for choice in choices] == [0, 1, 2]
    assert len({choice["accuracy"] for choice in choices}) > 1
    for name in ("accuracy", "macro_f1"):
        mean = sum(choice[name] for choice in choices) / 3
        before = sum(choice["uncalibrated"][name] for choice in choices) / 3
        assert getattr(found, name) == pytest.approx(mean)
        assert found.details["uncalibrated"][name] == pytest.approx(before)
        assert mean != before


# GradientBuffer


def test_examples_without_room_are_left_out_whole_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """A prompt with one example more would be too long; with one token more room it is not."""
    examples = [(f"known {i}", NAMES[i % 2]) for i in range(5)]
    texts = ["a", "a longer one", "x" * 60]
    room = token_count(tokenizer, write_prompt(examples[:3], "a longer one"))

    found = fit_prompts(tokenizer, examples, texts, room=room)
    tighter = fit_prompts(tokenizer, examples, texts, room=room - 1)

    # Bytes: an example takes 28 or 29, so the 11 that the first text is shorter give no fourth.
    assert [prompt.shots for prompt in found] == [3, 3, 1]
    assert [prompt.shots for prompt in tighter] == [3, 2, 1]
    for prompt, text in zip(found, texts, strict=True):
        assert prompt.text == write_prompt(examples[: prompt.shots], text)
        assert token_count(tokenizer, prompt.text) <= room
        assert not prompt.cut


def test_what_fits_is_reported_and_nothing_that_is_asked_exceeds_the_window(
    base: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Prompt and name without its last token are fed; four examples were drawn, one fits."""
    asked: list[int] = []
    model = Planted(bias=0.0, evidence=1.0)
    # The question `sun` takes 16 + 3 bytes, an example of `train 0` with its label 28 or 29.
    long = dataclasses.replace(questions(4, window=64), labels=NAMES)

    found = few_shot(model, tokenizer, long, seeds=(0,))
    for prompt, name in itertools.product(model.asked, NAMES):
        asked.append(token_count(tokenizer, f"{prompt} {name}") - 1)

    [choice] = found.details["choices"]
    assert max(asked) <= 64
    assert choice["examples_fitted"] == {"fewest": 1, "mean": 1.0, "most": 1}
    assert len(choice["examples"]) == 4
    assert choice["texts_cut"] == 0
    assert GPT2LMHeadModel.from_pretrained(base).config.n_positions == 64


@pytest.mark.parametrize("window", range(38, 70))
def test_no_prompt_is_ever_cut_by_the_window(
    window: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Also where `[MASK]`, which calibrates, is longer than every text that is asked about."""
    model = Planted(bias=0.0, evidence=1.0)
    asked = dataclasses.replace(questions(2, window=window), evaluation=rows(["a", "b"], [0, 1]))

    ask(model, tokenizer, asked, seed=0)

    fed = [token_count(tokenizer, f"{prompt} good") - 1 for prompt in model.asked]
    assert all(tokens <= window for tokens in fed)


def test_without_room_for_an_example_there_is_no_figure_but_a_reason(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """A prompt of no examples is another baseline, so it does not stand in for this one."""
    found = few_shot(Planted(0.0, 1.0), tokenizer, questions(4, window=40), seeds=(0, 1))

    reason = "no example fits beside a text into the base's 40 positions"
    assert found.reason == reason
    assert (found.predicted, found.accuracy, found.macro_f1, found.ci95) == (None,) * 4
    assert found.details["uncalibrated"] is None
    assert found.details["choices"] == [
        {"seed": 0, "reason": reason},
        {"seed": 1, "reason": reason},
    ]


def test_without_room_for_the_template_nothing_is_asked(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """The template takes 12 bytes, `[MASK]` 6 and ` good` 5, of which the last is not fed."""
    model = Planted(0.0, 1.0)

    found = [ask(model, tokenizer, questions(0, window=window), seed=0) for window in (22, 23)]

    assert found[0] == NoRoom(
        0, "the template and a label do not fit into the base's 22 positions"
    )
    assert isinstance(found[1], Answers)


def test_a_text_that_has_no_room_even_alone_loses_its_end_and_is_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """The room is filled; a character of several bytes that would be cut apart goes as a whole."""
    found = fit_prompts(tokenizer, [], ["y" * 30, "y" * 6 + "é" * 9, "short"], room=20)

    assert [prompt.text for prompt in found] == [
        "Text: yyyyyyy\nLabel:",
        "Text: yyyyyy\nLabel:",
        "Text: short\nLabel:",
    ]
    assert [prompt.cut for prompt in found] == [True, True, False]


def test_texts_are_read_as_far_as_in_training(tokenizer: PreTrainedTokenizerBase) -> None:
    """Of questions and examples alike `max_length` tokens are kept."""
    model = Planted(0.0, 1.0)

    few_shot(model, tokenizer, questions(1, max_length=4), seeds=(0,))

    assert {prompt.count("Text: trai\nLabel: ") for prompt in model.asked} == {1}
    assert {prompt.rpartition("Text: ")[2] for prompt in model.asked} == {
        *(f"{text}\nLabel:" for text in CONTENT_FREE),
        *("sun\nLabel:", "rain\nLabel:", "sun \nLabel:", "more\nLabel:"),
    }


# The real language model


def test_a_labels_score_is_the_likelihood_of_its_whole_name(
    base: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Transformers' own model, one prompt at a time, over every token of the name."""
    reference = GPT2LMHeadModel.from_pretrained(base)
    reference.eval()
    scorer = LanguageModelScorer(reference.transformer, tokenizer, share_prefix=True)
    asked = Questions(TRAIN, JUDGED, NAMES, 1, 64, 100)

    found = ask(scorer, tokenizer, asked, seed=0)

    assert isinstance(found, Answers)
    assert {prompt.shots for prompt in found.prompts} == {1}
    for prompt, scores in zip(found.prompts, found.log_likelihood, strict=True):
        for name, score in zip(NAMES, scores, strict=True):
            context, ids = encode_texts(tokenizer, [prompt.text, f" {name}"], max_length=None)
            with torch.inference_mode():
                logits = reference(torch.tensor([[*context, *ids]])).logits[0, -len(ids) - 1 : -1]
            expected = logits.double().log_softmax(-1)[range(len(ids)), ids].sum()
            assert score == pytest.approx(float(expected), rel=1e-4)


def test_the_linear_probe_is_a_logistic_regression_on_what_the_head_reads(
    tiny_base: Path,
) -> None:
    """The last token's state after the last layer norm, fitted by scikit-learn on train alone."""
    model = prepared(tiny_base, HeadOnly())
    head = head_of(model).get_parameter("weight").detach().clone()
    generator = np.random.default_rng(0)
    texts = [f"{i} {'dry' if i % 3 else 'wet'} {generator.integers(99)}" for i in range(80)]
    labels = generator.permutation([0, 1] * 40).tolist()
    train, judged = rows(texts[:40], labels[:40]), rows(texts[40:], labels[40:])

    found = linear_probe_predictions(model, train, judged)

    reference = GPT2LMHeadModel.from_pretrained(tiny_base).transformer.eval()
    encoded = encode_texts(load_tokenizer(tiny_base), texts, max_length=32)
    with torch.inference_mode():
        states = torch.stack(
            [reference(torch.tensor([ids])).last_hidden_state[0, -1] for ids in encoded]
        )
    scaled = states.double().numpy() / np.sqrt((states[:40].double().numpy() ** 2).mean(0))
    fitted = LogisticRegression(fit_intercept=False, max_iter=10_000).fit(scaled[:40], labels[:40])
    assert found == fitted.predict(scaled[40:]).tolist()
    assert 0 < sum(found) < 40
    assert torch.equal(head_of(model).get_parameter("weight"), head)


@pytest.mark.parametrize("chosen", [slice(0, 3), slice(3, 10)])
def test_no_baseline_learns_from_the_rows_that_it_is_judged_on(
    case: tuple[Recipe, Task], chosen: slice
) -> None:
    """Other labels of the judged rows, and fewer of these rows, change no prediction for a row."""
    recipe, task = case
    assert task.test is not None
    kept = task.test.take(range(10)[chosen])
    other = dataclasses.replace(kept, labels=tuple(1 - label for label in kept.labels))
    everything = Prompting(shots=(2,), seeds=(0,), most_rows=10)

    whole = measure_baselines(recipe, task, everything)
    part = measure_baselines(recipe, dataclasses.replace(task, test=other), everything)

    for before, after in zip(whole, part, strict=True):
        assert before.predicted is not None
        assert after.predicted == (before.predicted[0][chosen],), before.name


# All baselines of a comparison


def test_every_baseline_is_measured_on_the_evaluation_rows(
    case: tuple[Recipe, Task], measured: list[Baseline]
) -> None:
    """Five baselines; words find out that warm is good; prompts are asked about a sample, even in labels."""
    task = case[1]
    assert task.test is not None

    found = {baseline.name: baseline for baseline in measured}

    assert {name: baseline.title for name, baseline in found.items()} == {
        "majority": "majority class",
        "tfidf_logistic_regression": "TF-IDF, logistic regression",
        "linear_probe": "linear probe of the frozen base",
        "few_shot_0": "base prompted, no examples",
        "few_shot_2": "base prompted, 2 examples",
    }
    assert found["majority"].accuracy == 0.5
    assert found["tfidf_logistic_regression"].accuracy == 1.0
    assert found["linear_probe"].rows == task.test.ids
    sample = found["few_shot_2"]
    label_of = dict(zip(task.test.ids, task.test.labels, strict=True))
    assert Counter(label_of[row] for row in sample.rows) == {0: 3, 1: 3}
    assert sample.details["n"] == 6
    assert found["few_shot_0"].rows == sample.rows
    assert [len(baseline.predicted or ()) for baseline in found.values()] == [1, 1, 1, 1, 2]
    assert all(baseline.reason is None for baseline in found.values())
    assert all(baseline.seconds > 0 for baseline in found.values())


def test_the_prompted_base_alone_answers_as_in_a_comparison(
    case: tuple[Recipe, Task], measured: list[Baseline]
) -> None:
    """What one asks for alone is what a comparison shows, the time apart."""
    recipe, task = case

    alone = measure_prompted(recipe, task, SMALL)

    assert [dataclasses.replace(baseline, seconds=0.0) for baseline in alone] == [
        dataclasses.replace(baseline, seconds=0.0) for baseline in measured[3:]
    ]


def test_a_label_without_train_rows_costs_the_linear_probe_alone(
    case: tuple[Recipe, Task],
) -> None:
    """A head cannot be fitted to it; the other baselines have figures."""
    recipe, task = case
    wider = dataclasses.replace(task, labels=(*task.labels, "unheard"))

    found = measure_baselines(recipe, wider, Prompting(shots=(0,)))

    assert [baseline.name for baseline in found if baseline.accuracy is None] == ["linear_probe"]
    assert found[2].reason == (
        "The head cannot be refitted: no row has the label 'unheard'. Every label needs rows to fit on."
    )


def test_a_baseline_comes_back_from_json_as_it_was(measured: list[Baseline]) -> None:
    """Every field, also of one without figures."""
    found = [
        *measured,
        Baseline("x", "X", rows=("a",), seconds=0.5, details={"why": [1]}, reason="no room"),
    ]

    assert [
        Baseline.from_json(json.loads(json.dumps(baseline.as_json()))) for baseline in found
    ] == found


def test_a_kept_set_of_baselines_is_measured_once(
    case: tuple[Recipe, Task], tmp_path: Path
) -> None:
    """The second time it is read, with the times of the first; another strategy changes nothing."""
    recipe, task = case
    file = tmp_path / "comparison" / "baselines.json"
    short = Prompting(shots=(0,), most_rows=4)

    first = kept_baselines(recipe, task, file, short)
    second = kept_baselines(with_strategy(recipe, "head-only"), task, file, short)

    assert second == first == read_baselines(file)
    assert [path.name for path in file.parent.iterdir()] == ["baselines.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "null", '{"baselines": [{"name": "x"}]}']
)
def test_a_file_that_holds_no_baselines_is_read_as_none(tmp_path: Path, content: str) -> None:
    """A torn or foreign file counts as absent, and so does a missing one."""
    file = tmp_path / "baselines.json"
    missing = read_baselines(file)
    file.write_text(content, encoding="utf-8")

    assert missing is None
    assert read_baselines(file) is None


def test_figures_of_a_set_of_baselines_that_were_changed_are_not_believed(
    measured: list[Baseline], tmp_path: Path
) -> None:
    """They carry a checksum: one other digit, and they are measured again."""
    file = tmp_path / "baselines.json"
    write_baselines(measured, file, "identity")
    assert read_baselines(file) == measured

    content = json.loads(file.read_text(encoding="utf-8"))
    content["baselines"][0]["accuracy"] += 0.01
    file.write_text(json.dumps(content), encoding="utf-8")

    assert read_baselines(file) is None
    assert read_baselines(file, "identity") is None


def test_a_kept_set_of_baselines_of_another_comparison_is_replaced(
    case: tuple[Recipe, Task], measured: list[Baseline], tmp_path: Path
) -> None:
    """It is told by its identity."""
    recipe, task = case
    file = tmp_path / "baselines.json"
    write_baselines(measured, file, baselines_identity(recipe, task, SMALL))
    short = Prompting(shots=(0,), most_rows=4)

    found = kept_baselines(recipe, task, file, short)

    assert len(found) == 4
    assert read_baselines(file, baselines_identity(recipe, task, short)) == found
    assert read_baselines(file, baselines_identity(recipe, task, SMALL)) is None


def _other_model(recipe: Recipe, folder: Path) -> Recipe:
    model = recipe.model.model_copy(update={"name_or_path": str(write_base(folder, seed=1))})
    return recipe.model_copy(update={"model": model})


def _longer(recipe: Recipe, folder: Path) -> Recipe:  # noqa: ARG001 - as the others
    model = recipe.model.model_copy(update={"max_length": 17})
    return recipe.model_copy(update={"model": model})


def _other_rows(recipe: Recipe, folder: Path) -> Recipe:  # noqa: ARG001 - as the others
    data = recipe.data.model_copy(update={"max_train_examples": 15})
    return recipe.model_copy(update={"data": data})


@pytest.mark.parametrize("change", [_other_model, _longer, _other_rows])
def test_a_set_of_baselines_of_other_rows_or_another_base_is_another(
    case: tuple[Recipe, Task], tmp_path: Path, change: Callable[[Recipe, Path], Recipe]
) -> None:
    """Its identity changes with whatever it depends on."""
    recipe, task = case
    other = change(recipe, tmp_path / "base")

    assert baselines_identity(other, load_task(other.data)) != baselines_identity(recipe, task)


@pytest.mark.parametrize(
    "change", [{"shots": (0, 3)}, {"seeds": (1, 0)}, {"most_rows": 5}], ids=str
)
def test_a_set_of_baselines_of_other_prompts_is_another(
    case: tuple[Recipe, Task], change: dict[str, tuple[int, ...] | int]
) -> None:
    """Its identity changes with how the base is prompted."""
    recipe, task = case
    other = dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]

    assert baselines_identity(recipe, task, other) != baselines_identity(recipe, task, SMALL)
