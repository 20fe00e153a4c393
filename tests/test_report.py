"""The report over runs made up here, from load to page, offline: pytest tests/test_report.py"""

import base64
import gzip
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from test_paper import at_random, make_tables

from amuro import results
from amuro.cells import Cell, Unit, write_record
from amuro.evaluation import rows_of
from amuro.tasks import TASKS, relation_of
from amuro.units import read_examples, read_unit, write_unit
from analysis import page, report
from analysis.coverage import COLUMNS
from analysis.figures import axis_of, figure_frames, files
from analysis.figures.data import changes
from analysis.groups import group_gains
from analysis.page.html import html_table, section
from analysis.usual import at_usual

STEPS = (20, 100, 800)
N = 150
FORMATS = ("default", "instruct")
# task -> the mean score of BASE and of the model tuned on its own domain, at each step
LEVELS = {
    "mnli_matched": ((0.35, 0.35, 0.35), (0.35, 0.60, 0.95)),  # latent
    "rte": ((0.50, 0.50, 0.50), (0.50, 0.50, 0.50)),  # not learned
    "xsum": ((0.10, 0.40, 0.80), (0.45, 0.60, 0.80)),  # learned in pre-training
    "cnn": ((0.10, 0.10, 0.10), (0.10, 0.10, 0.10)),  # not learned
}
RELATED = {"mnli": ("mnli_matched", "rte", "xsum"), "xsum": ("xsum", "cnn", "mnli_matched")}
FORGOTTEN = 0.15  # what every other dataset's task loses
FORMAT_GAP = 0.2  # what BASE loses with the instruct prompt


def made_up(task: str, level: float, salt: int) -> pd.DataFrame:
    """Examples of a unit; their scores have the mean `level`, nearly, and the same difficulty order in every run. Of a
    benchmark, every third example has five choices instead of four, and accuracy_norm is 0.1 above accuracy."""
    rng = np.random.default_rng(list(TASKS).index(task))
    words = np.array([f"w{number}" for number in range(60)])
    if TASKS[task].labels:
        targets = [TASKS[task].labels[at % 2] for at in range(N)]
        score = (rng.permutation(N) < round(level * N)).astype(float)
    else:
        targets = [" ".join(rng.choice(words, 8)) for _ in range(N)]
        score = np.clip(level + rng.normal(0, 0.01, N) + np.random.default_rng(salt).normal(0, 0.002, N), 0, 1)
    ids = [f"{task}-{at}" for at in range(N)]
    frame = pd.DataFrame({"example_id": ids, "target": targets, "prediction": targets, TASKS[task].metric: score})
    if TASKS[task].reading.choices:
        order = np.random.default_rng(5).permutation(N)
        frame["accuracy"] = (order < round(level * N)).astype(float)
        frame["accuracy_norm"] = (order < round((level + 0.1) * N)).astype(float)
        frame["chance"] = [1 / 5 if at % 3 == 0 else 1 / 4 for at in range(N)]
    return frame.assign(truncated=False, unparsable=False)


def add_unit(
    runs, cell: Cell, task: str, level: float, prompt_format: str, method="", chat=False, shots=0, **changes
) -> None:
    """One unit of a cell, with its rows of the one table; `changes` replace values of the rows. The method `free` has
    no label in a wrong answer."""
    unit = Unit(task, prompt_format, shots, 42, method or TASKS[task].methods[0], "float32", chat)
    frame = made_up(task, level, cell.seed or 0)
    if method == "free":
        frame["unparsable"] = frame["accuracy"] == 0
    rows = [row | changes for row in rows_of(cell, unit, frame, version=1)]
    write_unit(unit.path(cell.folder(runs)), rows, frame, {"seconds": 1.0})


def make_cell(step: int, dataset: str = "", seed: int | None = None, family: str = "nursery", **settings) -> Cell:
    base = dict(family=family, checkpoint=f"{family}@{step}", step=step, tokens_b=step * 2048e-9, base=f"sha256:{step}")
    if not dataset:
        return Cell(**base)
    hyperparameters = {"learning_rate": 2e-5} | settings
    return Cell(**base, stage="sft", dataset=dataset, seed=seed, hyperparameters=hyperparameters)


