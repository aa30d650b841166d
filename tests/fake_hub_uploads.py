"""A Hugging Face hub of one's own that takes uploads: what huggingface_hub asks the real one when it publishes."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fake_site import Answer, Asked, Repo, Site, commit_of, git_sha1, of, serving, sha256

LARGE = 10_000_000
"""Bytes from which on the hub stores whatever it gets as a large file."""
WEIGHTS = (".safetensors", ".bin", ".gguf")
TOKEN = "hf_" + "Abcdefgh1234" * 3
MISSING = {"X-Error-Code": "RepoNotFound"}


class HubSite(Site):
    def __init__(self) -> None:
        super().__init__()
        self.account: dict[str, Any] = {
            "type": "user",
            "name": "ada",
            "orgs": [{"name": "lab", "roleInOrg": "write"}],
            "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": "write"}},
        }

    def answer(self, asked: Asked) -> Answer:
        if asked.token not in (TOKEN, None):
            return of({"error": "Invalid credentials"}, 401)
        match (asked.method, asked.path.strip("/").split("/")):
            case ("GET", ["api", "whoami-v2"]):
                return of(self.account) if asked.token else of({"error": "no token"}, 401)
            case ("POST", ["api", "validate-yaml"]):
                wrong = "license: nonsense" in asked.json["content"]
                return of(
                    {"errors": [{"message": '"license" must be one of …'}] if wrong else []}, 400 if wrong else 200
                )
            case ("POST", ["api", "repos", "create"]):
                return self.create(asked)
            case (_, ["api", "models", owner, name, *rest]):
                repo = self.repos.get(f"{owner}/{name}")
                return self.model(asked, f"{owner}/{name}", repo, rest) if repo else of({}, 404, **MISSING)
            case ("POST", [_, _, "info", "lfs", "objects", "batch"]):
                return of({"transfer": "basic", "objects": [self.wanted(each) for each in asked.json["objects"]]})
            case ("PUT", ["store", oid]):
                if sha256(asked.body) != oid:
                    return of({}, 400)
                self.store[oid] = asked.body
                return of({})
            case _:
                return of({})

    def create(self, asked: Asked) -> Answer:
        values = asked.json
        name = f"{values['organization'] or 'ada'}/{values['name']}"
        if name in self.repos:
            return of({"error": "You already created this model repo", "url": f"{self.address}/{name}"}, 409)
        private = values.get("private") or values.get("visibility") == "private"
        self.repos[name] = Repo(bool(private), {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}})
        return of({"url": f"{self.address}/{name}"})

    def wanted(self, each: dict[str, Any]) -> dict[str, Any]:
        """What the batch endpoint says of an object: where to send it, or nothing where it is there."""
        upload = {"upload": {"href": f"{self.address}/store/{each['oid']}"}}
        return each if each["oid"] in self.store else each | {"actions": upload}

    def model(self, asked: Asked, name: str, repo: Repo, rest: list[str]) -> Answer:
        match (asked.method, rest):
            case ("GET", []):
                return of(self.info(name, repo, "main"))
            case ("GET", ["revision", branch]):
                known = branch in repo.branches
                return (
                    of(self.info(name, repo, branch)) if known else of({}, 404, **{"X-Error-Code": "RevisionNotFound"})
                )
            case ("GET", ["refs"]):
                return of(
                    {"branches": self.refs(repo, repo.branches), "tags": self.refs(repo, repo.tags), "converts": []}
                )
            case ("POST", ["branch", branch]):
                repo.branches[branch] = dict(repo.branches["main"])
                return of({})
            case ("POST", ["tag", branch]):
                repo.tags[asked.json["tag"]] = dict(repo.branches[branch])
                return of({})
            case ("POST", ["preupload", branch]):
                return of({"files": [self.mode(each, repo.branches[branch]) for each in asked.json["files"]]})
            case ("POST", ["commit", branch]):
                return self.commit(asked, name, repo, branch)
            case _:
                return of({}, 404)

    def mode(self, each: dict[str, Any], there: dict[str, bytes]) -> dict[str, Any]:
        large = each["size"] >= LARGE or each["path"].endswith(WEIGHTS)
        content = there.get(each["path"])
        oid = None if content is None else sha256(content) if large else git_sha1(content)
        return {"path": each["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def commit(self, asked: Asked, name: str, repo: Repo, branch: str) -> Answer:
        lines = [json.loads(line) for line in asked.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, commit_of(repo, branch)):
            return of({"error": "A commit has happened since"}, 412)
        new: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                new[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                new[value["path"]] = self.store[value["oid"]]
        repo.branches[branch].update(new)
        repo.commits.append((branch, header["summary"], sorted(new)))
        oid = commit_of(repo, branch)
        return of({"success": True, "commitOid": oid, "commitUrl": f"{self.address}/{name}/commit/{oid}"})

    def info(self, name: str, repo: Repo, branch: str) -> dict[str, Any]:
        siblings = [self.sibling(path, content) for path, content in sorted(repo.branches[branch].items())]
        known = {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": commit_of(repo, branch),
            "tags": [],
            "private": repo.private,
        }
        return known | {"siblings": siblings}

    def sibling(self, path: str, content: bytes) -> dict[str, Any]:
        what: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
        if path.endswith(WEIGHTS) or len(content) >= LARGE:
            what |= {"blobId": "f" * 40, "lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 134}}
        return what

    def refs(self, repo: Repo, names: dict[str, dict[str, bytes]]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{name}", "targetCommit": commit_of(repo, name)} for name in names]


@contextmanager
def fake_hub_uploads() -> Iterator[HubSite]:
    site = HubSite()
    with serving(site):
        yield site
