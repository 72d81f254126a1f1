"""Fetching an artifact from a hub: the real client, and a hub on this machine that may misbehave."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_client import Client, Outcome, client_environment
from loopback_hub import TOKEN, Answer, LoopbackHub, Request, blob_id, running_hub, sha256

WEIGHTS = "adapter_model.safetensors"
FILES = {
    "README.md": b"# A card\n",
    "adapter_config.json": b"{}\n",
    WEIGHTS: bytes(range(256)) * 64,
}
FILES["peftune.json"] = json.dumps({"files": dict.fromkeys(FILES, "")}).encode()
NOT_THIS = "f" * 40

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
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of the user of most tests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(running: LoopbackHub, home: Path) -> Iterator[Client]:
    """Run a client for as long as the tests last."""
    client = Client(client_environment(running.endpoint, home, HF_TOKEN=TOKEN))
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    """Name a repository that no other test has, since they share a cache."""
    return f"ada/adapter-{next(_numbers)}"


def asked_for_files(hub: LoopbackHub) -> list[Request]:
    """List the requests for files, or for what is known of them."""
    return [one for one in hub.requests if "/resolve/" in one.path or one.to_store]


def content_of(outcome: Outcome) -> dict[str, bytes]:
    """Read what was fetched."""
    return {file: Path(path).read_bytes() for file, path in outcome.entries.items()}


def on_file(file: str, change: Callable[[Answer], Answer], hub: LoopbackHub) -> None:
    """Let the hub change its answer to each GET of a file."""

    def misbehave(request: Request) -> Answer | None:
        path = f"/objects/{sha256(FILES[file])}" if file == WEIGHTS else f"/{file}"
        if request.method != "GET" or not request.path.endswith(path):
            return None
        hub.misbehave = lambda _: None
        hub.requests.pop()
        answer = hub.answer(request)
        hub.misbehave = misbehave
        return change(answer)

    hub.misbehave = misbehave


def in_info(change: Callable[[dict[str, Any]], object], hub: LoopbackHub) -> None:
    """Let the hub change what it tells of a repository."""

    def misbehave(request: Request) -> Answer | None:
        if not request.path.startswith("/api/models/"):
            return None
        hub.misbehave = lambda _: None
        hub.requests.pop()
        answer = hub.answer(request)
        hub.misbehave = misbehave
        values = json.loads(answer.body)
        change(values)
        return dataclasses.replace(answer, body=json.dumps(values).encode())

    hub.misbehave = misbehave


# What is fetched


def test_a_pinned_artifact_is_fetched_file_by_file_at_its_commit(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """One question for the list, then the closed list of files, all at the commit that was asked for."""
    commit = hub.add(name, FILES)
    hub.add(name, {**FILES, "README.md": b"# A newer card\n"})

    outcome = client.fetch(f"{name}@{commit}")

    assert (outcome.error, outcome.message) == (None, None)
    assert outcome.name == f"{name}@{commit}"
    assert content_of(outcome) == FILES
    assert [one.path for one in hub.asked("GET", "/api/models/")] == [
        f"/api/models/{name}/revision/{commit}"
    ]
    assert {one.path for one in asked_for_files(hub) if not one.to_store} == {
        f"/{name}/resolve/{commit}/{file}" for file in FILES
    }
    assert outcome.log == []


def test_fetching_loads_neither_torch_nor_xet(hub: LoopbackHub, client: Client, name: str) -> None:
    """The hub's client needs no compiled helper to fetch, and what is fetched is not opened."""
    commit = hub.add(name, FILES)

    assert client.fetch(f"{name}@{commit}").modules == []


