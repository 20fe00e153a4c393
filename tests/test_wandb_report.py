"""The W&B report, written with the real SDK to a loopback server: the specification that was posted, read back."""

import json
import re

import pytest
from test_report import add_unit, make_cell
from wandb_server import ENTITY

from amuro import lineage, results, tracking
from amuro.cells import write_record
from analysis import wandb_report

STEPS = (20, 100, 800)
LEVELS = {"": (0.35, 0.35, 0.35), "mnli": (0.35, 0.6, 0.95)}
COMMAND = ["--entity", ENTITY, "--project", "amuro"]


def study(runs, tracked: bool = True) -> None:
    """BASE and mnli with two seeds at three checkpoints, on a task of its own and another's; all of it in W&B too."""
    for at, step in enumerate(STEPS):
        for dataset, seed in (("", None), ("mnli", 10), ("mnli", 20)):
            cell = make_cell(step, dataset, seed)
            for task in ("mnli_matched", "rte", "xsum"):
                add_unit(runs, cell, task, LEVELS[dataset][at], "default")
            training = {"rows": 8, "rows_origin": "data/glue_mnli/train.jsonl", "device": "cpu", "seconds": 1.0}
            write_record(cell.folder(runs), cell, weights=f"sha256:{cell.cell_id}", training=training, settings={})
            with tracking.run(cell, cell.folder(runs), enabled=tracked):
                pass


def posted(server, project: str = "amuro") -> tuple[dict, list[dict]]:
    """(what was posted, its blocks) of the project's one report."""
    (view,) = server.project(project).views.values()
    return view, json.loads(view["spec"])["blocks"]


def text_of(block) -> str:
    """All text in a block."""
    if isinstance(block, list):
        return "".join(map(text_of, block))
    if not isinstance(block, dict):
        return ""
    own = block.get("text", "") if isinstance(block.get("text"), str) else ""
    return (
        own
        + block.get("content", "" if not isinstance(block.get("content"), str) else "")
        * (isinstance(block.get("content"), str))
        + text_of(block.get("children", []))
    )


def filters_of(runset: dict) -> dict:
    """Key -> value of a run set's filters."""
    found = {}

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("key"), dict):
                found[node["key"]["name"]] = node["value"]
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(runset["filters"])
    return found


@pytest.mark.slow
def test_report_of_a_project_is_posted_and_a_repeat_replaces_it(server, client, tmp_path, capsys):
    study(tmp_path / "runs")
    assert wandb_report.main(COMMAND) == 0
    address = capsys.readouterr().out.strip().splitlines()[-1]
    view, blocks = posted(server)
    assert re.fullmatch(rf"report: http://.*/{ENTITY}/amuro/reports/Amuro.*--{view['id']}=*", address)
    assert (view["displayName"], view["type"], view["entityName"]) == (wandb_report.TITLE, "runs", ENTITY)
    assert "27 of 27 units" in view["description"]
    headings = [text_of(block) for block in blocks if block["type"] == "heading"]
    assert headings == ["Findings", "Verdicts", "BASE", "Tuned on mnli"]
    said = "\n".join(map(text_of, blocks))
    assert "latent (BASE does not rise, tuned does)" in said and "| mnli_matched | learned in fine-tuning |" in said
    assert "| checkpoint | mnli_matched | rte | xsum |" in said and "| nursery@800 | 0.347 → 0.947 |" in said
    before = json.loads(view["spec"])
    assert wandb_report.main(COMMAND) == 0
    again, _ = posted(server)
    assert again["id"] == view["id"] and len(json.loads(again["spec"])["blocks"]) == len(before["blocks"])
    assert wandb_report.main([*COMMAND, "--title", "Another"]) == 0
    assert sorted(each["displayName"] for each in server.project("amuro").views.values()) == sorted(
        ["Another", wandb_report.TITLE]
    )


