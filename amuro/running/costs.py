"""How long commands take: as cells of the same kind did under RUNS, else as arXiv 2408.06663 says for OLMo-1B.

    seconds, source = estimate(command, measured("runs"))      (None, "unknown") where neither is known

Only training and evaluation count: a process that is not warm takes some ten seconds more to start.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from amuro import settings
from amuro.cells import TIMES, read_record
from amuro.checks import items
from amuro.registry.families import family
from amuro.registry.family_files import family_folder
from amuro.running.grids import Command
from amuro.strict import parse_json
from amuro.tasks import DATASETS, relation_of, select_tasks

STAGES = {"train_sft.py": "sft", "train_instruct.py": "instruct", "eval/run.py": "base"}
DEFAULT_TASKS = {  # what --tasks is where it is not given
    "sft": settings.TrainingArguments.tasks,
    "instruct": settings.InstructArguments.tasks,
    "base": settings.EvaluationArguments.tasks,
}
# A100 hours of the paper's 8 checkpoints per dataset. It does not say over how many rates: one is taken. The evaluation
# is the authors' own, one prompt format and one number of shots.
TABLE_4 = {
    "xsum": {"training": 12.0, "id": 8.0, "ood": 96.0, "cross_task": 5.2},
    "socialiqa": {"training": 6.0, "id": 5.3, "ood": 32.0, "cross_task": 6.5},
    "mnli": {"training": 4.6, "id": 3.0, "ood": 11.0, "cross_task": 7.7},
    "paws": {"training": 5.3, "id": 2.0, "ood": 25.6, "cross_task": 8.15},
    "tulu": {"training": 360.0, "benchmark": 10.0},
}
PAPER = "arXiv 2408.06663, Table 4, on A100s with the authors' evaluation"
OTHERWISE = ("limit", "num_train_rows", "train_fraction", "num_train_epochs", "max_steps", "use_peft", "recipe")
AS_PUBLISHED = ("olmo-1b-sft", "olmo-1b-instruct")  # recipes


@dataclass(frozen=True)
class Kind:
    """What cells must share to take about as long; a BASE cell has no dataset."""

    stage: str
    family: str
    dataset: str


def estimate(command: Command, known: dict[Kind, tuple[float, str]]) -> tuple[float | None, str]:
    """(seconds, where they are from) of a command; None where nothing is known of its kind. ValueError on --tasks that
    do not exist."""
    stage, names = STAGES[command.program], items(command.get("checkpoint") or "")
    if command.get("cell"):
        return None, "unknown"
    dataset = command.get("dataset") or ("tulu" if stage == "instruct" else "")
    tasks = select_tasks(command.get("tasks") or DEFAULT_TASKS[stage], dataset if dataset in DATASETS else "")
    seconds, sources = 0.0, {}
    for name in names:
        kind = Kind(stage, family_name(name.rpartition("@")[0]), Path(dataset).stem)
        each, source = known.get(kind) or published(kind, command, tasks)
        if each is None:
            return None, "unknown"
        seconds, sources[source] = seconds + each, None
    return seconds, ", ".join(sources)


def measured(runs: str | Path) -> dict[Kind, tuple[float, str]]:
    """The median seconds of the complete cells under `runs`, by kind, and of how many on which device."""
    found = defaultdict(list)
    for path in sorted(Path(runs).glob("*/run.json")):
        record = read_record(path.parent)
        cell, training, passes = record["cell"], record.get("training", {}), path.with_name(TIMES)
        lines = passes.read_text(encoding="utf-8").splitlines() if passes.is_file() else []
        try:
            evaluated = [parse_json(line) for line in lines]
            seconds = training.get("seconds", 0.0) + sum(each["seconds"] for each in evaluated)
            device = training.get("device") or (evaluated[-1]["device"] if evaluated else "")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} or {passes.name}: not the times of a cell ({error}); remove the latter") from None
        if seconds:
            found[Kind(cell["stage"], cell["family"], cell["dataset"])].append((seconds, device))
    return {kind: (median(s for s, _ in cells), f"{_devices(cells)} under {runs}") for kind, cells in found.items()}


def _devices(cells: list[tuple[float, str]]) -> str:
    return f"the median of such cells on {' and '.join(sorted({device for _, device in cells}))}"


def published(kind: Kind, command: Command, tasks: tuple[str, ...]) -> tuple[float | None, str]:
    """The seconds of one cell of the paper; None where the command asks for something else than the paper did."""
    changed = [name for name in OTHERWISE if command.get(name) and command.get(name) not in AS_PUBLISHED]
    if kind.family != "olmo-1b" or changed or (kind.dataset or "xsum") not in TABLE_4:
        return None, "unknown"
    hours = 0.0
    for dataset in [kind.dataset] if kind.dataset else TABLE_4:
        hours += TABLE_4[dataset]["training"] if kind.dataset else 0.0
        relations = {relation_of(task, dataset) for task in tasks} - ({"cross_task"} if not kind.dataset else set())
        passes = len(items(command.get("prompt_format") or "")) * len(items(command.get("num_shots") or ""))
        hours += passes * sum(TABLE_4[dataset].get(relation, 0.0) for relation in relations)
    return hours * 3600 / 8, PAPER


@cache
def family_name(place: str) -> str:
    """The family that is written before the @: its name, or that of a folder or YAML; of a repository itself."""
    if place.endswith((".yaml", ".yml")) or family_folder(place):
        return family(place).name
    return place
