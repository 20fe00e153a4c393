"""The tasks under the stock harness: every YAML loads, texts equal the training text, answers equal plain torch."""

import random
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SHARED, make_checkpoint, needs_shared, write_jsonl
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from amuro import data
from amuro.evaluation import TASKS_FOLDER
from amuro.prompts import PROMPT_FORMATS, completion, prompt
from amuro.tasks import SFT, TASK_VERSION, TASKS, related

YAMLS = sorted(TASKS_FOLDER.glob("*.yaml"))


def manager(checkpoint: Path, data_dir: Path, **metadata) -> TaskManager:
    given = {"pretrained": str(checkpoint), "data_dir": str(data_dir), **metadata}
    return TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata=given)


def name_of(task: str, prompt_format: str) -> str:
    return f"amuro_{task}" + ("" if prompt_format == "default" else f"_{prompt_format}")


@pytest.fixture(scope="module", params=["bytes", "metaspace"])
def checkpoint(request, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp(request.param), kind=request.param)


def test_every_yaml_is_loaded_under_its_name(family, mirror):
    """lm-eval skips a YAML that does not parse without a word, so the number of files counts."""
    tasks = manager(family / "step-10", mirror)
    names = [name_of(task, each) for task in TASKS for each in TASKS[task].prompt_formats]
    assert len(YAMLS) == len(names) == 13 * 3 + 6 and sorted(tasks.all_subtasks) == sorted(names)
    assert sorted(tasks.match_tasks(["amuro_*"])) == sorted(names)
    loaded = tasks.load(names)["tasks"]
    assert len(loaded) == 45
    for name, task in loaded.items():
        assert name == name_of(task.spec.name, task.config.doc_to_text) and task.VERSION == TASK_VERSION


def test_tags_select_by_family_format_and_relation(family, mirror):
    tasks = manager(family / "step-10", mirror)
    load = lambda tag: {task.task_name for task in tasks._load_spec(tag)}  # noqa: E731
    for each in PROMPT_FORMATS:
        assert load(f"amuro-{each}") == {name_of(t, each) for t in TASKS if each in TASKS[t].prompt_formats}
    for each in ("summary", "question", "inference", "paraphrase"):
        assert load(f"amuro-{each}") == {
            name_of(task.name, f) for task in TASKS.values() if task.family == each for f in PROMPT_FORMATS
        }
    for dataset in SFT:
        for relation in ("id", "ood"):
            assert load(f"amuro-{relation}-{dataset}") == {name_of(t, "default") for t in related(dataset, relation)}
    assert load("amuro-benchmark") == {name_of(task, "default") for task in related("mnli", "benchmark")}
    tags = {tag for path in YAMLS for tag in yaml.safe_load(path.read_text())["tag"]}
    assert len(tags) == 3 + 4 + 2 + 8 + 1 and not any(tag.startswith("amuro_") for tag in tags)


def test_harness_text_is_training_text(checkpoint, mirror):
    """prompt + delimiter + target, byte for byte, for every task, format and number of shots; ids as in training."""
    tasks, seen = manager(checkpoint, mirror), 0
    for name, spec in TASKS.items():
        scored = data.evaluation_rows(name, str(mirror))
        for each in spec.prompt_formats:
            text = lambda row, each=each, spec=spec: prompt(spec.family, each, row)  # noqa: E731
            task = tasks._load_spec(name_of(name, each))
            for shots in (0, 2, 4, 6):
                block = "".join(text(row) + completion(row["target"]) + "\n\n" for row in scored.shots[:shots])
                for doc in list(task.test_docs())[:3]:
                    context = task.fewshot_context(doc, shots)
                    assert context == block + text(doc)
                    whole = context + task.config.target_delimiter + task.doc_to_target(doc)
                    assert whole == block + text(doc) + completion(doc["target"])
                    trained = task.lm.tokenizer(whole)["input_ids"]
                    start, answer = task.lm._encode_pair(context, completion(doc["target"]))
                    assert start + answer == trained
                    seen += 1
    assert seen == (13 * 3 + 6) * 4 * 3


def logits_after(model, tokenizer, context: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokenizer(context, return_tensors="pt")).logits[0, -1].log_softmax(-1)