def make_runs(runs, seeds=(0, 1), missing=("xsum", 1, 100, "cnn")) -> None:
    """3 checkpoints x (BASE + 2 datasets x seeds), two prompt formats; the default unit of `missing` is left out."""
    for at, step in enumerate(STEPS):
        cell = make_cell(step)
        for task, (base, _) in LEVELS.items():
            for prompt_format in FORMATS:
                gap = FORMAT_GAP * (prompt_format != "default")
                add_unit(runs, cell, task, max(0.02, base[at] - gap), prompt_format)
        write_record(cell.folder(runs), cell)
        for dataset, tasks in RELATED.items():
            for seed in seeds:
                cell = make_cell(step, dataset, seed)
                for task in tasks:
                    cross = relation_of(task, dataset) == "cross_task"
                    level = LEVELS[task][0][at] - FORGOTTEN if cross else LEVELS[task][1][at]
                    for prompt_format in FORMATS:
                        if (dataset, seed, step, task) != missing or prompt_format != "default":
                            add_unit(runs, cell, task, max(0.02, level), prompt_format)
                write_record(cell.folder(runs), cell)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the report, built report) of the whole study, once."""
    folder = tmp_path_factory.mktemp("study")
    make_runs(folder / "runs")
    built = report.build(folder / "runs")
    report.write(built, folder / "out", report.findings(built))
    return folder / "out", built


def test_known_tasks_get_their_verdicts(made):
    verdicts = made[1].verdicts.query("prompt_format == 'default'").set_index("task")
    assert verdicts["verdict"].to_dict() == {
        "mnli_matched": "learned in fine-tuning",
        "rte": "not learned",
        "xsum": "learned in pre-training",
        "cnn": "not learned",
    }
    assert verdicts["latent"].to_dict() == {"mnli_matched": True, "rte": False, "xsum": False, "cnn": False}
    assert (verdicts["seeds"] == 2).all() and not verdicts["one_seed"].any() and (verdicts["n"] == N).all()
    assert verdicts.loc["mnli_matched", "gain"] == pytest.approx(0.6, abs=0.01)
    assert verdicts.loc["xsum", "rise"] == pytest.approx(0.7, abs=0.01)


def test_missing_unit_is_named_everywhere(made):
    out, built = made
    there, expected, missing = results.coverage(built.table)
    assert (there, expected) == (95, 96) and len(missing) == 1
    assert "nursery@100 sft xsum" in missing[0] and "seed 1 cnn default" in missing[0]
    assert report.coverage_line(built.table).startswith("95 of 96 units, missing: nursery@100")
    text = (out / "index.html").read_text()
    assert "95 of 96 units, 1 missing" in text and "nursery@100" in text.split('id="coverage"')[1]
    gap = built.gains.query("task == 'cnn' and checkpoint == 'nursery@100' and prompt_format == 'default'").iloc[0]
    assert (gap["missing"], gap["seeds"], gap["seeds_expected"]) == ("seed 1", 1, 2)
    assert (built.gains["missing"] != "").sum() == 1


def test_what_failed_or_is_gone_is_missing_too(made):
    row = dict.fromkeys(COLUMNS, "") | {"why": "failed: no space left", "command": "python train_sft.py"}
    failed = replace(made[1], coverage=pd.DataFrame([row]))
    said = page.missing(failed)
    assert "Nothing is missing" not in said and "1 command failed" in said and "no space left" in said
    assert "Nothing is missing" in page.missing(replace(failed, coverage=failed.coverage.head(0)))


def test_tables_of_the_last_checkpoint_show_no_other(made):
    for name in ("transitions", "seed_variance"):
        text = section(made[1], name)
        assert "nursery@800" in text and "nursery@100" not in text and "instruct" not in text


def test_ratios_are_of_the_examples_that_both_have():
    row = {"base": 0.5, "base_paired": 0.25, "difference": 0.1, "difference_low": 0.0, "difference_high": 0.2}
    assert changes(pd.DataFrame([row]))["ratio"].tolist() == pytest.approx([0.4])


def test_gains_are_paired_differences_over_the_room_above_chance(made):
    row = made[1].gains.query("task == 'mnli_matched' and checkpoint == 'nursery@800' and relation == 'id'").iloc[0]
    assert row["chance"] == 0.5 and row["difference"] == pytest.approx(row["tuned"] - row["base"])
    assert row["gain"] == pytest.approx(row["difference"] / 0.5)
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_forgetting_and_formats(made):
    lost = made[1].forgetting.query("checkpoint == 'nursery@800' and prompt_format == 'default'").set_index("dataset")
    assert lost["change"].to_dict() == pytest.approx({"mnli": -FORGOTTEN, "xsum": -FORGOTTEN}, abs=0.01)
    assert lost.loc["mnli", "mrc"] == pytest.approx(-FORGOTTEN / 0.8, abs=0.02)
    means = made[1].format_means.set_index("checkpoint").loc["nursery@800"]
    assert means["base"] == pytest.approx((3 * FORMAT_GAP + 0.08) / 4, abs=0.01)  # cnn has 0.08 to lose
    assert means["tuned"] == pytest.approx(0, abs=0.005) and means["tasks"] == 4
    per_task = made[1].formats.query("stage == 'base' and task == 'xsum' and checkpoint == 'nursery@800'").iloc[0]
    assert (per_task["best"], per_task["worst"]) == ("default", "instruct")


def test_prints_coverage_findings_and_path(tmp_path, capsys):
    make_runs(tmp_path / "runs", seeds=(0,), missing=())
    assert report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.strip().split("\n")
    lines = [line for line in printed if not line.startswith("  ")]
    starts = ["coverage: 60 of 60 units", "learned in pre-training: 1 of 4", "latent (BASE", "not learned: 2 of 4"]
    starts += ["forgetting", "prompt-format sensitivity", "turning points", "best buy"]
    starts += [f"report: {tmp_path / 'out' / 'index.html'}"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 9
    assert "one seed" in printed[2] and "n=150" in printed[2]  # its only case


class Links(HTMLParser):
    """Collects every tag and what would make a browser send a request."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text, self.data, self.here = [], [], [], "", ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.here = dict(attrs).get("id", "")
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text.append(data)
        self.data += data if self.here == "data" else ""


