"""Loading: what is sound comes through under our names, what is not is refused by file, row and field."""

import json

import pandas as pd
import pytest
from conftest import ROOT, SHARED, needs_shared, run, write_jsonl
from hub import Hub, commit_of

from amuro import data
from amuro.prompts import PROMPT_FORMATS
from amuro.tasks import BENCHMARK, DATASETS, METHODS, SFT, TASKS, Reading, related, relation_of, select_tasks

NLI_ROW = {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2}


def nli(tmp_path, *rows, split="train"):
    write_jsonl(tmp_path / "glue_mnli" / f"{split}.jsonl", list(rows))
    return data.training_rows("mnli", str(tmp_path))


def test_every_task_and_dataset_loads_from_a_mirror(mirror):
    for name, task in TASKS.items():
        scored = data.evaluation_rows(name, str(mirror))
        pool = mirror / task.source.folder / "train.jsonl"
        expected = 24 if pool.is_file() and task.shots_split else 24 - data.SHOTS_KEPT
        assert len(scored.test.rows) == expected, name
        assert len(scored.shots) == data.SHOTS_KEPT
        choice = {"choices", "gold"} if task.reading.choices else set()
        assert set(scored.test.rows[0]) == {*task.reading.fields, "target", "example_id"} | choice
        if task.labels:
            assert {row["target"] for row in scored.test.rows} == set(task.labels)
        assert not choice or all(row["target"] == row["choices"][row["gold"]] for row in scored.test.rows)
    assert len(TASKS) == 19
    for name in SFT:
        assert len(data.training_rows(name, str(mirror)).rows) == 24
    assert SFT == ("xsum", "socialiqa", "mnli", "paws") and [*DATASETS] == [*SFT, "tulu"]


def test_no_shot_is_ever_scored(mirror):
    for name in TASKS:
        scored = data.evaluation_rows(name, str(mirror))
        assert scored.shots and scored.test.rows
        assert not {data.content_id(row) for row in scored.shots} & {data.content_id(row) for row in scored.test.rows}


def test_a_training_row_that_is_scored_too_is_no_shot(tmp_path):
    rows = [{**NLI_ROW, "premise": f"Row {number}."} for number in range(12)]
    write_jsonl(tmp_path / "glue_mnli" / "train.jsonl", rows)
    write_jsonl(tmp_path / "glue_mnli" / "validation_matched.jsonl", rows[:8])
    scored = data.evaluation_rows("mnli_matched", str(tmp_path))
    assert len(scored.test.rows) == 8 and len(scored.shots) == 4
    assert {row["premise"] for row in scored.shots} == {f"Row {number}." for number in range(8, 12)}


def test_shots_depend_on_the_seed_and_not_on_the_order_of_the_file(tmp_path, mirror):
    first = data.evaluation_rows("paws", str(mirror)).shots
    assert data.evaluation_rows("paws", str(mirror), 7).shots != first
    for name in ("train", "test"):
        lines = (mirror / "paws" / f"{name}.jsonl").read_text().splitlines()
        (tmp_path / "paws").mkdir(exist_ok=True)
        (tmp_path / "paws" / f"{name}.jsonl").write_text("\n".join(reversed(lines)))
    again = data.evaluation_rows("paws", str(tmp_path)).shots
    assert [data.content_id(row) for row in again] == [data.content_id(row) for row in first]


def test_summary_shots_are_no_longer_than_the_median(mirror):
    rows = data.read_split(TASKS["xsum"].source, TASKS["xsum"].reading, "train", str(mirror)).rows
    lengths = sorted(len(row["document"]) + len(row["target"]) for row in rows)
    shots = data.evaluation_rows("xsum", str(mirror)).shots
    assert shots and all(len(row["document"]) + len(row["target"]) <= (lengths[11] + lengths[12]) / 2 for row in shots)


def test_the_training_sample_is_by_seed_and_its_digest_follows_it(mirror):
    draw = lambda **how: data.training_rows("mnli", str(mirror), **how)  # noqa: E731
    assert draw(n=10).digest == draw(n=10).digest
    assert draw(n=10).digest != draw(n=10, sample_seed=1).digest != draw(n=11).digest
    assert len(draw(n=10).rows) == 10 and len(draw(n=10_000).rows) == 24


def test_rows_without_a_gold_label_are_counted_and_left_out(tmp_path):
    loaded = nli(tmp_path, NLI_ROW, {**NLI_ROW, "label": -1}, {**NLI_ROW, "label": "-"})
    assert len(loaded.rows) == 1 and loaded.refused == {data.UNUSABLE: 2}
    with pytest.raises(ValueError, match="all 2 rows lack a gold label"):
        nli(tmp_path, {**NLI_ROW, "label": -1}, {**NLI_ROW, "label": -1})


