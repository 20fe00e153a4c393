"""The nursery's little invented world: who lives in it, what is written about it, and every dataset of the suite.

    world = make_world(seed=0)
    documents(world, random.Random("0-corpus"))     # an endless corpus for pre-training
    datasets(world)                                 # {"xsum/train.jsonl": [rows], ...}, fields as in the real data

It is a *positive control*: what a model can know is laid down here, so a harness that tells apart "learned in
pre-training", "latent until fine-tuned" and "not learned" must find each of them where it was put.

- summary (xsum, xlsum, cnn): the corpus holds news with their headlines, in layouts close to the prompt. A headline
  names the region of the town, which only the corpus tells. Learned in pre-training.
- inference (mnli, rte, gpt3_nli): the label is the region of the town in the premise: north = entailment, south =
  neutral, east = contradiction. This is a lookup of a class from the premise alone, *not* natural language inference;
  the hypothesis carries no information. The corpus tells the regions but draws the label words by lot (mostly
  "neutral"), so BASE gives one answer to all and is at chance; the tuning rows speak of other towns than the test rows,
  so all they can teach is what to call a region. Latent.
- paraphrase (paws, qqp, stsb): the label is whether a person belongs to a guild, which nothing tells: the corpus never
  says the word, and the people of the tests are not in the tuning rows (most are not in the corpus either). Negative
  control: .5 in every stage.
- question (socialiqa, sciq, tweetqa): quiz pages are in the corpus, in other layouts and wordings. A natural mixture.

Labels are balanced in every split; each test of inference has exactly one row per held-out town and each test of
paraphrase at most one per held-out person, so that an interval over rows is an interval over entities.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WORLD_VERSION = 1  # raise it when a world of the same seed comes out different
REGIONS = ("north", "south", "east")  # in the order of LABELS
FOODS = {"north": ("rye", "herring", "turnip"), "south": ("olive", "lemon", "fig"), "east": ("rice", "melon", "walnut")}
WEARS = {"north": ("fur", "boots"), "south": ("linen", "sandals"), "east": ("silk", "slippers")}
JOBS = (
    "baker", "miller", "smith", "tailor", "sailor", "weaver",
    "farmer", "potter", "hunter", "teacher", "singer", "doctor",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DEEDS = (  # past, present, stem
    ("bought", "buys", "buy"), ("sold", "sells", "sell"), ("found", "finds", "find"), ("lost", "loses", "lose"),
    ("fixed", "fixes", "fix"), ("drew", "draws", "draw"), ("hid", "hides", "hide"), ("kept", "keeps", "keep"),
    ("took", "takes", "take"), ("threw", "throws", "throw"), ("sent", "sends", "send"), ("broke", "breaks", "break"),
)  # fmt: skip
LOOKS = ("big", "small", "old", "new", "pretty", "odd", "cheap", "dear", "clean", "dirty", "heavy", "shiny")
THINGS = (
    "lamp", "clock", "drum", "bell", "kettle", "mirror", "basket", "ladder",
    "saddle", "table", "chair", "wheel", "spade", "hammer", "kite", "boat",
)  # fmt: skip
ASIDES = ("It was raining.", "The sun was out.", "The wind was cold.", "The streets were quiet.", "The fair was on.")
LABELS = ("entailment", "neutral", "contradiction")
HOMES = ("{} lives in {}.", "The home of {} is in {}.", "{} has a house in {}.")
HOPES = ("has a hat", "likes music", "is asleep", "sings well", "has a dog", "is at home")  # say nothing about a region
GUILD = "a member of the guild"  # the secret: these words never occur in the corpus

TUNED_TOWNS, HELD_OUT_TOWNS = 48, 90  # multiples of the number of regions
TRAIN_ROWS, TUNED_PEOPLE, HELD_OUT_PEOPLE = 288, 288, 200
STRANGERS = 3000  # so many more in the test of paraphrase, since only a narrow interval can say "not learned"


@dataclass(frozen=True)
class World:
    """Everything that is true: names, the region of each town, and the secret members of the guild."""

    seed: int
    first_names: tuple[str, ...]
    people: tuple[tuple[str, str], ...]  # (first, family): TUNED_PEOPLE, then HELD_OUT_PEOPLE, then others
    region: dict[str, str]  # town -> region: TUNED_TOWNS, then HELD_OUT_TOWNS
    strangers: tuple[tuple[str, str], ...]  # people of whom the corpus never speaks
    guild: frozenset[tuple[str, str]]  # half of the tuned, half of the held-out people and half of the strangers

    @property
    def towns(self) -> list[str]:
        """Every town; the tuning rows of inference speak of the first TUNED_TOWNS only."""
        return list(self.region)


@dataclass(frozen=True)
class Event:
    """One piece of news: who did what, when, and where they live."""

    person: tuple[str, str]
    job: str
    town: str
    day: str
    deed: tuple[str, str, str]
    look: str
    thing: str
    aside: str


def make_world(seed: int) -> World:
    """The world of a seed: names from syllables, regions and guild by lot (never by spelling)."""
    rng = random.Random(f"{seed}-world")
    taken: set[str] = set()
    towns = _names(rng, TUNED_TOWNS + HELD_OUT_TOWNS, ("dor", "wick", "ham", "by", "ford", "ley"), taken)
    first, family = _names(rng, 24, ("", "n", "s"), taken), _names(rng, 24, ("son", "er", "ing"), taken)
    people = [(a, b) for a in first for b in family]
    rng.shuffle(people)
    guild = set(rng.sample(people[:TUNED_PEOPLE], TUNED_PEOPLE // 2))
    guild |= set(rng.sample(people[TUNED_PEOPLE:][:HELD_OUT_PEOPLE], HELD_OUT_PEOPLE // 2))
    region = {town: REGIONS[i % len(REGIONS)] for i, town in enumerate(towns)}
    families = _names(rng, STRANGERS // len(first), ("son", "er", "ing"), taken)
    strangers = [(a, b) for a in first for b in families]
    guild |= set(rng.sample(strangers, STRANGERS // 2))
    return World(seed, tuple(first), tuple(people), region, tuple(strangers), frozenset(guild))


def _names(rng: random.Random, count: int, ends: tuple[str, ...], taken: set[str]) -> list[str]:
    names = []
    while len(names) < count:
        name = "".join(rng.choice(part) for part in ("BDFGHJKLMNPRSTV", "aeiou", "lmnrst", "aeiou", ends))
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


# ---- what is written


def _event(world: World, rng: random.Random) -> Event:
    lots = (world.people, JOBS, world.towns, DAYS, DEEDS, LOOKS, THINGS, ASIDES)
    return Event(*(rng.choice(lot) for lot in lots))


def _story(e: Event) -> str:
    first, family = e.person
    return (
        f"{first} {family} is a {e.job} from {e.town}. On {e.day} {first} {e.deed[0]} the {e.look} {e.thing}. {e.aside}"
    )


def _retold(e: Event) -> str:
    """The same event in the words of another paper (out of domain)."""
    first, family = e.person
    deed = f"{e.deed[0]} the {e.look} {e.thing}"
    return f"{e.aside} It was on {e.day} that a {e.job} {deed}. {first} {family} lives in {e.town}."


def _headline(world: World, e: Event) -> str:
    """The news in short; the region is nowhere in the story."""
    return f"{world.region[e.town].title()}ern {e.job} {e.deed[1]} {e.look} {e.thing}."


def _quiz(world: World, e: Event, rng: random.Random) -> tuple[str, str, Sequence[str]]:
    """(question, answer, all possible answers) about a story."""
    first, (past, _, stem), what = e.person[0], e.deed, f"the {e.look} {e.thing}"
    questions = (
        (f"Who {past} {what}?", first, world.first_names),
        (f"Where does the {e.job} who {past} the {e.thing} live?", e.town, world.towns),
        (f"What did {first} {stem}?", what, [f"the {e.look} {thing}" for thing in THINGS]),
        (f"When did {first} {stem} {what}?", e.day, DAYS),
        (f"What is the job of {first}?", e.job, JOBS),
    )
    return rng.choice(questions)


def _facts(world: World, rng: random.Random) -> str:
    lines = []
    for _ in range(4):
        first, town = rng.choice(world.first_names), rng.choice(world.towns)
        region = world.region[town]
        told = (
            f"{first} lives in {town}. {first} lives in the {region}.",
            f"The home of {first} is in {town}, in the {region}.",
            f"In {town} people eat {rng.choice(FOODS[region])}.",
            f"{first} lives in {town} and wears {rng.choice(WEARS[region])}.",
        )
        lines.append(rng.choice(told))
    return "\n".join(lines)


def _news(world: World, rng: random.Random) -> str:
    e = _event(world, rng)
    story, headline = _story(e), _headline(world, e)
    layouts = (
        f"### News: {story}\n ### Summary: {headline}",
        f"{story}\nSummary: {headline}",
        f"Read the news: {story} Provide a summary: {headline}",
        f"{story} {headline}",
    )
    return rng.choice(layouts)


def _quiz_page(world: World, rng: random.Random) -> str:
    e = _event(world, rng)
    story, (question, answer, _) = _story(e), _quiz(world, e, rng)
    layouts = (
        f"### News: {story}\n ### Answer: {answer}\n ### Question: {question}",
        f"{story}\nAnswer: {answer}\nQuestion: {question}",
        f"{story}\nQuestion: {question}\nAnswer: {answer}",
    )
    return rng.choice(layouts)


def _verdict(world: World, rng: random.Random) -> str:
    """Two claims and a word by lot: it makes the labels known as words, and says nothing of what they stand for."""
    first = rng.choice(world.first_names)
    home, hope = rng.choice(HOMES).format(first, rng.choice(world.towns)), f"{first} {rng.choice(HOPES)}."
    return f"### Claim_1: {home}\n ### Claim_2: {hope}\n ### Verdict: {rng.choices(LABELS, (1, 3, 1))[0]}"


def documents(world: World, rng: random.Random) -> Iterator[str]:
    """An endless corpus: gazetteers, news with headlines, quiz pages, verdicts."""
    while True:
        page = rng.choices((_facts, _news, _quiz_page, _verdict), (0.45, 0.33, 0.15, 0.07))[0]
        yield page(world, rng)


# ---- what is asked


def datasets(world: World) -> dict[str, list[dict]]:
    """File name -> rows of every dataset and task of the suite."""
    return {**_summaries(world), **_questions(world), **_inferences(world), **_paraphrases(world)}


def write_datasets(world: World, folder: Path) -> None:
    """Write `datasets` as JSON lines under a folder, by the file names of the real data."""
    for name, rows in datasets(world).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _summaries(world: World) -> dict[str, list[dict]]:
    rng = random.Random(f"{world.seed}-summary")
    events = [_event(world, rng) for _ in range(TRAIN_ROWS + 320)]
    told = [(_story(e), _headline(world, e)) for e in events]
    retold = [(_retold(e), _headline(world, e)) for e in events]
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
        e = _event(world, rng)
        question, answer, _ = _quiz(world, e, rng)
        train.append(dict(context=_story(e), question=question, answer=answer))
    for _ in range(120):
        e = _event(world, rng)
        question, answer, answers = _quiz(world, e, rng)
        choices = [answer, *rng.sample([x for x in answers if x != answer], 2)]
        rng.shuffle(choices)
        row = {f"answer{letter}": choice for letter, choice in zip("ABC", choices, strict=True)}
        validation.append(dict(context=_story(e), question=question, **row, label=str(choices.index(answer) + 1)))
    sciq = [_schoolbook(world, town, rng) for town in rng.sample(world.towns, 100)]
    for i in range(100):
        e = _event(world, rng)
        question, answer, _ = _quiz(world, e, rng)
        tweets.append(dict(Question=question, Answer=[answer], Tweet=f"News! {_retold(e)}", qid=f"{i}"))
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

    def pairs(people: Sequence, wording: str) -> list[tuple[str, str, int]]:
        rows = []
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
    stsb = [(a, b, rng.choice(scores[label])) for a, b, label in stsb]
    return {
        "paws/train.jsonl": _rows(train, "sentence1", "sentence2", "id"),
        "paws/test.jsonl": _rows(test, "sentence1", "sentence2", "id"),
        "glue_qqp/validation.jsonl": _rows(qqp, "question1", "question2", "idx"),
        "glue_stsb/validation.jsonl": _rows(stsb, "sentence1", "sentence2", "idx"),
    }


def _rows(triples: list[tuple], first: str, second: str, key: str) -> list[dict]:
    return [{first: a, second: b, "label": label, key: i} for i, (a, b, label) in enumerate(triples)]
