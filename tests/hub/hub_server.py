# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Serve a small Hub on the loopback interface: the part of its HTTP API that pushing and loading a model needs, in memory.

The client is the real `huggingface_hub`. It reads `HF_ENDPOINT` when it is imported, and the tests run offline, so
clients are separate processes, with `HubServer.environment`. The protocol is that of the client's source:
`HfApi.{create_repo, create_branch, create_commit, model_info, list_repo_tree}`, `lfs.py`, `_commit_api.py`,
`file_download.py`. A call that is not known is answered with 501 and recorded in `HubServer.unknown_calls`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK


OWNER = "someone"
TOKEN = "hf_of_someone"

_LFS_SUFFIXES = (".safetensors", ".bin")


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> path -> content
    branches: dict[str, str] = field(default_factory=dict)  # branch -> commit

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        content = repr((len(self.commits), sorted(files.items())))
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def files(self, branch: str = "main") -> dict[str, bytes]:
        """Return the content of each file by its path."""
        return self.commits[self.branches[branch]]


class HubServer(ThreadingHTTPServer):
    """Serves while its `with` block lasts, on a free port."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.repositories: dict[str, Repository] = {}
        self.lfs_objects: dict[str, bytes] = {}  # SHA-256 -> content
        self.unknown_calls: list[str] = []

    def environment(self, hf_home: str | PathLike) -> dict[str, str]:
        """Return the variables of a client process of `OWNER`, with its cache in `hf_home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(hf_home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": TOKEN,
            "NO_PROXY": "127.0.0.1",
        }

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return super().__enter__()

    def __exit__(self, *args):
        self.shutdown()
        super().__exit__(*args)


class _HubError(Exception):
    """A refusal of the Hub: `code` and `commit` become headers, `fields` are added to the message in the JSON."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "", **fields: Any):
        super().__init__(message)
        self.status = status
        self.fields = {"error": message, **fields}
        headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
        self.headers = {name: value for name, value in headers.items() if value}


def _is_lfs(path: str) -> bool:
    return path.endswith(_LFS_SUFFIXES)


def _oid(path: str, content: bytes) -> str:
    """Return the Hub's id of a file: the SHA-256 of a large file, git's SHA-1 of any other."""
    if _is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _metadata(card: str) -> dict[str, Any]:
    block = REGEX_YAML_BLOCK.search(card)
    return (block and yaml.safe_load(block.group(2))) or {}


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    # Each handler gets the groups of its pattern, and returns a value to send as JSON, or content and its headers
    _REPO = r"(?P<repo_id>[^/]+/[^/]+)"
    _ROUTES = [
        ("GET", r"/api/whoami-v2", "_whoami"),
        ("POST", r"/api/validate-yaml", "_validate_yaml"),
        ("POST", r"/api/repos/create", "_create_repo"),
        ("POST", rf"/api/models/{_REPO}/branch/(?P<branch>[^/]+)", "_create_branch"),
        ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)", "_preupload"),
        ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "_lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "_lfs_put"),
        ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>[^/]+)", "_commit"),
        ("GET", rf"/api/models/{_REPO}(/revision/(?P<revision>[^/]+))?", "_model_info"),
        ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "_tree"),
        ("GET HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "_resolve"),
    ]

    def _answer(self):
        # Read it before any answer: on a connection that is kept, the rest of a body would be taken for the next request
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        try:
            with self.server.lock:
                result = self._find_and_call(url.path)
            content, headers = result if isinstance(result, tuple) else (json.dumps(result).encode(), {})
            self._send(200, content, headers)
        except _HubError as error:
            self._send(error.status, json.dumps(error.fields).encode(), error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815, names of http.server

    def _find_and_call(self, path: str):
        for methods, pattern, name in self._ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                groups = match.groupdict()
                return getattr(self, name)(**{key: value and unquote(value) for key, value in groups.items()})
        self.server.unknown_calls.append(f"{self.command} {path}")
        raise _HubError(501, f"{self.command} {path} is not part of this small Hub.")

    def _send(self, status: int, content: bytes, headers: dict[str, str]):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass

    # --- Permissions ---

    def _is_owner(self) -> bool:
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {TOKEN}"):
            raise _HubError(401, "Invalid credentials in Authorization header")
        return authorization is not None

    def _require_owner(self):
        if not self._is_owner():
            raise _HubError(401, "Invalid username or password.")

    def _repository(self, repo_id: str) -> Repository:
        """Return a repository. The Hub does not tell others whether a private repository exists."""
        repository = self.server.repositories.get(repo_id)
        is_owner = self._is_owner()
        if repository is None or (repository.private and not is_owner):
            raise _HubError(404 if is_owner else 401, "Repository not found", "RepoNotFound")
        return repository

    def _resolved(self, repo_id: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        """Return the commit and its files."""
        repository = self._repository(repo_id)
        sha = repository.branches.get(revision or "main", revision)
        if sha not in repository.commits:
            raise _HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repository.commits[sha]

    # --- The calls ---

    def _whoami(self):
        self._require_owner()
        return {"type": "user", "name": OWNER, "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def _validate_yaml(self):
        try:
            data = _metadata(json.loads(self.body)["content"])
        except yaml.YAMLError as error:
            raise _HubError(400, "Invalid metadata", errors=[{"message": str(error)}]) from error
        return {"errors": [], "warnings": [] if data else [{"message": "empty or missing yaml metadata in repo card"}]}

    def _create_repo(self):
        self._require_owner()
        request = json.loads(self.body)
        repo_id = f"{request['organization'] or OWNER}/{request['name']}"
        url = f"{self.server.url}/{repo_id}"
        if repo_id in self.server.repositories:
            raise _HubError(409, "You already created this model repo", url=url)
        repository = self.server.repositories[repo_id] = Repository(request.get("visibility") == "private")
        repository.commit("main", {})
        return {"url": url, "id": repo_id, "name": repo_id}

    def _create_branch(self, repo_id: str, branch: str):
        self._require_owner()
        repository = self._repository(repo_id)
        if branch in repository.branches:
            raise _HubError(409, f"Branch {branch} already exists")
        repository.branches[branch], _ = self._resolved(repo_id, json.loads(self.body).get("startingPoint"))
        return {}

    def _preupload(self, repo_id: str, revision: str):
        self._require_owner()
        _, existing = self._resolved(repo_id, revision)
        files = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode = "lfs" if _is_lfs(path) else "regular"
            oid = _oid(path, existing[path]) if path in existing else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def _lfs_batch(self, repo_id: str):
        self._require_owner()
        self._repository(repo_id)
        objects = []
        for item in json.loads(self.body)["objects"]:
            if item["oid"] not in self.server.lfs_objects:
                item["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}
            objects.append(item)
        return {"transfer": "basic", "objects": objects}

    def _lfs_put(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _HubError(400, f"The content is not that of {oid}")
        self.server.lfs_objects[oid] = self.body
        return {}

    def _commit(self, repo_id: str, revision: str):
        self._require_owner()
        _, files = self._resolved(repo_id, revision)
        files = dict(files)
        for line in map(json.loads, self.body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server.lfs_objects:
                    raise _HubError(400, f"{value['path']} points to an LFS object that was not uploaded")
                files[value["path"]] = self.server.lfs_objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key != "header":
                raise _HubError(501, f"A commit with {key!r} is not part of this small Hub.")
        sha = self._repository(repo_id).commit(revision, files)
        return {"commitUrl": f"{self.server.url}/{repo_id}/commit/{sha}", "commitOid": sha}

    def _model_info(self, repo_id: str, revision: str | None):
        sha, files = self._resolved(repo_id, revision)
        data = _metadata(files.get("README.md", b"").decode())
        return {
            "id": repo_id,
            "sha": sha,
            "private": self._repository(repo_id).private,
            "tags": data.get("tags", []),
            "library_name": data.get("library_name"),
            "pipeline_tag": data.get("pipeline_tag"),
            "cardData": data,
            "siblings": [{"rfilename": path} for path in files],
        }

    def _tree(self, repo_id: str, revision: str, folder: str | None):
        sha, files = self._resolved(repo_id, revision)
        prefix = f"{folder}/" if folder else ""
        inside = {path: content for path, content in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise _HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound", sha)
        deep = self.query.get("recursive", ["false"])[0].lower() == "true"
        return [
            {"type": "file", "path": path, "size": len(content), "oid": _oid(path, content)}
            for path, content in inside.items()
            if deep or "/" not in path.removeprefix(prefix)
        ]

    def _resolve(self, repo_id: str, revision: str, path: str):
        sha, files = self._resolved(repo_id, revision)
        if path not in files:
            raise _HubError(404, "Entry not found", "EntryNotFound", sha)
        return files[path], {"X-Repo-Commit": sha, "ETag": f'"{_oid(path, files[path])}"'}
