"""Pushing files to a hub: the real client, and a hub on this machine that may misbehave."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import Client, client_environment
from loopback_hub import TOKEN, Answer, LoopbackHub, Repository, Request, running_hub, sha256

WEIGHTS = "adapter_model.safetensors"
FILES = {
    "README.md": b"---\nlibrary_name: peft\n---\n# A card\n",
    "adapter_config.json": b"{}\n",
    "peftune.json": b"{}\n",
    WEIGHTS: bytes(range(256)) * 64,
}

_numbers = itertools.count()


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackHub]:
    """Run one hub for all tests."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(running: LoopbackHub) -> LoopbackHub:
    """Give the hub, empty."""
    running.reset()
    return running


@pytest.fixture(scope="module")
def client(running: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Run a client for as long as the tests last."""
    home = tmp_path_factory.mktemp("home")
    client = Client(client_environment(running.endpoint, home, HF_TOKEN=TOKEN))
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    """Name a repository that no other test has."""
    return f"ada/pushed-{next(_numbers)}"


def held(repository: Repository) -> dict[str, bytes]:
    """Give the files of the newest commit, but for what the hub itself puts there."""
    return {path: file for path, file in repository.files.items() if path != ".gitattributes"}


def test_one_commit_holds_exactly_the_files(hub: LoopbackHub, client: Client, name: str) -> None:
    """The repository is made, everything goes in one commit, and its name is the pin."""
    outcome = client.push(name, FILES, message="A first version")

    repository = hub.repositories[name]
    assert (outcome.error, outcome.message) == (None, None)
    assert outcome.name == f"{name}@{repository.head}"
    assert held(repository) == FILES
    assert len(repository.commits) == 2
    assert not repository.private
    [commit] = hub.asked("POST", "/commit/")
    assert json.loads(commit.body.splitlines()[0])["value"]["summary"] == "A first version"
    assert outcome.modules == []


def test_large_files_go_where_the_hub_says_and_without_the_token(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """The store is another server: it gets the bytes, and never the token."""
    client.push(name, FILES)

    [sent] = hub.asked("PUT")
    assert (sent.to_store, sent.path, sent.token) == (
        True,
        f"/objects/{sha256(FILES[WEIGHTS])}",
        None,
    )


def test_a_new_repository_can_be_private(hub: LoopbackHub, client: Client, name: str) -> None:
    """It is made so, before anything is in it."""
    outcome = client.push(name, FILES, private=True)

    assert outcome.error is None
    assert hub.repositories[name].private


def test_a_public_repository_is_not_pushed_to_as_if_it_were_private(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """What must not be seen by all is not sent, not a byte of it."""
    commit = hub.add(name, FILES)

    outcome = client.push(name, {**FILES, "README.md": b"secret"}, private=True)

    assert outcome.error == "UsageError"
    assert outcome.message == (
        f"'{name}' is public on the hub, and nothing was pushed. Make it private there, or push without asking for it."
    )
    assert hub.repositories[name].head == commit
    assert not any(b"secret" in one.body for one in hub.requests)


def test_a_push_over_an_older_artifact_leaves_nothing_of_it(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """A file that the new one has not goes in the same commit; the old commit stays what it was."""
    old = hub.add(name, FILES)
    new = {file: FILES[file] for file in ("README.md", "peftune.json")} | {WEIGHTS: b"other"}

    outcome = client.push(name, new)

    repository = hub.repositories[name]
    assert outcome.error is None
    assert held(repository) == new
    assert len(repository.commits) == 2
    assert repository.commits[0][0] == old


def test_an_equal_push_changes_nothing(hub: LoopbackHub, client: Client, name: str) -> None:
    """There is nothing to commit, and nothing is sent twice."""
    first = client.push(name, FILES)
    hub.requests.clear()

    second = client.push(name, FILES)

    assert second.name == first.name
    assert hub.asked("PUT") == hub.asked("POST", "/commit/") == []


@pytest.mark.parametrize(
    ("present", "shown"),
    [
        ({"pytorch_model.bin": b"", "README.md": b""}, "'pytorch_model.bin'"),
        ({**FILES, "notes/todo.txt": b""}, "'notes/todo.txt'"),
        (
            {"README.md": b"", "config.json": b"{}", "model.safetensors": b""},
            "'config.json', 'model.safetensors'",
        ),
    ],
)
def test_a_repository_of_something_else_is_left_alone(
    present: dict[str, bytes], shown: str, hub: LoopbackHub, client: Client, name: str
) -> None:
    """Neither foreign files nor a model that peftune did not push are written over."""
    commit = hub.add(name, present)

    outcome = client.push(name, FILES)

    assert outcome.error == "OutputFolderError"
    assert outcome.message == (
        f"'{name}' holds {shown} on the hub, which no artifact of peftune put there. "
        "Nothing was pushed: choose another name, or remove what is there."
    )
    assert hub.repositories[name].head == commit
    assert hub.asked("PUT") == []


def test_a_repository_with_a_card_alone_is_a_new_one(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """The hub's own page makes repositories with a README."""
    hub.add(name, {"README.md": b"# Soon\n"})

    assert client.push(name, FILES).error is None
    assert held(hub.repositories[name]) == FILES


def test_what_the_hub_holds_is_compared_with_what_was_sent(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """A hub that stores other bytes is caught at once, not by the first who loads it."""

    def spoil(request: Request) -> Answer | None:
        if "/commit/" not in request.path:
            return None
        hub.misbehave = lambda _: None
        answer = hub.answer(request)
        hub.repositories[name].files[WEIGHTS] = b"other bytes"
        return answer

    hub.misbehave = spoil

    outcome = client.push(name, FILES)

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"'{name}@{hub.repositories[name].head}/{WEIGHTS}' on the hub is not the file that was pushed. "
        "Do not share this commit; push again."
    )


def test_a_commit_that_came_between_is_not_written_over(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """The push was made for what it saw; what came since stays."""
    hub.add(name, FILES)

    def meanwhile(request: Request) -> Answer | None:
        if "/preupload/" in request.path:
            hub.misbehave = lambda _: None
            hub.add(name, {**FILES, "README.md": b"# Someone else\n"})
        return None

    hub.misbehave = meanwhile

    outcome = client.push(name, {**FILES, "peftune.json": b"{ }"})

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"'{name}' was changed on the hub meanwhile, and nothing was pushed. Try again."
    )
    assert held(hub.repositories[name])["README.md"] == b"# Someone else\n"


def test_a_push_that_is_killed_leaves_the_older_artifact(
    hub: LoopbackHub, name: str, tmp_path: Path
) -> None:
    """Until the commit is made, all that was sent is invisible; the next push goes on from there."""
    old = hub.add(name, FILES)
    new = {**FILES, WEIGHTS: b"new weights"}
    victim = Client(client_environment(hub.endpoint, tmp_path, HF_TOKEN=TOKEN))

    def kill(request: Request) -> Answer | None:
        if "/commit/" in request.path:
            os.kill(victim.process.pid, signal.SIGKILL)
            victim.process.wait()
            return Answer(500)
        return None

    hub.misbehave = kill

    with pytest.raises(json.JSONDecodeError):
        victim.push(name, new)

    assert hub.repositories[name].head == old
    assert held(hub.repositories[name]) == FILES
    victim.close()

    hub.misbehave = lambda _: None
    successor = Client(client_environment(hub.endpoint, tmp_path, HF_TOKEN=TOKEN))
    assert successor.push(name, new).error is None
    successor.close()
    assert held(hub.repositories[name]) == new


def test_a_store_that_refuses_leaves_the_older_artifact(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """No commit is made of files that did not arrive."""
    old = hub.add(name, FILES)
    hub.misbehave = lambda request: Answer(403) if request.method == "PUT" else None

    outcome = client.push(name, {**FILES, WEIGHTS: b"new weights"})

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"The hub forbids this for '{name}'. Check what the token may do, or log in with 'hf auth login' or set HF_TOKEN."
    )
    assert hub.repositories[name].head == old


def test_without_a_token_or_a_hub_nothing_is_begun(
    hub: LoopbackHub, tmp_path: Path, name: str
) -> None:
    """It is said what to do, and no request is made."""
    nobody = Client(client_environment(hub.endpoint, tmp_path))
    offline = Client(
        client_environment(hub.endpoint, tmp_path, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
    )

    without_token, without_hub = nobody.push(name, FILES), offline.push(name, FILES)
    for other in (nobody, offline):
        other.close()

    assert without_token.error == without_hub.error == "UsageError"
    assert without_token.message == (
        "Pushing needs a token of the hub that may write. Log in with 'hf auth login', or set HF_TOKEN."
    )
    assert without_hub.message == (
        "The hub is switched off by HF_HUB_OFFLINE, so nothing can be pushed. Unset it."
    )
    assert hub.requests == []


def test_a_name_of_somebody_else_is_refused_in_the_hubs_own_words(
    hub: LoopbackHub, client: Client
) -> None:
    """The reason is the hub's, the advice is ours."""
    outcome = client.push("grace/tweets", FILES)

    assert hub.repositories == {}

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        "The hub forbids this for 'grace/tweets': You don't have the rights to create a model under the namespace \"grace\". "
        "Check what the token may do, or log in with 'hf auth login' or set HF_TOKEN."
    )


def test_an_answer_that_repeats_the_token_is_shown_without_it(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """The token is in no message, whoever wrote it."""
    hub.misbehave = lambda request: Answer.error(
        403, f"Bearer {request.token} may not write; ask {request.token}"
    )

    outcome = client.push(name, FILES)

    assert outcome.message is not None
    assert outcome.message.startswith(
        f"The hub forbids this for '{name}': Bearer [token] may not write; ask [token]. "
    )
    assert TOKEN not in str(dataclasses.asdict(outcome))


def test_a_card_that_the_hub_refuses_stops_the_push(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """The hub's own reason is said, and nothing is committed."""
    card = b"---\nbase_model: /home/ada/gpt2\n---\n# A card\n"

    outcome = client.push(name, {**FILES, "README.md": card})

    assert outcome.error == "ArtifactError"
    assert outcome.message is not None
    assert outcome.message.startswith(
        f'The hub refuses the model card of \'{name}\' (Invalid metadata in README.md. - "base_model" with value "/home/ada/gpt2" is not valid.'
    )
    assert held(hub.repositories[name]) == {}
