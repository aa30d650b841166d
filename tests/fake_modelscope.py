"""A ModelScope of one's own: what its client asks the real one for, up and down."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fake_site import Answer, Asked, Repo, Site, of, serving, sha256

TOKEN = "ms-01234567-89ab-cdef-0123-456789abcdef"
PRIVATE, PUBLIC = 1, 5


class ModelScopeSite(Site):
    trunk = "master"

    def __init__(self) -> None:
        super().__init__()
        self.owners = {"ada"}
        """Under whose names the token may write."""

    def answer(self, asked: Asked) -> Answer:
        if asked.token not in (TOKEN, None):
            return of({"Code": 10010205001, "Message": "token is invalid"}, 401)
        match (asked.method, asked.path.strip("/").split("/")):
            case ("GET", ["openapi", "v1", "users", "me"]):
                return of({"success": True, "data": {"name": "ada", "id": 7}})
            case ("GET", ["openapi", "v1", "models", owner, name]):
                repo = self.seen(asked, f"{owner}/{name}")
                return (
                    of({"success": True, "data": {"id": f"{owner}/{name}", "private": repo.private}}) if repo else LOST
                )
            case ("POST", ["api", "v1", "models"]):
                return self.create(asked)
            case ("PUT", ["store", oid]):
                self.store[oid] = asked.body
                return of({"Code": 200})
            case (_, ["api", "v1", "models", owner, name, *rest]) | (
                _,
                ["api", "v1", "repos", "models", owner, name, *rest],
            ):
                repo = self.seen(asked, f"{owner}/{name}")
                return self.model(asked, repo, rest) if repo else LOST
            case _:
                return of({})

    def seen(self, asked: Asked, name: str) -> Repo | None:
        repo = self.repos.get(name)
        return repo if repo and (asked.token or not repo.private) else None

    def create(self, asked: Asked) -> Answer:
        values = asked.json
        name = f"{values['Path']}/{values['Name']}"
        if values["Path"] not in self.owners:
            return of({"Code": 10010205002, "Message": "no permission"}, 403)
        self.repos[name] = Repo(values["Visibility"] == PRIVATE, {"master": {}})
        self.licence = values["License"]
        return of({"Code": 200, "Data": {"Name": values["Name"], "Path": values["Path"]}})

    def model(self, asked: Asked, repo: Repo, rest: list[str]) -> Answer:
        match (asked.method, rest):
            case ("GET", []):
                return of({"Code": 200, "Data": {"Visibility": PRIVATE if repo.private else PUBLIC}})
            case ("GET", ["revisions"]):
                refs = {"Branches": named(repo.branches), "Tags": named(repo.tags)}
                return of({"Code": 200, "Data": {"RevisionMap": refs}})
            case ("GET", ["repo", "files"]):
                files = self.at(repo, asked.query["Revision"])
                return (
                    LOST
                    if files is None
                    else of({"Code": 200, "Data": {"Files": [listed(*each) for each in files.items()]}})
                )
            case ("GET", ["repo"]):
                return part_of((self.at(repo, asked.query["Revision"]) or {})[asked.query["FilePath"]], asked)
            case ("POST", ["info", "lfs", "objects", "batch"]):
                return of({"Data": {"objects": [self.wanted(each) for each in asked.json["objects"]]}})
            case ("POST", ["commit", branch]):
                return self.commit(asked, repo, branch)
            case ("POST", ["repo", "tag"]):
                repo.tags[asked.json["TagName"]] = dict(repo.branches[asked.json["Ref"]])
                return of({"Code": 200, "Data": {}})
            case _:
                return LOST

    def at(self, repo: Repo, revision: str) -> dict[str, bytes] | None:
        return repo.branches.get(revision, repo.tags.get(revision))

    def wanted(self, each: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.address}/store/{each['oid']}"}}
        return each | {"actions": {} if each["oid"] in self.store else upload}

    def commit(self, asked: Asked, repo: Repo, branch: str) -> Answer:
        new = {}
        for action in asked.json["actions"]:
            large = action["type"] == "lfs"
            new[action["path"]] = self.store[action["sha256"]] if large else base64.b64decode(action["content"])
            assert len(new[action["path"]]) == action["size"]
        repo.branches[branch].update(new)
        repo.commits.append((branch, asked.json["commit_message"], sorted(new)))
        return of({"Code": 200, "Success": True, "Data": {"CommitId": f"{len(repo.commits):040x}"}})


LOST = of({"Code": 10010205001, "Message": "not found"}, 404)


def named(refs: dict[str, dict[str, bytes]]) -> list[dict[str, str]]:
    return [{"Revision": name} for name in refs]


def listed(path: str, content: bytes) -> dict[str, Any]:
    return {"Path": path, "Name": path, "Type": "blob", "Size": len(content), "Sha256": sha256(content)}


def part_of(content: bytes, asked: Asked) -> Answer:
    """A file, or the rest of one whose beginning the client has."""
    start = asked.headers.get("range", "").removeprefix("bytes=").split("-")[0]
    if not start:
        return Answer(200, content)
    sent = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return Answer(206, content[int(start) :], sent)


@contextmanager
def fake_modelscope() -> Iterator[ModelScopeSite]:
    site = ModelScopeSite()
    with serving(site):
        yield site
