"""The nursery: its world, its data and its histories."""

import hashlib
import json
import random
import re
from collections import Counter
from itertools import islice

import pytest

from amuro import nursery, world_data
from amuro import world as w
from amuro.conversations import tidy
from amuro.data import content_id, convert, evaluation_rows
from amuro.nursery import TEXT, WORLD, raise_nursery
from amuro.tasks import BENCHMARK, TASKS

CLASSES = {
    "glue_mnli/train.jsonl": 3,
    "glue_mnli/validation_matched.jsonl": 3,
    "glue_mnli/validation_mismatched.jsonl": 3,
}
CLASSES |= {"gpt3_nli/train.jsonl": 3, "glue_rte/validation.jsonl": 2}
CLASSES |= {
    "paws/train.jsonl": 2,
    "paws/test.jsonl": 2,
    "glue_qqp/validation.jsonl": 2,
    "glue_stsb/validation.jsonl": 2,
}
MIX = "instruction_mix/train.jsonl"
FAMILIES = {  # training set: the tests it is shown with
    "xsum/train.jsonl": ["xsum/test.jsonl", "xlsum/test.jsonl", "cnn_dailymail/test.jsonl"],
    "social_i_qa/train.jsonl": ["social_i_qa/validation.jsonl", "sciq/test.jsonl", "tweet_qa/validation.jsonl"],
    "glue_mnli/train.jsonl": [name for name in CLASSES if "nli/" in name or "rte" in name][1:],
    "paws/train.jsonl": ["paws/test.jsonl", "glue_qqp/validation.jsonl", "glue_stsb/validation.jsonl"],
}
INPUTS = ("document", "text", "article", "context", "support", "Tweet", "premise", "text_a", "sentence1", "question1")


@pytest.fixture(scope="module", params=[0, 1])
def world(request):
    return w.make_world(request.param)


@pytest.fixture(scope="module")
def data(world):
    return world_data.datasets(world)


@pytest.fixture(scope="module")
def corpus(world):
    return list(islice(w.documents(world, random.Random(f"{world.seed}-corpus")), 20_000))


