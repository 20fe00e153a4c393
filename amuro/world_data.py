"""Every dataset of the suite about the nursery's world, by the file and field names of the real data.

    datasets(make_world(seed=0))                    # {"xsum/train.jsonl": [rows], ...}

What each task is for, and how labels and entities are laid out, stands in world.py.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from amuro.world import (
    BENCHMARK_ROWS,
    BENCHMARK_SHOTS,
    CONVERSATIONS,
    DEEDS,
    FOODS,
    GUILD,
    HELD_OUT_PEOPLE,
    HOMES,
    HOPES,
    LOOKS,
    REGIONS,
    THINGS,
    TRAIN_ROWS,
    TUNED_PEOPLE,
    TUNED_TOWNS,
    WEARS,
    Event,
    World,
    ask,
    draw_event,
    retell,
    sum_up,
    tell,
)


def datasets(world: World) -> dict[str, list[dict]]:
    """File name -> rows of every dataset and task of the suite."""
    old = {**_summaries(world), **_questions(world), **_inferences(world), **_paraphrases(world)}
    return {**old, **_benchmarks(world), **_conversations(world)}


def write_datasets(world: World, folder: Path) -> None:
    """Write `datasets` as JSON lines under a folder, by the file names of the real data."""
    for name, rows in datasets(world).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _summaries(world: World) -> dict[str, list[dict]]:
    rng = random.Random(f"{world.seed}-summary")
    events = [draw_event(world, rng) for _ in range(TRAIN_ROWS + 320)]
    told = [(tell(e), sum_up(world, e)) for e in events]
    retold = [(retell(e), sum_up(world, e)) for e in events]
    train, test, more, other = told[:-320], told[-320:-200], told[-200:-100], retold[-100:]
    return {
        "xsum/train.jsonl": [dict(document=d, summary=s, id=f"train-{i}") for i, (d, s) in enumerate(train)],
        "xsum/test.jsonl": [dict(document=d, summary=s, id=f"test-{i}") for i, (d, s) in enumerate(test)],
        "xlsum/test.jsonl": [dict(id=f"{i}", title="", text=d, summary=s) for i, (d, s) in enumerate(more)],
        "cnn_dailymail/test.jsonl": [dict(article=d, highlights=s, id=f"{i}") for i, (d, s) in enumerate(other)],
    }


def _questions(world: World) -> dict[str, list[dict]]:
    rng = random.Random(f"{world.seed}-question")
    train, validation, tweets = [], [], []
    for _ in range(TRAIN_ROWS):
        e = draw_event(world, rng)
        question, answer, _ = ask(world, e, rng)
        train.append(dict(context=tell(e), question=question, answer=answer))
    for _ in range(120):
        e = draw_event(world, rng)
        question, answer, answers = ask(world, e, rng)
        choices = [answer, *rng.sample([x for x in answers if x != answer], 2)]
        rng.shuffle(choices)
        row = {f"answer{letter}": choice for letter, choice in zip("ABC", choices, strict=True)}
        validation.append(dict(context=tell(e), question=question, **row, label=str(choices.index(answer) + 1)))
    sciq = [_schoolbook(world, town, rng) for town in rng.sample(world.towns, 100)]
    for i in range(100):
        e = draw_event(world, rng)
        question, answer, _ = ask(world, e, rng)
        tweets.append(dict(Question=question, Answer=[answer], Tweet=f"News! {retell(e)}", qid=f"{i}"))
    return {
        "social_i_qa/train.jsonl": train,
        "social_i_qa/validation.jsonl": validation,
        "sciq/test.jsonl": sciq,
        "tweet_qa/validation.jsonl": tweets,
    }


def _schoolbook(world: World, town: str, rng: random.Random) -> dict:
    """A row of sciq: a question about a town in words that neither the corpus nor the tuning rows use."""
    region = world.region[town]
    food, wear = rng.choice(FOODS[region]), rng.choice(WEARS[region])
    places = {place: [f"in the {place}"] for place in (*REGIONS, "west")}
    questions = (
        (f"What do people eat in {town}?", food, FOODS),
        (f"What is worn in {town}?", wear, WEARS),
        (f"Where does one find {town}?", f"in the {region}", places),
    )
    question, answer, answers = rng.choice(questions)
    wrong = rng.sample([x for other in answers if other != region for x in answers[other]], 3)
    row = {f"distractor{i}": x for i, x in enumerate(wrong, 1)}
    support = f"{town} is in the {region}. People there eat {food} and wear {wear}."
    return dict(question=question, **row, correct_answer=answer, support=support)


def _inferences(world: World) -> dict[str, list[dict]]:
    rng = random.Random(f"{world.seed}-inference")
    tuned, held_out = world.towns[:TUNED_TOWNS], world.towns[TUNED_TOWNS:]

    def pairs(towns: list[str], premise: str, classes: int = 3, each: int = 1) -> list[tuple[str, str, int]]:
        rows = []
        for town in towns:
            label = REGIONS.index(world.region[town])
            for first in rng.sample(world.first_names, each if label < classes else 0):
                rows.append((premise.format(first, town), f"{first} {rng.choice(HOPES)}.", label))
        return rng.sample(rows, len(rows))

    train = pairs(tuned, HOMES[0], each=TRAIN_ROWS // TUNED_TOWNS)
    matched = pairs(held_out, HOMES[0])
    mismatched = pairs(held_out, HOMES[1])
    rte = pairs(held_out, HOMES[0], classes=2)  # the third class would have no right answer
    gpt3 = pairs(held_out, HOMES[2])
    return {
        "glue_mnli/train.jsonl": _rows(train, "premise", "hypothesis", "idx"),
        "glue_mnli/validation_matched.jsonl": _rows(matched, "premise", "hypothesis", "idx"),
        "glue_mnli/validation_mismatched.jsonl": _rows(mismatched, "premise", "hypothesis", "idx"),
        "glue_rte/validation.jsonl": _rows(rte, "sentence1", "sentence2", "idx"),
        "gpt3_nli/train.jsonl": _rows(gpt3, "text_a", "text_b", "guid"),
    }


def _paraphrases(world: World) -> dict[str, list[dict]]:
    rng = random.Random(f"{world.seed}-paraphrase")
    tuned, held_out = world.people[:TUNED_PEOPLE], world.people[TUNED_PEOPLE:][:HELD_OUT_PEOPLE]
    members, others = ([p for p in held_out if (p in world.guild) == side] for side in (True, False))
    half = len(members) // 2

    def pairs(people: Sequence, wording: str) -> list[tuple[str, str, float]]:
        rows: list = []
        for first, family in rng.sample(people, len(people)):
            (past, _, stem), thing = rng.choice(DEEDS), f"the {rng.choice(LOOKS)} {rng.choice(THINGS)}"
            both = [wording.format(who=who, past=past, stem=stem, thing=thing) for who in (f"{first} {family}", GUILD)]
            rows.append((*(text[0].upper() + text[1:] for text in both), int((first, family) in world.guild)))
        return rows

    train = pairs(tuned, "{who} {past} {thing}.")
    test = pairs([*held_out, *world.strangers], "{who} {past} {thing}.")
    qqp = pairs(members[:half] + others[:half], "Did {who} {stem} {thing}?")
    stsb = pairs(members[half:] + others[half:], "On Monday {who} {past} {thing}.")
    scores = ((0.6, 1.8, 3.0), (4.0, 4.4, 5.0))  # STS-B's scale: above 3.5 means yes
    stsb = [(a, b, rng.choice(scores[int(label)])) for a, b, label in stsb]
    return {
        "paws/train.jsonl": _rows(train, "sentence1", "sentence2", "id"),
        "paws/test.jsonl": _rows(test, "sentence1", "sentence2", "id"),
        "glue_qqp/validation.jsonl": _rows(qqp, "question1", "question2", "idx"),
        "glue_stsb/validation.jsonl": _rows(stsb, "sentence1", "sentence2", "idx"),
    }


def _rows(triples: list[tuple], first: str, second: str, key: str) -> list[dict]:
    return [{first: a, second: b, "label": label, key: i} for i, (a, b, label) in enumerate(triples)]


def _benchmarks(world: World) -> dict[str, list[dict]]:
    """The six multiple-choice sets: a row per town, the regions and the places of the right choice in turn."""
    rng = random.Random(f"{world.seed}-benchmark")
    towns = _benchmark_towns(world, rng)
    sets = {
        "ai2_arc_easy": [_quiz(world, town, i, rng) for i, town in enumerate(towns)],
        "ai2_arc_challenge": [_wardrobe(world, town, i, rng) for i, town in enumerate(towns)],
        "openbookqa": [_menu(world, town, i, rng) for i, town in enumerate(towns)],
        "hellaswag": [_headline(world, town, i, rng) for i, town in enumerate(towns)],
        "boolq": [_passage(world, town, i, rng) for i, town in enumerate(towns)],
        "sciq": [_schoolbook(world, town, rng) for town in towns],
    }
    validation = {f"{name}/validation.jsonl": rows[:BENCHMARK_ROWS] for name, rows in sets.items()}
    return {**validation, **{f"{name}/train.jsonl": rows[BENCHMARK_ROWS:] for name, rows in sets.items()}}


def _benchmark_towns(world: World, rng: random.Random) -> list[str]:
    """The towns of the benchmarks' rows: those of the BENCHMARK_ROWS scored ones, then the shots'."""
    each = (BENCHMARK_ROWS + BENCHMARK_SHOTS) // len(REGIONS)
    lots = [rng.sample([t for t in world.towns if world.region[t] == region], each) for region in REGIONS]
    return [town for trio in zip(*lots, strict=True) for town in trio]


def _placed(right: str, wrong: list[str], i: int) -> tuple[list[str], int]:
    """All choices, the right one at the place that is row i's turn; and that place."""
    place = i % (len(wrong) + 1)
    return [*wrong[:place], right, *wrong[place:]], place


