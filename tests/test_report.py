"""The report over runs made up here, from load to page, offline: pytest tests/test_report.py"""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from amuro import results
from amuro.cells import Cell, Unit, write_record
from amuro.evaluation import row_of
from amuro.results import write_unit
from amuro.tasks import TASKS, relation_of
from analysis import report, tables

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
    """Examples of a unit; their scores have the mean `level`, nearly, and the same difficulty order in every run."""
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
    return frame.assign(truncated=False, unparsable=False)


def add_unit(runs, cell: Cell, task: str, level: float, prompt_format: str, **changes) -> None:
    """One unit of a cell, with its row of the one table; `changes` replace values of the row."""
    spec = TASKS[task]
    unit = Unit(task, prompt_format, 0, 42, spec.method, "float32")
    frame = made_up(task, level, cell.seed or 0)
    row = row_of(cell, unit, frame, version=1)
    write_unit(unit.path(cell.folder(runs)), [row | changes], frame, {"seconds": 1.0})


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
    assert "95 of 96 units, missing: nursery@100" in (out / "report.html").read_text()
    gap = built.gains.query("task == 'cnn' and checkpoint == 'nursery@100' and prompt_format == 'default'").iloc[0]
    assert (gap["missing"], gap["seeds"], gap["seeds_expected"]) == ("seed 1", 1, 2)
    assert (built.gains["missing"] != "").sum() == 1


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


def test_prints_coverage_five_lines_and_path(tmp_path, capsys):
    make_runs(tmp_path / "runs", seeds=(0,), missing=())
    assert report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    starts = ["coverage: 60 of 60 units", "learned in pre-training: 1 of 4", "latent (BASE", "not learned: 2 of 4"]
    starts += ["forgetting", "prompt-format sensitivity", f"report: {tmp_path / 'out' / 'report.html'}"]
    assert len(lines) == 7
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 7
    assert "one seed" in lines[1] and "n=150" in lines[1]


class Links(HTMLParser):
    """Collects every tag and what would make a browser send a request."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_one_file_with_every_task_and_no_request(made):
    text = (made[0] / "report.html").read_text()
    page = Links()
    page.feed(text)
    assert page.links == [] and not {"link", "iframe", "img", "object", "base"} & set(page.tags)
    assert "default-src 'none'" in text and "@import" not in text.split("</style>")[0] and "cdn." not in text
    assert page.tags.count("figure") == 4 and text.count("window.vegaEmbed=") == 1
    assert [f'aria-label="{task}:' in text for task in LEVELS] == [True] * 4
    assert "positive control" in text and "says nothing about\nreal models" in text


def test_figures_in_three_formats(made):
    heads = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    found = [
        (made[0] / "figures" / f"{task}.{ending}").read_bytes().startswith(head)
        for task in LEVELS
        for ending, head in heads.items()
    ]
    assert found == [True] * 12


def test_results_csv_round_trip(made):
    out, built = made
    texts = [name for name, kind in results.COLUMNS.items() if kind == "string"]
    numbers = [name for name in results.COLUMNS if name not in texts]
    kinds = dict.fromkeys(texts, str)
    back = pd.read_csv(out / "results.csv", dtype=kinds, keep_default_na=False, na_values=dict.fromkeys(numbers, [""]))
    pd.testing.assert_frame_equal(results.check(back), built.table)
    for name in ("gains", "verdicts", "forgetting", "formats"):
        assert len(pd.read_csv(out / f"{name}.csv")) == len(getattr(built, name)) > 0


def test_text_is_escaped(tmp_path):
    cell = make_cell(20, family="<b>bold</b>")
    add_unit(tmp_path, cell, "rte", 0.5, "default", checkpoint="</script><script>alert(1)</script>")
    write_record(cell.folder(tmp_path), cell)
    built = report.build(tmp_path)
    text = report.page(built, report.findings(built), {"rte": {"title": "</script><script>alert(1)"}})
    assert "<b>bold" not in text and "<script>alert" not in text and "&lt;b&gt;bold" in text


def test_base_alone_makes_a_report(tmp_path, capsys):
    cell = make_cell(20, family="olmo-1b")
    add_unit(tmp_path / "runs", cell, "cnn", 0.2, "default", tokens_b=None)
    write_record(cell.folder(tmp_path / "runs"), cell)
    assert report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("none") == 5
    text = (tmp_path / "out" / "report.html").read_text()
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
    assert built.verdicts["missing"].tolist() == ["no tuned at nursery@800"]
    assert "no verdict 1" in str(report.findings(built)[2])


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
    assert [len(built.verdicts), (built.verdicts["verdict"] == "not learned").sum(), len(found)] == [8, 8, 5]
    assert {"no instruct"} == set(built.formats.query("stage == 'instruct'")["missing"])
    text = path.read_text()
    assert [name in text for name in ("mnli at rate 2e-06", "tulu (instruct)", "olmo-1b mnli")] == [True] * 3


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


def test_pairs_are_by_example_id():
    one = pd.DataFrame({"score": [0.1, 0.2, 0.3]}, index=["a", "b", "c"])
    other = pd.DataFrame({"score": [0.9, 0.8, 0.7]}, index=["d", "c", "b"])
    scores, unpaired = tables.paired(one, other)
    assert sorted(scores.tolist()) == [[0.2, 0.7], [0.3, 0.8]] and unpaired == 2