def read_page(path):
    """(the page, what its script works on): the figures' definitions, frames and rows."""
    page = Links()
    page.feed(path.read_text())
    return page, json.loads(gzip.decompress(base64.b64decode(page.data)))


def unpacked(table: dict) -> pd.DataFrame:
    """A table as the page's script reads it."""
    columns = {
        name: [column["of"][at] for at in column["at"]] if isinstance(column, dict) else column
        for name, column in table["columns"].items()
    }
    return pd.DataFrame(columns, index=range(table["n"]))


def test_page_is_one_file_with_every_figure_and_no_request(made):
    text = (made[0] / "index.html").read_text()
    page, data = read_page(made[0] / "index.html")
    assert [link for link in page.links if not link.startswith("#")] == []
    assert not {"link", "iframe", "img", "object", "base"} & set(page.tags)
    assert "default-src 'none'" in text and "@import" not in text.split("</style>")[0] and "cdn." not in text
    assert text.count("window.vegaEmbed=") == 1 and len(text) < 1.2e6
    drawn = [figure["key"] for figure in data["figures"]]
    expected = ["curves", "own_domain", "cross_task", "formats", "ranges", "groups", "ratios", "turning", "transitions"]
    assert drawn == [*expected, "trajectories"]
    assert [f"id='figure-{key}'" in text for key in drawn] == [True] * 10
    assert text.count("Not measured in this study.") == 2  # benchmarks, shots
    assert "positive control" in text and "says nothing about\nreal models" in text
    assert "What the original study got wrong" in text and "tables/verdicts.csv" in text


def test_page_holds_every_row_and_every_point_once(made):
    out, built = made
    data = read_page(out / "index.html")[1]
    rows = unpacked(data["rows"])
    assert len(rows) == len(built.table) == 95
    keys = ["checkpoint", "dataset", "task", "prompt_format"]
    wanted = built.table.set_index([*keys, "cell_id"])["value"]
    found = rows.fillna({"dataset": ""}).set_index([*keys, "cell_id"])["value"]
    assert found.to_dict() == pytest.approx(wanted.to_dict(), abs=1e-4)
    scores = unpacked(data["frames"]["scores"])
    tuned = built.table["stage"] != "base"
    assert len(scores) == len(built.points) + tuned.sum()
    assert scores["seed"].value_counts().to_dict() == {"mean of seeds": 36, "": 24, "0": 36, "1": 35}
    assert scores["usual_prompt"].sum() == (scores["prompt"] == "default").sum() > 0
    lost = scores.query("task == 'cnn' and checkpoint == 'nursery@100' and seed == 'mean of seeds'")
    assert lost.query("prompt == 'default'")["missing"].tolist() == ["seed 1"]


def test_figures_in_three_formats(made):
    heads = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    names = [*LEVELS, "own_domain", "cross_task", "formats", "ranges", "groups", "ratios", "turning", "transitions"]
    found = [
        (made[0] / "figures" / f"{name}.{ending}").read_bytes().startswith(head)
        for name in [*names, "trajectories"]
        for ending, head in heads.items()
    ]
    assert found == [True] * 39 and len(list((made[0] / "figures").glob("[!.]*"))) == 39


@pytest.mark.parametrize("name", ["/tmp/x", "../../x", "a/b", "groups", "über uns", "a" * 300])
def test_figures_of_tasks_of_any_name_are_in_their_folder(tmp_path, monkeypatch, name):
    rows = pd.DataFrame({"task": [name], "n": [1]})
    figure = SimpleNamespace(key="curves", frame="scores", by=(), rows=lambda frame: frame, drawable=len)
    others = [SimpleNamespace(**{**vars(figure), "key": "groups"})]
    monkeypatch.setattr(files, "FIGURES", [figure, *others])
    monkeypatch.setattr(files, "chart_of", lambda *given: {})
    monkeypatch.setattr(files, "save", lambda chart, path: [path])
    folder = tmp_path / "a" / "figures"
    paths = files.save_all({"scores": rows}, None, folder)
    assert len(set(paths)) == 2 and all(path.parent == folder and len(path.name) < 100 for path in paths)


