"""A stand-in for the hub on the loopback: repositories are folders, refs are given; the real client talks to it."""

import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def commit_of(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


class Hub:
    """`repos[kind, id] = {ref: folder}`, kind is models or datasets. `requests` lists every path that was asked."""

    def __init__(self, repos: dict[tuple[str, str], dict[str, Path]]):
        self.repos, self.requests = repos, []
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
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()

    def answer(self, path: str) -> tuple[int, dict, bytes]:
        for (kind, repo), refs in self.repos.items():
            if path.startswith(f"api/{kind}/{repo}"):
                return self.api(kind, repo, refs, path.removeprefix(f"api/{kind}/{repo}").strip("/"))
            files = f"{repo}/resolve/" if kind == "models" else f"{kind}/{repo}/resolve/"
            if path.startswith(files):
                commit, _, name = path.removeprefix(files).partition("/")
                return self.file(refs, commit, name)
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def api(self, kind, repo, refs, rest) -> tuple[int, dict, bytes]:
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
        folder = refs[found[0]]
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        if verb == "tree":
            return self.json(
                [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": commit_of(n)} for n in names]
            )
        info = {"id": repo, "sha": commit_of(found[0]), "siblings": [{"rfilename": name} for name in names]}
        return self.json(info)

    def file(self, refs, commit, name) -> tuple[int, dict, bytes]:
        for ref, folder in refs.items():
            if commit in (ref, commit_of(ref)) and (folder / name).is_file():
                content = (folder / name).read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(ref)}, content
        return 404, {"X-Error-Code": "EntryNotFound"}, b""

    @staticmethod
    def json(content) -> tuple[int, dict, bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
