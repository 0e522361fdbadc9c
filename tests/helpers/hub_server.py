"""A stand-in of the Hugging Face hub on this machine: those parts of its HTTP API that huggingface_hub 2.4 uses to make
a repository, commit files to it (large ones by git LFS) and download them; repositories live in memory."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from util import cli
from util.hub import download as hub

TOKEN = "hf_token_of_user"
LARGE = (".safetensors",)  # what the hub stores by LFS


@dataclass
class Repository:
    """commits: sha -> {path: content}, oldest first; main is the last."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    tags: dict[str, str] = field(default_factory=dict)

    def sha(self, revision: str) -> str | None:
        if revision == "main":
            return list(self.commits)[-1]
        return self.tags.get(revision, revision if revision in self.commits else None)


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HubServer:
    """with HubServer() as hub: hub.url. requests: method and path of each; failing: status for everything."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failing: int | None = None
        hub = self

        class Handler(_Handler):
            def respond(self) -> None:
                hub.requests.append(f"{self.command} {urlsplit(self.path).path}")
                self.serve(hub)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> "HubServer":
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def respond(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.respond()

    do_HEAD = do_POST = do_PUT = do_GET

    def serve(self, hub: HubServer) -> None:
        self.hub, self.body = hub, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        try:
            if hub.failing is not None:
                raise Refusal(hub.failing)
            for pattern, answer in ROUTES:
                if match := re.fullmatch(pattern, f"{self.command} {path}"):
                    return answer(self, *match.groups())
            raise Refusal(404)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            self.answer(refusal.status, json.dumps({"error": str(refusal)}).encode(), headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode())

    @property
    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str, *, to_write: bool = False) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.may_write):
            raise Refusal(404 if self.may_write else 401, "RepoNotFound", "Repository not found")
        if to_write and not self.may_write:
            raise Refusal(403, message="this token may not write")
        return found

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(name)
        if (sha := repository.sha(revision)) is None:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        return sha, repository.commits[sha]


def create(request: _Handler) -> None:
    asked = json.loads(request.body)
    if not request.may_write:
        raise Refusal(401, message="Invalid username or password.")
    name = f"{asked['organization']}/{asked['name']}"
    if not name.startswith("user/"):
        raise Refusal(403, message=f"you may not create {name}")
    place = {"url": f"{request.hub.url}/{name}"}
    if name in request.hub.repositories:
        return request.answer(409, json.dumps({**place, "error": "You already created this model repo"}).encode())
    request.hub.repositories[name] = Repository(asked.get("visibility") == "private")
    request.answer_json(place)


def info(request: _Handler, name: str, revision: str = "main") -> None:
    sha, files = request.files(name, revision)
    siblings = [{"rfilename": path} for path in files]
    request.answer_json({"id": name, "sha": sha, "private": request.repository(name).private, "siblings": siblings})


def tree(request: _Handler, name: str, revision: str) -> None:
    request.answer_json([_entry(path, content) for path, content in request.files(name, revision)[1].items()])


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def validate(request: _Handler) -> None:
    text = json.loads(request.body)["content"]
    if not re.match(r"---\n(.+\n)+---\n", text) or "\nlicense: " not in text:
        raise Refusal(400, message="Invalid metadata in README.md")
    request.answer_json({"errors": [], "warnings": []})


def preupload(request: _Handler, name: str, _: str) -> None:
    request.repository(name, to_write=True)
    files = json.loads(request.body)["files"]
    modes = [{"path": each["path"], "shouldIgnore": False, "uploadMode": "lfs" if each["path"].endswith(LARGE) else
              "regular"} for each in files]  # fmt: skip
    request.answer_json({"files": modes})


def batch(request: _Handler, name: str) -> None:
    request.repository(name, to_write=True)
    objects = []
    for each in json.loads(request.body)["objects"]:
        upload = {"upload": {"href": f"{request.hub.url}/lfs/{each['oid']}"}}
        objects.append(each if each["oid"] in request.hub.large else {**each, "actions": upload})
    request.answer_json({"transfer": "basic", "objects": objects})


def put(request: _Handler, oid: str) -> None:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, message="content and name differ")
    request.hub.large[oid] = request.body
    request.answer_json({})


def commit(request: _Handler, name: str, revision: str) -> None:
    repository = request.repository(name, to_write=True)
    sha = repository.sha(revision)
    assert sha is not None
    files = dict(repository.commits[sha])
    for line in request.body.splitlines():
        operation = json.loads(line)
        key, value = operation["key"], operation["value"]
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = request.hub.large[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
    new = hashlib.sha1(request.body + sha.encode()).hexdigest()
    repository.commits[new] = files
    request.answer_json({"commitUrl": f"{request.hub.url}/{name}/commit/{new}", "commitOid": new})


def resolve(request: _Handler, name: str, revision: str, path: str) -> None:
    sha, files = request.files(name, revision)
    if path not in files:
        raise Refusal(404, "EntryNotFound", f"{path} not found")
    etag = hashlib.sha256(files[path]).hexdigest() if path.endswith(LARGE) else _git_oid(files[path])
    request.answer(200, files[path], {"X-Repo-Commit": sha, "ETag": f'"{etag}"'})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"POST /api/repos/create", create),
    (r"POST /api/validate-yaml", validate),
    (rf"GET /api/models/{REPO}", info),
    (rf"GET /api/models/{REPO}/revision/(.+)", info),
    (rf"GET /api/models/{REPO}/tree/([^/]+)", tree),
    (rf"POST /api/models/{REPO}/preupload/(.+)", preupload),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", batch),
    (r"PUT /lfs/(\w+)", put),
    (rf"POST /api/models/{REPO}/commit/(.+)", commit),
    (rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)", resolve),
]


@contextmanager
def reached(url: str, home: Path, token: str | None = TOKEN) -> Iterator[None]:
    """huggingface_hub works with the hub at `url`, and keeps what it keeps in `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks LFS
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        if token:
            patch.setenv("HF_TOKEN", token)
        patch.setattr(cli, "setup_logging", lambda *_: None)
        hub._snapshot.cache_clear()
        yield
        hub._snapshot.cache_clear()
        huggingface_hub.close_session()
