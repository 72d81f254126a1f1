"""Faults planted in sound data are found with their rows, and sound data have none."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import _WORDS, Fault, Splits, sound_splits, write_recipe, write_splits
from planted_faults import FAULTS
from typer.testing import CliRunner

import peftune
from peftune.cli.main import app, main
from peftune.data.similarity import Words, _candidates, _edited, differing, is_typo, near_pairs
from peftune.data.text_hashes import text_keys
from peftune.errors import DataError
from peftune.experiments.run_evidence import read_evidence
from peftune.findings import CHECKS, CheckReport
from peftune.findings.giveaways import _sample

CASES = [(fault, kind) for fault in FAULTS for kind in fault.kinds]


def checked(splits: Splits, folder: Path, kind: str = "csv", **data: Any) -> CheckReport:  # noqa: ANN401 - keys of data
    """Check such rows."""
    return peftune.check(write_recipe(folder, {**write_splits(splits, folder, kind), **data}))


def found(report: CheckReport) -> set[str]:
    """Name what did not pass."""
    return {result.code for result in report.results if result.status != "pass"}


@pytest.mark.parametrize(
    ("fault", "kind"), CASES, ids=[f"{fault.name} ({kind})" for fault, kind in CASES]
)
def test_a_planted_fault_is_found_in_its_row(fault: Fault, kind: str, tmp_path: Path) -> None:
    """Before any training, by the check that is for it, with its row numbers and nothing else."""
    splits = sound_splits()
    fault.plant(splits)
    files = write_splits(splits, tmp_path, kind)

    report = peftune.check(write_recipe(tmp_path, {**files, **fault.data}, task=fault.task))

    result = report[fault.code]
    assert (result.status, result.rows) == (fault.status, fault.rows), result.message
    assert result.count == sum(map(len, fault.rows.values()))
    assert result.advice
    assert found(report) <= {fault.code, *fault.beside}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("single-label", {}),
        ("single-label", {"labels": ["negative", "positive"], "group_column": "author"}),
        ("regression", {"label_column": "score"}),
        ("multi-label", {"label_column": ["loud", "long"]}),
        ("language-modeling", {}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "-".join(value),
)
def test_sound_data_have_no_fault(
    task: str, data: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    """No check cries on rows without a fault, whatever the task."""
    files = write_splits(sound_splits(), tmp_path, kind)

    report = peftune.check(write_recipe(tmp_path, {**files, **data}, task=task))

    assert found(report) == set()
    assert (report.status, report.exit_code) == ("pass", 0)


def test_the_planted_faults_are_of_more_than_forty_kinds() -> None:
    """Every check has one that sets it off; those of files and stages have tests of their own."""
    assert len({fault.name for fault in FAULTS}) >= 40
    assert {fault.code for fault in FAULTS} == {check.code for check in CHECKS} - {
        "unusable-data",
        "stage-leakage",
    }


def test_a_check_is_never_graver_than_it_says() -> None:
    """The table of the checks tells the worst that each can come to."""
    worst = {check.code: check.worst for check in CHECKS}

    assert {fault.code for fault in FAULTS if fault.status == "fail"} <= {
        code for code, status in worst.items() if status == "fail"
    }


ROW = '"id-{0}","a fairly plain text of row {0}","{1}"'
SOUND_CSV = "id,text,label\n" + "\n".join(
    ROW.format(row, "yes" if row % 2 else "no") for row in range(20)
)

BROKEN_FILES = {
    "csv": {
        "bytes that are not UTF-8": (SOUND_CSV.replace("row 3", "caf\u00e9").encode("latin-1"), "line 5"),
        "UTF-16": (SOUND_CSV.encode("utf-16"), "is not UTF-8"),
        "a row with a cell too many": ((SOUND_CSV + "\nx,y,no,z\n").encode(), "line 22"),
        "a row with a cell too few": ((SOUND_CSV + "\nx,y\n").encode(), "line 22"),
        "a quote that is never closed": ((SOUND_CSV + '\n"x","y,no\n').encode(), "line 22"),
        "another delimiter": (SOUND_CSV.replace('"', "").replace(",", ";").encode(), "several with a semicolon: 'id;text;label'"),
        "a column name twice": (SOUND_CSV.replace("id,text", "text,text", 1).encode(), "2 columns named 'text'"),
        "another name of the text": (SOUND_CSV.replace("text", "post", 1).encode(), "has no column 'text'"),
        "another name of the label": (SOUND_CSV.replace("label", "class", 1).encode(), "has no column 'label'"),
        "nothing at all": (b"", "is empty"),
        "one label alone": (SOUND_CSV.replace('"no"', '"yes"').encode(), "one label only: 'yes'"),
        "a class of one row": ((SOUND_CSV + '\n"x","another text","maybe"\n').encode(), "smallest class has 1"),
    },
    "jsonl": {
        "a line that is not JSON": (b'{"text": "a", "label": "x"}\n{"text": "b", "label": }\n', "line 2"),
        "a line that is not an object": (b'{"text": "a", "label": "x"}\n["b", "y"]\n', "line 2"),
        "half of a character": (b'{"text": "a", "label": "x"}\n{"text": "\\ud83d", "label": "y"}\n', "row 1"),
        "bytes that are not UTF-8": (b'{"text": "a", "label": "x"}\n{"text": "caf\xe9", "label": "y"}\n', "line 2"),
        "nothing at all": (b"", "holds no rows"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fault"), [(kind, fault) for kind, faults in BROKEN_FILES.items() for fault in faults]
)
def test_a_file_that_cannot_be_used_is_a_fault_with_its_place(
    kind: str, fault: str, tmp_path: Path
) -> None:
    """A result with the line or row, and no traceback."""
    content, place = BROKEN_FILES[kind][fault]
    (tmp_path / f"train.{kind}").write_bytes(content)

    report = peftune.check(write_recipe(tmp_path, {"train_file": f"train.{kind}"}))

    assert (report.status, report.exit_code) == ("fail", 3)
    assert place in report["unusable-data"].message


def test_a_run_is_stopped_by_leakage_before_the_first_step(tmp_path: Path) -> None:
    """Exit code 2, the rows in the message, and no run folder."""
    splits = sound_splits()
    splits["test"][10]["text"] = splits["train"][2]["text"]
    recipe = write_recipe(tmp_path, write_splits(splits, tmp_path, "csv"))

    with pytest.raises(SystemExit) as stopped:
        main(["run", str(recipe), "--output", str(tmp_path / "out")])

    assert stopped.value.code == 2
    assert not (tmp_path / "out").exists()


def test_a_run_is_stopped_by_a_fault_that_makes_the_numbers_wrong(tmp_path: Path) -> None:
    """All failed checks in one message, with what to do."""
    splits = sound_splits()
    splits["train"][11]["label"] = "Positive"
    recipe = write_recipe(tmp_path, write_splits(splits, tmp_path, "csv"))

    with pytest.raises(DataError) as refused:
        peftune.run(recipe, output=tmp_path / "out")

    assert str(refused.value) == (
        "look-alike-labels: 1 row (train row 11) with 'Positive' beside 'positive'. "
        "Write the label in one way, or name every one in data.labels.\n"
        "Nothing was trained. 'peftune check' shows all that is worth knowing of the data."
    )


def _relabeled(splits: Splits, labels: dict[str, tuple[str, str]]) -> None:
    """Write the two labels of each split as given."""
    for split, (negative, positive) in labels.items():
        for record in splits[split]:
            record["label"] = positive if record["label"] == "positive" else negative


def test_one_label_in_two_spellings_is_one_class_and_told(tmp_path: Path) -> None:
    """`1` and `1.0` made two classes of one, without a word."""
    splits = sound_splits()
    numbers = ("0", "1")
    _relabeled(splits, {"train": numbers, "validation": numbers, "test": ("0.0", "1.0")})
    splits["train"][7]["label"] += ".0"
    told = splits["train"][7]["label"]

    report = checked(splits, tmp_path)

    result = report["look-alike-labels"]
    rows = {"train": [7], "test": list(range(len(splits["test"])))}
    assert (result.status, result.rows) == ("warn", rows)
    assert "with a label in another spelling, read as one: " in result.message
    assert f"'{told[0]}' and '{told}'" in result.message
    assert found(report) == {"look-alike-labels"}


@pytest.mark.parametrize(
    "labels",
    [
        {"train": ("0.0", "1.0"), "validation": ("0.0", "1.0"), "test": ("0.0", "1.0")},
        {"train": ("False", "True"), "validation": ("False", "True"), "test": ("False", "True")},
    ],
    ids=["numbers", "truth values"],
)
def test_labels_in_one_spelling_are_no_fault(
    labels: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    """Whatever that is; with the names in data.labels too."""
    splits = sound_splits()
    _relabeled(splits, labels)

    assert found(checked(splits, tmp_path)) == set()
    assert found(checked(splits, tmp_path, labels=["0", "1"])) == set()


def test_a_truth_value_beside_0_and_1_is_a_fault(tmp_path: Path) -> None:
    """It would be a third class, and is most likely the second."""
    splits = sound_splits()
    _relabeled(splits, dict.fromkeys(splits, ("0", "1")))
    splits["train"][7]["label"] = "True"

    result = checked(splits, tmp_path)["look-alike-labels"]

    assert (result.status, result.rows) == ("fail", {"train": [7]})
    assert result.message.endswith("with 'True' beside '1'.")


def test_labels_that_the_recipe_names_all_may_look_alike(tmp_path: Path) -> None:
    """Who writes `Positive` and `positive` in data.labels means two labels."""
    splits = sound_splits()
    for row in range(1, 60, 4):
        splits["train"][row]["label"] = "Positive"

    report = checked(splits, tmp_path, labels=["negative", "positive", "Positive"])

    assert report["look-alike-labels"].status == "pass"


@pytest.mark.slow
def test_accepted_leakage_is_told_with_the_score_without_it(tmp_path: Path) -> None:
    """The run goes on; the report holds the score on all rows, and on those that did not leak."""
    splits = sound_splits()
    splits["test"][10]["text"] = splits["train"][2]["text"]
    splits["test"][11]["text"] = splits["validation"][3]["text"]
    files = write_splits(splits, tmp_path, "csv")

    recipe = write_recipe(tmp_path, {**files, "accept_leakage": True})

    told = CliRunner().invoke(app, ["run", str(recipe), "--output", str(tmp_path / "out")])

    run = peftune.read_run(tmp_path / "out")
    assert run.checks["leakage"].status == "warn"
    score = run.checks.leaked_score
    assert score is not None
    assert (score.split, score.n, score.leaked) == ("test", 24, 2)
    lines = (run.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    right = [json.loads(line)["label"] == json.loads(line)["predicted"] for line in lines]
    kept = [hit for row, hit in enumerate(right) if row not in (10, 11)]
    assert score.metrics["accuracy"] == run.learning.accuracy == sum(right) / 24
    assert score.metrics_without["accuracy"] == sum(kept) / 22
    assert "\nwarning, leakage: 1 row (test row 10) is in train too: " in told.output
    manifest = json.loads((run.folder / "adapter" / "peftune.json").read_text(encoding="utf-8"))
    assert manifest["task"]["accuracy"] == pytest.approx(sum(kept) / 22)
    assert (manifest["task"]["n"], manifest["task"]["leaked_rows_left_out"]) == (22, 2)
    card = (run.folder / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"| accuracy on 22 test rows | {sum(kept) / 22:.3f} |" in card
    assert (
        "\n2 further rows of this split were read in training, and are left out of the scores.\n"
        in card
    )
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "The score with and without the 2 of 24 test rows whose text was read" in page
    assert "text-lengths" in page
    assert "Warning: leakage." in (run.folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_comparison_leaves_out_the_rows_that_leaked(tmp_path: Path) -> None:
    """From the rows to its file and page, and again from its folder, and from its runs one by one."""
    splits = sound_splits()
    splits["test"][10]["text"] = splits["train"][2]["text"]
    splits["test"][11]["text"] = splits["validation"][3]["text"]
    files = write_splits(splits, tmp_path, "csv")
    recipe = write_recipe(tmp_path, {**files, "accept_leakage": True})
    place = tmp_path / "compared"
    arguments = ["--strategies", "head-only,lora", "--output", str(place)]

    told = CliRunner().invoke(app, ["compare", str(recipe), *arguments])

    sentence = "2 of 24 test rows were read in training and are left out here."
    assert " ".join(told.output.split()).count(sentence) == 2  # below the table, and in the answer
    file = (place / "comparison.json").read_text(encoding="utf-8")
    values = json.loads(file)
    summary = values["summary"]
    assert summary["leaked"] == {
        "split": "test",
        "n": 24,
        "leaked": 2,
        "left_out": True,
        "matched": True,
    }
    assert '"predicted"' not in file  # of each row: that lies in baselines.json
    assert {
        baseline["n"] for baseline in values["ladder"] if baseline["accuracy"] is not None
    } == {22}
    for standing in summary["standings"]:
        found = read_evidence(place / f"{standing['strategy']}-seed0")
        assert np.flatnonzero(found.rows.leaked).tolist() == [10, 11]
        right = (found.rows.labels == found.rows.predicted)[~found.rows.leaked]
        assert standing["figures"]["accuracy"]["mean"] == pytest.approx(right.mean())
        for name, scores in found.run.learning.baselines.items():
            said = found.rows.baselines[name] == found.rows.labels
            assert said.mean() == pytest.approx(scores["accuracy"])
        for point in found.run.forgetting.path:
            assert point.accuracy is not None
            assert point.accuracy_without_leaked is not None
            of_leaked = 24 * point.accuracy - 22 * point.accuracy_without_leaked
            assert min(abs(of_leaked - count) for count in (0, 1, 2)) < 1e-9
        assert found.run.forgetting.path[-1].accuracy_without_leaked is not None
    again = peftune.report(place, output=tmp_path / "again")
    assert again.answer == summary["answer"]
    page = again.page.read_text(encoding="utf-8")
    assert page == (place / "report.html").read_text(encoding="utf-8")
    folders = [place / f"{strategy}-seed0" for strategy in ("head-only", "lora")]
    alone = peftune.report(*folders, output=tmp_path / "alone")
    assert alone.answer.endswith(sentence)


def test_the_verb_prints_every_check_and_leaves_with_a_code(tmp_path: Path) -> None:
    """A line each, the remedy below; 2 for leakage alone, 3 with any other fault."""
    splits = sound_splits()
    splits["test"][10]["text"] = splits["train"][2]["text"]
    recipe = write_recipe(tmp_path, write_splits(splits, tmp_path, "csv"))

    leaked = CliRunner().invoke(app, ["check", str(recipe)])
    splits["train"][7]["text"] = ""
    write_splits(splits, tmp_path, "csv")
    empty = CliRunner().invoke(app, ["check", str(recipe), "--json"])

    start = "FAIL leakage: 1 row (test row 10) is in train too: test row 10 is train row 2, '"
    assert start in leaked.output
    assert "     Set data.clean: [drop-leaked] to take the rows out of train" in leaked.output
    assert leaked.output.endswith("34 PASS, 0 WARN, 1 FAIL\n")
    assert leaked.exit_code == 2
    assert empty.exit_code == 3
    values = json.loads(empty.output)
    assert {each["code"] for each in values["results"] if each["status"] == "fail"} == {
        "leakage",
        "empty-text",
    }


def test_the_bundled_posts_pass_every_check() -> None:
    """What peftune ships is sound."""
    report = peftune.check("quickstart")

    assert [result.message for result in report.results if result.status != "pass"] == []
    assert report.rows == {"train": 800, "validation": 150, "test": 250}
    assert report.lengths is not None
    assert sum(report.lengths.counts["train"]) == 800
    assert report.lengths.truncated == {"train": 0, "validation": 0, "test": 0}


@pytest.mark.parametrize(
    "text",
    [
        "the CAF\u00c9\u2026 was closed, and \u00abSAT\u00c9\u00bb was sold out at our na\u00efve\u2014very\u2014old friends",
        "\U0001f469\u200d\U0001f469\u200d\U0001f466 and \u2764\ufe0f\u200d\U0001f525 all day with the family at the sea",
        "I <3 you, 2 < 3 and 5 > 4, R&D & sons; if a<b then b>a",
        r"look into C:\new\notes\today.txt and \\server for what the others have sent",
        "N/A was what they wrote, and null is what we got, [deleted] or not",
        "a p\u0101rty with \u017divojin, \u0141ukasz and J\u00f3n from \u0130stanbul was what we had",
        "la la land and el paso are films or towns that the critics have seen",
        "100 000 \u20ac for 5\u00b0C, \u00a35 or \u00bd of it?! https://a.b/c @ann #now",
        "\u0643\u062a\u0627\u0628 means book, and \u043c\u0438\u0440 means peace, says the dictionary",
        ":( :( :(",
        "\U0001f622\U0001f622",
        "ok",
    ],
    ids=ascii,
)
def test_what_people_write_is_no_fault(text: str, tmp_path: Path) -> None:
    """Accents, emoji held together by joiners, signs, paths, and words of other languages."""
    splits = sound_splits()
    splits["train"][7]["text"] = text

    report = checked(splits, tmp_path)

    assert [result.message for result in report.results if result.status != "pass"] == []


def test_a_held_out_text_that_a_stage_reads_is_told(tmp_path: Path) -> None:
    """The stage has no labels, but the model has seen the text."""
    splits = sound_splits()
    recipe = write_recipe(tmp_path, write_splits(splits, tmp_path, "csv"))
    domain = [{"text": row["text"]} for row in sound_splits(1)["train"]]
    domain[5]["text"] = splits["test"][10]["text"].upper()
    lines = [json.dumps(row) for row in domain]
    (tmp_path / "domain.jsonl").write_text("\n".join(lines), encoding="utf-8")
    stages = "stages=[{name: domain, data: {train_file: domain.jsonl}}]"

    report = peftune.check(recipe, overrides=[stages])

    assert found(report) == {"stage-leakage"}
    assert report["stage-leakage"].message == "1 row (test row 10) read in stage 'domain'."


def test_a_word_that_people_use_gives_nothing_away(tmp_path: Path) -> None:
    """It goes with a label in most rows, and not in nearly all of them."""
    splits = sound_splits()
    for row in range(60):
        if (row % 2 and row % 5) or row % 14 == 0:
            splits["train"][row]["text"] += " love"

    assert checked(splits, tmp_path)["giveaway-token"].status == "pass"


def _many_labels(marked: Callable[[int, list[str]], list[str]]) -> Splits:
    """Give each of 40 labels 20 rows of train, where `marked` changes the rows of the first."""
    draw = np.random.default_rng(0)
    splits = sound_splits()
    splits["train"] = []
    for row in range(800):
        words = [str(word) for word in draw.choice(_WORDS, size=11, replace=False)]
        label = row % 40
        text = " ".join(words if label else marked(row // 40, words))
        splits["train"].append(
            {**splits["test"][0], "id": f"row {row}", "text": text, "label": f"label {label}"}
        )
    return splits


def _anywhere(row: int, words: Sequence[str], word: str) -> list[str]:
    place = 7 * row % 11
    return [*words[:place], word, *words[place:]]


@pytest.mark.parametrize(
    ("marked", "rows"),
    [
        pytest.param(lambda row, words: _anywhere(row, words, "zqxv"), 20, id="in all rows"),
        pytest.param(
            lambda row, words: [*words, "zqxv"] if row < 10 else words, 10, id="half, at the end"
        ),
        pytest.param(
            lambda row, words: ["zqxv", *words] if row < 10 else words, 10, id="half, at the start"
        ),
        pytest.param(
            lambda row, words: _anywhere(row, words, "zqxv7") if row < 10 else words,
            10,
            id="half, no word",
        ),
    ],
)
def test_a_token_that_gives_a_small_label_away_is_told(
    marked: Callable[[int, list[str]], list[str]], rows: int, tmp_path: Path
) -> None:
    """One label of 40: what its token tells is a fortieth of what there is to know of the labels."""
    splits = _many_labels(marked)

    result = checked(splits, tmp_path)["giveaway-token"]

    token = "zqxv7" if "zqxv7" in splits["train"][0]["text"] else "zqxv"
    assert result.rows == {"train": [40 * row for row in range(rows)]}
    assert result.message == (
        f"'{token}' is in {rows} of the 20 rows of 'label 0' and in none of the others; {rows} rows (train rows 0, 40, 80, 120, 160, …) with it."
    )


def test_a_word_of_a_small_label_gives_nothing_away(tmp_path: Path) -> None:
    """A subject is in most rows of its label and in no other, wherever a sentence has it."""
    splits = _many_labels(
        lambda row, words: _anywhere(row, words, "passport") if row < 16 else words
    )

    assert checked(splits, tmp_path)["giveaway-token"].status == "pass"


def test_rows_that_are_read_are_not_every_so_manieth() -> None:
    """Of very many rows a hundred thousand are drawn: where two labels take turns both are read."""
    read = _sample(list(range(250_000)))

    assert len(set(read)) == len(read) == 100_000
    assert sorted(read) == read
    # Half of 100,000 draws, give or take six standard deviations of at most 158 each.
    assert sum(row % 2 for row in read) == pytest.approx(50_000, abs=950)
    assert _sample([3, 4]) == [3, 4]


def test_blank_rows_that_are_left_out_are_told_and_no_failure(tmp_path: Path) -> None:
    """With empty_text: drop the check warns, and looks at the other rows alone."""
    splits = sound_splits()
    splits["train"][7] |= {"text": "", "label": ""}

    report = checked(splits, tmp_path, empty_text="drop")

    assert report["empty-text"].status == "warn"
    assert found(report) == {"empty-text"}


def test_near_pairs_are_those_that_a_comparison_of_all_finds() -> None:
    """Hashes find the candidates; their likeness and their edit are the real ones."""
    draw = np.random.default_rng(0)
    texts = [row["text"] for row in sound_splits(3)["train"]]
    for text in texts[:20]:
        letters = list(text)
        for place in draw.integers(len(letters), size=int(draw.integers(1, 4))):
            letters[place] = "x"
        texts.append("".join(letters))
    for edit in EDITS.values():
        texts += [" ".join(edit(text.split(), draw)) for text in texts[20:40]]

    pairs = near_pairs({"train": (texts, text_keys(texts))})

    shares = Counter(word for text in texts for word in set(text.split()))
    bits = {word: -math.log2(count / len(texts)) for word, count in shares.items()}
    places = [(one, other) for one in range(len(texts)) for other in range(one + 1, len(texts))]
    expected = {
        (one, other): _brute_force(texts[one], texts[other])
        for one, other in places
        if texts[one] != texts[other]
        and (
            _brute_force(texts[one], texts[other]) >= 0.8
            or _edited_by_brute_force(texts[one].split(), texts[other].split(), bits, len(texts))
        )
    }
    assert len(expected) >= 10 + 20 * len(EDITS)
    assert min(expected.values()) < 0.4
    assert {(pair.first[1], pair.second[1]): pair.likeness for pair in pairs} == pytest.approx(
        expected
    )


def _replace(words: list[str], draw: np.random.Generator) -> list[str]:
    words[int(draw.integers(len(words)))] = "umbrella"
    return words


def _add(words: list[str], draw: np.random.Generator) -> list[str]:
    words.insert(int(draw.integers(len(words) + 1)), "umbrella")
    return words


def _drop(words: list[str], draw: np.random.Generator) -> list[str]:
    del words[int(draw.integers(len(words)))]
    return words


def _join(words: list[str], draw: np.random.Generator) -> list[str]:
    place = int(draw.integers(len(words) - 1))
    return [*words[:place], words[place] + words[place + 1], *words[place + 2 :]]


def _shuffle(words: list[str], draw: np.random.Generator) -> list[str]:
    return [words[place] for place in draw.permutation(len(words))]


EDITS: dict[str, Callable[[list[str], np.random.Generator], list[str]]] = {
    "replaced": _replace,
    "added": _add,
    "dropped": _drop,
    "joined": _join,
    "in another order": _shuffle,
}


def _edited_by_brute_force(
    one: list[str], other: list[str], bits: dict[str, float], texts: int
) -> bool:
    """Try every edit of words."""
    if sorted(one) == sorted(other) or "".join(one) == "".join(other):
        return True
    left = [one[:place] + one[place + 1 :] for place in range(len(one))]
    right = [other[:place] + other[place + 1 :] for place in range(len(other))]
    replaced = [place for place, rest in enumerate(left) if rest in right[place : place + 1]]
    if any(_letters_apart(one[place], other[place]) for place in replaced):
        return True
    shared = sum(bits[word] for word in set(one) & set(other))
    return bool(replaced or one in right or other in left) and shared >= 3 * math.log2(texts)


def _letters_apart(one: str, other: str) -> bool:
    """Try every edit of one letter of lower case."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    cuts = [(one[:place], one[place:]) for place in range(len(one) + 1)]
    edits = {start + end[1:] for start, end in cuts}
    edits |= {start + letter + end for start, end in cuts for letter in letters}
    edits |= {start + letter + end[1:] for start, end in cuts for letter in letters}
    edits |= {start + end[1::-1] + end[2:] for start, end in cuts}
    return other in edits