def test_older_figures_are_replaced_and_others_kept(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.svg").touch()
    cell = make_cell(20)
    for task in ("cnn", "rte"):
        add_unit(tmp_path / "runs", cell, task, 0.2, "default")
        write_record(cell.folder(tmp_path / "runs"), cell)
        built = report.build(tmp_path / "runs")
        report.write(built, tmp_path, [])
        shutil.rmtree(tmp_path / "runs")
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert "rte" in names and "mine" in names and "cnn" not in names


def test_results_csv_round_trip(made):
    out, built = made
    texts = [name for name, kind in results.COLUMNS.items() if kind == "string"]
    numbers = [name for name in results.COLUMNS if name not in texts]
    kinds = dict.fromkeys(texts, str)
    back = pd.read_csv(out / "results.csv", dtype=kinds, keep_default_na=False, na_values=dict.fromkeys(numbers, [""]))
    pd.testing.assert_frame_equal(results.check(back), built.table)
    assert not len(built.methods) and not len(pd.read_csv(out / "tables" / "methods.csv"))
    for name in ("gains", "verdicts", "forgetting", "formats"):
        assert len(pd.read_csv(out / "tables" / f"{name}.csv")) == len(getattr(built, name)) > 0


def page_of(built) -> str:
    """The page of a built report."""
    frames, axis = figure_frames(built), axis_of(built.points, built.checkpoints)
    return report.page(built, report.findings(built), frames, axis)


def test_text_is_escaped(tmp_path):
    for step in (20, 100):
        for dataset, seed in (("", None), ("<i>data", 1)):
            cell = make_cell(step, dataset, seed, family="<b>bold</b>")
            for shots, prompt, method in product((0, 4), FORMATS, ("token_prob", "free")):
                add_unit(tmp_path, cell, "rte", 0.5, prompt, method, shots=shots, relation="id" if dataset else "")
            write_record(cell.folder(tmp_path), cell)
    for path in tmp_path.glob("*/units/*.parquet"):
        unit = read_unit(path)
        odd = {
            "task": "<u>",
            "prompt_format": "<s>",
            "method": "<q>",
            "checkpoint": "</script><script>alert(1)</script>",
        }
        rows = [row | {name: f"{text}{row[name]}" for name, text in odd.items()} for row in unit["rows"]]
        write_unit(path, rows, read_examples(path), unit["about"])
    built = report.build(tmp_path)
    text = page_of(built)
    assert "<script>alert" not in text
    for sign, name in {"b": "bold", "i": "data", "u": "rte", "s": "default", "q": "token_prob"}.items():
        assert f"<{sign}>{name}" not in text and f"&lt;{sign}&gt;{name}" in text


def test_base_alone_makes_a_report(tmp_path, capsys):
    cell = make_cell(20, family="olmo-1b")
    add_unit(tmp_path / "runs", cell, "cnn", 0.2, "default", tokens_b=None)
    write_record(cell.folder(tmp_path / "runs"), cell)
    assert report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 3 and "one cell alone" in warnings[0] and "BASE without any tuned model" in warnings[1]
    assert ["none" in line for line in out.splitlines()[4:-1]] == [True] * 5
    assert out.count("by BASE alone, without a verdict on tuning: none of 1 tasks") == 2
    text = (tmp_path / "out" / "index.html").read_text()
    assert "positive control" not in text and "nothing measured" in text


def test_other_dtype_is_a_gap_not_a_comparison(tmp_path):
    for dataset, dtype in (("", "bfloat16"), ("mnli", "float32")):
        cell = make_cell(20, dataset, 0 if dataset else None)
        add_unit(tmp_path, cell, "rte", 0.5, "default", dtype=dtype)
        write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    assert built.gains["missing"].tolist() == ["no BASE"] and built.gains["difference"].isna().all()
    assert built.verdicts["verdict"].tolist() == ["no verdict"]


def test_lost_checkpoint_leaves_a_gap_and_no_verdict(tmp_path):
    for step in STEPS:
        for dataset in ("", "mnli"):
            if (step, dataset) != (800, "mnli"):
                cell = make_cell(step, dataset, 0 if dataset else None)
                add_unit(tmp_path, cell, "rte", 0.5, "default")
                write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    assert built.gains.set_index("checkpoint")["missing"].to_dict()["nursery@800"] == "no tuned"
    said = built.verdicts.set_index("stage")["missing"]  # and BASE is still judged by its own curve
    assert said.to_dict() == {"base": "", "sft": "no tuned at nursery@800"}
    found = report.findings(built)
    assert "none of 0 tasks with a verdict, 1 without" in found[0].answer and "no verdict 1" in str(found[2])
    assert built.turning[["checkpoints", "checkpoints_expected"]].values.tolist() == [[2, 3]]
    (turns,) = [str(each) for each in found if each.title.startswith("turning points")]
    assert "2 of 3 checkpoints" in turns


def test_a_mean_over_tasks_is_on_the_page(made):
    assert (made[1].format_trend["task"] == "mean of tasks").any()
    assert "mean of tasks" in section(made[1], "format_trend")


def test_a_rate_that_base_has_not_is_not_said_of_every_row():
    frame = pd.DataFrame({"family": "toy", "learning_rate": [float("nan"), 2e-5], "task": "rte"})
    heads = {"family": "family", "learning_rate": "learning rate", "task": "task"}
    assert "In every row: family toy." in html_table(frame, heads, "About.")
    assert "In every row: family toy, learning rate 2e-05." in html_table(frame.tail(1), heads, "About.")


def test_runs_or_a_source_not_both(tmp_path, capsys):
    assert report.main(["--runs", "runs", "--source", "wandb:a/b", "--out", str(tmp_path)]) == 2
    assert "--runs and --source: both say where the results are" in capsys.readouterr().err


def refuse(tmp_path, capsys) -> str:
    code = report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err.strip()
    assert code == 2 and error.startswith("error: ") and "\n" not in error
    return error


def test_mistakes_are_one_line_and_exit_code_2(tmp_path, capsys):
    runs = tmp_path / "runs"
    assert "no complete cell" in refuse(tmp_path, capsys)
    cell = make_cell(20)
    write_record(cell.folder(runs), cell)
    assert "no result of an evaluation" in refuse(tmp_path, capsys)
    add_unit(runs, cell, "rte", 0.5, "default", value=1.5)
    assert "outside [0, 1]" in refuse(tmp_path, capsys)
    add_unit(runs, cell, "rte", 0.5, "default", value=0.9)
    assert "not the mean of its examples" in refuse(tmp_path, capsys)
    add_unit(runs, cell, "rte", 0.5, "default")
    unit = next(cell.folder(runs).glob("units/*.parquet"))
    (unit.parent / "copy.parquet").write_bytes(unit.read_bytes())
    assert "share a key" in refuse(tmp_path, capsys)
    assert not (tmp_path / "out").exists()


def test_cells_that_differ_in_more_than_seed_are_not_averaged(tmp_path):
    for epochs in (1, 3):
        cell = make_cell(20, "mnli", 0, epochs=epochs)
        add_unit(tmp_path, cell, "rte", 0.5, "default")
        write_record(cell.folder(tmp_path), cell)
    with pytest.raises(ValueError, match="differ in more than seed"):
        report.build(tmp_path)


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert "a file" in refuse(tmp_path, capsys)


def test_out_that_cannot_be_made_is_one_line(tmp_path, capsys):
    cell = make_cell(20)
    add_unit(tmp_path / "runs", cell, "rte", 0.5, "default")
    write_record(cell.folder(tmp_path / "runs"), cell)
    (tmp_path / "file").write_text("")
    code = report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "file" / "out")])
    error = capsys.readouterr().err
    assert code == 2 and "Not a directory" in error and "Traceback" not in error


