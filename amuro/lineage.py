"""What a cell's W&B run takes in and gives out as artifacts: from the checkpoint to the tuned model and the results.

    parcel = pack(run_folder, folder, run, job_type, log_model)     by hard links: a cell's files may go or change later
    attach(run, parcel)                                             online, now or by `amuro sync`
    missing(parcel)                                                 what the server does not have of it; then discard

    dataset ─┐
    checkpoint ─► run ─► model (tuned weights), results (rows and examples)       a later evaluation: model ─► run

A parcel lies beside W&B's own files of the run (RUNS/wandb/*run-*/amuro/) until the server has all of it, so it can be
handed over from another machine, too. Names of artifacts derive from the cell and end in its id or a digest: what has
one name is one thing. Nothing is parsed back out of them; the results hold the cell's record and units as they are.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from amuro.cells import Cell, Unit, read_record, write_atomic
from amuro.strict import read_json
from amuro.tasks import DATASETS
from amuro.units import read_unit

FOLDER, FILE = "amuro", "parcel.json"


@dataclass(frozen=True)
class Parcel:
    """What a run is to have beside its own log. `place` holds run.json, units/ and with `upload` weights/; `files` are
    their paths with their sizes (bytes), `weights_at` is where the tuned weights are, if they are kept."""

    place: str
    run_id: str
    entity: str
    project: str
    job_type: str
    log_model: str
    weights_at: str
    files: dict[str, int]

    @property
    def record(self) -> dict:
        return read_record(Path(self.place))

    @property
    def cell(self) -> Cell:
        return Cell(**self.record["cell"])


def pack(run_folder: Path, folder: Path, run, job_type: str, log_model: str) -> Parcel:
    """The parcel of a complete cell for the W&B run whose files are in `run_folder`; its own file is written last."""
    place = run_folder / FOLDER
    shutil.rmtree(place, ignore_errors=True)
    weights = folder / "weights"
    sources = [folder / "run.json", *sorted(folder.glob("units/*.parquet"))]
    if log_model == "upload" and job_type != "eval" and weights.is_dir():
        sources += sorted(path for path in weights.rglob("*") if path.is_file())
    files = {}
    for source in sources:
        target = place / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # no hard links here
            shutil.copy2(source, target)
        files[str(source.relative_to(folder))] = target.stat().st_size
    kept = f"{socket.gethostname()}:{weights.resolve()}" if _keeps(folder) else ""
    parcel = Parcel(str(place), run.id, run.entity or "", run.project, job_type, log_model, kept, files)
    write_atomic(place / FILE, json.dumps(asdict(parcel), indent=1).encode())
    return parcel


def _keeps(folder: Path) -> bool:
    settings = read_record(folder).get("settings", {})
    return settings.get("keep_weights", {}).get("value") == "all"


def load(run_folder: Path) -> Parcel | None:
    """The parcel that waits in a run's folder, None where there is none; the folder may have been moved."""
    path = run_folder / FOLDER / FILE
    if not path.is_file():
        return None
    try:
        return Parcel(**read_json(path) | {"place": str(path.parent)})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not what a run waits to hand over ({error}); remove {path.parent}") from None


def discard(parcel: Parcel) -> None:
    """Remove a parcel that has arrived."""
    shutil.rmtree(parcel.place)


def vanished(parcel: Parcel) -> list[str]:
    """The files of a parcel that are not there any more, or are not whole."""
    sizes = {name: Path(parcel.place, name) for name in parcel.files}
    return [name for name, path in sizes.items() if not path.is_file() or path.stat().st_size != parcel.files[name]]


# ---- values


def key_of(row: dict) -> str:
    """The name of a row's value in W&B."""
    return Unit(*(row[each.name] for each in fields(Unit))).key(row["metric"])


def rows_of(parcel: Parcel) -> list[dict]:
    """The rows of all units in a parcel."""
    units = [name for name in parcel.files if name.startswith("units/")]
    return [row for name in units for row in read_unit(Path(parcel.place, name))["rows"]]


def log_rows(run, rows: list[dict]) -> None:
    """Log the rows' values, drawn over the checkpoint's tokens; those that the run has already are left out."""
    values = {key_of(row): row["value"] for row in rows}
    new = {name: value for name, value in values.items() if run.summary.get(name) != value}
    tokens = rows[0]["tokens_b"] if rows else None
    if new and tokens is not None:
        run.define_metric("tokens_b", hidden=True)
        for name in new:
            run.define_metric(name, step_metric="tokens_b")
        new["tokens_b"] = tokens
    if new:
        run.log(new)


# ---- artifacts


def attach(run, parcel: Parcel) -> None:
    """Declare the inputs of an online run, and log its outputs, which are there once the run is finished. Raises what
    W&B raises."""
    cell, record = parcel.cell, parcel.record
    if parcel.job_type == "eval" and cell.dataset:
        name = f"{name_of(cell)}-weights:latest"
        run.use_artifact(name if _exists(run, name) else model(cell, record, parcel))
    else:
        run.use_artifact(checkpoint(cell))
        if cell.dataset:
            run.use_artifact(dataset(cell, record))
        if cell.dataset and parcel.log_model != "none":
            run.log_artifact(model(cell, record, parcel))
    run.log_artifact(results(cell, record, parcel))