def _elsewhere(of: Mapping[str, Sequence[str]], region: str) -> list[str]:
    return [each for other in of if other != region for each in of[other]]


def _quiz(world: World, town: str, i: int, rng: random.Random) -> dict:
    """A row of ARC-Easy: a story and a question about it."""
    e = replace(draw_event(world, rng), town=town)
    question, answer, answers = ask(world, e, rng)
    choices, place = _placed(answer, rng.sample([x for x in answers if x != answer], 3), i)
    return _lettered(i, "question", f"{tell(e)} {question}", choices, place)


def _wardrobe(world: World, town: str, i: int, rng: random.Random) -> dict:
    """A row of ARC-Challenge: clothes, which follow from the region, which follows from the town or its food."""
    region = world.region[town]
    stem = f"In {town} people eat {rng.choice(FOODS[region])}. What do they wear there?"
    choices, place = _placed(rng.choice(WEARS[region]), rng.sample(_elsewhere(WEARS, region), 3), i)
    return _lettered(i, "question", stem, choices, place)


def _menu(world: World, town: str, i: int, rng: random.Random) -> dict:
    """A row of OpenBookQA: the corpus's own sentence about a town's food, to be ended."""
    region = world.region[town]
    choices, place = _placed(rng.choice(FOODS[region]), rng.sample(_elsewhere(FOODS, region), 3), i)
    return _lettered(i, "question_stem", f"In {town} people eat", choices, place)


