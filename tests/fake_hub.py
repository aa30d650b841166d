"""A hub of one's own: what huggingface_hub asks the real one for, answered from folders on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextmanager
def fake_hub(root: Path) -> Iterator[str]:
    """Serve `root/<owner>/<name>/<revision>/…` as models; the address to set HF_ENDPOINT to."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            match unquote(urlsplit(self.path).path).strip("/").split("/"):
                case ["api", "models", owner, name, "tree", commit, *_]:
                    found = by_commit(root / owner / name, commit)
                    self.send(json.dumps(tree(found)).encode() if found else None, {}, with_body)
                case ["api", "models", owner, name, *rest]:
                    folder = root / owner / name / (rest[1] if rest else "main")
                    self.send(json.dumps(info(folder)).encode() if folder.is_dir() else None, {}, with_body)
                case [owner, name, "resolve", commit, *file]:
                    found = by_commit(root / owner / name, commit)
                    path = found.joinpath(*file) if found else None
                    content = path.read_bytes() if path and path.is_file() else None
                    self.send(content, {"X-Repo-Commit": commit, "ETag": f'"{digest(content or b"")}"'}, with_body)
                case _:
                    self.send(b"{}", {}, with_body)

        def send(self, content: bytes | None, headers: dict[str, str], with_body: bool) -> None:
            missing = {"X-Error-Code": "RepoNotFound" if "/api/" in self.path else "EntryNotFound"}
            self.send_response(200 if content is not None else 404)
            body = content or b""
            for key, value in (
                {"Content-Length": str(len(body))} | (headers if content is not None else missing)
            ).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def commit_of(folder: Path) -> str:
    return digest(str(folder).encode())


def by_commit(repository: Path, commit: str) -> Path | None:
    folders = [folder for folder in repository.glob("*") if commit in (folder.name, commit_of(folder))]
    return folders[0] if folders else None


def tree(folder: Path) -> list[dict[str, object]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        {
            "type": "file",
            "path": str(path.relative_to(folder)),
            "size": path.stat().st_size,
            "oid": digest(path.read_bytes()),
        }
        for path in files
    ]


def info(folder: Path) -> dict[str, object]:
    name = f"{folder.parent.parent.name}/{folder.parent.name}"
    siblings = [{"rfilename": entry["path"]} for entry in tree(folder)]
    return {"_id": "1", "id": name, "modelId": name, "sha": commit_of(folder), "tags": [], "siblings": siblings}
