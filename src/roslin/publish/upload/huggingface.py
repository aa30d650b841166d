"""The Hugging Face hub as a place to publish on, by huggingface_hub 0.34 and later."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from roslin.model.hub import in_a_line
from roslin.publish.upload.hub import HubAway, HubRefused, Repository, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from roslin.publish.upload.files import SentFile

LARGE = 10**6
"""Bytes from which on a file is sent by itself. The hub decides which it stores as large files: those of 10 MB, and
weights."""
BUSY = 429
LOGIN = (
    "log in by `hf auth login`, or set HF_TOKEN, with a token that may write (https://huggingface.co/settings/tokens)"
)


class HuggingFace:
    """The hub at HF_ENDPOINT, with the token that huggingface_hub finds."""

    title = "the Hugging Face hub"
    trunk = "main"

    def __init__(self) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(library_name="roslin")
        self._additions: dict[str, Any] = {}

    def has_token(self) -> bool:
        """Whether huggingface_hub finds a token."""
        from huggingface_hub import get_token

        return bool(get_token())

    def check_account(self, owner: str) -> None:
        """Refuse a token that is missing, wrong or only reads, or of somebody who may not write under `owner`."""
        if not self.has_token():
            raise HubRefused(f"There is no token for {self.title} on this machine: {LOGIN}.")
        with _errors("asking whose token this is"):
            account = self._api.whoami()
        role = account.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise HubRefused(f"The token on this machine may only read: {LOGIN}.")
        teams = {team.get("name"): team.get("roleInOrg") for team in account.get("orgs", [])}
        if owner not in {account.get("name"), *teams}:
            whose = ", ".join([str(account.get("name")), *map(str, teams)])
            raise HubRefused(
                f"The token on this machine is of {account.get('name')}, who publishes under the names {whose}; "
                f"{owner} is none of them. Give one of these as owner, or log in as one who belongs to {owner}."
            )
        if teams.get(owner) == "read":
            raise HubRefused(f"{account.get('name')} may only read in {owner}: ask its admins for the right to write.")

    def look(self, name: str, branch: str) -> Repository | None:
        """The repository, if it is there and the token may see it."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            with _errors(f"looking at {name}"):
                refs = self._api.list_repo_refs(name)
                branches = {ref.name: ref.target_commit for ref in refs.branches}
                info = self._api.model_info(name, revision=branch if branch in branches else None, files_metadata=True)
        except RepositoryNotFoundError:
            return None
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        files = {file.rfilename: _stored(file) for file in info.siblings or []}
        return Repository("private" if getattr(info, "private", False) else "public", branches, tags, files)

    def check_card(self, text: str) -> None:
        """Ask the hub whether it takes the card's metadata."""
        from huggingface_hub import ModelCard

        try:
            with _errors("asking whether the card is right"):
                ModelCard(text).validate()
        except ValueError as error:
            raise HubRefused(f"The hub does not take the metadata of README.md: {_messages(str(error))}") from None

    def create(self, name: str, *, private: bool, licence: str) -> None:
        """Make a repository; the hub reads the licence from the card."""
        with _errors(f"making {name}"):
            self._api.create_repo(name, private=private, exist_ok=True)

    def create_branch(self, name: str, branch: str) -> None:
        """Make a branch where the trunk is."""
        with _errors(f"making the branch {branch}"):
            self._api.create_branch(name, branch=branch, exist_ok=True)

    def is_large(self, file: SentFile) -> bool:
        """Whether a file is sent by itself."""
        return file.size >= LARGE

    def store(self, name: str, branch: str, file: SentFile) -> None:
        """Send a file's content if the hub takes it for a large one and does not have it."""
        with _errors(f"sending {file.name}"):
            self._api.preupload_lfs_files(name, [self._addition(file)], revision=branch, free_memory=False)

    def commit(self, name: str, branch: str, files: Sequence[SentFile], message: str, parent: str | None) -> str | None:
        """Put files into one commit."""
        additions = [self._addition(file) for file in files]
        with _errors("making the commit"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a card that was checked, and of data files in a model's repository
            done = self._api.create_commit(
                name, additions, commit_message=message, revision=branch, parent_commit=parent
            )
        return str(done.oid)

    def tag(self, name: str, tag: str, branch: str) -> None:
        """Tag the commit at which the branch is."""
        with _errors(f"making the tag {tag}"):
            self._api.create_tag(name, tag=tag, revision=branch, exist_ok=True)

    def address(self, name: str, branch: str) -> str:
        """Where people look at the repository."""
        return f"{self._api.endpoint}/{name}" + ("" if branch == self.trunk else f"/tree/{branch}")

    def settings(self, name: str) -> str:
        """Where its owner changes who may see it."""
        return f"{self._api.endpoint}/{name}/settings"

    def _addition(self, file: SentFile) -> Any:
        """What huggingface_hub takes for a file: it remembers whether it was sent, and its hash."""
        from huggingface_hub import CommitOperationAdd

        if file.name not in self._additions:
            self._additions[file.name] = CommitOperationAdd(file.name, str(file.path))
        return self._additions[file.name]


def _stored(file: Any) -> Stored:
    lfs = file.lfs
    if lfs is not None:
        return Stored(file.size, sha256=lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256)
    return Stored(file.size, git_sha1=file.blob_id)


def _messages(reply: str) -> str:
    """What the hub says against a card, in words; the reply itself where it has another form."""
    try:
        return "; ".join(error["message"] for error in orjson.loads(reply)["errors"])
    except (ValueError, KeyError, TypeError):
        return " ".join(reply.split())


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Tell what the hub, or the way to it, has against it; a repository that is missing passes as it is."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except LocalTokenNotFoundError:
        raise HubRefused(f"There is no token for the Hugging Face hub on this machine: {LOGIN}.") from None
    except RepositoryNotFoundError as error:
        if error.response is not None and error.response.status_code == 401:
            raise HubRefused(f"The hub does not know the token on this machine (HTTP 401, {doing}): {LOGIN}.") from None
        raise
    except HFValidationError as error:
        raise HubRefused(f"The hub does not take this ({doing}): {in_a_line(error)}") from None
    except HfHubHTTPError as error:
        raise _told(error, error.response, doing) from None
    except (ValueError, KeyError):
        raise
    except Exception as error:  # of its HTTP library, and of the one for large files, wrapped or not
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise _told(cause, getattr(cause, "response", None), doing) from None


def _asked_wait(response: Any) -> float | None:
    """Seconds after which the hub wants to be asked again, where it says so."""
    headers = response.headers
    found = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", "")) or re.search(
        r";\s*t=(\d+)", headers.get("RateLimit", "")
    )
    return float(found[1]) if found else None


def _told(error: Exception, response: Any, doing: str) -> HubRefused | HubAway:
    status = getattr(response, "status_code", None)
    if status == BUSY and (wait := _asked_wait(response)) is not None:
        return HubAway(f"The hub takes no more requests now, and asks to wait {wait:g} s ({doing}).", wait)
    if status is None:
        return HubAway(f"The hub is out of reach ({doing}: {in_a_line(error)}).")
    if status >= 500 or status in (408, BUSY):
        return HubAway(f"The hub fails by its own account (HTTP {status}, {doing}).")
    said = in_a_line(error).split(": ", maxsplit=1)[-1]
    if status == 401:
        return HubRefused(f"The hub does not know the token on this machine (HTTP 401, {doing}): {LOGIN}.")
    if status == 403:
        return HubRefused(f"The token on this machine has no right to do this (HTTP 403, {doing}: {said}): {LOGIN}.")
    if status in (409, 412):
        return HubRefused(
            f"The repository was changed by others meanwhile, or the name is taken (HTTP {status}, {doing}: {said}). "
            "Give the command again."
        )
    return HubRefused(f"The hub refuses (HTTP {status}, {doing}: {said}).")
