"""Loading: what is sound comes through under our names, what is not is refused by file, row and field."""

import json

import pandas as pd
import pytest
from conftest import SHARED, needs_shared, run, write_jsonl
from hub import Hub, commit_of

from amuro import data
from amuro.tasks import DATASETS, TASKS, related, relation_of, select_tasks

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
        assert set(scored.test.rows[0]) == {*task.reading.fields, "target", "example_id"}
        if task.labels:
            assert {row["target"] for row in scored.test.rows} == set(task.labels)
    assert len(TASKS) == 13
    for name in DATASETS:
        assert len(data.training_rows(name, str(mirror)).rows) == 24
    assert len(DATASETS) == 4


def test_no_shot_is_ever_scored(mirror):
    for name in TASKS:
        scored = data.evaluation_rows(name, str(mirror))
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
    assert len(loaded.rows) == 1 and loaded.refused == 2
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
    assert [row["target"] for row in loaded.rows] == ["no", "no", "yes", "yes"] and loaded.refused == 1


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
    assert select_tasks("id,ood", "paws") == ("paws", "qqp", "stsb")
    assert select_tasks("id") == ("xsum", "xlsum", "socialiqa", "mnli_matched", "mnli_mismatched", "paws")
    assert select_tasks("all") == tuple(TASKS) and select_tasks("none") == () and select_tasks("rte, rte") == ("rte",)
    for wrong in ("bogus", "", "id,oood"):
        with pytest.raises(ValueError, match="allowed: id, ood"):
            select_tasks(wrong)


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
    done = run("-c", script, HF_ENDPOINT=hub.url, **home)
    hub.close()
    assert done.returncode == 0, done.stderr
    digest, origin, scored, n, shots = done.stdout.split()
    assert digest == data.training_rows("mnli", str(mirror)).digest
    assert scored == data.evaluation_rows("mnli_matched", str(mirror)).test.digest
    assert origin == f"nyu-mll/glue@{commit_of('refs/convert/parquet')}/mnli/train" and (n, shots) == ("24", "8")


@needs_shared
def test_the_real_mirror_loads_whole():
    expected = {"xsum": 1999, "socialiqa": 5999, "mnli": 6000, "paws": 5986}
    assert {name: len(data.training_rows(name, str(SHARED)).rows) for name in DATASETS} == expected
    assert data.training_rows("xsum", str(SHARED)).refused == 1  # a row with an empty document
    sizes = {name: len(data.evaluation_rows(name, str(SHARED)).test.rows) for name in TASKS}
    assert sizes["mnli_matched"] == 492 and sizes["rte"] == 277 - 8 and sizes["cnn"] == 382 - 8 and len(sizes) == 13
