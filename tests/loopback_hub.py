"""A hub on this machine that the real client talks to: small, strict, and able to misbehave.

It speaks what huggingface_hub asks for to fetch and to push a model repository: information on a
revision, the tree, `resolve` with the hub's own headers, `repos/create`, `preupload`, LFS batch,
upload and verify, `commit` (ndjson), `validate-yaml` and `whoami-v2`; and what datasets asks for to
load a data set: the same of `datasets/owner/name`, and `paths-info`. Large files are redirected to
a second address, as the hub does, which must never see a token; a repository that has moved is
redirected to its new name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ruamel.yaml import YAML

TOKEN = "hf_loopbackTokenThatNobodyMaySee"  # noqa: S105 - opens nothing but this hub
USER = "ada"


def blob_id(content: bytes) -> str:
    """Hash a file as git does."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    """Hash a file as LFS does."""
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    """Say whether the hub keeps a file beside git, as its `.gitattributes` says."""
    return path.endswith((".safetensors", ".parquet"))


def pointer_of(content: bytes) -> bytes:
    """Write what git holds in place of a large file."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        sha256(content).encode(),
        len(content),
    )


def entries_of(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """List files as the tree of a revision does, and the folders that they lie in."""
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}
        for path in sorted(folders)
    ]
    for path, content in sorted(files.items()):
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if is_large(path):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


@dataclass
class Repository:
    """Every commit of a repository, oldest first, each with all its files."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit that holds these files."""
        parts = [f"{path} {sha256(content)}" for path, content in sorted(files.items())]
        text = "\n".join([str(len(self.commits)), *parts]).encode()
        oid = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        self.commits.append((oid, dict(files)))
        return oid

    @property
    def head(self) -> str:
        """The newest commit."""
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the newest commit."""
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Find a commit by its hash, or the newest one as `main`."""
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one[0] == revision), None)


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    to_store: bool

    @property
    def token(self) -> str | None:
        """The token it brought."""
        given = self.headers.get("authorization")
        return None if given is None else given.removeprefix("Bearer ")


@dataclass(frozen=True)
class Answer:
    """What a server sends back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    """Seconds before each byte; after thirty of them the server has had enough."""

    @classmethod
    def of(cls, values: object, status: int = 200, **headers: str) -> Answer:
        """Answer with JSON."""
        return cls(
            status, json.dumps(values).encode(), {"Content-Type": "application/json", **headers}
        )

    @classmethod
    def error(cls, status: int, message: str, code: str = "") -> Answer:
        """Answer with one of the hub's errors."""
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        return cls.of({"error": message}, status, **headers)


Misbehaviour = Callable[[Request], Answer | None]
"""Answers some requests in the place of the hub; None leaves a request to the hub."""