def test_where_the_hub_offers_xet_a_client_without_it_fetches_all_the_same(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """Headers that lead to the other storage are left alone."""
    commit = hub.add(name, FILES)

    def offer_xet(request: Request) -> Answer | None:
        if not request.path.endswith(WEIGHTS):
            return None
        hub.misbehave = lambda _: None
        answer = hub.answer(request)
        hub.misbehave = offer_xet
        offer = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{hub.endpoint}/no-such-place"}
        return dataclasses.replace(answer, headers=answer.headers | offer)

    hub.misbehave = offer_xet

    assert content_of(client.fetch(f"{name}@{commit}")) == FILES


def test_an_unpinned_name_says_once_which_commit_it_stands_for(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """Who shares a result can pin what was used; saying it again would be noise."""
    commit = hub.add(name, FILES)

    first, second = client.fetch(name), client.fetch(name)

    assert first.name == second.name == f"{name}@{commit}"
    assert first.log == [
        f"'{name}' is not pinned; it is commit {commit} now; pin it as {name}@{commit}"
    ]
    assert second.log == []


def test_a_branch_is_no_pin(hub: LoopbackHub, client: Client, name: str) -> None:
    """It can be moved, so the commit is said."""
    commit = hub.add(name, FILES)

    outcome = client.fetch(f"{name}@main")

    assert outcome.name == f"{name}@{commit}"
    assert outcome.log == [
        f"'{name}@main' is not pinned; it is commit {commit} now; pin it as {name}@{commit}"
    ]


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """Large files lie on another server, which never sees it."""
    hub.add(name, FILES)

    client.fetch(name)

    assert {one.token for one in hub.requests if one.to_store} == {None}
    assert {one.token for one in hub.asked("HEAD")} == {TOKEN}


# The cache


def test_what_was_fetched_once_needs_no_network(
    hub: LoopbackHub, client: Client, name: str, home: Path
) -> None:
    """A pinned artifact is whole in the cache: no request is made, with the hub switched off too."""
    commit = hub.add(name, FILES)
    client.fetch(f"{name}@{commit}")
    hub.requests.clear()

    again = client.fetch(f"{name}@{commit}")
    switched_off = Client(client_environment(hub.endpoint, home, HF_HUB_OFFLINE="1"))
    offline = switched_off.fetch(f"{name}@{commit}")
    unpinned = switched_off.fetch(name)
    switched_off.close()

    assert content_of(again) == content_of(offline) == FILES
    assert hub.requests == []
    assert unpinned.error == "HubError"
    assert unpinned.message == (
        f"'{name}' is not a folder here and not in the cache under a commit, and the hub is switched off by HF_HUB_OFFLINE. "
        "Unset it, or pin a commit that was fetched before."
    )


def test_a_part_in_the_cache_is_completed(hub: LoopbackHub, client: Client, name: str) -> None:
    """An interrupted fetch goes on: only what is missing is asked for."""
    commit = hub.add(name, FILES)
    pointer = Path(client.fetch(f"{name}@{commit}").entries[WEIGHTS]).parents[1]
    (pointer / "snapshots" / commit / WEIGHTS).unlink()
    (pointer / "blobs" / sha256(FILES[WEIGHTS])).unlink()
    hub.requests.clear()

    outcome = client.fetch(f"{name}@{commit}")

    assert content_of(outcome) == FILES
    assert [one.path for one in hub.requests if one.to_store] == [
        f"/objects/{sha256(FILES[WEIGHTS])}"
    ]


@pytest.mark.parametrize("file", sorted(FILES))
def test_bytes_changed_in_the_cache_are_noticed_and_fetched_again(
    file: str, hub: LoopbackHub, client: Client, name: str
) -> None:
    """The cache names each file by its hash; what does not fit its name is refused and removed."""
    commit = hub.add(name, FILES)
    blob = Path(client.fetch(f"{name}@{commit}").entries[file])
    blob.write_bytes(b"x" * len(FILES[file]))

    refused = client.fetch(f"{name}@{commit}")
    again = client.fetch(f"{name}@{commit}")

    assert refused.error == "ArtifactError"
    assert refused.message == changed(name, commit, file)
    assert content_of(again) == FILES


def test_a_link_out_of_the_cache_is_not_followed(
    hub: LoopbackHub, client: Client, name: str, tmp_path: Path
) -> None:
    """What is opened lies in the cache, whatever a name in it leads to."""
    commit = hub.add(name, FILES)
    blob = Path(client.fetch(f"{name}@{commit}").entries["README.md"])
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["README.md"])
    pointer = blob.parents[1] / "snapshots" / commit / "README.md"
    pointer.unlink()
    pointer.symlink_to(outside)

    outcome = client.fetch(f"{name}@{commit}")

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"'{name}@{commit}/README.md' lies outside the cache of the hub, at '{outside}', and is not opened. Remove '{pointer}'."
    )


