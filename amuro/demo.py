"""The whole study on the nursery: every checkpoint BASE, fine-tuned on four datasets with two seeds, and
instruction-tuned with one.

    make demo        or        python -m amuro.demo --out demo        after        amuro nursery --out demo/nursery

Cells run on Ray (amuro/running/runner.py), one worker per core; each writes its log under OUT/runs/logs. Stopped
anywhere and called again it goes on: complete cells and units are not run again.
"""

import argparse
import os
import sys
from pathlib import Path

from amuro.checkpoints import history
from amuro.registry.family_files import family_folder
from amuro.running import runner
from amuro.running.cluster import cores
from amuro.running.grids import Command
from amuro.settings import script
from amuro.tasks import DATASETS, SFT

SEEDS = (10, 20)  # apart: the trainer orders an epoch by seed + epoch, so that neighbours share orders
CONTROL = "paws"  # the dataset that is not learned
FORGOTTEN = "xsum,socialiqa,mnli_matched"  # tasks of other datasets; of the control there is nothing to forget


def commands(out: Path) -> list[Command]:
    """Every cell of the study: BASE first, then one seed after the other, conversations, other prompts."""
    nursery = out / "nursery"
    family = family_folder(str(nursery))
    if family is None:
        raise ValueError(f"--out {out}: no nursery there; first: amuro nursery --out {nursery}")
    points = [f"{family}@{step}" for step, *_ in history(str(family))]
    cells = [("eval/run.py", {"checkpoint": point, "tasks": "all", "num_shots": "0"}) for point in points]
    for seed, dataset in ((seed, dataset) for seed in SEEDS for dataset in SFT):
        if seed == SEEDS[0]:  # what tuning makes a model forget is measured on one seed
            asked = {"tasks": f"id,ood,{FORGOTTEN}", "prompt_format": "default,instruct"}
        else:
            asked = {"tasks": "id,ood"}
        if dataset == CONTROL:  # not learned with any prompt, and its 3,200 rows take longest
            asked = {"tasks": asked["tasks"]}
        tuned = {"dataset": dataset, "recipe": "nursery-sft", "seed": str(seed), **asked}
        cells += [("train_sft.py", {"checkpoint": point, **tuned}) for point in points]
    instruct = {"recipe": "nursery-instruct", "seed": str(SEEDS[0])}
    cells += [("train_instruct.py", {"checkpoint": point, **instruct}) for point in points]
    learned = [task for name in SFT if name != CONTROL for task in (*DATASETS[name].id, *DATASETS[name].ood)]
    prompts = {"tasks": ",".join(learned), "num_shots": "0", "prompt_format": "instruct"}
    cells += [("eval/run.py", {"checkpoint": point, **prompts}) for point in points]
    places = {"data_dir": str(nursery / "data")}
    return [Command(program, tuple({**flags, **places}.items())) for program, flags in cells]


def main() -> None:
    """Run the demo's grid; exit code 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder with nursery/; runs/ is written there")
    parser.add_argument("--processes", type=int, default=cores(), help="cells at a time; default one per core")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("WANDB_MODE", "offline")
    summary = runner.run(
        commands(given.out), given.out / "runs", gpus_per_cell=0, retry_failed=True, processes=given.processes
    )
    print(summary, file=sys.stderr)
    sys.exit(summary.code)


if __name__ == "__main__":
    script(main)
