"""Selection against brute force on random histories, gaps, the paper's eight, and what is told about them."""

import csv
import math
import random
from itertools import combinations, pairwise, permutations, product

import pytest
import yaml
from conftest import SHARED

from amuro.registry.selection import SCALES, Point, assign, gaps, like_paper, select, sweep_line, table

OLMO = SHARED.parent / "paper" / "OLMo-1B.csv"
needs_olmo = pytest.mark.skipif(not OLMO.is_file(), reason=f"the list of OLMo-1B's checkpoints is not at {OLMO}")
PAPER = ["1000", "18000", "342000", "424000", "505000", "592000", "738000", "main"]


def points(*steps: int, tokens_per_step: float | None = 0.5) -> list[Point]:
    return [Point(step, tokens_per_step and step * tokens_per_step, f"step{step}") for step in steps]


def pythia() -> list[Point]:
    steps = [0, *(2**i for i in range(10)), *range(1000, 144000, 1000)]
    return points(*steps, tokens_per_step=0.002097152)


def olmo() -> list[Point]:
    """The real list, with tokens as the hub's names round them."""
    with open(OLMO, newline="") as file:
        steps = [int(row["Step"]) for row in csv.DictReader(file)]
    return [Point(step, float(math.floor(step * 4.1927e-3)), f"step{step}") for step in steps]


def steps(choices) -> list[int]:
    return [choice.point.step for choice in choices]


def random_history(rng: random.Random) -> list[Point]:
    """4 to 11 checkpoints: dense and sparse stretches, rounded tokens (so equal ones), a step 0 or none."""
    count, scale = rng.randint(4, 11), rng.choice((10, 100, 100_000))
    taken = sorted(rng.sample(range(rng.choice((0, 1)), max(scale, 2 * count)), count))
    if rng.random() < 0.3:
        taken = sorted({int(1.7**i) * rng.randint(1, 2) for i in range(2, count + 3)})
    unit = max(rng.choice((1.0, 0.5, 0.05)), 1 / taken[-1])
    return [Point(step, float(math.floor(step * unit)), f"step{step}") for step in taken]


def places_of(history: list[Point], by: str) -> list[float]:
    if by == "step":
        return [point.step for point in history]
    least = min(point.tokens_b for point in history if point.tokens_b > 0)
    return [point.tokens_b if by == "tokens" else math.log10(max(point.tokens_b, least)) for point in history]


def cost(targets, places) -> float:
    return sum(abs(target - place) for target, place in zip(targets, places, strict=True))


def test_selection_is_brute_forces_on_random_histories():
    rng = random.Random(0)
    for _ in range(1500):
        history, by = random_history(rng), rng.choice(SCALES)
        n, places = rng.randint(2, len(history)), places_of(history, by)
        choices = select(history, n, by)
        spacing = (places[-1] - places[0]) / (n - 1)
        targets = [places[0] + spacing * i for i in range(n)]
        inner = combinations(places[1:-1], n - 2)
        best = min(cost(targets, [places[0], *some, places[-1]]) for some in inner)
        assert len(set(steps(choices))) == n and steps(choices) == sorted(steps(choices))
        assert steps(choices)[0] == history[0].step and steps(choices)[-1] == history[-1].step
        assert [choice.rule for choice in choices] == ["first", *["uniform"] * (n - 2), "last"]
        assert [choice.target for choice in choices] == pytest.approx(targets)
        assert sum(choice.snap for choice in choices) == pytest.approx(best, abs=1e-9)


