"""Names of artifacts on the hub, time limits for requests, and one-line messages for what can go wrong."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from peftune.errors import ArtifactError, HubError, PeftuneError

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REVISION = r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST_REPOSITORY = 96
_LONGEST_REVISION = 255
_NEVER = ("--", "..", "//")


@dataclass(frozen=True, slots=True)
class HubName:
    """An artifact on the hub.

    Args:
        repository: `user/name`.
        revision: a commit, a tag or a branch; None for the newest commit.
    """

    repository: str
    revision: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit that it is pinned to: 40 hexadecimal digits, which name one content forever.

        A tag or a branch is not a pin: it can be moved.
        """
        is_commit = self.revision is not None and _COMMIT.fullmatch(self.revision)
        return self.revision if is_commit else None

    def at(self, commit: str) -> HubName:
        """Return the name pinned to a commit."""
        return replace(self, revision=commit)

    def __str__(self) -> str:
        """Write it as a user does."""
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def parse_hub_name(text: str) -> HubName | None:
    """Read a text as the name of an artifact on the hub; None where it is none."""
    match = _NAME.fullmatch(text)
    if match is None or any(never in text for never in _NEVER):
        return None
    repository, revision = match["repository"], match["revision"]
    if len(repository) > _LONGEST_REPOSITORY or repository.endswith(".git"):
        return None
    if revision is not None and len(revision) > _LONGEST_REVISION:
        return None
    return HubName(repository, revision)


def hub_name(artifact: str | Path) -> HubName | None:
    """Decide whether an artifact is named on the hub, or by a path of this machine.

    What exists here wins; a `Path`, and a text that begins with `.`, `/` or `~`, is never a name
    on the hub.

    Returns:
        The name on the hub; None for a path.
    """
    if isinstance(artifact, Path) or artifact.startswith((".", "/", "~")):
        return None
    name = parse_hub_name(artifact)
    return None if name is None or Path(artifact).exists() else name


T = TypeVar("T")

_TRIES = 6
"""How often the hub's client tries each request at most."""

_SLOWEST = 50_000
"""Bytes a second below which a download is given up."""

_LONGEST_ANSWER = 200
_BAD_TOKEN, _FORBIDDEN, _OUTDATED, _TOO_MANY = 401, 403, 412, 429
_LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"

_KNOWN: dict[str, tuple[type[ArtifactError], str]] = {
    "OfflineModeIsEnabled": (
        HubError,
        "'{name}' is not a folder here and not in the cache under a commit, and the hub is switched off by HF_HUB_OFFLINE. Unset it, or pin a commit that was fetched before.",
    ),
    "RevisionNotFoundError": (
        ArtifactError,
        "'{repository}' has no revision '{revision}' on the hub, or has it no more. Ask who shared it for the commit.",
    ),
    "GatedRepoError": (
        ArtifactError,
        "'{name}' is gated: ask for access on its page of the hub, then {log_in}.",
    ),
    "RepositoryNotFoundError": (
        ArtifactError,
        "There is no folder '{name}' here, and no repository '{repository}' on the hub that you may read. Check the name; if it is private, {log_in}.",
    ),
    "ConnectError": (
        HubError,
        "'{name}' is not a folder here, and the hub ({host}) cannot be reached. Check the name and the connection.",
    ),
    **dict.fromkeys(
        ("TimeoutException", "TimeoutError"),
        (
            HubError,
            "The hub ({host}) is too slow with '{name}'. Try again later; HF_HUB_DOWNLOAD_TIMEOUT sets how many seconds it may be silent.",
        ),
    ),
}
"""What faults mean, by the name of their class: that of the package with the line's faults has
changed (`httpx`, `httpx2`), those of the classes have not."""

_CUT_SHORT = (
    "The hub ({host}) sent another number of bytes of '{name}' than it had announced. Try again."
)


def within_time(work: Callable[[], T], *, size: int = 0) -> T:
    """Do work with the hub, and give up where it takes longer than any working line would.

    The client limits the time of single reads alone, and of some requests not even that. What is
    given up goes on in the background until the process ends, and does no harm: it writes into
    the cache alone, whose files are checked whenever they are used.

    Args:
        work: what to do.
        size: bytes to be transferred.

    Raises:
        TimeoutError: it took too long.
    """
    from huggingface_hub import constants

    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    seconds = _TRIES * constants.HF_HUB_DOWNLOAD_TIMEOUT + size / _SLOWEST
    try:
        return outcome.result(timeout=seconds)
    except OutOfTime as error:
        raise TimeoutError from error


@contextlib.contextmanager
def in_one_line(name: HubName) -> Iterator[None]:
    """Turn every fault of the hub, its client and the line to it into one of peftune's.

    Raises:
        ArtifactError: the artifact is not there, or may not be read.
        HubError: the hub cannot be reached, or does not answer as it must.
    """
    try:
        yield
    except PeftuneError:
        raise
    except Exception as error:
        raise _fault(name, error) from error


def _fault(name: HubName, error: Exception) -> PeftuneError:
    """Say what happened: by what the client raised, or by what that was raised from."""
    from huggingface_hub import errors

    answer = _shortened(" ".join(str(error).split()))
    if answer.startswith("Invalid metadata in README.md"):
        return ArtifactError(f"The hub refuses the model card of '{name}' ({answer}).")
    for found in _chain(error):
        for kind in type(found).__mro__:
            if kind.__name__ in _KNOWN:
                make, text = _KNOWN[kind.__name__]
                return make(_filled(text, name))
        if isinstance(found, errors.HfHubHTTPError):
            return _refusal(name, found)
    if "Consistency check failed" in answer:
        return HubError(_filled(_CUT_SHORT, name))
    return HubError(
        f"The hub ({_host()}) does not answer for '{name}' as a hub does ({type(error).__name__}: {answer}). Try again; check HF_ENDPOINT if it is set."
    )


def _filled(text: str, name: HubName) -> str:
    return text.format(
        name=name,
        repository=name.repository,
        revision=name.revision,
        host=_host(),
        log_in=_LOG_IN,
    )


def _refusal(name: HubName, error: Exception) -> PeftuneError:
    """Explain an answer of the hub that is not a success, and none of the known ones."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    answer = _shortened(getattr(error, "server_message", None) or "")
    reason = f": {answer}" if answer else ""
    if status == _BAD_TOKEN:
        return ArtifactError(
            f"The hub does not accept the token for '{name}'{reason}. It may have expired: {_LOG_IN}."
        )
    if status == _FORBIDDEN:
        return ArtifactError(
            f"The hub forbids this for '{name}'{reason}. Check what the token may do, or {_LOG_IN}."
        )
    if status == _OUTDATED:
        return HubError(
            f"'{name}' was changed on the hub meanwhile, and nothing was pushed. Try again."
        )
    wait = "Wait a while" if status == _TOO_MANY else "Try again later"
    return HubError(f"The hub ({_host()}) answered {status} for '{name}'{reason}. {wait}.")


def _shortened(text: str) -> str:
    """Keep one short line of what a server says, without the token should it repeat it."""
    from huggingface_hub import get_token

    line = text.splitlines()[0] if text.strip() else ""
    if token := get_token():
        line = line.replace(token, "[token]")
    shortened = line if len(line) <= _LONGEST_ANSWER else f"{line[:_LONGEST_ANSWER]}…"
    return shortened.rstrip(".")


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).hostname or "unknown"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
