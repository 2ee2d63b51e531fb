"""The Hugging Face Hub as a server here that answers as the Hub does, for the real client."""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories are folders: /api/models/OWNER/NAME lists one's files, /OWNER/NAME/resolve/REVISION/FILE is one.

    The token "good" may write to what belongs to "me".
    """

    root: Path
    uploads: dict[str, bytes]
    """Large files by their SHA-256, until a commit names them."""
    commits: list[list[str]]
    """The files of each."""
    private: set[str]

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        folder = self.root.joinpath(*(parts[2:4] if api else parts[:2]))
        file = folder.joinpath(*parts[4:])
        if api and folder.is_dir():
            self.send(self.listing(folder, tree="tree" in parts), with_body)
        elif not api and parts[2:3] == ["resolve"] and file.is_file():
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            self.send(content, with_body, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
        else:
            missing = "EntryNotFound" if folder.is_dir() else "RepoNotFound"
            self.send(b"{}", with_body, {"X-Error-Code": missing}, status=404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "validate-yaml"]:
            bad = "license: nonsense" in json.loads(body)["content"]
            errors = [{"message": '"license" must be one of apache-2.0, mit'}] if bad else []
            return self.reply({"errors": errors, "warnings": []}, status=400 if bad else 200)
        if self.headers.get("Authorization") != "Bearer good":
            return self.reply({"error": "Invalid credentials in Authorization header"}, status=401)
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts[-1] == "batch":
            return self.reply(
                {"transfer": "basic", "objects": [self.upload_action(each) for each in json.loads(body)["objects"]]}
            )
        if parts[-2] == "preupload":
            return self.reply({"files": [self.upload_mode(file["path"]) for file in json.loads(body)["files"]]})
        return self.commit(self.root.joinpath(*parts[2:4]), [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.uploads[hashlib.sha256(content).hexdigest()] = content
        self.send(b"", with_body=True)

    def create(self, wanted: dict[str, str]) -> None:
        folder = self.root / wanted["organization"] / wanted["name"]
        if wanted["organization"] != "me":
            return self.reply({"error": "You don't have the rights to create a model under this namespace"}, status=403)
        if folder.exists():
            url = f"{self.address}/me/{wanted['name']}"
            return self.reply({"error": "You already created this model repo", "url": url}, status=409)
        folder.mkdir(parents=True)
        if wanted.get("visibility") == "private":
            self.private.add(f"me/{wanted['name']}")
        return self.reply({"url": f"{self.address}/me/{wanted['name']}"})

    def upload_mode(self, path: str) -> dict[str, object]:
        mode = "lfs" if path.endswith((".safetensors", ".mp4")) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def upload_action(self, wanted: dict[str, object]) -> dict[str, object]:
        return {**wanted, "actions": {"upload": {"href": f"{self.address}/upload/{wanted['oid']}"}}}

    def commit(self, folder: Path, lines: list[dict[str, dict[str, str]]]) -> None:
        files = [line["value"] for line in lines if line["key"] != "header"]
        for file in files:
            path = folder / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(file["content"]) if "content" in file else self.uploads[file["oid"]])
        self.commits.append(sorted(file["path"] for file in files))
        self.reply({"commitUrl": f"{self.address}/me/{folder.name}/commit/{COMMIT}", "commitOid": COMMIT})

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def reply(self, answer: object, status: int = 200) -> None:
        self.send(json.dumps(answer).encode(), with_body=True, status=status)

    def listing(self, folder: Path, tree: bool) -> bytes:
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        if tree:
            return json.dumps(
                [{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in files.items()]
            ).encode()
        name = f"{folder.parent.name}/{folder.name}"
        siblings = [{"rfilename": n, "size": s, "blobId": "0" * 40} for n, s in files.items()]
        return json.dumps(
            {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": name in self.private}
        ).encode()

    def send(self, content: bytes, with_body: bool, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub_commits() -> list[list[str]]:
    """The files of each commit that the Hub was sent."""
    return []


@pytest.fixture
def hub_here(tmp_path: Path, hub_commits: list[list[str]]) -> Iterator[dict[str, str]]:
    """The environment of a user whose Hub is here, its repositories in tmp_path/hub."""
    repositories = tmp_path / "hub"
    repositories.mkdir()
    here = type("HubHere", (Hub,), {"root": repositories, "uploads": {}, "commits": hub_commits, "private": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), here)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    server.shutdown()
    server.server_close()
    thread.join()