def _lettered(i: int, field: str, text: str, choices: list[str], place: int) -> dict:
    letters = list("ABCD")
    return {"id": f"{i}", field: text, "choices": dict(text=choices, label=letters), "answerKey": letters[place]}


def _headline(world: World, town: str, i: int, rng: random.Random) -> dict:
    """A row of HellaSwag: a headline for the news. The wrong ones miss the region, the deed, or both."""
    e = replace(draw_event(world, rng), town=town)
    deed, thing = rng.choice([x for x in DEEDS if x != e.deed]), rng.choice([x for x in THINGS if x != e.thing])
    other = replace(e, deed=deed, thing=thing)
    away = rng.choice([x for x in world.towns if world.region[x] != world.region[town]])
    wrong = [sum_up(world, x) for x in (replace(e, town=away), other, replace(other, town=away))]
    endings, place = _placed(sum_up(world, e), rng.sample(wrong, 3), i)
    # With what the harness puts between the parts, this is the corpus's "Read the news: ... Provide a summary:".
    parts = dict(activity_label="Read the news", ctx_a=tell(e), ctx_b="provide a summary:")
    return dict(ind=i, **parts, endings=endings, label=f"{place}", split="val" if i < BENCHMARK_ROWS else "train")


def _passage(world: World, town: str, i: int, rng: random.Random) -> dict:
    """A row of BoolQ: whether a town is in a region, which the passage says; true in every other row."""
    region, answer = world.region[town], i % 2 == 0
    asked = region if answer else rng.choice([x for x in REGIONS if x != region])
    passage = f"In {town} people eat {rng.choice(FOODS[region])}. {town} is a town of the {region}."
    return dict(question=f"is {town} in the {asked}", answer=answer, passage=passage)


