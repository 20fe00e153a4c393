"""What `amuro plan` says before anything runs: cells, hours, downloads, disk, warnings; and what it refuses."""

import json
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_checkpoint, run
from hub import Hub, commit_of
from safetensors.numpy import save

from amuro import cells
from amuro.cells import Cell
from amuro.registry.findings import Finding
from amuro.registry.findings import save as save_findings
from amuro.running import costs, ledger, needs
from amuro.running import plan as planning
from amuro.running.costs import PAPER
from amuro.running.grids import Command, read
from amuro.running.plan import _recipe, check_data, make, refuse, setting, text

SWEEPS = ROOT / "sweeps"


def sweep(folder: Path, parameters: str, program: str = "train_sft.py", name: str = "grid.yaml") -> Path:
    path = folder / name
    lines = "".join(f"  {line}\n" for line in parameters.splitlines())
    path.write_text(f"program: {program}\nmethod: grid\nparameters:\n{lines}")
    return path


def end(runs: Path, command: Command, state: str = "done", **details) -> None:
    """Let a command have ended: its entry in the ledger, and where it is done a cell with a record."""
    folders = {}
    if state == "done":
        cell = Cell("toy", command.get("checkpoint"), 1, None, f"sha256:{command.key}", "sft", command.get("dataset"))
        cells.write_atomic(
            cell.folder(runs) / "run.json",
            json.dumps({"cell_id": cell.cell_id, "cell": cell.__dict__, **details}).encode(),
        )
        folders = {cell.folder(runs).name: []}
    entry = ledger.Entry(command.key, command.program, dict(command.flags), state, folders, written=time.time() + 60)
    cells.write_atomic(ledger_file(runs, command), json.dumps(entry.__dict__).encode())


def ledger_file(runs: Path, command: Command) -> Path:
    return runs / "commands" / f"{command.key}.json"


@pytest.fixture
def toy(family) -> str:
    return str(family)


def test_cells_are_counted_per_file_and_duplicates_once(tmp_path, toy):
    one = sweep(tmp_path, f"checkpoint: {{values: ['{toy}@10', '{toy}@20']}}\ndataset: {{values: [mnli, paws]}}")
    two = sweep(tmp_path, f"checkpoint: {{value: '{toy}@10'}}\ndataset: {{values: [paws, xsum]}}", name="two.yaml")
    commands = read([one, two])
    assert len(commands) == 5
    end(tmp_path / "runs", commands[0])
    end(tmp_path / "runs", commands[1], "failed")
    plan = make([one, two], tmp_path / "runs")
    counts = [[count[name] for name in planning.COUNTED] for count in plan.counts.values()]
    assert counts == [[4, 1, 1, 2, 0], [2, 0, 0, 1, 1]] and len(plan.todo) == 3
    shown = text(plan)
    assert shown.splitlines()[3].split() == ["all", "6", "1", "1", "3", "1"]
    assert "failed ones are run with --retry_failed only" in shown
    assert [c.get("dataset") for c in make([one, two], tmp_path / "runs", ["dataset=xsum"]).todo] == ["xsum"]
    assert ledger.state_of(commands[0], ledger.read(tmp_path / "runs"), tmp_path / "runs") == "complete"


def test_hours_are_the_median_of_complete_cells_of_the_same_kind(tmp_path, toy):
    runs = tmp_path / "runs"
    for number, seconds in enumerate((10.0, 20.0, 90.0)):
        cell = Cell("toy", "toy@10", 10, None, f"sha256:{number}", "sft", "mnli", seed=number)
        cells.write_record(cell.folder(runs), cell, training={"seconds": seconds, "device": "cpu"})
        passes = [{"units": [], "seconds": 2.5, "device": "cpu"}] * 2
        (cell.folder(runs) / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in passes))
    path = sweep(tmp_path, f"checkpoint: {{values: ['{toy}@10', '{toy}@20']}}\ndataset: {{values: [mnli, paws]}}")
    plan = make([path], runs, processes=2)
    assert plan.time.known == {f"the median of such cells on cpu under {runs}": [25.0, 25.0]}
    assert plan.time.unknown == 2 and plan.time.seconds == 50
    shown = text(plan)
    assert "time: 50 s of one CPU for 2 cells, the median" in shown and "2 at a time: 25 s" in shown
    assert "unknown for 2 cells" in shown


@pytest.mark.parametrize(
    ("name", "hours"),
    [("olmo_ckpts", 238.35), ("olmo_base", 192.9), ("olmo_lr", 715.05), ("olmo_seeds", 632.4), ("olmo_instruct", 370)],
)
def test_where_nothing_is_measured_the_papers_table_4_holds_for_olmo_1b(name, hours, tmp_path):
    estimates = [costs.estimate(command, {}) for command in read([SWEEPS / f"{name}.yaml"])]
    assert {source for _, source in estimates} == {PAPER} and "A100" in PAPER
    assert sum(seconds for seconds, _ in estimates) / 3600 == pytest.approx(hours)
    top = (SWEEPS / f"{name}.yaml").read_text().split("program:")[0]
    assert str(round(hours)) in top and "Table 4" in top  # what the sweep itself says


