"""Cleaning does what the recipe asks for, counts it, and leaves the files as they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import GENERAL, Splits, sound_splits, write_recipe, write_splits
from typer.testing import CliRunner

import peftune
from peftune.adapters.artifact import open_artifact
from peftune.adapters.verification import _read_rows
from peftune.cli.main import app
from peftune.data.cleaning import (
    CleaningCount,
    clean,
    clean_tables,
    cleaned_text,
    with_normal_unicode,
    without_html,
)
from peftune.data.rows import Strings
from peftune.data.split_tables import read_split_tables
from peftune.data.task_data import Task, load_task
from peftune.errors import UsageError
from peftune.experiments import Run
from peftune.experiments.evaluate import evaluate
from peftune.recipe import read_recipe
from peftune.recipe.data import TextStep


def strings(*texts: str) -> Strings:
    """Give texts as a column does."""
    return Strings(texts.__getitem__, np.arange(len(texts)))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("so <b>good</b> to see you", "so good to see you"),
        ("one<br/>two<p>three</p>four", "one two three four"),
        ("salt &amp; pepper &lt;3 &#39;yes&#39;", "salt & pepper <3 'yes'"),
        ("<script>alert(1)</script>after <!-- a note -->all", "after all"),
        ("I <3 you, 2 < 3 & 5 > 4", "I <3 you, 2 < 3 & 5 > 4"),
        ("nothing of the kind", "nothing of the kind"),
        ("if a<b then b>a", "if a<b then b>a"),
        ("see a.b/?x=1&copy=2 by AT&T", "see a.b/?x=1&copy=2 by AT&T"),
        ('<a href="https://a.b">a link</a>', "a link"),
    ],
)
def test_html_is_taken_out_and_signs_stay(text: str, plain: str) -> None:
    """Tags and comments go, entities are spelled out, a heart of two signs is not a tag."""
    assert without_html(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("vel\u200bvet\ufeff", "velvet"),
        ("ring\x07 \u202etwice", "ring twice"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("\u00bd and \u2460", "\u00bd and \u2460"),
        ("\U0001f469\u200d\U0001f469\u200d\U0001f466", "\U0001f469\u200d\U0001f469\u200d\U0001f466"),
    ],
    ids=ascii,
)  # fmt: skip
def test_unicode_is_composed_and_unseen_characters_go(text: str, plain: str) -> None:
    """What is seen stays as it is: line ends, fractions, and emoji held together by joiners."""
    assert with_normal_unicode(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("see https://t.co/Ab3?x=1&y=2 now", "see http now"),
        ("HTTP://A.B/C and www.example.org/a", "http and http"),
        ("http and https and awww.nice", "http and https and awww.nice"),
        ("no link: t.co", "no link: t.co"),
    ],
)
def test_links_become_one_word(text: str, plain: str) -> None:
    """As in TweetEval, whose classifiers read `http`; doing it twice changes nothing more."""
    assert cleaned_text(text, ["replace-urls"]) == plain
    assert cleaned_text(plain, ["replace-urls"]) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("@ann_b: thanks @Bob2!", "@user: thanks @user!"),
        ("RT@ann or write to ann@example.org", "RT@ann or write to ann@example.org"),
        ("(@ann) @ @@ @ünal", "(@user) @ @@ @user"),
        ("@user", "@user"),
    ],
)
def test_names_of_accounts_become_one_word(text: str, plain: str) -> None:
    """An e-mail address stays, and an @ alone."""
    assert cleaned_text(text, ["replace-mentions"]) == plain
    assert cleaned_text(plain, ["replace-mentions"]) == plain


def test_of_equal_texts_the_first_stays_and_none_where_labels_differ() -> None:
    """Nobody knows which of two labels is right, so neither is learned."""
    texts = {"train": strings("a cat", "A  CAT", "a dog", "a dog", "a bird", "", "")}
    labels = [("x",), ("x",), ("x",), ("y",), ("y",), ("x",), ("y",)]

    with_labels = clean(texts, ["drop-duplicates"], labels=labels)  # type: ignore[arg-type]
    without = clean(texts, ["drop-duplicates"])  # type: ignore[arg-type]

    assert sorted(with_labels.dropped) == [1, 2, 3]
    assert sorted(without.dropped) == [1, 3]
    assert with_labels.counts == (CleaningCount("drop-duplicates", "train", 0, 3),)


def test_leaked_rows_leave_train_and_held_out_rows_stay() -> None:
    """Those of validation, of the test and of a probe; what is held out is never changed."""
    texts = {
        "train": strings("a cat", "a dog", "a bird", f"They say: {GENERAL[0]}"),
        "validation": strings("A Dog!", "a fish", "@ann a bird"),
        "test": strings("a  CAT http://a.b/c"),
    }

    cleaned = clean(texts, ["drop-leaked"], general=GENERAL)  # type: ignore[arg-type]

    assert sorted(cleaned.dropped) == [0, 2, 3]
    assert {split: list(found) for split, found in cleaned.texts.items()} == {
        split: list(found) for split, found in texts.items()
    }


def test_steps_are_done_in_their_order_and_counted() -> None:
    """Texts that become equal by stripping are duplicates only where that came before."""
    texts = {"train": strings("<b>a cat</b>", "a cat", "a dog"), "test": strings("<i>so</i>")}

    late = clean(texts, ["drop-duplicates", "strip-html"])  # type: ignore[arg-type]
    early = clean(texts, ["strip-html", "drop-duplicates"])  # type: ignore[arg-type]

    assert late.dropped == frozenset()
    assert early.dropped == {1}
    assert early.counts == (
        CleaningCount("strip-html", "train", 1, 0),
        CleaningCount("strip-html", "test", 1, 0),
        CleaningCount("drop-duplicates", "train", 0, 1),
    )


def _soiled() -> Splits:
    splits = sound_splits()
    splits["train"][6]["text"] = splits["train"][4]["text"].upper()
    splits["train"][4]["text"] = f"<p>{splits['train'][4]['text']}</p>"
    splits["train"][8]["text"] = splits["test"][2]["text"]
    splits["test"][3]["text"] = f"{splits['test'][3]['text']}\u200b"
    return splits


def _task(folder: Path, steps: list[str]) -> Task:
    files = write_splits(_soiled(), folder, "csv")
    recipe = read_recipe(write_recipe(folder, {**files, "clean": steps}))
    return load_task(recipe.data)


def test_a_cleaned_task_has_the_rows_that_are_left(tmp_path: Path) -> None:
    """Rows keep their ids and order, texts are clean in every split, files are as they were."""
    steps = ["normalize-unicode", "strip-html", "drop-duplicates", "drop-leaked"]
    whole = _task(tmp_path, [])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}

    task = _task(tmp_path, steps)

    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == before
    kept = [row for row in range(60) if row not in (6, 8)]
    assert list(task.train.ids) == [whole.train.ids[row] for row in kept]
    assert task.train.texts[4] == without_html(whole.train.texts[4])
    assert task.test is not None
    assert whole.test is not None
    assert task.test.texts[3] == whole.test.texts[3].rstrip("\u200b")
    assert len(task.test) == len(whole.test)
    assert task.dropped == {"train": 0, "validation": 0, "test": 0}
    assert task.fingerprint() != whole.fingerprint()


def test_the_checks_look_at_what_is_left_and_report_the_steps(tmp_path: Path) -> None:
    """What cleaning mended is not a fault; the report says what each step did, by split."""
    files = write_splits(_soiled(), tmp_path, "csv")
    steps = ["normalize-unicode", "strip-html", "drop-duplicates", "drop-leaked"]

    soiled = peftune.check(write_recipe(tmp_path, files))
    report = peftune.check(write_recipe(tmp_path, {**files, "clean": steps}))

    assert {each.code for each in soiled.results if each.status != "pass"} == {
        "html",
        "leakage",
        "unseen-characters",
        "near-duplicate",
    }
    assert report.status == "pass"
    assert [count for count in report.cleaned if count.changed or count.dropped] == [
        CleaningCount("normalize-unicode", "test", 1, 0),
        CleaningCount("strip-html", "train", 1, 0),
        CleaningCount("drop-duplicates", "train", 0, 1),
        CleaningCount("drop-leaked", "train", 0, 1),
    ]


def test_a_regression_keeps_the_first_of_equal_texts(tmp_path: Path) -> None:
    """Measured numbers differ a little by nature, which is not a conflict of labels."""
    splits = sound_splits()
    splits["train"][20]["text"] = splits["train"][2]["text"]
    files = write_splits(splits, tmp_path, "csv")
    recipe = read_recipe(
        write_recipe(
            tmp_path,
            {**files, "clean": ["drop-duplicates"], "label_column": "score"},
            task="regression",
        )
    )

    cleaning = clean_tables(read_split_tables(recipe.data), recipe.data, recipe.task_type)

    assert cleaning.dropped == {20}


# Everyone who classifies with an artifact cleans as it was trained

STEPS: list[TextStep] = ["normalize-unicode", "strip-html", "replace-urls", "replace-mentions"]


def _written_as_found(text: str, row: int) -> str:
    """Write a text as it stands on the web."""
    words = text.split()
    return (
        f"@ann{row} <b>{words[0]}</b> &amp; {' '.join(words[1:])}\u200b https://t.co/{row}x{row}"
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Learn from texts with links, names, markup and unseen signs, which the recipe cleans."""
    folder = tmp_path_factory.mktemp("found")
    splits = sound_splits()
    for rows in splits.values():
        for number, row in enumerate(rows):
            row["text"] = _written_as_found(row["text"], number)
    files = write_splits(splits, folder, "jsonl")
    recipe = write_recipe(folder, {**files, "clean": [*STEPS, "drop-duplicates"]})
    return peftune.run(recipe, output=folder / "out")


