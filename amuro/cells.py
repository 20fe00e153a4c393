"""A cell: what determines a set of weights, its folder, its record, and "is it complete?".

    cell.folder(runs)/run.json                      written last, atomically: the training is complete
    cell.folder(runs)/units/*.parquet               one complete file per evaluation unit
    cell.folder(runs)/weights/                      tuned weights, while they are wanted

Nothing is ever parsed back out of a name: `run.json` and the Parquet files say what they are.
"""

import errno
import glob
import hashlib
import json
import os
import platform
import secrets
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

SHOT_SEED = 42
STAGES = ("base", "sft", "instruct")
NONE = type(None)
KINDS: dict[str, type | tuple[type, ...]] = {  # of a cell's fields
    **dict.fromkeys(("family", "checkpoint", "base", "stage", "dataset", "dataset_digest"), str),
    **dict.fromkeys(("step", "prompts_version", "seed"), (int, NONE)),
    "tokens_b": (int, float, NONE),
    "hyperparameters": dict,
}
TIMES = "evaluations.jsonl"  # in a cell's folder: what each pass of an evaluation took; the results hold no times
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "lm-eval",
    "wandb",
    "rouge-score",
    "amuro",
)


@dataclass(frozen=True)
class Cell:
    """One (checkpoint, stage, dataset, hyper-parameters, seed): at most one training run, any number of units.

    `base` is the identity of the pre-trained weights (`repo@commit` or `sha256:...`). A BASE cell has no dataset, no
    hyper-parameters and no seed. `step` and `tokens_b` (billions) are None where the revision does not tell them.
    """

    family: str
    checkpoint: str
    step: int | None
    tokens_b: float | None
    base: str
    stage: str = "base"
    dataset: str = ""
    dataset_digest: str = ""
    prompts_version: int | None = None
    hyperparameters: dict = field(default_factory=dict)
    seed: int | None = None

    @property
    def cell_id(self) -> str:
        """12 hex digits over what determines the weights; labels such as the family's name do not enter."""
        keys = ("base", "stage", "dataset", "dataset_digest", "prompts_version", "hyperparameters", "seed")
        content = {key: getattr(self, key) for key in keys}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """The readable name: checkpoint, then stage or dataset and seed."""
        tuned = f"-{self.stage}-{self.dataset}-seed{self.seed}" if self.dataset else "-base"
        return self.checkpoint.replace("/", "--").replace("@", "-") + tuned

    def folder(self, runs: str | Path) -> Path:
        return Path(runs) / f"{self.name}-{self.cell_id}"


@dataclass(frozen=True)
class Unit:
    """One evaluation of a cell."""

    task: str
    prompt_format: str
    num_shots: int
    shot_seed: int
    method: str
    dtype: str
    apply_chat_template: bool = False

    @property
    def shown(self) -> str:
        """The prompt's form, for names: its format, and whether it is wrapped in the chat template."""
        return self.prompt_format + ("_chat" if self.apply_chat_template else "")

    def path(self, folder: Path) -> Path:
        parts = (self.task, self.shown, f"{self.num_shots}shot", f"s{self.shot_seed}", self.method, self.dtype)
        return folder / "units" / ("-".join(parts) + ".parquet")

    def key(self, metric: str) -> str:
        """The name of one of its values in W&B; the seed of the shots and the dtype are in it where they are not the
        usual."""
        seed = f"s{self.shot_seed}/" if self.shot_seed != SHOT_SEED else ""
        dtype = f"{self.dtype}/" if self.dtype != "float32" else ""
        return f"eval/{self.task}/{self.shown}/{self.num_shots}shot/{self.method}/{seed}{dtype}{metric}"


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is either whole or absent, also after a power cut."""
    temporary = _written_beside(path, content)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink()
        raise


def write_once(path: Path, content: bytes | memoryview) -> bool:
    """Write a file that only one process can make, whole or absent; False where it is there already."""
    temporary = _written_beside(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink > 1  # a network that lost the answer to our own link says so too
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if path.exists():  # a file system without links: the cell's claim alone keeps others away
            return False
        write_atomic(path, content)
    finally:
        temporary.unlink()
    return True


def _written_beside(path: Path, content: bytes | memoryview) -> Path:
    """A temporary file in the same folder, whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # not the process id: hosts share folders
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would take what little there is
        raise
    return temporary


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_record(folder: Path, cell: Cell, again: bool = False, **details) -> dict:
    """Write `run.json`: the cell, the details given, and the environment. From then on the training is complete.

    Returns the record that is there. Of two processes only one can make it, and what the other one has is discarded;
    `again` replaces the record of a training that was repeated because its weights were not kept.
    """
    record = {"cell_id": cell.cell_id, "cell": asdict(cell), **details, "environment": environment()}
    content = json.dumps(record, indent=1, sort_keys=True).encode()
    if again:
        write_atomic(folder / "run.json", content)
    elif not write_once(folder / "run.json", content):
        return read_record(folder)
    return record


