"""Results from a W&B project: its `results` artifacts, brought into a folder that reads like a runs folder.

    python -m analysis.report --source wandb:entity/project --out report
    table = results.load(download("entity/project", Path("report/wandb")))

The artifacts hold the cells' own records and units, so every row and example is what a local file says. Of a cell that
was evaluated more than once, the newest version counts.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KIND = "wandb:"


def runs_of(source: str, out: Path) -> Path:
    """The runs folder that `wandb:entity/project` means, made under `out`. ValueError where it means nothing."""
    project = source.removeprefix(KIND)
    if not source.startswith(KIND) or project.count("/") != 1 or "" in project.split("/"):
        raise ValueError(f"--source {source!r}: write wandb:entity/project, or give a local folder with --runs")
    return download(project, out / "wandb")


def download(project: str, folder: Path) -> Path:
    """Bring the newest results of every cell of `entity/project` under `folder`, and nothing else. ValueError where
    the project has none, or W&B does not let us read it."""
    import wandb

    try:
        api = wandb.Api()
        names = [each.name for each in api.artifact_type("results", project).collections()]
        for path in folder.glob("*"):
            if path.name not in names:
                shutil.rmtree(path)

        def fetch(name: str) -> None:
            api.artifact(f"{project}/{name}:latest", type="results").download(str(folder / name), skip_cache=True)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, names))
    except (wandb.Error, ValueError) as error:
        raise ValueError(f"--source {KIND}{project}: {str(error).splitlines()[0]}") from None
    if not names:
        raise ValueError(f"--source {KIND}{project}: no results there; a run logs them when its cell is complete")
    return folder