def test_included_ones_are_fixed_and_the_rest_is_brute_forces():
    """Every way to share the other places out is tried, and within each stretch every choice of points."""
    rng = random.Random(1)
    for _ in range(500):
        history, by = random_history(rng), rng.choice(SCALES)
        wanted = [point.step for point in rng.sample(history, rng.randint(0, 3))]
        fixed = sorted({0, len(history) - 1, *(i for i, point in enumerate(history) if point.step in wanted)})
        n, places = rng.randint(len(fixed), len(history)), places_of(history, by)
        choices = select(history, n, by, wanted)
        assert set(wanted) <= set(steps(choices)) and len(set(steps(choices))) == n
        assert all(choice.snap == 0 for choice in choices if choice.rule != "uniform")
        stretches = list(pairwise(fixed))
        widths = [places[right] - places[left] for left, right in stretches]
        shares = [
            some for some in product(*(range(right - left) for left, right in stretches)) if sum(some) == n - len(fixed)
        ]
        widest = min(max(w / (k + 1) for w, k in zip(widths, some, strict=True)) for some in shares)
        targets = [choice.target for choice in choices]
        assert max(b - a for a, b in pairwise(targets)) == pytest.approx(widest)
        for left, right in stretches:
            inside = [c for c in choices if history[left].step < c.point.step < history[right].step]
            wanted_at = [choice.target for choice in inside]
            best = min(cost(wanted_at, some) for some in combinations(places[left + 1 : right], len(inside)))
            assert sum(choice.snap for choice in inside) == pytest.approx(best, abs=1e-9)


def test_no_crossed_assignment_is_better_and_ties_go_to_earlier_places():
    rng = random.Random(2)
    for _ in range(200):
        places = sorted(rng.uniform(0, 10) for _ in range(rng.randint(1, 6)))
        targets = sorted(rng.uniform(0, 10) for _ in range(rng.randint(0, len(places))))
        found = assign(targets, places)
        best = min(cost(targets, some) for some in permutations(places, len(targets)))
        assert cost(targets, [places[i] for i in found]) == pytest.approx(best)
    assert assign([5], [4, 6]) == [0] and assign([5], [5, 5, 5]) == [0]
    assert assign([5, 5], [0, 4, 6, 10]) == [1, 2], "two targets on one place: two places"


def test_two_targets_that_snap_to_one_point_get_two():
    chosen = select(points(0, 1, 2, 50, 98, 99, 100), 5, "step")
    assert steps(chosen) == [0, 2, 50, 98, 100]
    assert steps(select(points(0, 50, 51, 52, 100), 5, "step")) == [0, 50, 51, 52, 100], "n of n is all"
    assert steps(select(points(3, 8, 9), 2)) == [3, 9]


def test_scales_differ_and_step_zero_stays_the_first():
    assert steps(select(pythia(), 8)) == [0, 20000, 41000, 61000, 82000, 102000, 123000, 143000]
    logs = select(pythia(), 8, "log_tokens")
    assert steps(logs) == [0, 4, 32, 128, 1000, 5000, 26000, 143000]
    assert logs[0].target == logs[0].snap + math.log10(0.002097152), "step 0 stands where step 1 is"
    early = [Point(0, 0.0, "a"), Point(50, 0.0, "b"), Point(200, 1.0, "c"), Point(2000, 8.0, "d")]
    assert steps(select(early, 4, "log_tokens")) == [0, 50, 200, 2000], "several names may round to 0 tokens"


@pytest.mark.parametrize(
    ("history", "arguments", "told"),
    [
        (points(1, 2, 3), {"n": 1}, "-n 1: from 3 checkpoints, between 2 and 3"),
        (points(1, 2, 3), {"n": 4}, "-n 4: from 3 checkpoints, between 2 and 3"),
        (points(1), {"n": 2}, "nothing to select from: 1 checkpoints"),
        ([], {"n": 2}, "nothing to select from: 0 checkpoints"),
        (points(1, 2, 3), {"n": 2, "by": "token"}, "--by 'token': one of tokens, log_tokens, step"),
        (
            points(1, 2, 3, tokens_per_step=None),
            {"n": 2},
            "tokens of 3 of 3 .*such as step1.* not known; use --by step",
        ),
        (points(1, 2, 3, tokens_per_step=None), {"n": 2, "by": "log_tokens"}, "use --by step"),
        (points(1, 2, 3, tokens_per_step=0.0), {"n": 2, "by": "log_tokens"}, "more than 0 tokens; use --by step"),
        ([Point(1, 2.0, "a"), Point(2, 1.0, "b")], {"n": 2}, "tokens fall from a to the later b; use --by step"),
        (points(1, 2, 2, 3), {"n": 2, "by": "step"}, "begin again, or repeat, from step2 to step2; use --by tokens"),
        (points(1, 2, 1), {"n": 2, "by": "step"}, "begin again, or repeat, from step2 to step1; use --by tokens"),
        (points(1, 2, 2, 3), {"n": 3, "include": [2]}, "--include 2: several .* name of one: step2, step2"),
        (points(1, 2, 5, 9), {"n": 3, "include": ["five"]}, "--include five: there is no such .* nearest: 1, 2, 5, 9"),
        (points(1, 2, 5, 9), {"n": 3, "include": [4]}, "--include 4: there is no such checkpoint; nearest: 1, 2, 5, 9"),
        (points(1, 2, 5, 9), {"n": 3, "include": [2, 5]}, "-n 3: the first, the last and --include are 4"),
    ],
)
def test_what_cannot_be_selected_is_told(history, arguments, told):
    with pytest.raises(ValueError, match=told):
        select(history, **arguments)


