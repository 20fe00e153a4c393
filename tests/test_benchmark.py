"""The benchmarks against lm-evaluation-harness's own tasks: from the same rows the same text, choices and gold."""

import json
from pathlib import Path

import lm_eval.tasks
from conftest import SHARED, needs_shared
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from amuro.data import convert
from amuro.prompts import completion, prompt
from amuro.tasks import BENCHMARK, TASKS

HARNESS = Path(lm_eval.tasks.__file__).parent
YAMLS = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "sciq": "sciq/sciq.yaml",
}


def raw_rows(name: str, mirror: Path) -> list[dict]:
    path = mirror / TASKS[name].source.folder / "validation.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def harness_task(name: str, rows: list[dict]) -> ConfigurableTask:
    """The harness's own task over the given rows, in the form in which its hub repository has them."""
    if name == "boolq":  # SuperGLUE's copy says 0 and 1
        rows = [{**row, "label": int(row["answer"])} for row in rows]
    if name == "hellaswag":  # the real mirror holds the context in one piece, already cleaned
        rows = [{"ctx_a": row.get("ctx"), "ctx_b": "", **row} for row in rows]
    given = Dataset.from_list(rows)
    config = load_yaml(HARNESS / YAMLS[name])
    splits = {config[key] for key in ("training_split", "validation_split", "test_split") if config.get(key)}
    config = {key: value for key, value in config.items() if key not in ("tag", "dataset_path", "dataset_name")}
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: DatasetDict(dict.fromkeys(splits, given))})


def compare(mirror: Path, expected: dict[str, int]) -> None:
    """Every (context, continuation) pair and every gold index, of every row."""
    for name in BENCHMARK:
        reading, rows = TASKS[name].reading, raw_rows(name, mirror)
        theirs = harness_task(name, rows)
        docs = list(theirs.validation_docs())
        assert len(docs) == len(rows) == expected[name], name
        for raw, doc in zip(rows, docs, strict=True):
            ours = convert(reading, raw)
            context = theirs.fewshot_context(doc, 0)
            requests = theirs.construct_requests(doc, context)
            pairs = [(prompt(reading.family, "default", ours), completion(choice)) for choice in ours["choices"]]
            assert pairs == [request.args for request in requests], (name, raw)
            assert ours["gold"] == theirs.doc_to_target(doc), (name, raw)
    assert set(YAMLS) == set(expected) == set(BENCHMARK)


def test_text_choices_and_gold_are_the_harnesss(mirror):
    compare(mirror, dict.fromkeys(BENCHMARK, 24))


@needs_shared
def test_text_choices_and_gold_are_the_harnesss_on_real_rows():
    compare(SHARED, dict(arc_easy=570, arc_challenge=299, openbookqa=500, hellaswag=500, boolq=500, sciq=500))


def test_the_small_mirror_has_what_cleaning_and_stripping_would_change(mirror):
    """Else the first test above would pass for an adapter that cleans nothing."""
    hellaswag, sciq, stems = (raw_rows(name, mirror) for name in ("hellaswag", "sciq", "openbookqa"))
    assert all("[title]" in row["ctx_a"] and "[substeps]" in row["endings"][0] for row in hellaswag)
    assert {row["ctx_b"] == "" for row in hellaswag} == {row["support"] == "" for row in sciq} == {True, False}
    assert any(row["support"].startswith(" ") for row in sciq) and stems[0]["question_stem"].endswith(" ")
    golds = {name: {convert(TASKS[name].reading, row)["gold"] for row in raw_rows(name, mirror)} for name in BENCHMARK}
    assert [len(golds[name]) for name in BENCHMARK] == [4, 3, 4, 4, 2, 1]  # SciQ's right choice is always the last


def test_a_shots_text_is_the_harnesss(mirror):
    """One shot before a row, as the harness joins them with its own defaults."""
    seen = 0
    for name in BENCHMARK:
        reading, rows = TASKS[name].reading, raw_rows(name, mirror)
        theirs = harness_task(name, rows[:2])
        first, second = (convert(reading, row) for row in rows[:2])
        text = lambda row, reading=reading: prompt(reading.family, "default", row)  # noqa: E731
        docs = list(theirs.validation_docs())
        turn = theirs.build_qa_turn(
            q=theirs.doc_to_text(docs[0]), c=theirs.doc_to_choice(docs[0]), a=theirs.doc_to_target(docs[0])
        )
        shown = "".join(message.to_text() for message in turn) + theirs.fewshot_context(docs[1], 0)
        assert shown == text(first) + completion(first["target"]) + "\n\n" + text(second)
        seen += 1
    assert seen == 6
