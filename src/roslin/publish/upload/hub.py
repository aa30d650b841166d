"""What publishing asks of a hub, whichever it is: look, make, store, commit, tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from roslin.errors import InputError, MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from roslin.publish.upload.files import SentFile


class HubRefused(InputError):
    """A hub does not do what was asked: no token, no right, no such name, a name that is taken."""


class HubAway(MachineError):
    """A hub is out of reach, takes too long, or fails by its own account; the same may work in a while.

    `wait` is after how many seconds, where the hub says it.
    """

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass(frozen=True)
class Stored:
    """A file as a hub has it: its size, and the hash that the hub knows it by; neither for one that it cannot tell."""

    size: int | None
    sha256: str | None = None
    git_sha1: str | None = None

    def is_file(self, file: SentFile) -> bool:
        """Whether a file here is the same, byte for byte."""
        if self.size is not None and self.size != file.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == file.sha256
        return self.git_sha1 is not None and self.git_sha1 == file.git_sha1


@dataclass(frozen=True)
class Repository:
    """A repository as a hub has it now."""

    visibility: str
    """`private`, `public`, or whatever else the hub has."""
    branches: Mapping[str, str | None]
    """The commit at which each branch is, where the hub says it."""
    tags: Mapping[str, str | None]
    files: Mapping[str, Stored]
    """Those of the branch that was asked for; of the trunk where there is no such branch yet."""


class Hub(Protocol):
    """A place where models are published. Each method raises HubRefused and HubAway."""

    title: str
    """Its name in a sentence."""
    trunk: str
    """The branch that everybody gets who asks for none."""

    def has_token(self) -> bool:
        """Whether there is a login on this machine, or a token in the environment."""

    def check_account(self, owner: str) -> None:
        """Refuse a token that is wrong, may not write, or is of somebody who has no say over `owner`'s names."""

    def look(self, name: str, branch: str) -> Repository | None:
        """The repository, if it is there and the token may see it."""

    def check_card(self, text: str) -> None:
        """Refuse a card that the hub would refuse."""

    def create(self, name: str, *, private: bool, licence: str) -> None:
        """Make a repository."""

    def create_branch(self, name: str, branch: str) -> None:
        """Make a branch where the trunk is."""

    def store(self, name: str, branch: str, file: SentFile) -> None:
        """Send a large file's content, unless the hub has it; it is in no commit yet."""

    def commit(self, name: str, branch: str, files: Sequence[SentFile], message: str, parent: str | None) -> str | None:
        """Put files into one commit on a branch that is at `parent`; the commit's id where the hub says it."""

    def tag(self, name: str, tag: str, branch: str) -> None:
        """Tag the commit at which the branch is."""

    def is_large(self, file: SentFile) -> bool:
        """Whether `store` sends this file, and not the commit."""

    def address(self, name: str, branch: str) -> str:
        """Where people look at the repository."""

    def settings(self, name: str) -> str:
        """Where its owner changes who may see it."""