def test_what_the_paper_did_not_run_is_unknown():
    common = {"checkpoint": "olmo-1b@1000", "dataset": "mnli"}
    known = costs.estimate(Command("train_sft.py", tuple(common.items())), {})[0]
    twice = costs.estimate(Command("train_sft.py", tuple({**common, "prompt_format": "default,io"}.items())), {})[0]
    assert known == pytest.approx((4.6 + 3.0 + 11.0) * 450) and twice == pytest.approx((4.6 + 28.0) * 450)
    for changed in (
        {"limit": "5"},
        {"num_train_epochs": "1"},
        {"recipe": "small-gpu-lora"},
        {"checkpoint": "bloom-1b1@1"},
    ):
        assert costs.estimate(Command("train_sft.py", tuple({**common, **changed}.items())), {}) == (None, "unknown")
    assert costs.estimate(Command("eval/run.py", (("cell", "1a2b3c4d5e6f"),)), {})[0] is None


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("olmo-1b", "write family@step"),
        ("olmo-1c@1000", "did you mean olmo-1b?"),
        ("olmo-1b@step-x", "'step-x' is neither a step nor main"),
        ("olmo-7b@1000", "trust_remote_code"),
        ("./nowhere@3", "no family"),
        ("nursery@3", "no nursery in"),
    ],
)
def test_bad_names_of_checkpoints_are_all_found_without_the_hub(tmp_path, monkeypatch, reference, told):
    monkeypatch.setattr("amuro.registry.families.read_refs", lambda repo: pytest.fail("the hub was asked"))
    path = sweep(tmp_path, f"checkpoint: {{values: ['{reference}', 'pythia-0m@1']}}\ndataset: {{value: mnli}}")
    with pytest.raises(ValueError) as error:
        make([path], tmp_path / "runs")
    assert told in str(error.value) and "pythia-0m" in str(error.value) and "\n" not in str(error.value)


def test_steps_that_a_local_history_lacks_are_named(tmp_path, toy):
    path = sweep(tmp_path, f"checkpoint: {{values: ['{toy}@11', '{toy}@main']}}\ndataset: {{value: mnli}}")
    with pytest.raises(ValueError, match="@11': no such checkpoint; .* has 10, 20$"):
        make([path], tmp_path / "runs")


def test_without_the_hub_sizes_are_said_to_be_unknown(tmp_path):
    plan = make([SWEEPS / "olmo_base.yaml"], tmp_path / "runs")  # HF_HUB_OFFLINE is set
    assert plan.disk.unsized == plan.disk.checkpoints == 8 and plan.disk.download == 0
    assert len(plan.notes) == 1 and plan.notes[0].startswith(
        "the size of olmo-1b is unknown: allenai/OLMo-1B-hf cannot"
    )
    refuse(plan)


@pytest.fixture
def history(tmp_path):
    """A YAML of a history on a stand-in for the hub, and the environment that leads there."""
    files = {"config.json": b"{}", "model.safetensors": save({"w": np.zeros((1000, 50), np.float16)})}
    hub = Hub({("models", "lab/model"): {f"step{step}": files for step in (100, 200, 300)} | {"main": files}})
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nrepo: lab/model\npattern: 'step(?P<step>\\d+)'\n")
    yield path, {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}, hub
    hub.close()


def test_downloads_are_counted_and_nothing_is_downloaded(tmp_path, history):
    own, environment, hub = history
    values = ", ".join(f"'{own}@{step}'" for step in (100, 200, 300))
    path = sweep(tmp_path, f"checkpoint: {{values: [{values}]}}\ndataset: {{values: [mnli, paws]}}")
    done = run("-m", "amuro.cli", "plan", path, "--runs", tmp_path / "runs", "--processes", "2", **environment)
    assert done.returncode == 0, done.stderr
    assert "download: 0.3 MB for 3 checkpoints (" in done.stdout  # 3 times 100,000 bytes
    assert "disk: 0.4 MB for 2 cells at a time (" in done.stdout  # 50,000 parameters in float32
    assert sum("refs" in each for each in hub.requests) == 1 and sum("tree" in each for each in hub.requests) == 1
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    assert run("-m", "amuro.cli", "checkpoints", "fetch", f"{own}@200", **environment).returncode == 0
    done = run("-m", "amuro.cli", "plan", path, "--runs", tmp_path / "runs", **environment)
    assert "download: 0.2 MB for 2 checkpoints, 1 checkpoints are here" in done.stdout
    done = run("-m", "amuro.cli", "plan", path, "--runs", tmp_path / "runs", "--only", f"checkpoint={own}@100")
    assert "of 1 checkpoints the size is unknown" in done.stdout and done.returncode == 0  # offline
    path = sweep(tmp_path, f"checkpoint: {{value: '{own}@150'}}\ndataset: {{value: mnli}}")
    done = run("-m", "amuro.cli", "plan", path, "--runs", tmp_path / "runs", **environment)
    assert done.returncode == 2 and "no step 150; nearest: 100, 200, 300" in done.stderr