# What a repository may hold


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (["pytorch_model.bin"], "'pytorch_model.bin'"),
        (["config.json"], "'config.json'"),
        (["code/model.py"], "'code/model.py'"),
        (["a", "b", "c", "d", "e"], "'a', 'b', 'c' and 2 more"),
    ],
)
def test_files_that_do_not_belong_are_refused_before_anything_is_fetched(
    files: list[str], shown: str, hub: LoopbackHub, client: Client, name: str
) -> None:
    """Nothing of such a repository is opened, whatever its manifest says."""
    commit = hub.add(name, {**FILES, **dict.fromkeys(files, b"")})

    outcome = client.fetch(name)

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"'{name}@{commit}' holds {shown} beside the files of an artifact, so nothing of it is fetched. "
        "Ask who shared it to remove them."
    )
    assert asked_for_files(hub) == []


def test_a_whole_model_has_a_list_of_its_own(hub: LoopbackHub, client: Client, name: str) -> None:
    """Configuration and tokenizer belong to a model, and an adapter's weights do not."""
    model = {
        "README.md": b"",
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "peftune.json": b"{}",
    }
    hub.add(name, model)
    hub.add(f"{name}-both", {**model, WEIGHTS: b""})

    assert content_of(client.fetch(name)) == model
    assert "'adapter_model.safetensors' beside" in str(client.fetch(f"{name}-both").message)


@pytest.mark.parametrize(
    ("missing", "fault"),
    [
        (
            "peftune.json",
            "holds no peftune.json, so it is not an artifact of peftune. A plain PEFT adapter is loaded from a folder: download it first.",
        ),
        (
            WEIGHTS,
            "holds neither adapter_model.safetensors nor model.safetensors; the artifact is incomplete. Ask who shared it.",
        ),
    ],
)
def test_a_repository_without_what_an_artifact_needs_is_refused(
    missing: str, fault: str, hub: LoopbackHub, client: Client, name: str
) -> None:
    """It is said what is missing, and nothing is fetched."""
    commit = hub.add(name, {file: FILES[file] for file in FILES if file != missing})

    outcome = client.fetch(name)

    assert outcome.message == f"'{name}@{commit}' {fault}"
    assert asked_for_files(hub) == []


@pytest.mark.parametrize(
    ("file", "limit"), [("peftune.json", 1 << 20), ("README.md", 1 << 20), (WEIGHTS, 8 << 30)]
)
def test_a_file_that_is_too_large_is_refused_before_anything_is_fetched(
    file: str, limit: int, hub: LoopbackHub, client: Client, name: str
) -> None:
    """The size that the hub tells is enough to refuse it."""
    commit = hub.add(name, FILES)

    def enlarge(info: dict[str, Any]) -> None:
        [entry] = [one for one in info["siblings"] if one["rfilename"] == file]
        (entry.get("lfs") or entry)["size"] = limit + 1

    in_info(enlarge, hub)

    outcome = client.fetch(name)

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"'{name}@{commit}/{file}' has {limit + 1} bytes, and may have {limit}; nothing is fetched."
    )
    assert asked_for_files(hub) == []


# A hub, or a line, that does not do what it must


def changed(name: str, commit: str, file: str) -> str:
    """Say that a file is not what the hub has."""
    return (
        f"'{name}@{commit}/{file}' does not hold the bytes that the hub has under that name: "
        "they were changed on the way or in the cache. They are removed; try again."
    )


@pytest.mark.parametrize("file", sorted(FILES))
def test_changed_bytes_are_refused_by_the_hubs_own_hash(
    file: str, hub: LoopbackHub, client: Client, name: str
) -> None:
    """One flipped bit on the way is enough; a second try fetches the file anew."""
    commit = hub.add(name, FILES)
    on_file(
        file,
        lambda answer: dataclasses.replace(
            answer, body=bytes([answer.body[0] ^ 1]) + answer.body[1:]
        ),
        hub,
    )

    refused = client.fetch(name)
    hub.misbehave = lambda _: None
    again = client.fetch(name)

    assert (refused.error, refused.message) == ("ArtifactError", changed(name, commit, file))
    assert content_of(again) == FILES


@pytest.mark.parametrize("file", ["README.md", WEIGHTS])
def test_a_file_that_is_cut_short_is_refused(
    file: str, hub: LoopbackHub, client: Client, name: str
) -> None:
    """Fewer bytes than were announced are not a file."""
    commit = hub.add(name, FILES)
    on_file(file, lambda answer: dataclasses.replace(answer, body=answer.body[:-3]), hub)

    outcome = client.fetch(f"{name}@{commit}")

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"The hub (127.0.0.1) sent another number of bytes of '{name}@{commit}' than it had announced. Try again."
    )