def test_odd_tables_still_make_a_report(tmp_path):
    """Two families, one without tokens or steps, a sweep over rates, another stage, a format that is lost."""
    for family in ("olmo-1b", "other"):
        for step in STEPS:
            cells = [make_cell(step, family=family), make_cell(step, "mnli", 0, family)]
            cells += [make_cell(step, "mnli", 0, family, learning_rate=2e-6)]
            times = {} if family == "olmo-1b" else {"step": None, "tokens_b": None}
            for cell in cells:
                for prompt_format in FORMATS:
                    add_unit(tmp_path, cell, "rte", 0.4, prompt_format, **times)
                write_record(cell.folder(tmp_path), cell)
            cell, instruct = make_cell(step, "mnli", 0, family, epochs=5), {"stage": "instruct", "dataset": "tulu"}
            add_unit(tmp_path, cell, "rte", 0.4, "default", relation="", **instruct, **times)
            write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    found = report.findings(built)
    path = report.write(built, tmp_path / "out", found)
    assert [len(built.verdicts), (built.verdicts["verdict"] == "not learned").sum(), len(found)] == [8, 8, 6]
    assert {"no instruct"} == set(built.formats.query("stage == 'instruct'")["missing"])
    data = read_page(path)[1]
    series = {"BASE (not tuned)", "mnli at rate 2e-05", "mnli at rate 2e-06", "tulu (instruct)"}
    assert data["axis"] == "checkpoint" and set(unpacked(data["frames"]["scores"])["series"]) == series
    assert "olmo-1b mnli" in path.read_text() and '<select name="family">' in path.read_text()


def test_chance_that_leaves_no_room_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "N", 1)
    for dataset, task in (("", "rte"), ("mnli", "rte"), ("", "cnn"), ("xsum", "cnn")):
        for step in STEPS[:2]:
            cell = make_cell(step, dataset, 0 if dataset else None)
            add_unit(tmp_path, cell, task, 0.4, "default")
            write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    assert built.gains["missing"].tolist() == ["no chance level below 1"] * 4
    assert built.gains["difference"].notna().all() and built.gains["gain"].isna().all()
    assert built.verdicts.set_index("task")["missing"].to_dict() == {"rte": "", "cnn": "no chance level"}


BENCHMARKS = {  # task -> what BASE scores at each step; all judged by BASE alone
    "arc_easy": (0.30, 0.50, 0.80),
    "boolq": (0.20, 0.20, 0.20),
    "sciq": (0.40, 0.40, 0.43),  # undecided
}
LOST = 0.1  # what tuning loses on arc_easy
READ = {"token_prob": (0.4, 0.8), "free": (0.0, 0.7), "constrained": (0.4, 0.8)}  # rte read so: BASE, tuned at the end


def make_wide_runs(runs) -> None:
    """3 checkpoints x (BASE + mnli x 2 seeds) on rte and benchmarks; rte read in three ways at the last checkpoint and,
    with the chat template, of BASE alone."""
    for at, step in enumerate(STEPS):
        for seed in (None, 0, 1):
            cell = make_cell(step, "" if seed is None else "mnli", seed)
            tuned = seed is not None
            for method, levels in READ.items():
                if method == "token_prob" or step == STEPS[-1]:
                    add_unit(runs, cell, "rte", levels[tuned], "default", method)
            if tuned:
                add_unit(runs, cell, "arc_easy", BENCHMARKS["arc_easy"][at] - LOST, "default")
            else:
                add_unit(runs, cell, "rte", 0.6, "default", chat=True)
                for task, levels in BENCHMARKS.items():
                    add_unit(runs, cell, task, levels[at], "default")
            write_record(cell.folder(runs), cell)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """(folder of the report, built report) of a study with benchmarks, methods and a chat template; by the command."""
    folder = tmp_path_factory.mktemp("wide")
    make_wide_runs(folder / "runs")
    assert report.main(["--runs", str(folder / "runs"), "--out", str(folder / "out")]) == 0
    return folder / "out", report.build(folder / "runs")