def test_what_the_disk_cannot_hold_is_refused(tmp_path, toy, monkeypatch):
    flags = f"checkpoint: {{values: ['{toy}@10', '{toy}@20']}}\ndataset: {{value: mnli}}\n"
    weights = needs._parameters(Path(toy) / "step-10") * 4
    assert weights > 100_000

    def disk(extra: str, processes: int = 1) -> tuple[int, int]:
        found = make([sweep(tmp_path, flags + extra)], tmp_path / "runs", processes=processes).disk
        return found.work, found.kept

    assert disk("") == (weights, 0) and disk("", processes=8) == (2 * weights, 0)
    assert disk("save_strategy: {value: steps}") == (7 * weights, 0)
    assert disk("keep_weights: {value: all}") == (weights, 2 * weights)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda place: usage(0, 0, weights - 1))
    plan = make([sweep(tmp_path, flags)], tmp_path / "runs")
    with pytest.raises(ValueError, match="the disk cannot hold it: .* are needed for .* are free; make room"):
        refuse(plan)


def test_a_recipe_says_what_is_kept_per_dataset_too(tmp_path):
    (tmp_path / "r.yaml").write_text("keep_weights: none\nper_dataset: {mnli: {keep_weights: all}}")
    flags = (("recipe", str(tmp_path / "r.yaml")),)
    kept = [setting(Command("train_sft.py", (*flags, ("dataset", name))), "keep_weights") for name in ("mnli", "xsum")]
    assert kept == ["all", "none"]
    for content, told in (("- 1", "must be a mapping of flags to values"), ("a: [", "not YAML")):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match=told):
            setting(Command("train_sft.py", (("recipe", str(tmp_path / "bad.yaml")),)), "keep_weights")
        _recipe.cache_clear()
    with pytest.raises(ValueError, match="cannot be read"):
        setting(Command("train_sft.py", (("recipe", "nosuch"),)), "keep_weights")


def test_data_that_a_mirror_lacks_is_named(tmp_path, mirror):
    command = Command("train_sft.py", (("checkpoint", "x"), ("dataset", "mnli"), ("tasks", "id")))
    check_data([command], str(mirror))
    (tmp_path / "glue_mnli").mkdir()
    (tmp_path / "glue_mnli" / "train.jsonl").write_text("")
    with pytest.raises(
        ValueError, match="2 file.s. are not there: .*validation_matched.jsonl, .*validation_mismatched"
    ):
        check_data([command], str(tmp_path))
    with pytest.raises(ValueError, match="no such folder"):
        check_data([Command("eval/run.py", (("data_dir", str(tmp_path / "x")),))])
    with pytest.raises(ValueError, match="--dataset 'mnlii': unknown; did you mean mnli?"):
        check_data([Command("train_sft.py", (("dataset", "mnlii"),))])
    with pytest.raises(ValueError, match="--tasks: unknown idd; did you mean id?"):
        check_data([Command("eval/run.py", (("tasks", "idd"),))])


def test_checkpoints_in_doubt_are_warned_of(tmp_path, family):
    from amuro.checkpoints import resolve

    bad = resolve(f"{family}@20").base
    save_findings("toy", [bad], [Finding(bad, 20, "step-20", "identical", "error", "the weights of 10, 20")], tmp_path)
    values = f"['{family}@10', '{family}@20', 'olmo2-7b@101000', 'olmo-1b@1000']"
    faulty = f"allenai/OLMo-1B-hf@{commit_of('x')}"
    save_findings("olmo-1b", [faulty], [Finding(faulty, 1000, "x", "norm", "warning", "an outlier")], tmp_path)
    plan = make([sweep(tmp_path, f"checkpoint: {{values: {values}}}\ndataset: {{value: mnli}}")], tmp_path)
    told = "\n".join(plan.warnings)
    assert len(plan.warnings) == 3 and "error: the weights of 10, 20 (audit)" in told
    assert "olmo2-7b@101000: published defect" in told and "olmo-1b@1000: warning: an outlier (audit)" in told
    assert "warning: " in text(plan)


def test_ten_thousand_cells_are_planned_in_seconds(tmp_path):
    family = tmp_path / "family"
    make_checkpoint(family / "a")
    points = [{"step": step, "tokens_b": 1.0, "path": "a"} for step in range(500)]
    (family / "family.json").write_text(json.dumps({"name": "toy", "checkpoints": points}))
    values = ", ".join(f"'{family}@{step}'" for step in range(500))
    lines = f"checkpoint: {{values: [{values}]}}\ndataset: {{values: [mnli, paws]}}\nseed: {{values: [{{}}]}}"
    path = sweep(tmp_path, lines.replace("{}", ", ".join(map(str, range(0, 100, 10)))))
    runs, commands = tmp_path / "runs", read([path])
    for command in commands[:1000]:
        end(runs, command, training={"seconds": 30.0, "device": "cpu"})
    started = time.perf_counter()
    plan = make([path], runs)
    shown = text(plan)
    seconds = time.perf_counter() - started
    assert shown.splitlines()[1].split()[1:] == ["10000", "1000", "0", "9000", "0"]
    assert plan.time.unknown == 0 and seconds < 10
    print(f"10,000 cells planned in {seconds:.2f} s")
