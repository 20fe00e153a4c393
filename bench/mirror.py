"""The spine on real data: a family pre-trained on real text, tuned and scored on real rows, as one table.

    python bench/mirror.py --data_dir MIRROR --out /tmp/mirror        (about half an hour on two cores)

MIRROR is a mirror folder with xsum/, social_i_qa/, glue_mnli/ and paws/, and *.txt files under text/ to pre-train on.
A model of a million parameters learns little of these tasks: what this shows is that every part works on real rows.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from amuro.checkpoints import history
from amuro.results import coverage, load
from amuro.running import runner
from amuro.running.grids import of_argv
from amuro.tasks import SFT


def main() -> None:
    """Raise, tune, evaluate, print the table. Called again it goes on where it stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="mirror folder with real rows, and text/ with *.txt files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the family and the runs")
    parser.add_argument("--num_train_rows", default="500", help="training rows of each dataset")
    parser.add_argument("--limit", default="100", help="scored rows of each task")
    parser.add_argument("--num_shots", default="0", help="comma list of shot counts")
    given = parser.parse_args()
    family, runs = given.out / "text" / "family", given.out / "runs"
    raise_it = ["nursery", "--out", str(given.out / "text"), "--text", str(Path(given.data_dir) / "text")]
    subprocess.run([sys.executable, "-m", "amuro.cli", *raise_it], check=True)
    steps = [step for step, *_ in history(str(family))]
    points = [f"{family}@{step}" for step in (steps[0], steps[len(steps) // 2], steps[-1])]
    places = ["--data_dir", given.data_dir, "--limit", given.limit, "--num_shots", given.num_shots]
    tune = ["--tasks", "id", "--learning_rate", "1e-3", "--num_train_rows", given.num_train_rows]
    todo = [("eval/run.py", ["--checkpoint", point, "--tasks", "id", *places]) for point in points]
    todo += [
        ("train_sft.py", ["--checkpoint", point, "--dataset", dataset, *tune, *places])
        for dataset in SFT
        for point in points
    ]
    summary = runner.run([of_argv(*each) for each in todo], runs, gpus_per_cell=0, retry_failed=True)
    print(summary, file=sys.stderr)
    if summary.code:
        sys.exit(summary.code)
    table = load(runs)
    columns = ["step", "stage", "dataset", "task", "metric", "value", "ci_low", "ci_high", "n", "n_truncated"]
    print(table[columns].sort_values(["task", "dataset", "step"]).to_string(index=False, float_format="{:.3f}".format))
    there, expected, missing = coverage(table)
    print(f"{there} of {expected} units", *missing, sep="\n")


if __name__ == "__main__":
    main()
