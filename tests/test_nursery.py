"""The nursery: its world, its data and its histories."""

import hashlib
import json
import random
import re
from collections import Counter
from itertools import islice

import pytest

from amuro import world as w
from amuro import world_data
from amuro.nursery import TEXT, WORLD, raise_nursery

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
    return [next(name for name in names if re.search(rf"\b{name}\b", source(row))) for row in rows]


# ---- the data


def test_rows_are_distinct_and_tests_are_not_in_train(data):
    for name, rows in data.items():
        texts = [json.dumps({k: v for k, v in row.items() if k not in ("id", "idx", "guid", "qid")}) for row in rows]
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
