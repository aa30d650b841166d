"""Publishing a folder: what of it a hub lacks, and sending that; a broken-off upload goes on where it stopped."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, TypeVar

from roslin.errors import InputError
from roslin.publish.upload.hub import Hub, HubAway, HubRefused, Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roslin.publish.upload.check import Upload
    from roslin.publish.upload.files import SentFile

    Say = Callable[[str], None]

T = TypeVar("T")
Change = Literal["new", "changed", "unchanged", "unknown"]

WAITS = (1.0, 4.0, 15.0)
"""Seconds between attempts at what failed by the hub's or the network's fault."""
LONGEST_WAIT = 330.0
"""Seconds that a hub may ask to wait, where it takes no more requests: the Hugging Face hub counts five minutes."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
LONGEST_NAME = 96
COMMIT = re.compile(r"[0-9a-f]{40}")
LARGE_LEFT = re.compile(r"\.(safetensors|bin|gguf)(\.index\.json)?$")
"""Files whose leftovers on a hub make loaders load another model than the one sent."""


@dataclass(frozen=True)
class Target:
    """Where a folder is to be published, and how."""

    name: str
    branch: str
    public: bool = False
    message: str = "Upload by Roslin"
    tag: str | None = None

    def check(self, hub: Hub) -> None:
        """Raise InputError for names that no hub takes."""
        faults = []
        if (
            not NAME.fullmatch(self.name)
            or len(self.name) > LONGEST_NAME
            or re.search(r"--|\.\.|\.git$|[.-]$", self.name)
        ):
            faults.append(
                f"{self.name!r} is no name of a repository: owner/name, of letters, digits, `-`, `_` and `.`, "
                f"{LONGEST_NAME} at most"
            )
        if COMMIT.fullmatch(self.branch):
            faults.append(f"{self.branch} is a commit, and files are added to a branch: give one, such as {hub.trunk}")
        for what, name in (("branch", self.branch), ("tag", self.tag)):
            if name is not None and (
                not re.fullmatch(r"[\w.][\w./-]*", name) or ".." in name or name.endswith(("/", "."))
            ):
                faults.append(f"{name!r} is no name of a {what}")
        if not self.message.strip():
            faults.append("the message of the commit is empty")
        if faults:
            raise InputError(
                "\n".join(fault if at else fault[0].upper() + fault[1:] for at, fault in enumerate(faults))
            )


@dataclass(frozen=True)
class Plan:
    """What publishing a folder would do. `unasked` is why the hub was not asked what it has; None where it was."""

    upload: Upload
    target: Target
    repository: Repository | None
    unasked: str | None

    @cached_property
    def changes(self) -> dict[str, Change]:
        """What each file is to the hub."""
        return {file.name: self._change(file) for file in self.upload.files}

    @property
    def sent(self) -> list[SentFile]:
        """The files that the hub lacks."""
        return [file for file in self.upload.files if self.changes[file.name] != "unchanged"]

    @property
    def visibility(self) -> str:
        """Who sees the repository: as it is, where it is there, or as it will be made."""
        if self.repository is not None:
            return self.repository.visibility
        return "public" if self.target.public else "private"

    @property
    def only_there(self) -> list[str]:
        """Files that are on the hub and not in the folder: they stay."""
        names = {file.name for file in self.upload.files}
        there = self.repository.files if self.repository else {}
        return sorted(name for name in there if name not in names and not name.startswith("."))

    @property
    def stale(self) -> list[str]:
        """Those of them that a loader may take for the model's."""
        return [name for name in self.only_there if LARGE_LEFT.search(name)]

    @property
    def tag_is_there(self) -> bool:
        """Whether the tag exists already."""
        return self.repository is not None and self.target.tag in self.repository.tags

    def _change(self, file: SentFile) -> Change:
        if self.unasked is not None:
            return "unknown"
        stored = self.repository.files.get(file.name) if self.repository else None
        if stored is None:
            return "new"
        return "unchanged" if stored.is_file(file) else "changed"


@dataclass(frozen=True)
class Published:
    """What was done: the files that were sent, and the commit they are in, where the hub says it."""

    plan: Plan
    sent: Sequence[SentFile]
    commit: str | None
    tagged: bool


def plan_upload(upload: Upload, target: Target, hub: Hub, *, say: Say, may_be_unasked: bool = False) -> Plan:
    """Compare a folder with what a hub has. Nothing is sent but questions.

    `may_be_unasked`: without a token or a network, list the folder alone. Raises HubRefused and HubAway, and
    InputError for a target that the hub cannot take.
    """
    target.check(hub)
    try:
        repository = _look(target, hub, say)
    except (HubAway, HubRefused) as error:
        if not may_be_unasked:
            raise
        return Plan(upload, target, None, str(error).split("\n", maxsplit=1)[0])
    plan = Plan(upload, target, repository, None)
    _check_refs(plan, hub)
    if any(file.size > 10**9 for file in upload.files) and repository is not None:
        say("Comparing large files with the hub's by their hashes …")
    return plan