class LoopbackHub:
    """A hub with its repositories, on two addresses of this machine."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        """By `owner/name`; data sets by `datasets/owner/name`."""
        self.moved: dict[str, str] = {}
        """The new name of each repository that has moved, by its old one."""
        self.stored: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.misbehave: Misbehaviour = lambda _: None
        self._hub = _server(self, to_store=False)
        self._store = _server(self, to_store=True)

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self._hub.server_port}"

    @property
    def store(self) -> str:
        """Where large files lie: another host by its name, for older clients look at that alone."""
        return f"http://localhost:{self._store.server_port}"

    def reset(self) -> None:
        """Forget everything."""
        self.repositories.clear()
        self.moved.clear()
        self.stored.clear()
        self.requests.clear()
        self.misbehave = lambda _: None

    def add(self, name: str, files: dict[str, bytes]) -> str:
        """Make a repository with one commit of these files, and give the commit."""
        attributes = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        return self.repositories.setdefault(name, Repository()).commit(attributes | files)

    def asked(self, method: str, pattern: str = "") -> list[Request]:
        """List the requests of a method whose path fits a pattern."""
        return [
            one for one in self.requests if one.method == method and re.search(pattern, one.path)
        ]

    def answer(self, request: Request) -> Answer:
        """Answer a request."""
        self.requests.append(request)
        if (instead := self.misbehave(request)) is not None:
            return instead
        if request.to_store:
            return self._answer_store(request)
        if (place := self._new_place(request.path)) is not None:
            return Answer(307, b"", {"Location": place})
        for methods, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match is not None and request.method in methods:
                return answer(self, request, **match.groupdict())
        return Answer.error(404, f"no such endpoint: {request.method} {request.path}")

    def close(self) -> None:
        """Stop both servers."""
        for server in (self._hub, self._store):
            server.shutdown()
            server.server_close()

    def _answer_store(self, request: Request) -> Answer:
        digest = request.path.rpartition("/")[2]
        if request.method == "PUT":
            if sha256(request.body) != digest:
                return Answer(400)
            self.stored[digest] = request.body
            return Answer()
        return _ranged(request, self.stored[digest], {"ETag": f'"{digest}"'})

    def _new_place(self, path: str) -> str | None:
        """Name the path in the repository's new place; None where it has not moved."""
        for old, new in self.moved.items():
            for start in ("/api/models/", "/"):
                if path == f"{start}{old}" or path.startswith(f"{start}{old}/"):
                    return f"{start}{new}{path.removeprefix(start + old)}"
        return None

    def _found(self, request: Request, name: str) -> Repository | Answer:
        """Find a repository that a request may read."""
        repository = self.repositories.get(name)
        if repository is None or (repository.private and request.token != TOKEN):
            return Answer.error(401, "Invalid username or password.", "RepoNotFound")
        if request.token not in (None, TOKEN):
            return Answer.error(401, "Invalid credentials in Authorization header")
        return repository

    def info(self, request: Request, name: str, revision: str = "main") -> Answer:
        """Tell of a revision: its commit and its files."""
        repository = self._found(request, name)
        if isinstance(repository, Answer):
            return repository
        found = repository.at(unquote(revision))
        if found is None:
            return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit, files = found
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
        if "blobs" in request.query:
            for entry in siblings:
                content = files[entry["rfilename"]]
                entry["size"] = len(content)
                entry["blobId"] = blob_id(content)
                if is_large(entry["rfilename"]):
                    pointer = pointer_of(content)
                    entry["blobId"] = blob_id(pointer)
                    entry["lfs"] = {
                        "sha256": sha256(content),
                        "size": len(content),
                        "pointerSize": len(pointer),
                    }
        return Answer.of(
            {
                "_id": "0" * 24,
                "id": name.removeprefix(_DATASETS),
                "modelId": name,
                "author": name.removeprefix(_DATASETS).partition("/")[0],
                "sha": commit,
                "private": repository.private,
                "gated": repository.gated,
                "disabled": False,
                "siblings": siblings,
            }
        )

    def resolve(self, request: Request, name: str, revision: str, path: str) -> Answer:
        """Send a file: a small one itself, of a large one where it lies."""
        repository = self._found(request, name)
        if isinstance(repository, Answer):
            return repository
        if repository.gated:
            return Answer.error(403, f"Access to model {name} is restricted.", "GatedRepo")
        found = repository.at(unquote(revision))
        if found is None:
            return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit, files = found
        if path not in files:
            return Answer.error(404, "Entry not found", "EntryNotFound")
        content, headers = files[path], {"X-Repo-Commit": commit}
        if not is_large(path):
            return _ranged(request, content, headers | {"ETag": f'"{blob_id(content)}"'})
        digest = sha256(content)
        self.stored[digest] = content
        headers |= {
            "Location": f"{self.store}/objects/{digest}",
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
        }
        return Answer(302, b"", headers)

    def tree(
        self, request: Request, name: str, revision: str, folder: str | None = None
    ) -> Answer:
        """List the files at a revision, and of a data set its folders as well."""
        repository = self._found(request, name)
        if isinstance(repository, Answer):
            return repository
        found = repository.at(unquote(revision))
        if found is None:
            return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        entries = entries_of(found[1])
        if name.startswith(_DATASETS):
            within = f"{unquote(folder)}/" if folder else ""
            entries = [entry for entry in entries if entry["path"].startswith(within)]
            if folder and not entries:
                return Answer.error(
                    404, f'{folder} does not exist on "{revision}"', "EntryNotFound"
                )
            if request.query.get("recursive", ["false"])[0].lower() != "true":
                entries = [entry for entry in entries if "/" not in entry["path"][len(within) :]]
        else:
            entries = [entry for entry in entries if entry["type"] == "file"]
        return Answer.of(entries)

    def paths_info(self, request: Request, name: str, revision: str) -> Answer:
        """Tell of the files and folders that are asked for; of those that are not there, nothing."""
        repository = self._found(request, name)
        if isinstance(repository, Answer):
            return repository
        found = repository.at(unquote(revision))
        if found is None:
            return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        body = request.body.decode()
        kind = request.headers.get("content-type", "")
        asked = json.loads(body)["paths"] if "json" in kind else parse_qs(body).get("paths", [])
        return Answer.of([entry for entry in entries_of(found[1]) if entry["path"] in asked])

    def whoami(self, request: Request) -> Answer:
        """Tell whose token it is."""
        if request.token != TOKEN:
            return Answer.error(401, "Invalid username or password.")
        return Answer.of({"type": "user", "name": USER, "auth": {"type": "access_token"}})

    def create(self, request: Request) -> Answer:
        """Make an empty repository."""
        if request.token != TOKEN:
            return Answer.error(401, "Invalid username or password.")
        values = json.loads(request.body)
        owner = values.get("organization") or USER
        name = f"{owner}/{values['name']}"
        if owner != USER:
            message = f'You don\'t have the rights to create a model under the namespace "{owner}"'
            return Answer.error(403, message)
        url = {"url": f"{self.endpoint}/{name}"}
        if name in self.repositories:
            return Answer.of(url | {"error": "You already created this model repo"}, 409)
        self.add(name, {})
        private = values.get("private") or values.get("visibility") == "private"
        self.repositories[name].private = bool(private)
        return Answer.of(url)

    def validate_yaml(self, request: Request) -> Answer:
        """Check a model card as the hub documents that it does."""
        errors = card_errors(json.loads(request.body)["content"])
        if errors:
            lines = [{"message": error} for error in errors]
            return Answer.of({"errors": lines, "warnings": []}, 400)
        return Answer.of({"errors": [], "warnings": []})

    def preupload(self, request: Request, name: str, revision: str) -> Answer:
        """Say how each file is to be sent."""
        repository = self._writable(request, name)
        if isinstance(repository, Answer):
            return repository
        found = repository.at(unquote(revision))
        present = found[1] if found else {}
        files = []
        for file in json.loads(request.body)["files"]:
            path, mode = file["path"], "lfs" if is_large(file["path"]) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in present:
                content = present[path]
                entry["oid"] = sha256(content) if is_large(path) else blob_id(content)
            files.append(entry)
        return Answer.of({"files": files})

    def batch(self, request: Request, name: str) -> Answer:
        """Say where large files are to be sent."""
        repository = self._writable(request, name)
        if isinstance(repository, Answer):
            return repository
        objects = []
        for one in json.loads(request.body)["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.stored:
                entry["actions"] = {
                    "upload": {"href": f"{self.store}/objects/{one['oid']}"},
                    "verify": {"href": f"{self.endpoint}/verify"},
                }
            objects.append(entry)
        return Answer.of({"transfer": "basic", "objects": objects})

    def verify(self, request: Request) -> Answer:
        """Say whether a large file has arrived."""
        values = json.loads(request.body)
        whole = len(self.stored.get(values["oid"], b"")) == values["size"]
        return Answer() if whole else Answer(404)

    def commit(self, request: Request, name: str, revision: str) -> Answer:
        """Add a commit, whole or not at all."""
        repository = self._writable(request, name)
        if isinstance(repository, Answer):
            return repository
        if revision != "main":
            return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = dict(repository.files)
        for line in request.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                parent = value.get("parentCommit")
                if parent not in (None, repository.head):
                    return Answer.error(412, "A commit has happened since. Please refresh")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(files)
        url = f"{self.endpoint}/{name}/commit/{oid}"
        return Answer.of({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def _writable(self, request: Request, name: str) -> Repository | Answer:
        """Find a repository that a request may change."""
        repository = self._found(request, name)
        if isinstance(repository, Answer):
            return repository
        if request.token is None or name.partition("/")[0] != USER:
            return Answer.error(403, "you must use a write token to upload to a repository.")
        return repository


_DATASETS = "datasets/"
_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_DATASET = r"(?P<name>datasets/[\w.-]+/[\w.-]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", rf"/api/models/{_NAME}", LoopbackHub.info),
    ("GET", rf"/api/models/{_NAME}/revision/{_REVISION}", LoopbackHub.info),
    ("GET", rf"/api/models/{_NAME}/tree/{_REVISION}", LoopbackHub.tree),
    ("GET", rf"/api/{_DATASET}", LoopbackHub.info),
    ("GET", rf"/api/{_DATASET}/revision/{_REVISION}", LoopbackHub.info),
    ("GET", rf"/api/{_DATASET}/tree/{_REVISION}(?:/(?P<folder>.+))?", LoopbackHub.tree),
    ("POST", rf"/api/{_DATASET}/paths-info/{_REVISION}", LoopbackHub.paths_info),
    ("GET HEAD", rf"/{_DATASET}/resolve/{_REVISION}/(?P<path>.+)", LoopbackHub.resolve),
    ("GET HEAD", rf"/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", LoopbackHub.resolve),
    ("GET", r"/api/whoami-v2", LoopbackHub.whoami),
    ("POST", r"/api/repos/create", LoopbackHub.create),
    ("POST", r"/api/validate-yaml", LoopbackHub.validate_yaml),
    ("POST", rf"/api/models/{_NAME}/preupload/{_REVISION}", LoopbackHub.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", LoopbackHub.batch),
    ("POST", r"/verify", LoopbackHub.verify),
    ("POST", rf"/api/models/{_NAME}/commit/{_REVISION}", LoopbackHub.commit),
]


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    """Send a file, or the part of it that is asked for."""
    match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if match is None:
        return Answer(200, content, headers)
    start = int(match[1])
    headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return Answer(206, content[start:], headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub
    to_store: bool

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        request = Request(
            self.command,
            parts.path,
            parse_qs(parts.query, keep_blank_values=True),
            {key.lower(): value for key, value in self.headers.items()},
            self.rfile.read(length) if length else self._chunked(),
            self.to_store,
        )
        answer = self.hub.answer(request)
        headers = {"Content-Length": str(len(answer.body))} | answer.headers
        self.send_response_only(answer.status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(answer)
        self.close_connection |= int(headers["Content-Length"]) != len(answer.body)

    def _send(self, answer: Answer) -> None:
        if not answer.pause:
            self.wfile.write(answer.body)
            return
        for byte in answer.body[:30]:
            time.sleep(answer.pause)
            self.wfile.write(bytes([byte]))

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - names of http.server

    def _chunked(self) -> bytes:
        content = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return content

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""


def _server(hub: LoopbackHub, *, to_store: bool) -> ThreadingHTTPServer:
    kind = type("Handler", (_Handler,), {"hub": hub, "to_store": to_store})
    server = _Server(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


@contextmanager
def running_hub() -> Iterator[LoopbackHub]:
    """Run a hub for as long as the context lasts."""
    hub = LoopbackHub()
    try:
        yield hub
    finally:
        hub.close()


# What the hub checks in a model card: the specification (modelcard.md of huggingface/hub-docs)
# with its required keys, and the texts of refusals in public reports of pushes that failed.

_REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+")
_REQUIRED = {"task": ("type",), "dataset": ("type", "name")}


def card_errors(content: str) -> list[str]:
    """Check a model card; the same words as the hub's, where they are known."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if match is None:
        return ["empty or missing yaml metadata in repo card"]
    values = YAML(typ="safe").load(match[1])
    return [*_field_errors(values), *_index_errors(values.get("model-index", []))]


def _field_errors(values: dict[str, Any]) -> Iterator[str]:
    base = values.get("base_model")
    if base is not None and not _REPOSITORY.fullmatch(base):
        yield f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'
    for index, name in enumerate(values.get("datasets", [])):
        if not _REPOSITORY.fullmatch(name):
            yield f'"datasets[{index}]" with value "{name}" is not valid. If possible, use a dataset id from https://hf.co/datasets.'
    for key in ("library_name", "pipeline_tag", "license", "inference"):
        if not isinstance(values.get(key, ""), str):
            yield f'"{key}" must be a string'
    for key in ("tags", "metrics", "language"):
        for index, value in enumerate(values.get(key, [])):
            if not isinstance(value, str) or not value:
                yield f'"{key}[{index}]" must be a string'


def _index_errors(entries: list[dict[str, Any]]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        place = f"model-index[{number}]"
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            yield f'"{place}.name" is required'
        for index, result in enumerate(entry.get("results", [])):
            yield from _result_errors(result, f"{place}.results[{index}]")


def _result_errors(result: dict[str, Any], place: str) -> Iterator[str]:
    for part, keys in _REQUIRED.items():
        for key, value in result.get(part, {}).items():
            if key != "args" and not isinstance(value, str):
                yield f'"{place}.{part}.{key}" must be a string'
        for key in keys:
            if not result.get(part, {}).get(key):
                yield f'"{place}.{part}.{key}" is required'
    if not result.get("metrics"):
        yield f'"{place}.metrics" must contain at least 1 items'
    for position, metric in enumerate(result.get("metrics", [])):
        if not isinstance(metric.get("type"), str):
            yield f'"{place}.metrics[{position}].type" is required'
        if not isinstance(metric.get("value"), int | float | str):
            yield f'"{place}.metrics[{position}].value" is required'