def test_equal_rows_keep_ids_of_their_own(tmp_path):
    rows = nli(tmp_path, NLI_ROW, NLI_ROW).rows
    assert len({row["example_id"] for row in rows}) == 2


def test_social_answers_come_from_either_form(tmp_path):
    lettered = {"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"}
    write_jsonl(
        tmp_path / "social_i_qa" / "train.jsonl", [{"context": "C.", "question": "Q?", "answer": "x"}, lettered]
    )
    assert sorted(row["answer"] for row in data.training_rows("socialiqa", str(tmp_path)).rows) == ["c", "x"]


def test_stsb_says_yes_above_three_and_a_half(tmp_path):
    rows = [{"sentence1": f"S{n}.", "sentence2": "T.", "label": n} for n in (0, 3.5, 3.6, 5, -1) for _ in range(1)]
    write_jsonl(tmp_path / "glue_stsb" / "validation.jsonl", rows)
    spec = TASKS["stsb"]
    loaded = data.read_split(spec.source, spec.reading, "validation", str(tmp_path))
    assert [row["target"] for row in loaded.rows] == ["no", "no", "yes", "yes"] and loaded.refused == {data.UNUSABLE: 1}


BAD = [
    ({"premise": "P.", "label": 0}, "row 1: field 'hypothesis' is missing; it has: 'premise', 'label'"),
    ({**NLI_ROW, "label": 7}, r"row 1: field 'label' is 7; allowed: 0 \(entailment\)"),
    ({**NLI_ROW, "label": True}, "field 'label' is True"),
    ({**NLI_ROW, "label": "0"}, "field 'label' is '0'"),
    ({**NLI_ROW, "premise": None}, "field 'premise' is NoneType; allowed: text"),
]


@pytest.mark.parametrize(("row", "told"), BAD)
def test_a_bad_row_is_named(tmp_path, row, told):
    with pytest.raises(ValueError, match=told):
        nli(tmp_path, row)