def read_record(folder: Path) -> dict | None:
    """The record of a complete training, None where there is none. ValueError where the file is not a record."""
    path = folder / "run.json"
    if not os.path.lexists(path):
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))  # our own file: not read as strictly as others' are
        _check_record(record, Cell(**record["cell"]))
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a record of a cell ({said}); remove the folder to run the cell again") from None
    return record


def _check_record(record: dict, cell: Cell) -> None:
    """ValueError where a part is not of its kind, or the cell has another id than its settings give."""
    for name, kinds in KINDS.items():
        value = getattr(cell, name)
        if not isinstance(value, kinds) or isinstance(value, bool) or (isinstance(value, float) and value != value):
            raise ValueError(f"{name} is {value!r}")
    if cell.stage not in STAGES:
        raise ValueError(f"stage is {cell.stage!r}; allowed: {', '.join(STAGES)}")
    for name, kind in (("training", dict), ("settings", dict), ("environment", dict), ("weights", str)):
        if not isinstance(record.get(name, kind()), kind):
            raise ValueError(f"{name} is {record[name]!r}")
    if record["cell_id"] != cell.cell_id:
        raise ValueError(f"cell_id is {record['cell_id']!r}, its settings give {cell.cell_id}: changed afterwards?")


def find_cell(runs: str | Path, name: str) -> tuple[Cell, Path]:
    """The complete cell that `name` means: its folder, or its cell_id or folder name under `runs`."""
    found = [Path(name)] if (Path(name) / "run.json").is_file() else []
    near = Path(runs).glob(f"*{glob.escape(name)}/run.json")  # a folder's name ends in its id; others are not read
    found = found or [path.parent for path in near if matches(path.parent, name)]
    if len(found) != 1:
        there = sorted(path.parent.name for path in Path(runs).glob("*/run.json"))
        shown = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
        raise ValueError(f"--cell {name}: {len(found)} complete cells match under {runs}; there are: {shown or 'none'}")
    return Cell(**read_record(found[0])["cell"]), found[0]


def matches(folder: Path, name: str) -> bool:
    """Whether `name` is a cell folder's name or its cell_id."""
    return name in (folder.name, read_record(folder)["cell_id"])


def environment() -> dict:
    """Package versions, git commit and hardware: recorded, never hashed."""
    commit = _git("rev-parse", "HEAD")
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "git_commit": commit,
        "git_dirty": bool(_git("status", "--porcelain")) if commit else None,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def changed_packages(record: dict) -> str:
    """The packages whose version differs from a record's, as `name old -> new`; empty where none does."""
    then, now = record["environment"]["packages"], environment()["packages"]
    return ", ".join(f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name])


def _git(*arguments: str) -> str | None:
    """Output of a git command in the source folder; None outside a git checkout or without git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