def test_chance_of_choices_is_the_mean_over_examples(wide):
    points = wide[1].points.query("method == 'loglikelihood'")
    assert len(points) == 3 * (3 + 1) * 2  # checkpoints x (BASE's three tasks + the tuned one) x metrics
    assert points["chance"].tolist() == pytest.approx([(50 / 5 + 100 / 4) / 150] * len(points))


def test_task_with_base_alone_is_judged_by_its_accuracy(wide):
    """p-values by scipy, Holm's correction by hand over the three tasks: a second metric is no second task."""
    alone = wide[1].verdicts.query("stage == 'base'").set_index("task")
    names = {"arc_easy": "learned in pre-training", "boolq": "not learned", "sciq": "undecided"}
    assert alone["verdict"].to_dict() == names and set(alone["metric"]) == {"accuracy"}
    p = {}
    for task, levels in BENCHMARKS.items():
        first, last = (made_up(task, level, 0)["accuracy"].to_numpy() for level in (levels[0], levels[-1]))
        above = scipy_stats.ttest_1samp(last - 35 / 150, 0.02, alternative="greater").pvalue
        rise = (
            1.0
            if levels[0] == levels[-1]
            else scipy_stats.ttest_1samp(last - first, 0.02, alternative="greater").pvalue
        )
        p[task] = max(above, rise)
        assert alone.loc[task, "rise"] == pytest.approx((last - first).mean())
        assert alone.loc[task, "above_chance"] == pytest.approx(last.mean() - 35 / 150)
    ordered, worst = sorted(p, key=p.get), 0.0
    for rank, task in enumerate(ordered):
        worst = max(worst, min(1, p[task] * (3 - rank)))
        assert alone.loc[task, "p_pretraining"] == pytest.approx(worst)
    assert len(ordered) == 3
    about_tuning = alone[
        ["latent", "gain", "tuned_above_chance", "tuned_rise", "extra_rise", "p_finetuning", "p_latent"]
    ]
    assert about_tuning.isna().all(axis=None)


def test_findings_count_base_alone_apart(wide):
    learned, latent, not_learned, lost, *_ = report.findings(wide[1])
    assert learned.answer == "none of 1 tasks; by BASE alone, without a verdict on tuning: 1 of 3 tasks"
    assert len(learned.cases) == 1 and learned.cases[0].startswith("arc_easy (BASE alone rises +0.500")
    assert latent.answer == "none of 1 tasks"
    assert not_learned.answer.startswith("none of 1 tasks (all verdicts: learned in fine-tuning 1); by BASE alone")
    assert not_learned.answer.endswith("1 of 3 tasks") and not_learned.cases[0].startswith("boolq (BASE alone")
    assert lost.answer.startswith("none measured")  # benchmarks are not another dataset's tasks


def test_benchmarks_are_a_line_of_forgetting_by_accuracy_alone(wide):
    lost = wide[1].forgetting.set_index("checkpoint")
    assert lost["relation"].tolist() == ["benchmark"] * 3 and lost["tasks"].tolist() == [1] * 3
    assert lost["change"].tolist() == pytest.approx([-LOST] * 3) and lost["n"].tolist() == [N] * 3
    assert lost.loc["nursery@800", "mrc"] == pytest.approx(-LOST / 0.8)
    gains = wide[1].gains.query("task == 'arc_easy' and checkpoint == 'nursery@800'").set_index("metric")
    assert gains["tuned"].to_dict() == pytest.approx({"accuracy": 0.7, "accuracy_norm": 0.8})
    assert gains["difference"].tolist() == pytest.approx([-LOST] * 2)


def test_ways_of_reading_are_compared_at_the_last_checkpoint(wide):
    out, built = wide
    table = built.methods.set_index(["stage", "method"])
    assert (
        len(table) == 6
        and set(built.methods["task"]) == {"rte"}
        and set(built.methods["checkpoint"]) == {"nursery@800"}
    )
    done = 0
    for method, levels in READ.items():
        for stage, level, seeds in (("base", levels[0], 1), ("sft", levels[1], 2)):
            row = table.loc[(stage, method)]
            wilson = scipy_stats.binomtest(round(level * N), N).proportion_ci(method="wilson")
            assert (row["value"], row["value_low"], row["value_high"]) == pytest.approx(
                (level, wilson.low, wilson.high)
            )
            unparsable = round((1 - level) * N) * seeds if method == "free" else 0
            assert (row["n"], row["n_unparsable"], row["dataset"]) == (N, unparsable, "" if stage == "base" else "mnli")
            done += 1
    assert done == 6
    assert (
        len(pd.read_csv(out / "tables" / "methods.csv")) == 6
        and "Ways of reading an answer" in (out / "index.html").read_text()
    )