def test_included_ones_that_are_first_or_last_or_twice_take_no_further_place():
    chosen = select(points(*range(0, 101, 10)), 3, include=[0, 100, 100])
    assert [(choice.point.step, choice.rule) for choice in chosen] == [(0, "first"), (50, "uniform"), (100, "last")]
    chosen = select(points(*range(0, 101, 10)), 4, include=[10, 10])
    assert [choice.rule for choice in chosen] == ["first", "included", "uniform", "last"]
    assert chosen[2].point.step == 50 and chosen[2].target == 27.5, "uniform from 10 on"


@pytest.mark.parametrize(
    "history",
    [
        pythia(),
        points(*range(0, 100_000, 1000)),
        points(*range(1000, 10_000, 1000), *range(10_000, 200_001, 10_000)),  # becomes sparser
        points(*range(10_000, 200_000, 10_000), *range(200_000, 210_000, 100)),  # becomes denser
        points(25, 50, 100, 200, 400, 800),
        points(0, 1, 10, 100, 1000, 10_000),
        points(*range(220, 2421, 220)),
        points(50, 240, 480, 715, 955, 1195, 1431),
        points(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
        points(1, 900, 1000),  # too few to know what is usual
        points(1000),
        [],
    ],
    ids=lambda history: str([point.step for point in history[:4]]),
)
def test_regular_histories_have_no_gaps(history):
    assert gaps(history) == []


def test_holes_are_found_where_they_are():
    for first in range(1, 8):  # the smallest hole that counts, also where little is known of what is usual
        (gap,) = gaps(points(*range(first + 1), *range(first + 4, 20)))
        assert (gap.after.step, gap.before.step) == (first, first + 4)
    linear = [*range(1000, 100_001, 1000)]
    for left, right in ((20_000, 30_000), (1000, 20_000), (90_000, 100_000), (50_000, 54_000)):
        (gap,) = gaps(points(*(step for step in linear if not left < step < right)))
        assert (gap.after.step, gap.before.step, gap.share) == (left, right, (right - left) / 100_000)
    assert gaps(points(*(step for step in linear if not 50_000 < step < 53_000))) == [], "3 times the usual is not more"
    lonely = gaps(points(*(step for step in linear if not 20_000 < step < 60_000 or step == 40_000)))
    assert [(gap.after.step, gap.before.step) for gap in lonely] == [(20_000, 40_000), (40_000, 60_000)]
    (start,) = gaps(points(*range(102_500, 596_001, 500)))
    assert start.after is None and start.before.step == 102_500 and 0.17 < start.share < 0.18


def test_a_history_of_stages_whose_steps_begin_again():
    """By tokens they are one line; a checkpoint whose step is another's too goes by its name."""
    stages = [Point(step, step / 10, f"stage1-step{step}") for step in range(0, 101, 10)]
    names = [f"stage2-step{step}" for step in range(10, 51, 10)]
    stages += [Point(10 * i, 10 + i, name, name) for i, name in enumerate(names, start=1)]
    chosen = select(stages, 4, include=["stage2-step10", "80"])
    assert sweep_line("x", chosen) == "checkpoint: {values: [x@0, x@80, x@stage2-step10, x@stage2-step50]}"
    assert gaps(stages) == [] and "3 to stage2" not in table(chosen, [])
    (gap,) = gaps([*stages[:7], *stages[11:]])
    assert table(chosen, [gap]).endswith("gap: no checkpoint exists between 60 and stage2-step10, 33.3% of the run")
    assert gaps([Point(point.step, None, point.name) for point in stages]) == [], "nothing tells where stage 2 begins"


@needs_olmo
def test_the_hole_of_olmo_1b_is_the_only_gap():
    (gap,) = gaps(olmo())
    assert (gap.after.step, gap.before.step) == (117_850, 330_000) and round(gap.share, 3) == 0.287


@needs_olmo
def test_olmo_1b_near_uniform():
    assert steps(select(olmo(), 6)) == [1000, 117_850, 330_000, 443_000, 591_000, 738_020]
    chosen = select(olmo(), 8, include=[18_000])
    text = table(chosen, gaps(olmo()))
    assert len(chosen) == 8 and steps(chosen)[:2] == [1000, 18_000]
    assert "gap: no checkpoint exists between 117850 and 330000, 28.7% of the run" in text
    assert "targets in it, taken outside: 2" in text


@needs_olmo
def test_like_the_paper():
    chosen = like_paper(olmo())
    assert sweep_line("olmo-1b", chosen) == f"checkpoint: {{values: [{', '.join(f'olmo-1b@{e}' for e in PAPER)}]}}"
    rules = [choice.rule for choice in chosen]
    assert rules[0] == "first row" and rules[1].startswith("by hand") and rules[-1].startswith("main")
    assert rules[2:7] == [f"row {row} of 351: every 70th" for row in (70, 140, 210, 280, 350)]
    assert "28.7% of the run" in table(chosen, gaps(olmo()))


@pytest.mark.parametrize("history", [pythia(), points(*range(0, 1_454_001, 1000)), points(1000, 18000), []])
def test_other_lists_are_not_like_the_paper(history):
    with pytest.raises(ValueError, match="--like paper: .*OLMo-1B's 351 .* this list of"):
        like_paper(history)


@pytest.mark.parametrize(
    "name", ["olmo-1b", "runs/nursery/family", "./a b", "a, b", "x: #1]", '"q"', "- x", "~/family", "模型", "@x", "😀"]
)
def test_the_sweep_line_is_yaml(name):
    history = [*points(10, 20), Point(30, 15.0, "main", "main")]
    read = yaml.safe_load(sweep_line(name, select(history, 3)))
    assert read == {"checkpoint": {"values": [f"{name}@10", f"{name}@20", f"{name}@main"]}}


def test_the_table_tells_target_snap_and_coverage():
    history = points(0, 10, 20, 30, 40, 90, 100)
    lines = table(select(history, 4), gaps(history)).splitlines()
    assert lines[0].split() == ["step", "tokens_b", "target", "snap", "rule", "revision"]
    assert lines[2].split() == ["30", "15", "16.67", "B", "1.667", "B", "uniform", "step30"]
    assert lines[5] == (
        "4 checkpoints from 0 to 100; the widest stretch with none of them is 30 to 90, 60.0% of the run: "
        "a turning point in there is known no better"
    )
    assert lines[6] == "farthest from its target: 90, 11.67 B from 33.33 B by tokens"
    by_step, by_log = (table(select(history, 4, by), []) for by in ("step", "log_tokens"))
    assert "33" in by_step and "gaps: none of 2% of the run or more" in by_step
    assert "x1." in by_log and "B" in by_log
    assert "no checkpoint before 50" in table(select(points(50, 51, 52, 53), 2), gaps(points(50, 51, 52, 53)))
    unknown = points(1, 2, 4, tokens_per_step=None)
    assert " - " in table(select(unknown, 3, "step"), [])