def _brute_force(one: str, other: str) -> float:
    sets = [{text[place : place + 5] for place in range(len(text) - 4)} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("letter", "leter", True),
        ("letter", "lettter", True),
        ("letter", "lettex", True),
        ("letter", "lettre", True),
        ("letter", "etter", True),
        ("letter", "later", False),
        ("phone", "car", False),
        ("ab", "cd", False),
    ],
)
def test_a_typo_is_one_edit_of_letters(one: str, other: str, *, apart: bool) -> None:
    """A letter more, fewer or other, or two that change places, as trying every edit says."""
    assert is_typo(one, other) is is_typo(other, one) is _letters_apart(one, other) is apart


def test_what_differs_is_between_the_common_start_and_end() -> None:
    """Neither part takes a word twice, also where words repeat."""
    assert differing(list("abcd"), list("axyd")) == (["b", "c"], ["x", "y"])
    assert differing(list("aaa"), list("aa")) == (["a"], [])
    assert differing("abc", "abc") == ("", "")


SHORT = ["my brother left her home", "my brother lent her home", "my brother lent her phone"]
QUESTIONS = [
    f"please tell me how to {verb} my {thing} today"
    for verb in ("activate", "cancel", "replace", "unblock", "deliver", "insure", "freeze", "link")
    for thing in ("card", "account", "transfer", "deposit", "mortgage")
]
NUMBERS = [
    f"velvet lantern {number} wanders quietly beside frozen orchards" for number in (340, 17, 2210)
]


