"""A loopback stand-in for the W&B server that the real `wandb` command and SDK talk to, as far as the tests need it.

    with WandbServer() as server:
        subprocess.run([...], env={**os.environ, **server.env()})
        server.project("amuro").runs["k3x9"].state, .config, .summary, .rows(), .logged, .used

It models what a client of wandb 0.31.0 asks for: grid sweeps and agents, runs, files, artifacts, `wandb sync`, and what
`wandb.Api()` reads. It cannot show what wandb.ai itself accepts. `unknown` collects the GraphQL fields that were asked
for and are not modelled: empty means that everything was. Faults: `fault = 401` or `429` answers every request so,
`stop()` and `start()` take the server down and bring it back at the same address.
"""

import base64
import gzip
import itertools
import json
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlparse

import yaml
from wandb_graphql import execute, parse

KEY = "local-" + "f" * 40
ENTITY = "tester"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def identifier(kind: str) -> str:
    """A global id as the server makes them: base64 of its kind and something random."""
    return base64.b64encode(f"{kind}:{secrets.token_hex(6)}".encode()).decode()


def connection(nodes: list, after=None, first=None, **extra) -> dict:
    """A page of nodes; a cursor is the number of nodes before it."""
    start = int(after or 0)
    stop = min(len(nodes), start + int(first or len(nodes)))
    edges = [{"node": node, "cursor": str(start + at + 1)} for at, node in enumerate(nodes[start:stop])]
    page = {"startCursor": str(start), "endCursor": str(stop) if stop else None}
    page |= {"hasNextPage": stop < len(nodes), "hasPreviousPage": start > 0, "__typename": "PageInfo"}
    return {"totalCount": len(nodes), "edges": edges, "pageInfo": page, **extra}


def pages(nodes):
    """A field that answers the page of `nodes()` that it is asked for."""
    return lambda after=None, first=None, **_: connection(nodes(), after, first)


@dataclass
class Run:
    """A run as the server knows it; `name` is what clients call its id. `used` and `logged` are artifacts."""

    project: "Project"
    name: str
    id: str = field(default_factory=lambda: identifier("Run"))
    display_name: str = ""
    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    state: str = "running"
    exitcode: int | None = None
    preempting: bool = False
    sweep: str | None = None
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    logged: list["Artifact"] = field(default_factory=list)
    used: list["Artifact"] = field(default_factory=list)
    restarts: int = 0
    created: str = field(default_factory=now)

    def rows(self) -> list[dict]:
        """The history, a dict per step."""
        return [json.loads(line) for line in self.history]

    def values(self) -> dict:
        """The configuration, plainly."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}

    def gql(self) -> dict:
        project = self.project
        last = max((row.get("_step", -1) for row in self.rows()), default=-1)
        return {
            "__typename": "Run",
            "id": self.id,
            "name": self.name,
            "displayName": self.display_name or self.name,
            "config": json.dumps(self.config),
            "wandbConfig": lambda keys=None: json.dumps(self.config.get("_wandb", {}).get("value", {})),
            "summaryMetrics": json.dumps(self.summary),
            "state": self.state,
            "sweepName": self.sweep,
            "tags": self.tags,
            "group": self.group,
            "jobType": self.job_type,
            "createdAt": self.created,
            "heartbeatAt": self.created,
            "historyLineCount": len(self.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps(self.history[-1:]),
            "eventsTail": "[]",
            "historyKeys": {"step": len(self.history), "lastStep": last, "sets": [], "keys": {}},
            "inputArtifacts": pages(lambda: [artifact.gql() for artifact in self.used]),
            "outputArtifacts": pages(lambda: [artifact.gql() for artifact in self.logged]),
            "user": project.server.user,
            "projectId": "1",
            "project": project.gql,
        } | dict.fromkeys(("description", "notes", "commit", "readOnly", "systemMetrics"))


@dataclass
class Sweep:
    """A grid: `queue` holds the points that no agent has got, `issued` run name -> point."""

    project: "Project"
    text: str
    id: str = field(default_factory=lambda: identifier("Sweep"))
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    state: str = "PENDING"
    issued: dict[str, dict] = field(default_factory=dict)
    resumable: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.config = yaml.safe_load(self.text)
        axes = {
            key: spec["values"] if "values" in spec else [spec["value"]]
            for key, spec in sorted(self.config["parameters"].items())
        }
        self.queue = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]

    def runs(self) -> list[Run]:
        return [run for run in self.project.runs.values() if run.sweep == self.name]

    def next_command(self, agent: "Agent") -> dict:
        """What an idle agent does next: a preempted run again, a new one, or nothing any more. As at W&B, a point
        whose run failed is not handed out again."""
        self.state = "RUNNING"
        kind, name = ("resume", self.resumable.pop(0)) if self.resumable else ("run", secrets.token_hex(4))
        if kind == "run":
            if not self.queue:
                self.state = "FINISHED"
                return {"type": "exit"}
            self.issued[name] = self.queue.pop(0)
        agent.running = name
        arguments = {key: {"value": value} for key, value in self.issued[name].items()}
        return {"type": kind, "run_id": name, "program": self.config["program"], "args": arguments}

    def run_ended(self, name: str) -> None:
        """An agent's process is gone: what its run did not say is told now."""
        run = self.project.runs.get(name)
        if run is None:
            run = self.project.runs[name] = Run(self.project, name, state="failed", sweep=self.name)
        elif run.state == "running":
            run.state = "preempted" if run.preempting else "crashed"
        if run.state == "preempted":
            self.resumable.append(name)

    def gql(self) -> dict:
        return {
            "__typename": "Sweep",
            "id": self.id,
            "name": self.name,
            "method": "grid",
            "state": self.state,
            "config": self.text,
            "createdAt": now(),
            "updatedAt": now(),
            "runs": pages(lambda: [run.gql() for run in self.runs()]),
            "project": self.project.gql,
        } | dict.fromkeys(("description", "heartbeatAt", "bestLoss", "controller", "scheduler", "earlyStopJobRunning"))