@pytest.mark.slow
def test_grids_draw_the_values_that_runs_have_over_tokens(server, client, tmp_path):
    study(tmp_path / "runs")
    assert wandb_report.main(COMMAND) == 0
    grids = [block["metadata"] for block in posted(server)[1] if block["type"] == "panel-grid"]
    table = results.load(tmp_path / "runs")
    keys = {row["task"]: lineage.key_of(row) for row in table.to_dict("records")}
    assert [len(grid["runSets"]) for grid in grids] == [1, 2]
    assert [runset["name"] for runset in grids[1]["runSets"]] == ["base", "sft mnli"]
    assert [filters_of(runset) for runset in grids[1]["runSets"]] == [
        {"stage": "base"},
        {"stage": "sft", "dataset": "mnli"},
    ]
    assert all(runset["project"]["name"] == "amuro" for grid in grids for runset in grid["runSets"])
    for grid in grids:
        panels = grid["panelBankSectionConfig"]["panels"]
        lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
        assert {panel["viewType"] for panel in panels} == {"Run History Line Plot", "Run Comparer"}
        assert {line["xAxis"] for line in lines} == {"tokens_b"} and all(line["xLogScale"] for line in lines)
        assert {metric for line in lines for metric in line["metrics"]} == set(keys.values())
        places = [(panel["layout"]["x"], panel["layout"]["y"]) for panel in panels]
        assert len(set(places)) == len(places)
    assert [line["chartTitle"] for line in lines] == ["mnli_matched · id", "rte · ood", "xsum · cross_task"]
    for run in server.project("amuro").runs.values():  # the panels' values are those that the runs have
        assert set(keys.values()) <= set(run.summary) and run.values()["stage"] in ("base", "sft")


def test_a_local_folder_tells_of_a_project(server, client, tmp_path):
    study(tmp_path / "runs", tracked=False)
    server.project("amuro")
    assert wandb_report.main([*COMMAND, "--runs", str(tmp_path / "runs")]) == 0
    assert len(posted(server)[1]) > 5


HOSTILE = "o'brien' = <b>x [y](javascript:z) | *w*"


def test_names_are_shown_and_filtered_as_they_are(server, client, tmp_path):
    for dataset, seed in (("", None), (HOSTILE, 1)):
        cell = make_cell(20, dataset, seed)
        add_unit(tmp_path / "runs", cell, "rte", 0.5, "default", relation="id" if dataset else "")
        write_record(cell.folder(tmp_path / "runs"), cell)
    server.project("amuro")
    assert wandb_report.main([*COMMAND, "--runs", str(tmp_path / "runs")]) == 0
    blocks = posted(server)[1]
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    assert filters_of(grids[1]["runSets"][1]) == {"stage": "sft", "dataset": HOSTILE}
    texts = [text_of(block) for block in blocks if block["type"] not in ("heading", "panel-grid")]
    assert not any(sign in text for text in texts for sign in ("<b>", "](", " | *w*", "\n*"))


def test_text_is_one_line_of_markdown():
    assert wandb_report.md("a\n# b `c` [d](e) <i> 0.1 [0.2, 0.3] mnli_matched") == (
        r"a # b \`c\` [d]\(e) &lt;i&gt; 0.1 [0.2, 0.3] mnli_matched"
    )


def test_a_report_that_cannot_be_told_is_no_fault_of_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_report, "blocks", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wandb_report.write(None, [], "e", "p", "t")
    monkeypatch.setattr(wandb_report, "blocks", lambda *given: int("x"))
    with pytest.raises(ValueError, match="^invalid literal"):
        wandb_report.write(None, [], "e", "p", "t")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--project", "nothing"], "nothing"),
        (["--runs", "{}", "--source", "wandb:a/b"], "--runs and --source: both"),
        (["--runs", "{}", "--project", "nothing"], "--entity tester --project nothing"),
        (["--runs", "{}/none"], "no complete cell there"),
    ],
)
def test_mistakes_are_one_line(server, client, tmp_path, capsys, more, said):
    study(tmp_path / "runs", tracked=False)
    code = wandb_report.main([*COMMAND, *(word.replace("{}", str(tmp_path / "runs")) for word in more)])
    error = capsys.readouterr().err
    assert code == 2 and said in error and "Traceback" not in error and error.startswith("error: ")


def test_without_a_key_it_is_said(server, client, tmp_path, capsys):
    study(tmp_path / "runs", tracked=False)
    client(WANDB_API_KEY=None)
    assert wandb_report.main([*COMMAND, "--runs", str(tmp_path / "runs")]) == 2
    assert "error: --entity tester --project amuro: " in capsys.readouterr().err
