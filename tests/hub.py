"""A stand-in for the hub on the loopback: repositories are folders or dicts of bytes; the real client talks to it.

It serves refs, trees with LFS metadata and files with range requests, and it can be busy (429 with Retry-After), refuse
(401, 403) and cut a connection in the middle of a file.
"""

import hashlib
import json
import re
import socket
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LFS = (".safetensors", ".bin", ".model", ".parquet")  # what a repository's .gitattributes usually names


def commit_of(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def contents(place: Path | dict[str, bytes]) -> dict[str, bytes | Path]:
    """Name -> content (or the file that has it) of one revision, in order of names."""
    if isinstance(place, dict):
        return dict(sorted(place.items()))
    return {str(path.relative_to(place)): path for path in sorted(place.rglob("*")) if path.is_file()}


def read(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


class Hub:
    """`repos[kind, id] = {ref: folder or {name: bytes}}`, kind is models or datasets.

    busy     {path: k}: the first k requests of a path get 429 with Retry-After: 1
    refused  {start of a path: (status, X-Error-Code)}: a gated or private repository
    cut      {path: [n, ...]}: its next GETs break off after n bytes each
    wrong    {path: bytes}: what is served in place of the content that the tree has the hash of

    `requests` lists every path that was asked, `ranges` every (path, Range header).
    """

    def __init__(self, repos: dict, busy=None, refused=None, cut=None, wrong=None):
        self.repos, self.requests, self.ranges = repos, [], []
        self.busy, self.refused, self.cut, self.wrong = (dict(each or {}) for each in (busy, refused, cut, wrong))
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/")
                hub.requests.append(f"{self.command} {path}")
                status, headers, body = hub.answer(path)
                if status == 200 and (asked := self.headers.get("Range")):
                    hub.ranges.append((path, asked))
                    status, headers, body = part(asked, headers, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.send(body, hub.cut.get(path, []))

            def send(self, body: bytes, cuts: list[int]):
                self.wfile.write(body[: cuts[0]] if cuts else body)
                if cuts:
                    cuts.pop(0)
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()

    def answer(self, path: str) -> tuple[int, dict, bytes]:
        with self.lock:
            if self.busy.get(path, 0) > 0:
                self.busy[path] -= 1
                return 429, {"Retry-After": "1"}, b""
        for start, (status, code) in self.refused.items():
            if path.startswith(start):
                return status, {"X-Error-Code": code} if code else {}, b"{}"
        for (kind, repo), refs in self.repos.items():
            if f"{path}/".startswith(f"api/{kind}/{repo}/"):
                return self.api(repo, refs, path.removeprefix(f"api/{kind}/{repo}").strip("/"))
            files = f"{repo}/resolve/" if kind == "models" else f"{kind}/{repo}/resolve/"
            if path.startswith(files):
                commit, _, name = path.removeprefix(files).partition("/")
                return self.file(refs, commit, name, path)
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def api(self, repo, refs, rest) -> tuple[int, dict, bytes]:
        if rest == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit_of(name)}
                for name in refs
                if not name.startswith("refs/")
            ]
            return self.json({"branches": branches, "tags": [], "converts": []})
        verb, _, revision = rest.partition("/")
        found = [name for name in refs if (revision or "main") in (name, commit_of(name))]
        if verb not in ("", "revision", "tree") or not found:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = contents(refs[found[0]])
        if verb == "tree":
            return self.json([entry(name, read(content)) for name, content in files.items()])
        return self.json({"id": repo, "sha": commit_of(found[0]), "siblings": [{"rfilename": name} for name in files]})

    def file(self, refs, commit, name, path) -> tuple[int, dict, bytes]:
        for ref, place in refs.items():
            files = contents(place) if commit in (ref, commit_of(ref)) else {}
            if name in files:
                content = read(files[name])
                headers = {"ETag": f'"{etag(name, content)}"', "X-Repo-Commit": commit_of(ref)}
                return 200, headers, self.wrong.get(path, content)
        return 404, {"X-Error-Code": "EntryNotFound"}, b""

    @staticmethod
    def json(content) -> tuple[int, dict, bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def entry(name: str, content: bytes) -> dict:
    """A file in the answer to a tree request: with its git blob, and with its sha256 where it is in LFS."""
    if not name.endswith(LFS):
        return {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return {"type": "file", "path": name, "size": len(content), "oid": git_blob(pointer), "lfs": lfs}


def etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if name.endswith(LFS) else git_blob(content)


def part(asked: str, headers: dict, body: bytes) -> tuple[int, dict, bytes]:
    """The bytes that a Range header asks for, as 206; 416 where it begins behind the end."""
    first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
    first, last = int(first), min(int(last or len(body)), len(body) - 1)
    if first >= len(body):
        return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
    return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]