@dataclass
class Agent:
    sweep: Sweep
    id: str = field(default_factory=lambda: identifier("Agent"))
    running: str | None = None

    def gql(self) -> dict:
        return {"__typename": "Agent", "id": self.id}


@dataclass
class Artifact:
    """A version of a collection; `version` is None until it is committed."""

    collection: "Collection"
    about: dict  # what the client said when it made it
    id: str = field(default_factory=lambda: identifier("Artifact"))
    version: int | None = None
    aliases: set[str] = field(default_factory=set)
    manifest: str = ""  # the blob's name

    @property
    def name(self) -> str:
        return f"{self.collection.name}:v{self.version}"

    @property
    def type(self) -> str:
        return self.collection.type

    @property
    def metadata(self) -> dict:
        return json.loads(self.about.get("metadata") or "{}")

    def entries(self) -> dict:
        """Path -> what the manifest says of it: digest, size, ref."""
        return json.loads(self.collection.project.server.blobs.get(self.manifest, b'{"contents": {}}'))["contents"]

    def files(self, names=None, after=None, first=None, **_) -> dict:
        server = self.collection.project.server
        stored = {path: entry for path, entry in self.entries().items() if "ref" not in entry}
        nodes = [
            server.file(path, "artifact/" + base64.b64decode(entry["digest"]).hex())
            for path, entry in sorted(stored.items())
            if not names or path in names
        ]
        return connection(nodes, after, first, __typename="FileConnection")

    def membership(self) -> dict:
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": self.id,
            "versionIndex": self.version,
            "createdAt": now(),
            "aliases": self.alias_objects,
            "artifactCollection": self.collection.gql,
            "artifact": self.gql,
            "files": self.files,
        }

    def alias_objects(self) -> list[dict]:
        owner = {"artifactCollection": self.collection.gql}
        return [{"__typename": "ArtifactAlias", "id": self.id + a, "alias": a, **owner} for a in sorted(self.aliases)]

    def gql(self) -> dict:
        project, entries = self.collection.project, self.entries()
        maker = project.runs.get(self.about.get("runName"))
        manifest = project.server.file("wandb_manifest.json", self.manifest)
        return {
            "__typename": "Artifact",
            "id": self.id,
            "artifactSequence": self.collection.gql,
            "versionIndex": self.version,
            "artifactType": {"__typename": "ArtifactType", "id": self.type, "name": self.type},
            "description": None,
            "metadata": self.about.get("metadata"),
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "PENDING" if self.version is None else "COMMITTED",
            "size": sum(entry.get("size", 0) for entry in entries.values()),
            "digest": self.about["digest"],
            "commitHash": self.about["digest"],
            "fileCount": len(entries),
            "createdAt": now(),
            "updatedAt": now(),
            "aliases": self.alias_objects,
            "currentManifest": {"__typename": "ArtifactManifest", "id": self.id, "file": manifest},
            "usedBy": pages(lambda: [run.gql() for run in project.runs.values() if self in run.used]),
            "createdBy": maker.gql if maker else None,
        }


