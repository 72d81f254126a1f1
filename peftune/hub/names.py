"""Names of artifacts on the hub: `user/name`, or `user/name@revision`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

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

        A tag or a branch is no pin: it can be moved.
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