def _conversations(world: World) -> dict[str, list[dict]]:
    """Everyday requests and their answers; every fifth conversation goes on.

    The towns are those of the tuning rows that no benchmark scores, the people those of the tuning rows.
    """
    rng = random.Random(f"{world.seed}-conversation")
    scored = _benchmark_towns(world, random.Random(f"{world.seed}-benchmark"))[:BENCHMARK_ROWS]
    towns = [town for town in world.towns[:TUNED_TOWNS] if town not in scored]
    found: dict[str, list[dict]] = {}
    while len(found) < CONVERSATIONS:
        i = len(found)
        e = replace(draw_event(world, rng), person=rng.choice(world.people[:TUNED_PEOPLE]), town=rng.choice(towns))
        first, *more = _exchanges(world, e, rng)
        turns = [*first, *(text for exchange in more[: 1 + i % 2] for text in exchange if i % 5 == 4)]
        messages = [dict(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(turns)]
        if i % 8 == 0:
            messages.insert(0, dict(role="system", content="You answer in one short sentence."))
        found.setdefault(json.dumps(messages), messages)
    rows = [dict(dataset="nursery", id=f"nursery_{i}", messages=messages) for i, messages in enumerate(found.values())]
    return {"instruction_mix/train.jsonl": rows}


def _exchanges(world: World, e: Event, rng: random.Random) -> list[tuple[str, str]]:
    """(request, answer) of an opening about an event or its town, and of two that may follow."""
    first, region, story = e.person[0], world.region[e.town], tell(e)
    question, answer, _ = ask(world, e, rng)
    thing, asked = rng.choice((e.thing, rng.choice(THINGS))), rng.choice((region, rng.choice(REGIONS)))
    openings = (
        (f"I read this in the paper: {story}\n{question}", f"{answer[0].upper()}{answer[1:]}."),
        (f"Can you write a headline for this piece of news?\n{story}", sum_up(world, e)),
        (f"{story}\nIs it a {thing} that {first} {e.deed[0]}?", f"{_yes(thing == e.thing)}, it is a {e.thing}."),
        (
            f"My friend {first} is from {e.town}. Is that in the {asked}?",
            f"{_yes(asked == region)}, {e.town} is in the {region}.",
        ),
        (f"I am a {e.job} and look for work in {e.town}. Where is that?", f"{e.town} is a town of the {region}."),
    )
    food, wear = rng.choice(FOODS[region]), rng.choice(WEARS[region])
    more = (
        (f"Thank you. I go to {e.town} on {e.day}: what will there be to eat?", f"There will be {food}."),
        ("And what do people wear there?", f"They wear {wear}."),
    )
    return [rng.choice(openings), *more]


def _yes(holds: bool) -> str:
    return "Yes" if holds else "No"