@dataclass
class Collection:
    """The versions of one artifact name."""

    project: "Project"
    name: str
    type: str
    versions: list[Artifact] = field(default_factory=list)

    def find(self, alias: str) -> Artifact | None:
        return next((each for each in self.versions if alias in (f"v{each.version}", *each.aliases)), None)

    def commit(self, artifact: Artifact) -> None:
        artifact.version = len(self.versions)
        artifact.aliases = {"latest"} | {each["alias"] for each in artifact.about.get("aliases") or []}
        for older in self.versions:
            older.aliases -= artifact.aliases
        self.versions.append(artifact)

    def gql(self) -> dict:
        kind = {"__typename": "ArtifactType", "id": self.type, "name": self.type}
        return {
            "__typename": "ArtifactSequence",
            "id": f"collection:{self.name}",
            "name": self.name,
            "description": None,
            "createdAt": now(),
            "updatedAt": now(),
            "tags": connection([]),
            "defaultArtifactType": kind,
            "project": self.project.gql,
            "latestArtifact": lambda: (found := self.find("latest")) and found.gql(),
            "artifactMembership": lambda aliasName, **_: (found := self.find(aliasName)) and found.membership(),
        }


@dataclass
class Project:
    """Runs by name, sweeps by name, artifact collections by name."""

    server: "WandbServer"
    name: str
    runs: dict[str, Run] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    views: dict[str, dict] = field(default_factory=dict)  # reports by their id, as they were posted

    def artifact(self, name: str) -> Artifact | None:
        collection, _, alias = name.partition(":")
        found = self.collections.get(collection)
        return found and found.find(alias or "latest")

    def type(self, name: str) -> dict:
        collections = [each for each in self.collections.values() if each.type == name]
        return {
            "__typename": "ArtifactType",
            "id": name,
            "name": name,
            "description": None,
            "createdAt": now(),
            "artifactCollections": pages(lambda: [each.gql() for each in collections]),
        }

    def gql(self) -> dict:
        run = lambda name=None, **_: (found := self.runs.get(name)) and found.gql()  # noqa: E731
        return {
            "__typename": "Project",
            "id": f"project:{self.name}",
            "internalId": "1",
            "name": self.name,
            "entity": self.server.entity,
            "entityName": ENTITY,
            "createdAt": now(),
            "isBenchmark": False,
            "user": self.server.user,
            "run": run,
            "bucket": run,
            "sweep": lambda sweepName, **_: (found := self.sweeps.get(sweepName)) and found.gql(),
            "artifact": lambda name, **_: (found := self.artifact(name)) and found.gql(),
            "artifactCollectionMembership": lambda name, **_: (found := self.artifact(name)) and found.membership(),
            "artifactCollection": lambda name, **_: (found := self.collections.get(name)) and found.gql(),
            "artifactType": lambda name, **_: self.type(name),
            "allViews": lambda after=None, first=None, **_: connection(list(self.views.values()), after, first),
        }


