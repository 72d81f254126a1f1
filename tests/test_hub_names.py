"""What is a name on the hub, and what is a path of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftune.adapters.hub.client import HubName, hub_name, parse_hub_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "repository", "revision", "commit"),
    [
        ("ada/tweets", "ada/tweets", None, None),
        ("ada/tweets@main", "ada/tweets", "main", None),
        ("ada/tweets@v1.0", "ada/tweets", "v1.0", None),
        ("ada/tweets@refs/pr/3", "ada/tweets", "refs/pr/3", None),
        (f"ada/tweets@{COMMIT}", "ada/tweets", COMMIT, COMMIT),
        (f"ada/tweets@{COMMIT[:12]}", "ada/tweets", COMMIT[:12], None),
        ("A_d-a.1/t_w.e-2", "A_d-a.1/t_w.e-2", None, None),
    ],
)
def test_a_name_is_a_user_a_repository_and_perhaps_a_revision(
    text: str, repository: str, revision: str | None, commit: str | None
) -> None:
    """Only a whole commit is a pin; a name is written as it was read."""
    name = parse_hub_name(text)

    assert name == HubName(repository, revision)
    assert name.commit == commit
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt2",
        "ada/",
        "/tweets",
        "ada/tweets/adapter",
        "ada/tweets@",
        "ada/tweets@main@main",
        "ada//tweets",
        "ada/..",
        "ada/a..b",
        "ada/a--b",
        "-ada/tweets",
        "ada/tweets.git",
        "ada/tweets@../main",
        "ada/tweets@a//b",
        "ada/tweets ",
        "ada/tweets\n",
        "ada/twe\u0435ts",  # a Cyrillic letter
        "https://ada/tweets",
        "~/tweets",
        "./tweets",
        "../tweets",
        "ada\\tweets",
        "a" * 50 + "/" + "b" * 50,
        "ada/tweets@" + "r" * 300,
    ],
)
def test_anything_else_is_no_name(text: str) -> None:
    """The pattern is closed: what does not fit it is never sent anywhere."""
    assert parse_hub_name(text) is None


def test_a_folder_of_this_machine_wins_over_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is there is meant, and so is every text that begins like a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-run" / "adapter").mkdir(parents=True)

    assert hub_name("my-run/adapter") is None
    assert hub_name("my-run/model") == HubName("my-run/model")
    assert hub_name(Path("ada/tweets")) is None
    assert hub_name("./ada") is None
    assert hub_name("~/ada") is None
