"""Results from a W&B project: its `results` artifacts, brought into a folder that reads like a runs folder.

    python -m analysis.report --source wandb:entity/project --out report
    table = results.load(download("entity/project", Path("fetched")))

The artifacts hold the cells' own records and units, so every row and example is what a local file says. Of a cell that
was evaluated more than once, the newest version counts. Folders are numbered: a server's names are no paths here.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from amuro.names import first_line

KIND = "wandb:"


@contextmanager
def runs_of(source: str) -> Iterator[Path]:
    """The runs folder that `wandb:entity/project` means, there while the context lasts. ValueError where it means
    nothing."""
    project = source.removeprefix(KIND)
    if not source.startswith(KIND) or project.count("/") != 1 or "" in project.split("/"):
        raise ValueError(f"--source {source!r}: write wandb:entity/project, or give a local folder with --runs")
    with tempfile.TemporaryDirectory(prefix="amuro-") as place:
        own = not os.environ.get("WANDB_CACHE_DIR")
        if own:  # else the client writes at home
            os.environ["WANDB_CACHE_DIR"] = f"{place}/cache"
        try:
            yield download(project, Path(place) / "results")
        finally:
            if own:
                os.environ.pop("WANDB_CACHE_DIR", None)


def download(project: str, folder: Path) -> Path:
    """Bring the newest results of every cell of `entity/project` under `folder`, which is new or empty. ValueError
    where it is not, where the project has none, or where W&B does not let us read it."""
    import wandb

    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: not empty; results are fetched into a new folder")
    try:
        api = wandb.Api()
        names = [each.name for each in api.artifact_type("results", project).collections()]

        def fetch(number: int, name: str) -> None:
            place = folder / f"{number:05}"
            api.artifact(f"{project}/{name}:latest", type="results").download(str(place), skip_cache=True)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, range(len(names)), names))
    except (wandb.Error, ValueError) as error:
        raise ValueError(f"--source {KIND}{project}: {first_line(error)}") from None
    if not names:
        raise ValueError(f"--source {KIND}{project}: no results there; a run logs them when its cell is complete")
    return folder