class WandbServer:
    """The server: `with WandbServer() as server`. Everything is in memory."""

    def __init__(self):
        self.projects: dict[str, Project] = {}
        self.agents: dict[str, Agent] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.blobs: dict[str, bytes] = {}
        self.unknown: set[str] = set()
        self.received: list[bytes] = []  # every body, to look for what must never be sent
        self.fault = 0
        self.lock = threading.RLock()
        self.address = ("127.0.0.1", 0)

    def __enter__(self) -> "WandbServer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        if self.http:
            self.stop()

    def start(self) -> None:
        """Answer at the address of before."""
        handler = type("Bound", (Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(self.address, handler)
        self.http.daemon_threads = True
        self.address = self.http.server_address
        self.url = f"http://127.0.0.1:{self.address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Take the server down: connections are refused, what it knows stays."""
        self.http.shutdown()
        self.http.server_close()
        self.http = None

    def env(self, project: str = "amuro", key: str = KEY) -> dict[str, str]:
        """The environment that sends a client here, online."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": key,
            "WANDB_ENTITY": ENTITY,
            "WANDB_PROJECT": project,
            "WANDB_MODE": "online",
            "WANDB_ERROR_REPORTING": "false",
        }

    def project(self, name: str) -> Project:
        return self.projects.setdefault(name or "uncategorized", Project(self, name))

    # ---- objects that belong to no project

    def user(self) -> dict:
        """The account of every key."""
        return {
            "__typename": "User",
            "id": "VXNlcjox",
            "name": ENTITY,
            "username": ENTITY,
            "email": f"{ENTITY}@localhost",
            "entity": ENTITY,
            "flags": "{}",
            "teams": connection([]),
            "admin": False,
            "apiKeys": connection([]),
            "deletedAt": None,
            "photoUrl": None,
        }

    def entity(self) -> dict:
        return {"__typename": "Entity", "id": ENTITY, "name": ENTITY, "organization": None}

    def file(self, name: str, key: str) -> dict:
        url = f"{self.url}/storage/{quote(key)}"
        return {
            "__typename": "File",
            "id": key,
            "name": name,
            "directUrl": url,
            "uploadUrl": None if key.startswith("artifact/") and key in self.blobs else url,  # stored already
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "storagePath": key,
        }

    # ---- requests

    def answer(self, body: dict) -> dict:
        """The data of a GraphQL request."""
        request = parse(body["query"])
        root = self.mutations() if request.kind == "mutation" else self.queries()
        return execute(request, body.get("variables"), root, self.unknown)

    def queries(self) -> dict:
        versions = {"min_cli_version": "0.10.0", "max_cli_version": "9.9.9"}
        project = lambda name=None, **_: (found := self.projects.get(name)) and found.gql()  # noqa: E731
        return {
            "__typename": "Query",
            "viewer": self.user,
            # All features off: the client takes the ways that every server knows.
            "serverInfo": {"cliVersionInfo": versions, "latestLocalVersionInfo": None, "features": []},
            "project": project,
            "model": project,
            "models": pages(lambda: [each.gql() for each in self.projects.values()]),
            "entity": lambda **_: self.entity(),
            "artifact": lambda **given: (found := self.artifacts.get(given["id"])) and found.gql(),
        }

    def mutations(self) -> dict:
        """Each takes one `input`."""
        calls = (
            *(self.upsertBucket, self.createRunFiles, self.upsertSweep, self.createAgent, self.agentHeartbeat),
            *(self.createArtifact, self.createArtifactManifest, self.createArtifactFiles, self.commitArtifact),
            *(self.useArtifact, self.upsertView),
        )
        return {call.__name__: lambda call=call, **given: call(given["input"]) for call in calls}

    def upsertBucket(self, given: dict) -> dict:
        """Make a run, or change one; a run that had ended is running again."""
        project = self.project(given.get("modelName"))
        if given.get("id"):
            run = next(run for each in self.projects.values() for run in each.runs.values() if run.id == given["id"])
        else:
            run = project.runs.setdefault(given["name"], Run(project, given["name"]))
        names = {"displayName": "display_name", "groupName": "group", "jobType": "job_type"}
        for key in ("displayName", "groupName", "jobType", "tags", "sweep", "state"):
            if given.get(key) is not None:
                setattr(run, names.get(key, key), given[key])
        run.config |= json.loads(given.get("config") or "{}")
        run.summary |= json.loads(given.get("summaryMetrics") or "{}")
        if run.state not in ("running", given.get("state")):
            run.state, run.exitcode, run.preempting = "running", None, False
            run.restarts += 1
        return {"bucket": run.gql(), "inserted": True}

    def createRunFiles(self, given: dict) -> dict:
        run = self.project(given["projectName"]).runs[given["runName"]]
        run.files |= {name: f"run/{run.name}/{name}" for name in given["files"]}
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{quote(run.files[name])}"} for name in given["files"]]
        return {"runID": run.id, "uploadHeaders": [], "files": files}

    def upsertSweep(self, given: dict) -> dict:
        project = self.project(given["projectName"])
        sweep = Sweep(project, given["config"])
        project.sweeps[sweep.name] = sweep
        return {"sweep": sweep.gql(), "configValidationWarnings": []}

    def createAgent(self, given: dict) -> dict:
        agent = Agent(self.project(given["projectName"]).sweeps[given["sweep"]])
        self.agents[agent.id] = agent
        return {"agent": agent.gql()}

    def agentHeartbeat(self, given: dict) -> dict:
        agent = self.agents[given["id"]]
        running = [name for name, runs in json.loads(given.get("runState") or "{}").items() if runs]
        if agent.running and agent.running not in running:
            agent.sweep.run_ended(agent.running)
            agent.running = None
        commands = [] if agent.running else [agent.sweep.next_command(agent)]
        return {"agent": agent.gql(), "commands": json.dumps(commands)}

    def createArtifact(self, given: dict) -> dict:
        """A new version, or the latest one where its digest is the same."""
        project, name = self.project(given["projectName"]), given["artifactCollectionName"]
        collection = project.collections.setdefault(name, Collection(project, name, given["artifactTypeName"]))
        latest = collection.find("latest")
        if latest and latest.about["digest"] == given["digest"]:
            self._log(latest, given.get("runName"))
            return {"artifact": latest.gql()}
        artifact = Artifact(collection, given)
        self.artifacts[artifact.id] = artifact
        return {"artifact": artifact.gql()}

    def createArtifactManifest(self, given: dict) -> dict:
        artifact = self.artifacts[given["artifactID"]]
        artifact.manifest = f"manifest/{artifact.id}"
        stored = self.file("wandb_manifest.json", artifact.manifest)
        return {"artifactManifest": {"__typename": "ArtifactManifest", "id": artifact.id, "file": stored}}

    def createArtifactFiles(self, given: dict) -> dict:
        nodes = []
        for each in given["artifactFiles"]:  # the client asks for no names: the order tells which is which
            key = "artifact/" + base64.b64decode(each["md5"]).hex()
            artifact = {"artifact": {"id": each["artifactID"]}}
            nodes.append(self.file(each["name"], key) | artifact)
        return {"files": connection(nodes)}

    def commitArtifact(self, given: dict) -> dict:
        artifact = self.artifacts[given["artifactID"]]
        if artifact.version is None:
            artifact.collection.commit(artifact)
        self._log(artifact, artifact.about.get("runName"))
        return {"artifact": artifact.gql()}

    def _log(self, artifact: Artifact, run_name: str | None) -> None:
        run = artifact.collection.project.runs.get(run_name)
        if run and artifact not in run.logged:
            run.logged.append(artifact)

    def useArtifact(self, given: dict) -> dict:
        artifact, run = self.artifacts[given["artifactID"]], self.project(given["projectName"]).runs[given["runName"]]
        if artifact not in run.used:
            run.used.append(artifact)
        return {"artifact": artifact.gql()}

    def upsertView(self, given: dict) -> dict:
        """A report, a new one or that of the id given."""
        project = self.project(given["projectName"])
        new = {"__typename": "View", "id": given.get("id") or identifier("View"), "createdAt": now()}
        view = project.views.setdefault(new["id"], new)
        view |= {name: value for name, value in given.items() if name != "id"}
        view |= {"updatedAt": now(), "user": self.user(), "project": project.gql}
        return {"view": view, "inserted": view is new}

    def stream(self, project: str, name: str, body: dict) -> dict:
        """What a run sends while it runs: history, summary, console, and that it is preempted or complete."""
        run = self.project(project).runs[name]
        for file, chunk in (body.get("files") or {}).items():
            content, offset = chunk.get("content") or [], chunk.get("offset", 0)
            if file == "wandb-summary.json" and content:
                run.summary = json.loads(content[-1])
            elif file == "wandb-history.jsonl":
                run.history[offset:] = content
        run.preempting |= body.get("preempting", False)
        if body.get("complete"):
            run.exitcode = body.get("exitcode", 0)
            run.state = "finished" if run.exitcode == 0 else "preempted" if run.preempting else "failed"
        return {"exitcode": None, "limits": {}, "stopped": False}


class Handler(BaseHTTPRequestHandler):
    """HTTP: /graphql, the file stream of a run, and blobs at /storage."""

    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_) -> None:
        pass

    def body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            raw = b"".join(parts)
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw

    def reply(self, status: int, content: dict | bytes) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def key(self) -> str:
        scheme, _, value = (self.headers.get("Authorization") or "").partition(" ")
        return base64.b64decode(value).decode().partition(":")[2] if scheme == "Basic" else ""

    def do_POST(self) -> None:
        server, path, raw = self.server_state, urlparse(self.path).path, self.body()
        status = server.fault or (401 if self.key() != KEY else 0)
        if status:
            self.reply(status, {"errors": [{"message": {401: "invalid API key"}.get(status, "rate limit exceeded")}]})
            return
        with server.lock:
            server.received.append(raw)
            if path == "/graphql":
                try:
                    self.reply(200, {"data": server.answer(json.loads(raw))})
                except (KeyError, StopIteration) as error:  # what is asked about is not there
                    self.reply(404, {"errors": [{"message": f"not found: {error}"}]})
            elif match := re.fullmatch(r"/files/[^/]+/([^/]+)/([^/]+)/file_stream", path):
                self.reply(200, server.stream(*map(unquote, match.groups()), json.loads(raw or b"{}")))
            else:
                self.reply(404, {"error": "not found"})

    def do_PUT(self) -> None:
        server, raw = self.server_state, self.body()
        if server.fault:
            self.reply(server.fault, b"")
            return
        with server.lock:
            server.received.append(raw)
            server.blobs[unquote(urlparse(self.path).path).removeprefix("/storage/")] = raw
        self.reply(200, b"")

    def do_GET(self) -> None:
        key = unquote(urlparse(self.path).path).removeprefix("/storage/")
        found = self.server_state.blobs.get(key)
        self.reply(404 if found is None else 200, found or b"")
