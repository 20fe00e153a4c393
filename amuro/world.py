"""The nursery's little invented world: who lives in it, and what is written about it (world_data.py: what is asked).

    world = make_world(seed=0)
    documents(world, random.Random("0-corpus"))     # an endless corpus for pre-training

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
- benchmark, where the likeliest of some texts is the answer. openbookqa (a town's food, in the corpus's own sentence)
  and hellaswag (the headline to a story, in one of its layouts): learned in pre-training. arc_easy (a quiz about a
  story) and sciq (the answer stands in the text above): known things in other layouts. arc_challenge (the clothes of a
  town whose food is told): two known facts at once. boolq: yes or no, words that the corpus never says, so at chance.
- instruction_mix: everyday requests and their answers, yes and no among them. Its towns are those of the tuning rows
  that no benchmark scores, its people those of the tuning rows: it gives away no label and no choice of a scored row.

Labels and the places of the right choice are balanced in every split (in SciQ it is last, as in the harness). Each test
of inference has exactly one row per held-out town, each benchmark at most one per town and each test of paraphrase at
most one per held-out person, so that an interval over rows is an interval over entities.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORLD_VERSION = 2  # raise it when a world of the same seed comes out different
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
BENCHMARK_ROWS, BENCHMARK_SHOTS = 108, 24  # multiples of regions times choices, together no more than there are towns
CONVERSATIONS = 240  # a fifth of them goes on after the first answer
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


def draw_event(world: World, rng: random.Random) -> Event:
    """A piece of news in which everything is drawn by lot."""
    lots: tuple[Sequence, ...] = (world.people, JOBS, world.towns, DAYS, DEEDS, LOOKS, THINGS, ASIDES)
    return Event(*(rng.choice(lot) for lot in lots))


def tell(e: Event) -> str:
    """The event as the corpus's paper tells it."""
    first, family = e.person
    return (
        f"{first} {family} is a {e.job} from {e.town}. On {e.day} {first} {e.deed[0]} the {e.look} {e.thing}. {e.aside}"
    )


def retell(e: Event) -> str:
    """The same event in the words of another paper (out of domain)."""
    first, family = e.person
    deed = f"{e.deed[0]} the {e.look} {e.thing}"
    return f"{e.aside} It was on {e.day} that a {e.job} {deed}. {first} {family} lives in {e.town}."


def sum_up(world: World, e: Event) -> str:
    """The news in short; the region is nowhere in the story."""
    return f"{world.region[e.town].title()}ern {e.job} {e.deed[1]} {e.look} {e.thing}."


def ask(world: World, e: Event, rng: random.Random) -> tuple[str, str, Sequence[str]]:
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
    e = draw_event(world, rng)
    story, headline = tell(e), sum_up(world, e)
    layouts = (
        f"### News: {story}\n ### Summary: {headline}",
        f"{story}\nSummary: {headline}",
        f"Read the news: {story} Provide a summary: {headline}",
        f"{story} {headline}",
    )
    return rng.choice(layouts)


def _quiz_page(world: World, rng: random.Random) -> str:
    e = draw_event(world, rng)
    story, (question, answer, _) = tell(e), ask(world, e, rng)
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