LETTERED = {"question": "Q?", "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "answerKey": "B"}
ENDED = {"activity_label": "A", "ctx_a": "B.", "ctx_b": "c", "endings": ["d", "e"], "label": "1"}
ASKED = {"passage": "P.", "question": "q", "answer": True}
SCHOOL = {"support": "", "question": "Q?", "correct_answer": "a"} | {f"distractor{i}": f"{i}" for i in (1, 2, 3)}
BAD_BENCHMARK = [
    ("arc_easy", {**LETTERED, "answerKey": "D"}, "field 'answerKey' is 'D'; allowed: A, B, C"),
    ("arc_easy", {**LETTERED, "answerKey": None}, "field 'answerKey' is None; allowed: A, B, C"),
    ("arc_easy", {**LETTERED, "choices": None}, "field 'choices' is None; allowed: lists 'text' and 'label'"),
    ("arc_easy", {**LETTERED, "choices": {"text": ["a"], "label": []}}, "allowed: lists 'text' and 'label' of one len"),
    ("arc_easy", {**LETTERED, "choices": {"text": ["a"], "label": ["B"]}}, r"is \['a'\]; allowed: a list of two texts"),
    ("openbookqa", LETTERED, "field 'question_stem' is missing; it has: 'question', 'choices', 'answerKey'"),
    ("hellaswag", {**ENDED, "ctx_b": None}, "field 'ctx_b' is None; allowed: text"),
    ("hellaswag", {"activity_label": "A", "endings": ["d", "e"], "label": "1"}, "field 'ctx' is None; allowed: text"),
    ("hellaswag", {**ENDED, "endings": ["d", "[step]"]}, r"field 'endings' is \['d', ''\]; .* none empty"),
    ("hellaswag", {**ENDED, "endings": "de"}, "field 'endings' is 'de'; allowed: a list of two texts or more"),
    ("hellaswag", {**ENDED, "label": "2"}, "field 'label' is 2; allowed: 0 to 1"),
    ("hellaswag", {**ENDED, "label": 1.0}, "field 'label' is 1.0; allowed: 0 to 1"),
    ("boolq", {**ASKED, "answer": "yes"}, "field 'answer' is 'yes'; allowed: true, false"),
    ("boolq", {**ASKED, "passage": 3}, "field 'passage' is int; allowed: text"),
    ("sciq", {**SCHOOL, "distractor2": None}, "field 'distractor2' is None; allowed: text"),
    ("sciq", {**SCHOOL, "distractor2": " "}, r"field 'choices' is \['1', ' ', '3', 'a'\]; .* none empty"),
]


@pytest.mark.parametrize(("task", "row", "told"), BAD_BENCHMARK)
def test_a_bad_benchmark_row_is_named(tmp_path, task, row, told):
    spec = TASKS[task]
    write_jsonl(tmp_path / spec.source.folder / "validation.jsonl", [row])
    with pytest.raises(ValueError, match="row 1: .*" + told):
        data.read_split(spec.source, spec.reading, "validation", str(tmp_path))


def test_a_benchmarks_hidden_answer_is_left_out_and_its_text_kept():
    read = {name: spec.reading for name, spec in TASKS.items()}
    cases = [("arc_easy", LETTERED, "answerKey"), ("hellaswag", ENDED, "label"), ("boolq", ASKED, "answer")]
    for name, row, field in cases:
        assert data.convert(read[name], row)["gold"] == 1
        assert [data.convert(read[name], {**row, field: hidden}) for hidden in ("", -1, "-", "-1")] == [None] * 4
    assert len(cases) == 3
    spaced = {"question": " Q ? ", "choices": {"text": [" a", "b "], "label": ["1", "2"]}, "answerKey": "1"}
    ours = {"question": " Q ? ", "choices": [" a", "b "], "gold": 0, "target": " a"}
    assert data.convert(read["arc_easy"], spaced) == ours
    assert data.convert(read["sciq"], {**SCHOOL, "support": " S. "})["support"] == "S. "  # as the harness does


def test_choices_may_be_a_plain_list_with_an_index():
    reading = Reading("openbookqa", {"question": "goal"}, "label", choices="solutions")
    row = {"goal": "To open a jar,", "solutions": ["twist the lid.", "freeze it."], "label": 0}
    assert (
        data.convert(reading, row)["target"] == "twist the lid." and data.convert(reading, {**row, "label": -1}) is None
    )
    with pytest.raises(ValueError, match="field 'solutions' is missing"):
        data.convert(reading, {"goal": "To open a jar,", "label": 0})


def test_what_a_task_says_of_its_scoring():
    assert (TASKS["rte"].metrics, TASKS["rte"].methods) == (("accuracy",), METHODS)
    assert (TASKS["xsum"].metrics, TASKS["xsum"].methods) == (("rouge_l",), ("generate",))
    assert (TASKS["boolq"].metrics, TASKS["boolq"].methods) == (("accuracy", "accuracy_norm"), ("loglikelihood",))
    assert {task.name for task in TASKS.values() if task.prompt_formats == ("default",)} == set(BENCHMARK)
    assert TASKS["rte"].prompt_formats == PROMPT_FORMATS and METHODS[0] == "token_prob"


def test_the_table_of_the_task_readme_is_the_specification():
    lines = (ROOT / "eval" / "tasks" / "README.md").read_text(encoding="utf-8").splitlines()
    table = {cells[1].strip(" `"): cells for line in lines if len(cells := line.split("|")) == 12}
    for name, task in TASKS.items():
        _, _, relation, source, rows, metric, method, shots, paper, licence, deviation, _ = map(str.strip, table[name])
        config = "" if task.source.config == "default" else f" `{task.source.config}`"
        assert source == f"{task.source.hub_id}{config}, {task.split}" and int(rows.replace(",", "")) >= 277
        assert metric == ", ".join(f"`{each}`" for each in task.metrics) and method == f"`{task.methods[0]}`"
        assert shots == (task.shots_split or "8 scored rows") and (paper, licence) == (
            task.source.paper,
            task.source.licence,
        )
        assert deviation == (task.deviation or "–")
        place, _, dataset = relation.partition(" of ")
        assert name in (related(dataset, place) if dataset else related("mnli", place))
    assert len(table) == 2 + len(TASKS)


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "glue_mnli" / "train.jsonl"
    with pytest.raises(ValueError, match="train.jsonl: no such file; splits there: none"):
        data.training_rows("mnli", str(tmp_path))
    cases = [
        (b'{"premise": "\xff"}\n', "row 1: not UTF-8"),
        (b"\n{]\n", "row 2: not JSON"),
        (b"[1]\n", "row 1: list; allowed: a JSON object"),
        (b"\n\n", "no rows"),
    ]
    path.parent.mkdir()
    for content, told in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            data.training_rows("mnli", str(tmp_path))
    write_jsonl(tmp_path / "xsum" / "train.jsonl", [{"document": "D.", "summary": "  "}])
    with pytest.raises(ValueError, match="field 'summary' is empty; a completion needs text"):
        data.training_rows("xsum", str(tmp_path))
    with pytest.raises(ValueError, match="no such folder"):
        data.resolve_data_dir(str(tmp_path / "nowhere"))


def test_relations_and_the_selection_of_tasks():
    assert related("mnli", "cross_task") == ("xsum", "xlsum", "socialiqa", "paws")
    assert relation_of("rte", "mnli") == "ood" and relation_of("cnn", "mnli") == ""
    for conversations in ("tulu", "a_file"):
        place = {task: relation_of(task, conversations) for task in TASKS}
        assert place == {task: "benchmark" if task in BENCHMARK else "cross_task" for task in TASKS}
        assert select_tasks("id,ood", conversations) == ()
    assert select_tasks("id,ood", "tulu") == () and len(select_tasks("cross_task", "tulu")) == 13
    assert select_tasks("id,ood", "paws") == ("paws", "qqp", "stsb")
    assert select_tasks("id") == ("xsum", "xlsum", "socialiqa", "mnli_matched", "mnli_mismatched", "paws")
    assert select_tasks("all") == tuple(TASKS) and select_tasks("none") == () and select_tasks("rte, rte") == ("rte",)
    assert all(related(dataset, "benchmark") == BENCHMARK for dataset in DATASETS) and len(BENCHMARK) == 6
    assert select_tasks("benchmark") == select_tasks("benchmark", "paws") == BENCHMARK
    assert relation_of("sciq", "socialiqa") == "benchmark" and relation_of("sciq_qg", "socialiqa") == "ood"
    for wrong in ("bogus", "", "id,oood"):
        with pytest.raises(ValueError, match="allowed: id, ood, cross_task, benchmark, all"):
            select_tasks(wrong)
    with pytest.raises(
        ValueError, match=r"unknown arc_esy, benchmarks; did you mean arc_easy, benchmark\? allowed: id"
    ):
        select_tasks("arc_esy,benchmarks,id")


def test_the_hubs_parquet_split_gives_the_same_rows(mirror, tmp_path):
    """The hub path, real client against a stand-in: the split's Parquet files at the commit of the conversion's ref."""
    repository = tmp_path / "repository"
    for split in ("train", "validation_matched"):
        rows = [json.loads(line) for line in (mirror / "glue_mnli" / f"{split}.jsonl").read_text().splitlines()]
        (repository / "mnli" / split).mkdir(parents=True)
        for number, part in enumerate((rows[:10], rows[10:])):
            pd.DataFrame(part).to_parquet(repository / "mnli" / split / f"{number:04d}.parquet")
    hub = Hub({("datasets", "nyu-mll/glue"): {"refs/convert/parquet": repository}})
    script = """
import sys
from amuro import data
train = data.training_rows("mnli", None)
scored = data.evaluation_rows("mnli_matched", None)
print(train.digest, train.origin, scored.test.digest, len(scored.test.rows), len(scored.shots))
"""
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    read = run("-m", "amuro.cli", "data", "mnli_matched", "mnli", HF_ENDPOINT=hub.url, **home)
    assert read.returncode == 0 and read.stdout.count(commit_of("refs/convert/parquet")) == 2, read.stderr
    hub.close()
    done = run("-c", script, **home | {"HF_HUB_OFFLINE": "1"})  # found in the cache
    assert done.returncode == 0, done.stderr
    digest, origin, scored, n, shots = done.stdout.split()
    assert digest == data.training_rows("mnli", str(mirror)).digest
    assert scored == data.evaluation_rows("mnli_matched", str(mirror)).test.digest
    assert origin == f"nyu-mll/glue@{commit_of('refs/convert/parquet')}/mnli/train" and (n, shots) == ("24", "8")


def test_everything_is_read_once(mirror):
    lines = list(data.read_all([], str(mirror)))
    assert [line.split()[:2] for line in lines] == [["train", n] for n in DATASETS] + [["score", n] for n in TASKS]
    assert "24 rows, 8 shots" in lines[-1] or "16 rows, 8 shots" in lines[-1]
    with pytest.raises(ValueError, match="'mnlii': unknown; did you mean mnli"):
        list(data.read_all(["mnlii"], str(mirror)))


@needs_shared
def test_the_real_mirror_loads_whole():
    expected = {"xsum": 1999, "socialiqa": 5999, "mnli": 6000, "paws": 5986}
    assert {name: len(data.training_rows(name, str(SHARED)).rows) for name in SFT} == expected
    assert data.training_rows("xsum", str(SHARED)).refused == {data.UNUSABLE: 1}  # a row with an empty document
    sizes = {name: len(data.evaluation_rows(name, str(SHARED)).test.rows) for name in TASKS}
    assert sizes["mnli_matched"] == 492 and sizes["rte"] == 277 - 8 and sizes["cnn"] == 382 - 8 and len(sizes) == 19
    assert [sizes[name] for name in BENCHMARK] == [570, 299, 500, 500 - 8, 500, 500 - 8]