def test_token_prob_equals_plain_torch(checkpoint, mirror):
    """Per example: the label whose first sub-token, lower-case or (where single for all labels) capitalised, wins."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(checkpoint).eval(),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    names = [name_of(t, each) for t in TASKS if TASKS[t].labels for each in PROMPT_FORMATS]
    loaded = manager(checkpoint, mirror).load(names)
    for task in loaded["tasks"].values():
        task.set_config("num_fewshot", 2)
    out = evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8), loaded, bootstrap_iters=0, limit=16)
    equal = total = 0
    for name, samples in out["samples"].items():
        task = loaded["tasks"][name]
        pieces = {}
        for spelling in (str.lower, str.capitalize):
            ids = lambda text: tokenizer(text)["input_ids"]  # noqa: E731
            tokens = {label: ids("the " + spelling(label))[len(ids("the")) :] for label in task.spec.labels}
            if spelling is str.lower or all(len(each) == 1 for each in tokens.values()):
                pieces |= {each[0]: label for label, each in tokens.items()}
        for sample in samples:
            scores = logits_after(model, tokenizer, sample["arguments"][0][0])
            best = max(pieces, key=lambda token: scores[token])
            equal += task.answers(sample["doc"], sample["filtered_resps"])["token_prob"].prediction == pieces[best]
            assert sample["accuracy"] == float(pieces[best] == sample["doc"]["target"])
            total += 1
    assert total == len(names) * 16 == 7 * 3 * 16 and equal == total


def test_greedy_text_equals_plain_generation(family, mirror):
    folder = family / "step-20"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    loaded = manager(folder, mirror).load(["amuro_xsum", "amuro_socialiqa_io"])
    for task in loaded["tasks"].values():
        task.set_config("num_fewshot", 0)
    out = evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4), loaded, bootstrap_iters=0, limit=6)
    seen = 0
    for name, samples in out["samples"].items():
        for sample in samples:
            ids = tokenizer(sample["arguments"][0][0], return_tensors="pt")
            new = model.generate(**ids, max_new_tokens=60, do_sample=False)[0, ids["input_ids"].shape[1] :]
            text = tokenizer.decode(new, skip_special_tokens=True).split("\n\n")[0]
            answer = loaded["tasks"][name].answers(sample["doc"], sample["filtered_resps"])["generate"]
            assert answer.prediction == text.strip()
            seen += 1
    assert seen == 12


def test_nothing_is_cut_from_the_left(tmp_path, mirror):
    """In a short context whole shots go, then source text; every request fits, and n_truncated counts the examples."""
    folder = make_checkpoint(tmp_path / "short", context=160)
    task = manager(folder, mirror)._load_spec("amuro_xsum")
    task.set_config("num_fewshot", 4)
    task.build_all_requests()
    scored = data.evaluation_rows("xsum", str(mirror))
    kept, seen = [], 0
    for instance in task.instances:
        context = instance.args[0]
        assert len(task.lm.tok_encode(context)) + 60 <= 160
        assert context.startswith("### Input: ") and context.endswith("### Summary:")
        kept.append(context.count("### Input: ") - 1)
        if kept[-1] == 0 and instance.doc["document"] not in context:
            start = context.removeprefix("### Input: ").removesuffix("\n ### Summary:")
            assert start and instance.doc["document"].startswith(start)
        for shot in scored.shots[: kept[-1]]:
            assert prompt("summary", "default", shot) in context
        seen += 1
    assert seen == 24 and max(kept) < 4 and len(task.truncated) == 24


def test_an_example_that_never_fits_is_an_error(tmp_path, mirror):
    """Found by `check_context` without building requests; and where they are built all the same."""
    task = manager(make_checkpoint(tmp_path / "tiny", context=64), mirror)._load_spec("amuro_xsum")
    with pytest.raises(ValueError, match="does not fit the model's context of 64 tokens, even without shots and with"):
        task.check_context()
    with pytest.raises(ValueError, match="too long even with an empty 'document'"):
        task.build_all_requests()
    manager(make_checkpoint(tmp_path / "wide", context=96), mirror)._load_spec("amuro_xsum").check_context()


def test_labels_that_share_a_sub_token_are_refused(checkpoint, mirror):
    task = manager(checkpoint, mirror)._load_spec("amuro_paws")
    labels = task.spec.reading.labels.copy()
    object.__setattr__(task, "spec", type("Spec", (), {"labels": ("yes", "yes sir"), "family": "paraphrase"})())
    with pytest.raises(ValueError, match="'yes' and 'yes sir' share the sub-token"):
        _ = task.candidates
    assert labels == TASKS["paws"].reading.labels


def test_a_task_without_a_tokenizer_stops_with_one_line(mirror):
    tasks = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata={"data_dir": str(mirror)})
    task = tasks._load_spec("amuro_mnli_matched")
    with pytest.raises(ValueError, match="amuro_mnli_matched: fitting the prompts needs the tokenizer"):
        task.build_all_requests()


def test_more_shots_than_the_pool_are_refused(tmp_path, checkpoint):
    rows = [{"premise": f"P {n}.", "hypothesis": "H.", "label": n % 3} for n in range(12)]
    write_jsonl(tmp_path / "glue_mnli" / "validation_matched.jsonl", rows)
    write_jsonl(tmp_path / "glue_mnli" / "train.jsonl", [{**row, "premise": "Other."} for row in rows[:3]])
    task = manager(checkpoint, tmp_path)._load_spec("amuro_mnli_matched")
    with pytest.raises(ValueError, match="4 shots asked, its pool has 3"):
        task.fewshot_context(list(task.test_docs())[0], 4)


def test_shots_are_nested_and_every_request_fits_in_a_short_context(tmp_path, mirror):
    """All 19 tasks: the two-shot block begins the four-shot one, and in 150 tokens everything still fits."""
    wide, short = make_checkpoint(tmp_path / "wide"), make_checkpoint(tmp_path / "short", context=150)
    seen = fewer = 0
    for name in TASKS:
        task = manager(wide, mirror)._load_spec(name_of(name, "default"))
        doc = next(iter(task.test_docs()))
        blocks = [task.fewshot_context(doc, shots).removesuffix(task.doc_to_text(doc)) for shots in (2, 4)]
        assert blocks[1].startswith(blocks[0]) and len(blocks[1]) > len(blocks[0]) > 0
        task = manager(short, mirror)._load_spec(name_of(name, "default"))
        task.set_config("num_fewshot", 4)
        task.build_all_requests()
        for request in task.instances:
            answer = request.args[1] if request.request_type == "loglikelihood" else ""
            assert len(task.lm.tok_encode(request.args[0] + answer)) + task.room * (answer == "") <= 150
        seen, fewer = seen + 1, fewer + bool(task.truncated)
    assert seen == 19 and fewer > 10


def brute_rouge(reference: str, text: str) -> float:
    """ROUGE-L F-measure from its definition: the longest common subsequence of lower-case ASCII words."""
    a, b = (re.findall(r"[a-z0-9]+", each.lower()) for each in (reference, text))

    @cache
    def longest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        return longest(i + 1, j + 1) + 1 if a[i] == b[j] else max(longest(i + 1, j), longest(i, j + 1))

    common = longest(0, 0)
    return 2 * common / (len(a) + len(b)) if common else 0.0


def test_scores_equal_brute_force(family, mirror):
    """2,000 random texts, label scores and choice scores against the definitions."""
    tasks, rng = manager(family / "step-10", mirror, methods="token_prob,free,constrained"), random.Random(3)
    text, label, choice = (tasks._load_spec(f"amuro_{name}") for name in ("xsum", "mnli_matched", "arc_easy"))
    words, labels = "a cat sat on The mat, twice. Ünder 7".split(), label.spec.labels
    for _ in range(2000):
        pair = [" ".join(rng.choices(words, k=rng.randrange(1, 12))) for _ in range(2)]
        found = text.process_results({"target": pair[0], "example_id": ""}, [pair[1]])
        assert found["rouge_l"] == pytest.approx(brute_rouge(*pair), abs=1e-12)

        logprobs = [rng.choice((-1.0, -2.0, -3.0)) for _ in label.candidates]
        gold, free = rng.choice(labels), " ".join(rng.choices([*labels, "Neutral", "neutrals", "so"], k=3))
        found = label.process_results({"target": gold, "example_id": ""}, [*((each, False) for each in logprobs), free])
        best = label.candidates[logprobs.index(max(logprobs))][1]
        small = [each for each, candidate in zip(logprobs, label.candidates, strict=True) if candidate[0].islower()]
        said = [word.lower() for word in free.split() if word.lower() in labels]
        assert found["accuracy"] == (best == gold)
        assert found["accuracy_constrained"] == (labels[small.index(max(small))] == gold)
        assert found["accuracy_free"] == (said[:1] == [gold]) and found["n_unparsable"] == (not said)

        choices = ["x" * rng.randrange(1, 9) for _ in range(4)]
        logprobs, gold = [-rng.random() * 9 for _ in choices], rng.randrange(4)
        doc = {"choices": choices, "gold": gold, "example_id": ""}
        found = choice.process_results(doc, [(each, False) for each in logprobs])
        assert found["accuracy"] == (max(range(4), key=lambda i: logprobs[i]) == gold)
        assert found["accuracy_norm"] == (max(range(4), key=lambda i: logprobs[i] / len(choices[i])) == gold)


@needs_shared
def test_real_rows_fit_and_no_label_is_hidden(family):
    """Real text, four shots: every request fits, and the two-class RTE has two candidates per spelling."""
    tasks, seen = manager(family / "step-10", SHARED), 0
    for name in ("amuro_cnn", "amuro_xsum", "amuro_rte", "amuro_stsb"):
        task = tasks._load_spec(name)
        task.set_config("num_fewshot", 4)
        task.build_all_requests(limit=20)
        assert all(len(task.lm.tok_encode(request.args[0])) + task.room <= 2048 for request in task.instances)
        seen += len({request.doc_id for request in task.instances})
    assert seen == 80 and {each[1] for each in tasks._load_spec("amuro_rte").candidates} == {"entailment", "neutral"}