def test_a_line_that_breaks_is_tried_again(hub: LoopbackHub, client: Client, name: str) -> None:
    """The client asks anew; what comes then is checked as ever."""
    hub.add(name, FILES)

    def cut(answer: Answer) -> Answer:
        hub.misbehave = lambda _: None
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        return Answer(200, answer.body[: len(answer.body) // 2], headers)

    on_file(WEIGHTS, cut, hub)

    assert content_of(client.fetch(name)) == FILES


def test_another_commit_than_the_one_asked_for_is_refused(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """A pin holds against the hub too: neither the list nor a file of another commit is taken."""
    commit = hub.add(name, FILES)
    newer = hub.add(name, {**FILES, "README.md": b"# Another\n"})

    in_info(lambda info: info.update(sha=newer), hub)
    of_list = client.fetch(f"{name}@{commit}")

    def other_commit(request: Request) -> Answer | None:
        if not request.path.endswith("/README.md"):
            return None
        content = FILES["README.md"]
        headers = {"X-Repo-Commit": newer, "ETag": f'"{blob_id(content)}"'}
        return Answer(200, content, headers)

    hub.misbehave = other_commit
    of_file = client.fetch(f"{name}@{commit}")

    assert of_list.error == of_file.error == "HubError"
    assert of_list.message == (
        f"The hub was asked for '{name}@{commit}' and answers for commit '{newer}'; nothing is fetched. "
        "Try again; check HF_ENDPOINT if it is set."
    )
    assert of_file.message == (
        f"The hub was asked for '{name}@{commit}/README.md' and answers for commit '{newer}'; the file is not opened. "
        "Try again; check HF_ENDPOINT if it is set."
    )


def test_a_hub_that_does_not_say_what_its_files_hold_is_not_believed(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """Without a hash nothing could be checked."""
    commit = hub.add(name, FILES)

    def forget_hash(info: dict[str, Any]) -> None:
        for entry in info["siblings"]:
            entry.pop("blobId")

    in_info(forget_hash, hub)

    outcome = client.fetch(name)

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"The hub does not say what '{name}@{commit}/.gitattributes' holds; nothing is fetched. "
        "Try again; check HF_ENDPOINT if it is set."
    )


def test_a_file_that_is_redirected_to_other_bytes_is_refused_and_gets_no_token(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """Where the bytes come from does not matter; what they are does."""
    commit = hub.add(name, FILES)

    def redirect(request: Request) -> Answer | None:
        if request.to_store and request.path == "/elsewhere":
            return Answer(200, b"# A trap\n", {"ETag": '"elsewhere"'})
        if request.method == "GET" and request.path.endswith("/README.md"):
            return Answer(302, b"", {"Location": f"{hub.store}/elsewhere"})
        return None

    hub.misbehave = redirect

    outcome = client.fetch(name)

    assert (outcome.error, outcome.message) == (
        "ArtifactError",
        changed(name, commit, "README.md"),
    )
    assert [one.token for one in hub.asked("GET", "/elsewhere")] == [None]


def test_a_repository_that_moved_is_refused_under_its_old_name(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """A name that was given up can be taken by anyone; the new one is for the user to choose."""
    hub.add(f"{name}-moved", FILES)

    def moved(request: Request) -> Answer | None:
        if request.path != f"/api/models/{name}":
            return None
        return Answer(307, b"", {"Location": f"/api/models/{name}-moved?blobs=true"})

    hub.misbehave = moved

    outcome = client.fetch(name)

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"The hub leads from '{name}' to '{name}-moved'. If that is what you mean, ask for it by that name."
    )
    assert asked_for_files(hub) == []


# What the hub does not have, or does not give


def test_an_unknown_name_is_neither_a_folder_nor_on_the_hub(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """A mistyped path looks like a name of the hub, so both are said."""
    outcome = client.fetch(name)

    assert hub.asked("HEAD") == []
    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"There is no folder '{name}' here, and no repository '{name}' on the hub that you may read. "
        "Check the name; if it is private, log in with 'hf auth login' or set HF_TOKEN."
    )


def test_a_revision_that_is_gone_is_said(hub: LoopbackHub, client: Client, name: str) -> None:
    """A commit can vanish with a repository that was made anew."""
    hub.add(name, FILES)

    outcome = client.fetch(f"{name}@{NOT_THIS}")

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"'{name}' has no revision '{NOT_THIS}' on the hub, or has it no more. Ask who shared it for the commit."
    )


def test_a_gated_repository_says_where_to_ask(hub: LoopbackHub, client: Client, name: str) -> None:
    """Its list can be read, its files cannot."""
    commit = hub.add(name, FILES)
    hub.repositories[name].gated = True

    outcome = client.fetch(f"{name}@{commit}")

    assert outcome.error == "ArtifactError"
    assert outcome.message == (
        f"'{name}@{commit}' is gated: ask for access on its page of the hub, then log in with 'hf auth login' or set HF_TOKEN."
    )


def test_a_private_repository_and_a_bad_token_are_told_apart(
    hub: LoopbackHub, client: Client, name: str, tmp_path: Path
) -> None:
    """With the right token it is fetched; without it is as if it were not there."""
    hub.add(name, FILES)
    hub.repositories[name].private = True
    nobody = Client(client_environment(hub.endpoint, tmp_path))
    stranger = Client(client_environment(hub.endpoint, tmp_path, HF_TOKEN=TOKEN[:-1]))

    unknown = nobody.fetch(name)
    hub.repositories[name].private = False
    expired = stranger.fetch(name)
    hub.repositories[name].private = True
    owner = client.fetch(name)
    for other in (nobody, stranger):
        other.close()

    assert "no repository" in str(unknown.message)
    assert expired.error == "ArtifactError"
    assert expired.message == (
        f"The hub does not accept the token for '{name}': Invalid credentials in Authorization header. "
        "It may have expired: log in with 'hf auth login' or set HF_TOKEN."
    )
    assert content_of(owner) == FILES


def test_a_hub_that_fails_is_said_with_its_own_words_but_never_with_the_token(
    hub: LoopbackHub, client: Client, name: str
) -> None:
    """An answer that repeats the token is shown without it."""
    hub.misbehave = lambda _: Answer.error(500, f"database is down for {TOKEN}")

    outcome = client.fetch(name)

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"The hub (127.0.0.1) answered 500 for '{name}': database is down for [token]. Try again later."
    )


def test_a_server_that_is_no_hub_is_said(hub: LoopbackHub, client: Client, name: str) -> None:
    """A page where an answer should be: a login page of the network, or a wrong HF_ENDPOINT."""
    hub.misbehave = lambda _: Answer(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})

    outcome = client.fetch(name)

    assert outcome.error == "HubError"
    assert outcome.message is not None
    assert outcome.message.startswith(
        f"The hub (127.0.0.1) does not answer for '{name}' as a hub does (JSONDecodeError: "
    )


def test_without_a_network_the_line_says_so(tmp_path: Path, name: str) -> None:
    """Nothing listens there."""
    with running_hub() as hub:
        endpoint = hub.endpoint
    client = Client(client_environment(endpoint, tmp_path))

    outcome = client.fetch(name)
    client.close()

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"'{name}' is not a folder here, and the hub (127.0.0.1) cannot be reached. Check the name and the connection."
    )


def test_a_silent_hub_is_given_up(hub: LoopbackHub, client: Client, name: str) -> None:
    """HF_HUB_DOWNLOAD_TIMEOUT holds: one second here."""
    hub.misbehave = lambda _: time.sleep(3)

    outcome = client.fetch(name)

    assert outcome.error == "HubError"
    assert outcome.message == (
        f"The hub (127.0.0.1) is too slow with '{name}'. Try again later; HF_HUB_DOWNLOAD_TIMEOUT sets how many seconds it may be silent."
    )


def test_a_hub_that_trickles_is_given_up_too(hub: LoopbackHub, client: Client, name: str) -> None:
    """A byte now and then keeps every read alive; the whole has a limit, six times that of a read."""
    commit = hub.add(name, FILES)
    on_file(WEIGHTS, lambda answer: dataclasses.replace(answer, pause=0.5), hub)

    outcome = client.fetch(f"{name}@{commit}")

    assert outcome.error == "HubError"
    assert f"is too slow with '{name}@{commit}'" in str(outcome.message)