def test_methods_do_not_enter_one_anothers_numbers(wide):
    verdicts = wide[1].verdicts.query("stage == 'sft'").set_index("method")
    assert verdicts["verdict"].to_dict() == {
        "token_prob": "learned in fine-tuning",
        "free": "no verdict",
        "constrained": "no verdict",
    }
    assert verdicts.loc["token_prob", "gain"] == pytest.approx(0.4)
    missing = verdicts.loc["free", "missing"]
    assert missing == "no BASE at nursery@20, no tuned at nursery@20"


def test_chat_template_is_never_compared_with_a_plain_prompt(wide):
    built = wide[1]
    rte = built.points.query("task == 'rte' and stage == 'base' and method == 'token_prob'")
    assert rte.groupby("apply_chat_template")["value"].agg(list).to_dict() == {False: [0.4] * 3, True: [0.6] * 3}
    assert not built.gains["apply_chat_template"].any() and not built.setting["apply_chat_template"]
    base = built.gains.query("task == 'rte' and method == 'token_prob'")["base"]
    assert base.tolist() == pytest.approx([0.4] * 3)  # plain BASE, not the chat template's 0.6


def test_tuned_in_the_chat_template_alone_has_no_base(tmp_path):
    for step in STEPS:
        for dataset in ("", "mnli"):
            cell = make_cell(step, dataset, 0 if dataset else None)
            for task, level in (("rte", 0.5), ("mnli_matched", 0.4), ("arc_easy", 0.3)):
                add_unit(tmp_path, cell, task, level, "default", chat=bool(dataset))
            write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    assert built.gains["missing"].tolist() == ["no BASE"] * 3 * 4 and built.gains["difference"].isna().all()
    judged = built.verdicts.set_index(["stage", "task"])["verdict"].to_dict()
    assert judged == {
        ("sft", "rte"): "no verdict",
        ("sft", "mnli_matched"): "no verdict",
        ("base", "arc_easy"): "not learned",
    }
    assert built.setting["apply_chat_template"] and "in the chat template" in page_of(built)


def test_page_shows_the_setting_of_the_tuned_not_of_the_benchmarks(tmp_path):
    cells = [make_cell(step, dataset, 0 if dataset else None) for step in STEPS for dataset in ("", "mnli")]
    for cell in cells:
        add_unit(tmp_path, cell, "rte", 0.5, "default", method="free")
        write_record(cell.folder(tmp_path), cell)
    assert report.build(tmp_path).setting["num_shots"] == 0  # of a method that is nothing's usual one, if need be
    for cell in cells:
        add_unit(tmp_path, cell, "rte", 0.5, "default", num_shots=2)
        for task in BENCHMARKS:
            add_unit(tmp_path, cell, task, 0.3, "default", num_shots=4)
    assert report.build(tmp_path).setting["num_shots"] == 2


def test_shot_seeds_are_never_compared(tmp_path):
    for step in STEPS:
        for dataset in ("", "mnli"):
            cell = make_cell(step, dataset, 0 if dataset else None)
            add_unit(tmp_path, cell, "rte", 0.5, "default", shot_seed=7 if dataset else 42)
            write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    assert built.gains["missing"].tolist() == ["no BASE"] * 3
    assert built.verdicts["verdict"].tolist() == ["no verdict"]


def test_second_metric_and_other_readings_are_choices_of_their_own(wide):
    scores = figure_frames(wide[1])["scores"]
    easy = scores.query("task == 'arc_easy'").groupby("reading")["usual_reading"].agg(set).to_dict()
    assert easy == {"loglikelihood, accuracy": {True}, "loglikelihood, accuracy_norm": {False}}
    rte = scores.query("task == 'rte'").groupby(["prompt", "reading"])["usual_reading"].agg(set).to_dict()
    assert rte == {
        ("default", "constrained, accuracy"): {False},
        ("default", "free, accuracy"): {False},
        ("default", "token_prob, accuracy"): {True},
        ("default, chat template", "token_prob, accuracy"): {True},
    }
    assert set(scores.query("task == 'arc_easy'")["line"]) == {"BASE", "benchmark"}
    assert (wide[0] / "figures" / "arc_easy.svg").is_file()


def test_the_authors_curves_stand_beside_ours(tmp_path):
    """Of the same family, in the same prompt, shots and reading; no number of ours changes."""
    (tmp_path / "paper").mkdir()
    make_tables(tmp_path / "paper", at_random)
    for step in (1000, 18000):
        for dataset in ("", "mnli"):
            cell = make_cell(step, dataset, 0 if dataset else None, family="olmo-1b")
            add_unit(tmp_path / "runs", cell, "rte", 0.5, "default", shots=4)
            write_record(cell.folder(tmp_path / "runs"), cell)
    alone, both = report.build(tmp_path / "runs"), report.build(tmp_path / "runs", tmp_path / "paper")
    pd.testing.assert_frame_equal(alone.gains, both.gains)
    scores = figure_frames(both)["scores"]
    theirs = scores[(scores["source"] == "the paper") & (scores["task"] == "rte")]
    assert set(theirs["series"]) == {"BASE (not tuned), the paper's", "mnli, the paper's"}
    assert len(theirs) == 2 * 8 and theirs[["usual_prompt", "usual_shots", "usual_reading"]].all(axis=None)
    first = theirs[(theirs["checkpoint"] == "olmo-1b@1000") & (theirs["dataset"] == "mnli")]
    assert first["value"].tolist() == [at_random("rte", "mnli", 0, "default")]
    assert (alone.authors.empty, len(figure_frames(alone)["scores"])) == (True, 4)
    text = page_of(both)
    assert 'value="the paper"' in text and 'value="the paper"' not in page_of(alone)


