"""Which checkpoints of a history to take, how far they are from what was wanted, and what does not exist.

    amuro checkpoints select pythia-410m -n 8              near uniform in tokens; also --by log_tokens, --by step
    amuro checkpoints select olmo-1b -n 8 --include 18000  with that one among them
    amuro checkpoints select olmo-1b --like paper          the eight of the paper, with the rule that made each

From lists of points to lists of choices and text: no network, no files.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

SCALES = ("tokens", "log_tokens", "step")
WIDE, WIDE_LOG = 3, 1.5  # a gap is wider than so many times the usual spacing on either side of it (in logarithms)
AROUND = 5  # which is the median of so many spacings
NOTICEABLE = 0.02  # and at least this share of the run
PAPER = (1000, 18000, 342000, 424000, 505000, 592000, 738000)  # arXiv 2408.06663, and `main`


@dataclass(frozen=True)
class Point:
    """An existing checkpoint: its step, billions of tokens seen (None where nothing tells), revision or folder.
    `ref` is what stands for it after `family@` where its step does not (steps that begin again in each stage; main).
    """

    step: int
    tokens_b: float | None
    name: str
    ref: str = ""

    def __str__(self) -> str:
        return self.ref or str(self.step)


@dataclass(frozen=True)
class Choice:
    """A chosen point and why. `rule` is first, last, included, uniform, or a sentence. `target` is where it was wanted
    and `snap` how far it is from there, in the unit of `by`: steps, billions of tokens, or (log_tokens) log10 of them.
    None where the rule has no target."""

    point: Point
    target: float | None
    snap: float | None
    rule: str
    by: str = "tokens"


@dataclass(frozen=True)
class Gap:
    """Nothing exists between two neighbours (`after` is None: before the first), a `share` (0 to 1) of the run."""

    after: Point | None
    before: Point
    share: float


def select(points: Sequence[Point], n: int, by: str = "tokens", include: Sequence[int | str] = ()) -> list[Choice]:
    """The `n` distinct points nearest to a uniform spacing from the first point to the last, of `points` in the order
    of training.

    The first, the last and `include` (steps or names) are fixed. The other places are shared out among the stretches
    between fixed points, each to the stretch whose targets are then widest apart (as long as it has points left), and
    the targets are uniform within a stretch; without `include` that is uniform over the whole. Targets get distinct
    points such that the sum of the distances is smallest (`assign`), also where two are nearest to one point.
    by="log_tokens": points with 0 tokens are placed where the first positive one is, so step 0 stays the first and the
    spacing begins there. ValueError where `n`, `by`, `include` or the tokens do not allow it.
    """
    if len(points) < 2:
        raise ValueError(f"nothing to select from: {len(points)} checkpoints are known, two are needed")
    if not 2 <= n <= len(points):
        raise ValueError(f"-n {n}: from {len(points)} checkpoints, between 2 and {len(points)} can be selected")
    places = _places(points, by)
    included = {_index(points, each) for each in include}
    fixed = sorted({0, len(points) - 1, *included})
    if len(fixed) > n:
        raise ValueError(f"-n {n}: the first, the last and --include are {len(fixed)} checkpoints; give at least that")
    names = {index: "included" for index in included} | {0: "first", len(points) - 1: "last"}
    choices = {index: Choice(points[index], places[index], 0.0, names[index], by) for index in fixed}
    stretches = list(pairwise(fixed))
    for (left, right), count in zip(stretches, _shares(places, stretches, n - len(fixed)), strict=True):
        width = places[right] - places[left]
        targets = [places[left] + width * number / (count + 1) for number in range(1, count + 1)]
        for target, found in zip(targets, assign(targets, places[left + 1 : right]), strict=True):
            index = left + 1 + found
            choices[index] = Choice(points[index], target, abs(places[index] - target), "uniform", by)
    return [choices[index] for index in sorted(choices)]


def assign(targets: Sequence[float], places: Sequence[float]) -> list[int]:
    """Which place each target gets: distinct ones with the smallest sum of distances; of equal sums, earlier places.

    Both are ascending, and there are at least as many places (m) as targets (t). Only assignments in order need to be
    looked at, since un-crossing two pairs never makes the sum larger. least[i][j], the smallest sum for the first i
    targets within the first j places, either leaves place j out or gives it to target i: t x m additions.
    """
    least = [[0.0] * (len(places) + 1)]
    for target in targets:
        row = [math.inf]
        for j, place in enumerate(places):
            row.append(min(row[j], least[-1][j] + abs(place - target)))
        least.append(row)
    found, j = [], len(places)
    for i in range(len(targets), 0, -1):
        while least[i][j] == least[i][j - 1]:
            j -= 1
        j -= 1
        found.append(j)
    return found[::-1]


def gaps(points: Sequence[Point]) -> list[Gap]:
    """Where a history, in the order of training, has a hole; the run is from 0 to the last point, in tokens if known.

    Two neighbours (or the start and the first point) have a gap between them where at least NOTICEABLE of the run is
    missing and their distance is more than WIDE times the usual spacing on its left and on its right (the median of
    AROUND spacings there), and in logarithms more than WIDE_LOG times. Both sides, so that a history that becomes
    sparser has no gap; logarithms, so that one of doubling steps has none (a hole early in such a one is not told:
    what follows is as wide). Fewer than four points have no usual spacing: no gaps.
    """
    if len(points) < 4:
        return []
    at = _run(points)
    run = max(at)
    start = [(None, points[0])] if at[0] > 0 else []
    neighbours = [*start, *pairwise(points)]
    ends = [*([(0, at[0])] if start else []), *pairwise(at)]
    spacings = [right - left for left, right in ends]
    logs = [math.log(right / left) if 0 < left <= right else math.inf for left, right in ends]
    return [
        Gap(after, before, spacings[i] / run)
        for i, (after, before) in enumerate(neighbours)
        if spacings[i] >= NOTICEABLE * run and _wide(spacings, i, WIDE) and _wide(logs, i, WIDE_LOG)
    ]


def like_paper(points: Sequence[Point]) -> list[Choice]:
    """The paper's eight checkpoints of OLMo-1B, each with the rule that made it. ValueError for any other list.

    The paper says "uniformly by tokens"; its code (download_olmo_ckpts.py in KaiserWhoLearns/AmuroCharPTFTRelationship)
    takes every k-th row of the list of 351, k = int(351 / 5). The other three are the first row, `main`, and 18000.
    """
    rows = list(points)
    k = len(rows) // 5
    by_hand = "by hand (row 14, which the same rule gives first with 25 in place of 5)"
    found = [(point, "first row") for point in rows[:1]]
    found += [(point, by_hand) for point in rows if point.step == 18000]
    found += [
        (rows[row - 1], f"row {row} of {len(rows)}: every {k}th") for row in range(k, len(rows) + 1, k or 1) if row
    ]
    if tuple(point.step for point, _ in found) != PAPER:
        raise ValueError(
            f"--like paper: the paper's eight are of OLMo-1B's 351 checkpoints (olmo-1b), and this list of {len(rows)} "
            "is another one; use -n, with --by and --include"
        )
    found.append((Point(rows[-1].step, rows[-1].tokens_b, "main", "main"), "main, the end of the run"))
    return [Choice(point, None, None, rule) for point, rule in found]


def sweep_line(family_name: str, choices: Sequence[Choice]) -> str:
    """`checkpoint: {values: [olmo-1b@1000, ...]}`, for the `parameters` of a W&B sweep YAML.

    A point is named by its `ref`, or else its step. `family_name` may be a folder.
    """
    values = [f"{family_name}@{choice.point}" for choice in choices]
    plain = re.compile(r"[\w./][\w./@+-]*")  # what YAML takes for one word; JSON's quotes are YAML's
    quoted = [value if plain.fullmatch(value) else json.dumps(value, ensure_ascii=False) for value in values]
    return f"checkpoint: {{values: [{', '.join(quoted)}]}}"


def table(choices: Sequence[Choice], gaps: Sequence[Gap]) -> str:
    """The choices as aligned columns, and below them in words what they cover and what does not exist."""
    rows = [("step", "tokens_b", "target", "snap", "rule", "revision")]
    rows += [
        (str(choice.point.step), _tokens(choice.point.tokens_b), *_aim(choice), choice.rule, choice.point.name)
        for choice in choices
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[:4], widths, strict=False)]
        lines.append("  ".join([*numbers, row[4].ljust(widths[4]), row[5]]))
    return "\n".join([*lines, *_coverage(choices), *(_told(gap, choices) for gap in gaps or [None])])


def _places(points: Sequence[Point], by: str) -> list[float]:
    """Where each point is on the scale `by`, ascending."""
    if by not in SCALES:
        raise ValueError(f"--by {by!r}: one of {', '.join(SCALES)}")
    if by == "step":
        for one, two in pairwise(points):
            if one.step >= two.step:
                raise ValueError(
                    f"--by step: steps begin again, or repeat, from {one.name} to {two.name}; use --by tokens"
                )
        return [float(point.step) for point in points]
    unknown = [point.name for point in points if point.tokens_b is None]
    if unknown:
        raise ValueError(
            f"--by {by}: the tokens of {len(unknown)} of {len(points)} checkpoints (such as {unknown[0]}) are not "
            "known; use --by step"
        )
    for one, two in pairwise(points):
        if one.tokens_b > two.tokens_b:
            raise ValueError(f"--by {by}: tokens fall from {one.name} to the later {two.name}; use --by step")
    if by == "tokens":
        return [float(point.tokens_b) for point in points]
    positive = [point.tokens_b for point in points if point.tokens_b > 0]
    if not positive:
        raise ValueError("--by log_tokens: no checkpoint has more than 0 tokens; use --by step")
    return [math.log10(max(point.tokens_b, positive[0])) for point in points]


def _index(points: Sequence[Point], wanted: int | str) -> int:
    wanted = str(wanted)
    found = [index for index, point in enumerate(points) if wanted in (str(point.step), point.ref, point.name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(points[index].name for index in found)
        raise ValueError(f"--include {wanted}: several checkpoints are of that step; give the name of one: {names}")
    steps = [point.step for point in points]
    step = int(wanted) if re.fullmatch(r"\d{1,18}", wanted, re.ASCII) else None
    near = steps if step is None else sorted(steps, key=lambda each: abs(each - step))
    told = ", ".join(map(str, sorted(near[:4])))
    raise ValueError(f"--include {wanted}: there is no such checkpoint; nearest: {told}")


def _run(points: Sequence[Point]) -> list[float]:
    """How far the run is at each point: in billions of tokens where they are known and rise, otherwise in steps."""
    tokens = [point.tokens_b for point in points]
    known = None not in tokens and tokens == sorted(tokens) and tokens[-1] > 0
    return tokens if known else [point.step for point in points]


def _shares(places: list[float], stretches: list[tuple[int, int]], spare: int) -> list[int]:
    """How many of `spare` places each stretch between two fixed points gets, so that the widest spacing is smallest."""
    counts = [0] * len(stretches)
    widths = [places[right] - places[left] for left, right in stretches]
    for _ in range(spare):
        room = [s for s, (left, right) in enumerate(stretches) if counts[s] < right - left - 1]
        counts[max(room, key=lambda s: widths[s] / (counts[s] + 1))] += 1
    return counts


def _wide(spacings: list[float], i: int, times: float) -> bool:
    for side in (spacings[max(0, i - AROUND) : i], spacings[i + 1 : i + 1 + AROUND]):
        finite = [each for each in side if each < math.inf]  # log steps from step 0 are not
        if finite and spacings[i] <= times * median(finite):
            return False
    return True


def _tokens(billions: float | None) -> str:
    if billions is None:
        return "-"
    return f"{billions:.0f}" if billions >= 1000 else f"{billions:.4g}"


def _aim(choice: Choice) -> tuple[str, str]:
    """Target and snap as a reader wants them: of log_tokens the target in tokens, and the snap as a factor."""
    if choice.target is None:
        return "-", "-"
    if choice.by == "step":
        return f"{choice.target:.0f}", f"{choice.snap:.0f}"
    if choice.by == "tokens":
        return f"{_tokens(choice.target)} B", f"{_tokens(choice.snap)} B"
    return f"{_tokens(10**choice.target)} B", f"x{10**choice.snap:.2f}"


def _coverage(choices: Sequence[Choice]) -> list[str]:
    points = [choice.point for choice in choices]
    at = _run(points)
    width, i = max((right - left, i) for i, (left, right) in enumerate(pairwise(at)))
    lines = [
        f"{len(choices)} checkpoints from {points[0]} to {points[-1]}; the widest stretch with none of them is "
        f"{points[i]} to {points[i + 1]}, {width / max(at):.1%} of the run: a turning point in there is known no better"
    ]
    aimed = [choice for choice in choices if choice.snap]
    if aimed:
        far = max(aimed, key=lambda choice: choice.snap)
        lines.append(f"farthest from its target: {far.point}, {_aim(far)[1]} from {_aim(far)[0]} by {far.by}")
    return lines


def _told(gap: Gap | None, choices: Sequence[Choice]) -> str:
    if gap is None:
        return f"gaps: none of {NOTICEABLE:.0%} of the run or more and {WIDE} times the usual spacing"
    if gap.after is None:
        return f"gap: no checkpoint before {gap.before}, {gap.share:.1%} of the run"
    line = f"gap: no checkpoint exists between {gap.after} and {gap.before}, {gap.share:.1%} of the run"
    inside = [choice for choice in choices if choice.target is not None and _within(gap, choice)]
    return f"{line}; targets in it, taken outside: {len(inside)}" if inside else line


def _within(gap: Gap, choice: Choice) -> bool:
    if choice.by == "step":
        return gap.after.step < choice.target < gap.before.step
    target = choice.target if choice.by == "tokens" else 10**choice.target
    return choice.rule == "uniform" and gap.after.tokens_b < target < gap.before.tokens_b