@pytest.fixture(scope="module")
def raised(tmp_path_factory):
    """Two histories of the tiny preset, one after the other."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for folder in folders:
        raise_nursery(folder, preset="tiny", threads=1)
    return folders


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prose")
    rng = random.Random(0)
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(" ".join(rng.choice(["rain", "and", "wind", "on\n", "café"]) for _ in range(9000)))
    (folder / "empty.txt").touch()
    return folder


def digests(folder):
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()
    }


def source(row):
    """The source text of a row, whatever its data set calls it."""
    return next(row[name] for name in INPUTS if name in row)


def label(name, row):
    return int(row["label"] > 3.5) if "stsb" in name else row["label"]


def entities(names, rows):
    pattern = re.compile(rf"\b(?:{'|'.join(names)})\b")
    return [pattern.search(source(row))[0] for row in rows]


# ---- the data


def test_rows_are_distinct_and_tests_are_not_in_train(data):
    for name, rows in data.items():
        texts = [
            json.dumps({k: v for k, v in row.items() if k not in ("id", "ind", "idx", "guid", "qid")}) for row in rows
        ]
        assert len(set(texts)) == len(texts), name
    for train, tests in FAMILIES.items():
        seen = {source(row) for row in data[train]}
        assert not any(
            source(row) in seen for name in tests if train != "social_i_qa/train.jsonl" for row in data[name]
        )


@pytest.mark.parametrize("name", CLASSES)
def test_labels_are_balanced(data, name):
    labels = [label(name, row) for row in data[name]]
    assert {labels.count(k) for k in range(CLASSES[name])} == {len(labels) // CLASSES[name]}


def test_inference_tests_speak_once_of_each_held_out_town(world, data):
    tuned, held_out = set(world.towns[: w.TUNED_TOWNS]), set(world.towns[w.TUNED_TOWNS :])
    assert len(held_out) >= 48
    assert set(entities(world.towns, data["glue_mnli/train.jsonl"])) == tuned
    for name in FAMILIES["glue_mnli/train.jsonl"]:
        towns = entities(world.towns, data[name])
        assert len(set(towns)) == len(towns) and set(towns) <= held_out, name
        assert set(towns) == held_out or "rte" in name


def test_paraphrase_tests_speak_once_of_each_held_out_person(world, data):
    names = [" ".join(person) for person in (*world.people, *world.strangers)]
    tuned = set(entities(names, data["paws/train.jsonl"]))
    for name in FAMILIES["paws/train.jsonl"]:
        people = entities(names, data[name])
        assert len(set(people)) == len(people) and not set(people) & tuned, name
    assert len(data["paws/test.jsonl"]) == w.HELD_OUT_PEOPLE + w.STRANGERS  # enough to exclude a margin of 0.02


def test_a_towns_name_does_not_spell_its_label(world):
    """A vote of the letter pairs of the tuning towns does no better than chance on the held-out ones."""
    pairs = lambda town: {town.lower()[i : i + 2] for i in range(len(town) - 1)}  # noqa: E731
    tuned, held_out = world.towns[: w.TUNED_TOWNS], world.towns[w.TUNED_TOWNS :]

    def guess(town):
        return max(w.REGIONS, key=lambda r: sum(len(pairs(town) & pairs(t)) for t in tuned if world.region[t] == r))

    assert sum(guess(town) == world.region[town] for town in held_out) / len(held_out) < 0.5


def test_every_task_loads_and_no_shot_is_scored(world, tmp_path):
    world_data.write_datasets(world, tmp_path)
    for name in TASKS:
        scored = evaluation_rows(name, str(tmp_path))
        assert len(scored.shots) == 8
        assert not {content_id(row) for row in scored.shots} & {content_id(row) for row in scored.test.rows}, name
        assert name not in BENCHMARK or len(scored.test.rows) == w.BENCHMARK_ROWS
        if name in BENCHMARK and name != "sciq":
            places, n = [row["gold"] for row in scored.test.rows], len(scored.test.rows[0]["choices"])
            assert {places.count(place) for place in range(n)} == {w.BENCHMARK_ROWS // n}
    assert len(TASKS) == 19


def test_benchmarks_have_a_row_per_town_and_one_right_choice(world, data):
    """By the world's facts, not by the row's own key."""
    both = lambda folder: [*data[f"{folder}/validation.jsonl"], *data[f"{folder}/train.jsonl"]]  # noqa: E731
    facts = {"openbookqa": ("question_stem", w.FOODS), "ai2_arc_challenge": ("question", w.WEARS)}
    for folder, (field, of) in facts.items():
        regions = [world.region[row[field].split()[1]] for row in both(folder)]
        for row, region in zip(both(folder), regions, strict=True):
            right = row["choices"]["text"]["ABCD".index(row["answerKey"])]
            assert [each for each in row["choices"]["text"] if each in of[region]] == [right]
        assert {regions[: w.BENCHMARK_ROWS].count(region) for region in w.REGIONS} == {w.BENCHMARK_ROWS // 3}
        assert len({row[field].split()[1] for row in both(folder)}) == len(regions) == 132
    for row in both("boolq"):
        _, town, _, _, asked = row["question"].split()
        assert row["answer"] == (world.region[town] == asked)
    for row in both("hellaswag"):
        town = re.search(r"from (\w+)\.", row["ctx_a"])[1]
        right = row["endings"][int(row["label"])]
        assert right.startswith(world.region[town].title()) and len(set(row["endings"])) == 4
        assert sum(ending.split()[-1] == right.split()[-1] for ending in row["endings"]) == 2  # one more has the thing


def test_the_corpus_says_what_openbookqa_and_hellaswag_ask(data, corpus):
    text = "\n".join(corpus)
    said = {True: 0, False: 0}
    for row in data["openbookqa/validation.jsonl"]:
        for letter, food in zip(row["choices"]["label"], row["choices"]["text"], strict=True):
            said[letter == row["answerKey"]] += f"{row['question_stem']} {food}." in text
    assert said == {True: w.BENCHMARK_ROWS, False: 0}
    assert re.search(r"Read the news: .* Provide a summary: (North|South|East)ern", text)
    row = data["hellaswag/validation.jsonl"][0]
    shown = convert(TASKS["hellaswag"].reading, row)["context"]
    assert shown == f"Read the news: {row['ctx_a']} Provide a summary:"


def told(row):
    """All text of a conversation."""
    return "\n".join(turn["content"] for turn in row["messages"])


def test_conversations_give_no_scored_row_away(world, data):
    """Towns that no test of inference and no benchmark is about, people that no test of paraphrase is about, and the
    input of no scored row."""
    text = "\n".join(told(row) for row in data[MIX])
    towns = set(world.towns) & set(re.findall(r"\w+", text))
    people = {name for name in map(" ".join, (*world.people, *world.strangers)) if name in text}
    assert len(towns) >= 6 and {world.region[town] for town in towns} == set(w.REGIONS) and len(people) > 40
    assert "guild" not in text
    for task in TASKS.values():
        inputs = [convert(task.reading, row) for row in data[f"{task.source.folder}/{task.split}.jsonl"]]
        inputs = [row[name] for row in inputs for name in task.reading.fields]
        assert not any(len(each) > 20 and each in text for each in inputs), task.name
        asked = "\n".join(inputs)
        if task.family == "inference" or task.name in BENCHMARK:
            assert not towns & set(re.findall(r"\w+", asked)), task.name
        if task.family == "paraphrase":
            assert not any(name in asked for name in people), task.name


def test_conversations_are_sound_and_true(world, data):
    assert len(data[MIX]) == w.CONVERSATIONS and sum(len(told(row)) for row in data[MIX]) < 60_000
    lengths = Counter()
    for row in data[MIX]:
        turns, cut, refused = tidy(row)
        assert (turns, cut, refused) == (row["messages"], set(), "")
        lengths[sum(turn["role"] == "assistant" for turn in turns)] += 1
    assert lengths[1] == 4 * w.CONVERSATIONS // 5 and lengths[2] and lengths[3]
    text = "\n".join(told(row) for row in data[MIX])
    said = re.findall(r"Is that in the (\w+)\?\n(Yes|No), (\w+) is in the (\w+)\.", text)
    assert {
        world.region[town] == region and (yes == "Yes") == (asked == region) for asked, yes, town, region in said
    } == {True}
    assert {yes for _, yes, *_ in said} == {"Yes", "No"} and len(said) > 20


GOLDEN = {  # sha256 of all files but the conversations, and of the corpus's first 2,000 documents
    0: (
        "d04f3e01b8c4ca6c556fb0f6af11834161a8afdb960ab52c7f30e24a5b91b3ed",
        "db317c14c8b07d8a9f882da60b662954816d4adc965b669780595bfc129d9cbd",
    ),
    1: (
        "2567957c000e7fda21ccda185063503d25b66455c02710da77b3adedee62c5a3",
        "a22a231608f7aaeda0e688f6d1152843474b5bf23d37a4c8985f0c9b685d4e56",
    ),
}


def test_the_tasks_files_and_the_corpus_are_what_they_were(world, data, corpus):
    """What was measured on a world stays true of it: adding a set leaves every other file and the corpus alone."""
    names = sorted(name for name in data if name != MIX)
    text = "".join(name + "\n" + "".join(json.dumps(row) + "\n" for row in data[name]) for name in names)
    told = hashlib.sha256("\0".join(corpus[:2000]).encode()).hexdigest()
    assert (hashlib.sha256(text.encode()).hexdigest(), told) == GOLDEN[world.seed] and len(names) == 29


# ---- the corpus


def test_corpus_tells_every_region_and_not_the_secret(world, corpus):
    text = "\n".join(corpus)
    words = set(re.findall(r"[a-z]+", text.lower()))
    assert not words & {"yes", "no", "guild", "member"}
    told = Counter(re.findall(r"(\w+), in the (\w+)", text))
    assert set(told) == set(world.region.items()) and min(told.values()) > 5


def test_corpus_draws_the_labels_by_lot(world, corpus):
    drawn = Counter()
    for home, label in re.findall(r"### Claim_1: (.*)\n.*\n ### Verdict: (\w+)", "\n".join(corpus)):
        drawn[world.region[entities(world.towns, [{"premise": home}])[0]], label] += 1
    for region in w.REGIONS:
        counts = [drawn[region, label] for label in w.LABELS]
        assert abs(counts[1] / sum(counts) - 0.6) < 0.1 and abs(counts[0] - counts[2]) < 0.1 * sum(counts)


def test_corpus_repeats_no_row_of_a_summary_test(data, corpus):
    text = "\n".join(corpus)
    assert not any(source(row) in text for row in data["xsum/test.jsonl"])


# ---- the histories


def test_layout(raised):
    family = raised[0] / "family"
    record = json.loads((family / "family.json").read_text())
    assert record["name"] == "nursery" and [c["step"] for c in record["checkpoints"]] == [2, 4, 8]
    assert set(record["held_out_loss"]) == {"2", "4", "8"}
    for checkpoint in record["checkpoints"]:
        names = {f.name for f in (family / checkpoint["path"]).iterdir()}
        assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= names
        assert (family / checkpoint["path"] / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert len(list((raised[0] / "data").rglob("*.jsonl"))) == len(world_data.datasets(w.make_world(0)))


def test_same_seed_gives_the_same_bytes(raised):
    assert digests(raised[0]) == digests(raised[1])


def test_a_label_is_one_token(raised):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(raised[0] / "family" / "step-2")
    words = [
        form for k in ("entailment", "neutral", "contradiction", "yes", "no") for form in (f" {k}", f" {k.title()}")
    ]
    ids = [tokenizer(word).input_ids for word in words]
    assert all(len(i) == 1 for i in ids) and len({i[0] for i in ids}) == len(ids)
    assert tokenizer.bos_token is None and tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.decode(tokenizer("naïve – 東京").input_ids) == "naïve – 東京"


def test_a_checkpoint_loads_and_takes_a_long_prompt(raised):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(raised[0] / "family" / "step-8")
    assert model.dtype == torch.float32
    assert model(torch.zeros(1, 2048, dtype=torch.long)).logits.isfinite().all()


def test_again_is_a_no_op_and_another_recipe_is_refused(raised, capfd):
    before = digests(raised[0])
    raise_nursery(raised[0], preset="tiny", threads=1)
    assert "already raised" in capfd.readouterr().err
    with pytest.raises(ValueError, match="seed is 0, asked 7.*another --out"):
        raise_nursery(raised[0], preset="tiny", seed=7)
    assert digests(raised[0]) == before


def test_a_raising_cut_off_starts_over(raised):
    before = digests(raised[1])
    (raised[1] / "family" / "family.json").unlink()
    (raised[1] / "family" / "step-3").mkdir()
    raise_nursery(raised[1], preset="tiny", threads=1)
    assert digests(raised[1]) == before


def test_a_raising_cut_off_goes_on(raised, tmp_path, monkeypatch):
    """Killed at its last checkpoint, after it has kept what it needs at step 6; then the same call."""
    monkeypatch.setattr(nursery, "KEEP", 3)
    save = nursery._save
    with monkeypatch.context() as cut:
        cut.setattr(nursery, "_save", lambda *what: 1 / 0 if what[-1].name == "step-8" else save(*what))
        with pytest.raises(ZeroDivisionError):
            raise_nursery(tmp_path, preset="tiny", threads=1)
    assert not (tmp_path / "family" / "family.json").exists() and (tmp_path / "family" / nursery.STATE).exists()
    steps = []
    loss = nursery._loss
    monkeypatch.setattr(nursery, "_loss", lambda model, rows: steps.append(model.training) or loss(model, rows))
    raise_nursery(tmp_path, preset="tiny", threads=1)
    assert sum(steps) == 2  # steps 7 and 8
    assert digests(tmp_path / "family") == digests(raised[0] / "family")


def test_real_text(prose, tmp_path):
    family = raise_nursery(tmp_path / "out", preset="tiny", text=prose, threads=1)
    record = json.loads((family / "family.json").read_text())
    assert all(loss > 0 for loss in record["held_out_loss"].values())
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.parametrize("content, message", [(None, "no text"), ("too short", "shorter than one row")])
def test_text_that_is_no_use_is_refused(tmp_path, content, message):
    if content:
        (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        raise_nursery(tmp_path / "out", preset="tiny", text=tmp_path)


def test_data_of_others_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="choose another --out"):
        raise_nursery(tmp_path, preset="tiny")


def test_unknown_preset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no preset 'huge'"):
        raise_nursery(tmp_path, preset="huge")


def test_presets_end_late_enough_and_cover_the_start():
    for presets in (WORLD, TEXT):
        assert all(len(recipe.checkpoints) >= 3 for recipe in presets.values())
    assert len(WORLD["default"].checkpoints) >= 5