def _raw_texts(run: Run) -> list[str]:
    lines = (run.folder.parent / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.slow
def test_an_artifact_cleans_texts_as_those_that_it_was_trained_on(found: Run) -> None:
    """What is said of a text as it was found is what the run said of it, to the last digit."""
    texts = _raw_texts(found)
    lines = (found.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    classifier = peftune.load(found.artifact, use_cpu=True)

    said = classifier.predict(texts)

    assert classifier.manifest is not None
    assert classifier.manifest.clean == STEPS  # rows are dropped in training alone
    assert [prediction.probabilities for prediction in said] == [
        pytest.approx(json.loads(line)["probabilities"], abs=1e-6) for line in lines
    ]
    learning = evaluate(found.artifact, found.folder.parent / "test.jsonl")
    assert learning.loss == pytest.approx(found.learning.loss, abs=1e-6)
    plain = dataclasses.replace(classifier, manifest=None)
    assert np.abs(plain.logits(texts) - classifier.logits(texts)).max() > 1e-3
    cleaned = plain.logits([cleaned_text(text, STEPS) for text in texts])
    assert np.abs(cleaned - classifier.logits(texts)).max() <= 1e-6


def test_rows_that_were_trained_on_are_known_again_as_they_were_found(found: Run) -> None:
    """The artifact knows texts after cleaning; the file has them before."""
    folder = found.folder.parent

    learned = evaluate(found.artifact, folder / "train.jsonl")
    held_out = evaluate(found.artifact, folder / "test.jsonl")

    assert [finding.code for finding in learned.findings] == ["seen-rows"]
    assert not held_out.findings


def test_what_is_printed_of_a_text_is_the_text_as_it_was_given(found: Run) -> None:
    """A line of `predict` can be joined with its row again."""
    text = _raw_texts(found)[0]

    result = CliRunner().invoke(app, ["predict", str(found.artifact), "--text", text])

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == text


def test_pairs_and_many_adapters_on_one_base_are_cleaned_too(found: Run, tmp_path: Path) -> None:
    """Each text of a mixed batch by the steps of its own adapter."""
    texts = _raw_texts(found)[:2]
    model, _ = peftune.prepare(
        "bundled:tiny-gpt2", strategy=peftune.HeadOnly(), labels=["negative", "positive"],
        max_length=64, use_cpu=True,
    )  # fmt: skip
    head = peftune.load(found.artifact, use_cpu=True)
    peftune.save(model, tmp_path / "uncleaned")
    uncleaned = peftune.load(tmp_path / "uncleaned", use_cpu=True)
    several = peftune.load_many(
        {"cleaned": found.artifact, "uncleaned": tmp_path / "uncleaned"}, use_cpu=True
    )

    rows = several.logits([texts[0], texts[0]], adapters=["cleaned", "uncleaned"])

    np.testing.assert_allclose(rows[0], head.logits([texts[0]])[0], atol=1e-5)
    np.testing.assert_allclose(rows[1], uncleaned.logits([texts[0]])[0], atol=1e-5)
    pair = (texts[0], texts[1])
    np.testing.assert_array_equal(head.logits([pair]), head.logits([f"{pair[0]}\n{pair[1]}"]))


@pytest.mark.slow
def test_an_artifact_at_another_strength_reads_and_says_as_its_own(tmp_path: Path) -> None:
    """How texts are cleaned, and from which probability a label is assigned, do not depend on it."""
    model, _ = peftune.prepare(
        "bundled:tiny-gpt2",
        strategy=peftune.LoRA(r=2),
        labels=["a", "b"],
        task="multi-label",
        use_cpu=True,
    )
    peftune.save(model, tmp_path / "own", clean=["replace-urls"], label_thresholds=[0.3, 0.6])

    peftune.adapters.rescale(tmp_path / "own", alpha=0.5, output=tmp_path / "half", use_cpu=True)

    half = peftune.load(tmp_path / "half", use_cpu=True)
    assert half.manifest is not None
    assert half.manifest.clean == ["replace-urls"]
    assert half.manifest.label_thresholds == [0.3, 0.6]
    assert peftune.adapters.inspect(tmp_path / "half").clean == ("replace-urls",)


def test_the_card_has_the_code_that_cleans_without_peftune(found: Run, tmp_path: Path) -> None:
    """Plain PEFT cleans nothing: its users run what the card says, and read the same texts."""
    card = (found.artifact / "README.md").read_text(encoding="utf-8")
    code = card.split("do so first:\n\n```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the code that the card prints

    texts = _raw_texts(found)
    assert [names["clean"](text) for text in texts] == [
        cleaned_text(text, STEPS) for text in texts
    ]
    peftune.adapters.merge(found.artifact, tmp_path / "merged", use_cpu=True)
    assert code in (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")


def test_a_file_that_is_verified_on_is_cleaned(found: Run) -> None:
    """Rows are read as the classifier reads them; the recorded texts are read as they stand."""
    opened = open_artifact(found.artifact)

    rows = _read_rows(found.folder.parent / "test.jsonl", opened, None)

    assert list(rows) == [cleaned_text(text, STEPS) for text in _raw_texts(found)]


def test_a_manifest_without_steps_has_no_key_for_them(tmp_path: Path) -> None:
    """Manifests that were written before the key was known keep their spelling, and are read."""
    model, _ = peftune.prepare(
        "bundled:tiny-gpt2", strategy=peftune.HeadOnly(), labels=["a", "b"], use_cpu=True
    )

    peftune.save(model, tmp_path / "plain")

    assert "clean" not in json.loads((tmp_path / "plain" / "peftune.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["replace-url"], "clean= takes steps that change texts, each once (got 'replace-url'). Did you mean 'replace-urls'? Available: normalize-unicode, replace-mentions, replace-urls, strip-html."),
        (["drop-leaked"], "clean= takes steps that change texts, each once (got 'drop-leaked'). Available: normalize-unicode, replace-mentions, replace-urls, strip-html."),
        (["strip-html"] * 2, "clean= takes steps that change texts, each once (got 'strip-html'). Did you mean 'strip-html'? Available: normalize-unicode, replace-mentions, replace-urls, strip-html."),
    ],
)  # fmt: skip
def test_steps_that_there_are_not_are_refused_at_save(
    steps: list[TextStep], message: str, tmp_path: Path
) -> None:
    """Steps that leave rows out say nothing of a text that is classified."""
    model, _ = peftune.prepare(
        "bundled:tiny-gpt2", strategy=peftune.HeadOnly(), labels=["a", "b"], use_cpu=True
    )

    with pytest.raises(UsageError) as caught:
        peftune.save(model, tmp_path / "own", clean=steps)

    assert str(caught.value) == message
    assert not (tmp_path / "own").exists()