@pytest.mark.parametrize(
    "texts", [SHORT, QUESTIONS, NUMBERS], ids=["short", "questions of one kind", "numbers"]
)
def test_texts_that_share_what_is_common_are_two_texts(texts: list[str]) -> None:
    """A word other in a short text, in a phrase that many rows have, or another number."""
    rows = [row["text"] for row in sound_splits(3)["train"]][: 60 - len(texts)] + texts

    assert near_pairs({"train": (rows, text_keys(rows))}) == []


@pytest.mark.parametrize("texts", [[], ["short"], ["short", "", "too short"]], ids=len)
def test_where_no_text_is_long_enough_no_pair_is_near(texts: list[str]) -> None:
    """Nothing to hash is not an error."""
    assert near_pairs({"train": (texts, text_keys(texts))}) == []


def test_texts_that_differ_in_one_word_cost_no_square() -> None:
    """A phrase of many rows is compared with a few neighbors of each, not with all."""
    words = Words()
    for row in range(2000):
        words.read(f"the age of the town is given as w{row} years")

    assert len(set(_edited(words))) < 20 * 2000


def test_texts_that_are_all_alike_cost_no_square() -> None:
    """A signature shared by many rows is compared with a few neighbors of each, not with all."""
    signatures = np.zeros((2000, 125), dtype=np.uint32)

    assert len(set(_candidates(signatures))) < 20 * 2000


def test_equal_texts_are_told_apart_from_those_to_the_letter(tmp_path: Path) -> None:
    """The message says how many of the repeated texts are the same characters."""
    splits = sound_splits()
    rows = splits["train"]
    rows[20]["text"] = rows[22]["text"] = rows[2]["text"].upper()
    rows[24]["text"] = rows[2]["text"]

    assert checked(splits, tmp_path)["duplicate-text"].message == (
        "3 rows (train rows 20, 22, 24) repeat the text of an earlier row of the split; 2 of them to the letter."
    )
