"""ModelScope as a place to publish on, by the HTTP of its own client.

The client's `upload_folder` is not used: it makes a missing repository openly, takes its own notes of earlier uploads
for what the site has, prints to standard output, and on Ctrl-C goes on until every file is sent.
"""

from __future__ import annotations

import base64
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from roslin.model.modelscope_hub import TRUNK, client, endpoint_of, first_line
from roslin.publish.upload.hub import HubAway, HubRefused, Repository, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from roslin.publish.upload.files import SentFile

LOGIN = (
    "set MODELSCOPE_API_TOKEN, or log in by `ms-hub login`, with a token that may write "
    "(https://modelscope.cn/my/myaccesstoken)"
)
MODEL = "model"


class ModelScope:
    """The site at MODELSCOPE_ENDPOINT, with the token that its client finds."""

    title = "ModelScope"
    trunk = TRUNK

    def __init__(self) -> None:
        self._api = client()

    def has_token(self) -> bool:
        """Whether the client finds a token."""
        return bool(self._api.legacy.token)

    def check_account(self, owner: str) -> None:
        """Refuse a token that is missing or wrong; whether it may write under `owner` is seen when it does."""
        if not self.has_token():
            raise HubRefused(f"There is no token for ModelScope on this machine: {LOGIN}.")
        with _errors("asking whose token this is"):
            self._api.whoami()

    def look(self, name: str, branch: str) -> Repository | None:
        """The repository, if it is there and the token may see it."""
        from modelscope_hub.errors import NotExistError

        with _errors(f"looking at {name}"):
            try:
                info = self._api.get_repo(name, MODEL)
            except NotExistError:
                return None
            branches, tags = self._api.legacy.list_revisions_detail(name, MODEL)
            names = {str(found["Revision"]): None for found in branches}
            revision = branch if branch in names else self.trunk
            files = self._api.list_repo_files(name, MODEL, revision=revision) if revision in names else []
        there = {file.path: Stored(file.size, sha256=file.sha256) for file in files if not file.is_dir}
        return Repository(_visibility(info), names, {str(found["Revision"]): None for found in tags}, there)

    def check_card(self, text: str) -> None:
        """ModelScope has no check of its own for a card."""

    def create(self, name: str, *, private: bool, licence: str) -> None:
        """Make a repository."""
        from modelscope_hub.errors import AlreadyExistsError

        with _errors(f"making {name}"):
            try:
                visibility = "private" if private else "public"
                self._api.create_repo(name, MODEL, visibility=visibility, license=licence)
            except AlreadyExistsError:
                raise HubRefused(f"{name} is taken on ModelScope, and this token may not see it.") from None

    def create_branch(self, name: str, branch: str) -> None:
        """ModelScope's client cannot make one."""
        raise HubRefused(
            f"{name} has no branch {branch} on ModelScope, and its client cannot make one: make it with git or on the "
            "site, and give the command again."
        )

    def is_large(self, file: SentFile) -> bool:
        """Whether ModelScope keeps a file outside of git: weights, and what is large, but for what it reads itself."""
        from modelscope_hub import constants

        path = PurePosixPath(file.name)
        if file.size == 0 or path.name.upper() in {name.upper() for name in constants.UPLOAD_INLINE_METADATA_PATHS}:
            return False
        large = file.size > constants.UPLOAD_LFS_FORCE_THRESHOLD_BYTES
        return large or path.suffix.lower() in constants.MODEL_LFS_SUFFIX

    def store(self, name: str, branch: str, file: SentFile) -> None:
        """Send a large file's content, unless the site has it."""
        site = self._api.legacy
        with _errors(f"sending {file.name}"):
            asked = site.validate_blobs(name, MODEL, [{"oid": file.sha256, "size": file.size}])
            address = asked.get(file.sha256)
            if address is None:
                return
            with file.path.open("rb") as content:
                site.upload_blob(address, content, file.size)

    def commit(self, name: str, branch: str, files: Sequence[SentFile], message: str, parent: str | None) -> str | None:
        """Put files into one commit."""
        with _errors("making the commit"):
            actions = [self._action(file) for file in files]
            done = self._api.legacy.create_commit(name, MODEL, actions, message, revision=branch)
        return _commit_id(done)

    def tag(self, name: str, tag: str, branch: str) -> None:
        """Tag the commit at which the branch is."""
        from modelscope_hub.errors import AlreadyExistsError

        with _errors(f"making the tag {tag}"):
            try:
                self._api.create_repo_tag(name, MODEL, tag, revision=branch)
            except AlreadyExistsError:  # by an attempt whose reply was lost: it was not there when it was looked for
                return

    def address(self, name: str, branch: str) -> str:
        """Where people look at the repository."""
        return f"{endpoint_of(self._api)}/models/{name}" + ("" if branch == self.trunk else f"/files?version={branch}")

    def settings(self, name: str) -> str:
        """Where its owner changes who may see it."""
        return f"{endpoint_of(self._api)}/models/{name}/settings"

    def _action(self, file: SentFile) -> dict[str, Any]:
        """A file of a commit: by its hash if it was sent before, else with its content."""
        what = {"action": "create", "path": file.name, "size": file.size}
        if self.is_large(file):
            return what | {"type": "lfs", "sha256": file.sha256, "content": "", "encoding": ""}
        content = base64.b64encode(file.path.read_bytes()).decode()
        return what | {"type": "normal", "sha256": "", "content": content, "encoding": "base64"}


def _visibility(info: Any) -> str:
    label = getattr(info.visibility, "label", None)
    if label is None and info.private is not None:
        return "private" if info.private else "public"
    return str(label or info.visibility)


def _commit_id(done: Any) -> str | None:
    """The commit's id in whatever form the site gives it."""
    values = done if isinstance(done, dict) else {}
    found = values.get("CommitId") or values.get("commit_id") or values.get("Id") or values.get("id")
    return str(found) if found else None


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Tell what the site, or the way to it, has against it."""
    from modelscope_hub.errors import APIError, AuthenticationError, HubError, PermissionDeniedError
    from requests import RequestException

    try:
        yield
    except AuthenticationError:
        raise HubRefused(f"ModelScope does not know the token on this machine ({doing}): {LOGIN}.") from None
    except PermissionDeniedError as error:
        raise HubRefused(
            f"The token on this machine has no right to do this ({doing}: {first_line(error)}). Give yourself, or an "
            f"organisation that you belong to, as owner; {LOGIN}."
        ) from None
    except HubError as error:
        status = getattr(error, "status_code", None)
        if (wait := getattr(error, "retry_after", None)) is not None:
            raise HubAway(
                f"ModelScope takes no more requests now, and asks to wait {wait:g} s ({doing}).", wait
            ) from None
        if error.retryable or (status or 0) >= 500:
            raise HubAway(f"ModelScope is out of reach, or fails ({doing}: {first_line(error)}).") from None
        kind = "does not take this" if isinstance(error, APIError) else "cannot be asked"
        raise HubRefused(f"ModelScope {kind} ({doing}: {first_line(error)}).") from None
    except RequestException as error:
        raise HubAway(f"ModelScope is out of reach ({doing}: {first_line(error)}).") from None