@pytest.mark.slow
def test_a_report_of_the_authors_rows_alone(tmp_path, capsys):
    (tmp_path / "paper").mkdir()
    make_tables(tmp_path / "paper", at_random)
    assert report.main(["--paper_results", str(tmp_path / "paper"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "the paper's own published numbers" in lines[1] and "no scores per example" in lines[2]
    assert lines[3].startswith("learned in pre-training: ")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "Amuro: olmo-1b" in text and "all_perf_table.csv" in text and "comparisons are unpaired" in text
    gains = pd.read_csv(tmp_path / "out" / "tables" / "gains.csv")
    assert set(gains["test"]) == {"unpaired"} and gains["difference"].notna().any()
    assert len(read_page(tmp_path / "out" / "index.html")[1]["figures"]) == 9  # no shots, no single answers


def test_runs_without_the_authors_family_show_no_curve_of_theirs(tmp_path):
    (tmp_path / "paper").mkdir()
    make_tables(tmp_path / "paper", at_random)
    cell = make_cell(20)
    add_unit(tmp_path / "runs", cell, "rte", 0.5, "default")
    write_record(cell.folder(tmp_path / "runs"), cell)
    assert report.build(tmp_path / "runs", tmp_path / "paper").authors.empty


def test_gains_by_group_are_means_over_the_tasks_of_a_verdict(made):
    """By hand over the rows of the gains; a task without a number is named and not counted."""
    built, done = made[1], 0
    verdicts = at_usual(built.verdicts, built.usual).set_index("task")["verdict"]
    gains = at_usual(built.gains, built.usual)
    gains = gains[gains["relation"].isin(("id", "ood"))]
    for row in built.groups.itertuples():
        some = gains[(gains["checkpoint"] == row.checkpoint) & (gains["task"].map(verdicts) == row.verdict)]
        halves = (some["difference_high"] - some["difference_low"]) / 2
        assert row.change == pytest.approx(some["difference"].mean()) and row.tasks == len(some) > 0
        assert row.change_high - row.change == pytest.approx(np.sqrt((halves**2).sum()) / len(some))
        assert (row.n, row.missing) == (some["n"].sum(), "")
        done += 1
    assert done == 9  # three verdicts at three checkpoints
    lacking = gains.assign(difference=gains["difference"].mask(gains["task"] == "cnn"))
    found = group_gains(lacking, at_usual(built.verdicts, built.usual)).set_index(["checkpoint", "verdict"])
    row = found.loc[("nursery@20", "not learned")]
    assert (row["tasks"], row["missing"]) == (1, "without cnn")


def test_a_task_is_shown_in_the_study_s_setting_or_in_its_own(tmp_path):
    """Datasets' tasks with four shots and none, benchmarks with none alone: each has one usual setting."""
    for step in STEPS:
        for dataset in ("", "mnli"):
            cell = make_cell(step, dataset, 0 if dataset else None)
            for shots in (0, 4):
                for prompt_format in FORMATS[: 1 + (shots == 4)]:
                    add_unit(tmp_path, cell, "rte", 0.5, prompt_format, shots=shots)
            add_unit(tmp_path, cell, "mnli_matched", 0.5, "default", shots=4)
            add_unit(tmp_path, cell, "arc_easy", 0.5, "default", shots=0)
            write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    shots = built.usual.groupby("task")["num_shots"].agg(set).to_dict()
    assert shots == {"rte": {4}, "mnli_matched": {4}, "arc_easy": {0}} and set(built.usual["metric"]) == {"accuracy"}
    judged = at_usual(built.verdicts, built.usual)
    assert sorted(judged["task"]) == ["arc_easy", "mnli_matched", "rte"] and len(built.verdicts) > 3
    lost = at_usual(built.forgetting, built.usual)
    assert set(lost["relation"]) == {"benchmark"} and set(lost["num_shots"]) == {0} and len(lost) == len(STEPS)


def test_provenance_counts_what_the_records_say(made):
    table = made[1].provenance.set_index("what")
    assert table.loc["recorded", "cells"] == 15 and " to " in table.loc["recorded", "value"]
    assert table.loc["code", "cells"] == 15 and table.loc["machine", "cells"] == 15
    weights = made[1].provenance.query("what == 'pre-trained weights'").set_index("value")["cells"].to_dict()
    assert weights == {f"nursery@{step}: sha256:{step}": 5 for step in STEPS}
    datasets = made[1].provenance.query("what == 'dataset'")
    assert datasets["cells"].tolist() == [6, 6] and "package" in table.index


def test_shortened_inputs_and_answers_without_label_are_warned_of(wide, made):
    text = (wide[0] / "index.html").read_text().split('id="warnings"')[1].split("</section>")[0]
    assert "answers without a label" in text and ">free<" in text and "token_prob" not in text
    text = (made[0] / "index.html").read_text().split('id="warnings"')[1].split("</section>")[0]
    assert "No input was shortened" in text and "No fault of these checkpoints is known" in text