def _exists(run, name: str) -> bool:
    import wandb

    return wandb.Api().artifact_exists(f"{run.entity}/{run.project}/{name}")


def missing(parcel: Parcel) -> list[str]:
    """What the server's run lacks of a parcel: values by their names, artifacts by their types; empty where all has
    arrived. Asks again for some seconds, for a server may take them to show what it has."""
    for pause in (1, 4):
        if not _lacking(parcel):
            return []
        time.sleep(pause)
    return _lacking(parcel)


def _lacking(parcel: Parcel) -> list[str]:
    import wandb

    api = wandb.Api()
    with _apart():
        run = api.run(f"{parcel.entity or api.default_entity}/{parcel.project}/{parcel.run_id}")
    have = {artifact.type for artifact in (*run.used_artifacts(), *run.logged_artifacts())}
    values = {key_of(row): row["value"] for row in rows_of(parcel)}
    lacking = [name for name in expected(parcel) if name not in have]
    return lacking + [name for name, value in values.items() if run.summary.get(name) != value]


@contextmanager
def _apart() -> Iterator[None]:
    """W&B makes an empty folder under WANDB_DIR for every run that is looked at: have it made elsewhere, and gone."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory() as place:
        os.environ["WANDB_DIR"] = place
        try:
            yield
        finally:
            os.environ.pop("WANDB_DIR") if before is None else os.environ.update(WANDB_DIR=before)


def expected(parcel: Parcel) -> list[str]:
    """The types of artifacts that a parcel's run has once it is handed over."""
    if not parcel.cell.dataset:
        return ["checkpoint", "results"]
    if parcel.job_type == "eval":
        return ["model", "results"]
    return ["checkpoint", "dataset", *(["model"] if parcel.log_model != "none" else []), "results"]


def checkpoint(cell: Cell):
    """The base checkpoint, by reference: `hf://repo@commit`, or the digest of a local folder's files."""
    base = cell.base if cell.base.startswith("sha256:") else f"hf://{cell.base}"
    about = {name: getattr(cell, name) for name in ("family", "checkpoint", "step", "tokens_b", "base")}
    return _reference(f"{plain(cell.checkpoint)}-{short(cell.base)}", "checkpoint", about, weights=base)


def dataset(cell: Cell, record: dict):
    """The training rows, by reference: their digest, and where they were read: the hub's files, or a local one."""
    training = record.get("training", {})
    origin, known = training.get("rows_origin", ""), DATASETS.get(cell.dataset)
    entries = {"rows": f"sha256:{cell.dataset_digest}"}
    if known and origin.startswith(f"{known.source.hub_id}@"):
        entries["source"] = f"hf://datasets/{origin}"
    about = {"dataset": cell.dataset, "digest": cell.dataset_digest, "origin": origin, "rows": training.get("rows")}
    return _reference(f"{plain(cell.dataset)}-{cell.dataset_digest[:8]}", "dataset", about, **entries)


def model(cell: Cell, record: dict, parcel: Parcel):
    """The tuned weights: their digest, or with `upload` the files themselves."""
    about = {"cell_id": cell.cell_id, "checkpoint": cell.checkpoint, "base": cell.base, "weights": record["weights"]}
    name, kind = f"{name_of(cell)}-weights", "model"
    uploaded = Path(parcel.place, "weights")
    if not uploaded.is_dir():
        return _reference(name, kind, about | {"kept_at": parcel.weights_at}, weights=record["weights"])
    import wandb

    artifact = wandb.Artifact(name, kind, metadata=about)
    artifact.add_dir(str(uploaded), policy="immutable", skip_cache=True)
    return artifact


def results(cell: Cell, record: dict, parcel: Parcel):
    """The cell's record and its units: rows, and the answer to every example."""
    import wandb

    about = {"cell_id": cell.cell_id, "checkpoint": cell.checkpoint, "weights": record["weights"]}
    artifact = wandb.Artifact(f"{name_of(cell)}-results", "results", metadata=about)
    for name in parcel.files:
        if not name.startswith("weights/"):
            path = str(Path(parcel.place, name))
            artifact.add_file(path, name=name, policy="immutable", skip_cache=True)
    return artifact


def _reference(name: str, kind: str, about: dict, **entries: str):
    """An artifact of references: name of the entry -> URI. W&B stores the URIs and never opens them."""
    import wandb

    artifact = wandb.Artifact(name, kind, metadata=about)
    for entry, uri in entries.items():
        artifact.add_reference(uri, name=entry, checksum=False)
    return artifact


def name_of(cell: Cell) -> str:
    """The artifacts' name of a cell: what it is, then its id (W&B allows 128 characters)."""
    return f"{plain(cell.name)[-100:]}-{cell.cell_id}"


def plain(text: str) -> str:
    """A text in the characters that W&B allows in names."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")


def short(text: str) -> str:
    """8 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