def publish(plan: Plan, hub: Hub, *, say: Say) -> Published:
    """Send what a hub lacks, in one commit, and see that it arrived.

    Large files go first, one by one, and stay in the hub's store when the rest breaks off: the next call does not send
    them again. Raises HubRefused and HubAway; a KeyboardInterrupt passes, after it was said how to go on.
    """
    target, repository = plan.target, plan.repository
    if not plan.sent and repository is not None and target.branch in repository.branches:
        tagged = _tag(plan, hub, say)
        return Published(plan, [], repository.branches[target.branch], tagged)
    _patiently(lambda: hub.check_card(plan.upload.card.read_text(encoding="utf-8-sig")), say)
    parent = _make_place(plan, hub, say)
    _store(plan, hub, say)
    commit = _commit(plan, hub, parent, say)
    return Published(plan, plan.sent, commit, _tag(plan, hub, say))


def _look(target: Target, hub: Hub, say: Say) -> Repository | None:
    owner = target.name.split("/", maxsplit=1)[0]
    _patiently(lambda: hub.check_account(owner), say)
    return _patiently(lambda: hub.look(target.name, target.branch), say)


def _check_refs(plan: Plan, hub: Hub) -> None:
    """Refuse a branch that is a tag, and a tag that is taken and would have to move."""
    target, repository = plan.target, plan.repository
    if repository is None:
        return
    if target.branch in repository.tags and target.branch not in repository.branches:
        raise HubRefused(f"{target.branch} is a tag of {target.name}, which stays where it is: give a branch.")
    if plan.tag_is_there and plan.sent:
        raise HubRefused(
            f"{target.name} has a tag {target.tag} already, and this upload would have to move it: give another name."
        )


def _make_place(plan: Plan, hub: Hub, say: Say) -> str | None:
    """Make the repository and the branch if they are not there; the commit that the branch is at."""
    target, there = plan.target, plan.repository
    if there is None:
        say(f"Making {target.name} on {hub.title}, {plan.visibility} …")
        licence = plan.upload.licence
        _patiently(lambda: hub.create(target.name, private=not target.public, licence=licence), say)
    if there is None or target.branch not in there.branches:
        if target.branch != hub.trunk:
            _patiently(lambda: hub.create_branch(target.name, target.branch), say)
        there = _patiently(lambda: hub.look(target.name, target.branch), say)
    if there is None:
        raise HubAway(f"{target.name} was made on {hub.title}, which does not show it yet. Give the command again.")
    return there.branches.get(target.branch)


def _store(plan: Plan, hub: Hub, say: Say) -> None:
    """Send the large files, each by itself."""
    large = [file for file in plan.sent if hub.is_large(file)]
    arrived = 0
    try:
        for at, file in enumerate(large, 1):
            say(f"Sending {file.name}, {in_units(file.size)} ({at} of {len(large)} large files) …")
            _patiently(partial(hub.store, plan.target.name, plan.target.branch, file), say)
            arrived += 1
    except (KeyboardInterrupt, HubAway):
        say(
            f"Broken off. {arrived} of {len(large)} large files have arrived and will not be sent again; none is to be "
            "seen yet. Give the same command to go on."
        )
        raise


def _commit(plan: Plan, hub: Hub, parent: str | None, say: Say) -> str | None:
    """Commit what was sent. A commit whose reply is lost is not made twice: the hub is asked whether it is there."""
    target = plan.target
    for wait in (*WAITS, None):
        try:
            commit = hub.commit(target.name, target.branch, plan.sent, target.message, parent)
        except HubAway as error:
            if not _lacking(plan, hub, say):
                return _head(plan, hub, say)
            if wait is None:
                raise
            _wait(error, wait, say)
        else:
            break
    if lacking := _lacking(plan, hub, say):
        raise HubAway(
            f"{hub.title} took the commit, and has other contents of {', '.join(lacking)} than this folder: these were "
            "changed while they were sent, or the hub leaves them out. Give the command again."
        )
    return commit or _head(plan, hub, say)


def _lacking(plan: Plan, hub: Hub, say: Say) -> list[str]:
    there = _patiently(lambda: hub.look(plan.target.name, plan.target.branch), say)
    return [file.name for file in Plan(plan.upload, plan.target, there, None).sent]


def _head(plan: Plan, hub: Hub, say: Say) -> str | None:
    there = _patiently(lambda: hub.look(plan.target.name, plan.target.branch), say)
    return there.branches.get(plan.target.branch) if there else None


def _tag(plan: Plan, hub: Hub, say: Say) -> bool:
    """Tag the branch, unless the tag is there."""
    tag = plan.target.tag
    if tag is None or plan.tag_is_there:
        return False
    _patiently(lambda: hub.tag(plan.target.name, tag, plan.target.branch), say)
    return True


def _patiently(call: Callable[[], T], say: Say) -> T:
    """What a call gives, tried again a few times where the hub or the network fails."""
    for wait in WAITS:
        try:
            return call()
        except HubAway as error:
            _wait(error, wait, say)
    return call()


def _wait(error: HubAway, wait: float, say: Say) -> None:
    """Wait as long as the hub asks, or else this long. Raises the error where the hub asks for too long."""
    if error.wait is not None and error.wait > LONGEST_WAIT:
        raise error
    seconds = max(wait, error.wait or 0)
    say(f"{error} Trying again in {seconds:g} s …")
    time.sleep(seconds)


def in_units(size: int) -> str:
    """A size as people read it."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} bytes"
