"""Tables of small studies made up here, against plain calculations: pytest tests/test_tables.py"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from amuro.results import COLUMNS, Sheet
from amuro.tasks import TASKS, relation_of
from analysis import stats, tables
from analysis.groups import group_gains
from analysis.study import collect, together
from analysis.usual import at_usual, usual_settings
from analysis.words import interval_text, verdict_sentence, who

EVERY = [
    "overview",
    "gains",
    "verdicts",
    "forgetting",
    "transfer",
    "formats",
    "format_means",
    "format_trend",
    "methods",
]
EVERY += ["shots", "turning", "best_buy", "transitions", "trajectories", "seed_variance", "rates"]
N = 60


class Lines:
    """A results table and its sheets in the making: `add` writes one row and its examples' scores."""

    def __init__(self):
        self.rows, self.scores, self.ids = [], [], []

    def add(self, step: int, task: str, scores, /, dataset="", seed=None, rate=2e-5, ids=None, **changes) -> None:
        family = changes.get("family", "toy")
        row = {"family": family, "step": step, "tokens_b": step / 100, "checkpoint": f"{family}@{step}"}
        row |= {"stage": "sft" if dataset else "base", "dataset": dataset, "seed": seed if dataset else None}
        row |= {"learning_rate": rate if dataset else None, "task": task, "prompt_format": "default", "num_shots": 0}
        row |= {"relation": relation_of(task, dataset) if dataset else "", "shot_seed": 42, "dtype": "float32"}
        row |= {"apply_chat_template": False, "method": TASKS[task].methods[0], "metric": TASKS[task].metric}
        row |= {"n_truncated": 0, "n_unparsable": 0, "task_version": 1, "n": len(scores), "value": np.mean(scores)}
        row |= {"cell_id": f"{step}-{dataset}-{rate}-{seed}", "stderr": np.std(scores) / len(scores) ** 0.5}
        self.rows.append(row | {"ci_low": row["value"] - 0.01, "ci_high": row["value"] + 0.01} | changes)
        self.scores.append(np.asarray(scores, dtype=float))
        self.ids.append([f"{number:04d}" for number in range(len(scores))] if ids is None else list(ids))

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype(COLUMNS)

    def sheets(self) -> list[Sheet]:
        """A sheet for every set of examples of a task and metric; labels alternate, texts are all different."""
        found = {}
        for at, (row, ids) in enumerate(zip(self.rows, self.ids, strict=True)):
            found.setdefault((row["task"], row["metric"], tuple(ids)), []).append(at)
        made = []
        for (task, metric, ids), rows in found.items():
            target = [
                (TASKS[task].labels or (f"a b {name} c",))[int(name) % (len(TASKS[task].labels) or 1)] for name in ids
            ]
            scores = np.array([self.scores[at] for at in rows])
            chance = np.full(len(ids), 0.25 if TASKS[task].reading.choices else np.nan)
            made.append(
                Sheet(task, metric, np.array(rows), scores, np.array(ids, object), np.array(target, object), chance)
            )
        return made

    def study(self):
        return collect(self.table(), self.sheets())


def right(rate: float, seed: int, n: int = N) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < rate).astype(float)


def text(level: float, seed: int, n: int = N) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(level, 0.1, n), 0, 1)


STEPS = (10, 30, 100, 300)
BASE = {"rte": (0.5, 0.5, 0.5, 0.5), "mnli_matched": (0.3, 0.3, 0.3, 0.3), "xsum": (0.1, 0.3, 0.6, 0.62)}
TUNED = {"rte": (0.5, 0.6, 0.9, 0.9), "mnli_matched": (0.3, 0.4, 0.8, 0.95), "xsum": (0.1, 0.2, 0.3, 0.3)}


def make() -> Lines:
    """BASE and mnli-tuned at two seeds and two rates, on three tasks and one benchmark, in two formats; the prompt
    `instruct` costs BASE .2 and the tuned nothing."""
    lines, draw = Lines(), {"rte": right, "mnli_matched": right, "xsum": text}
    for at, step in enumerate(STEPS):
        for number, task in enumerate(BASE):
            for prompt, loss in (("default", 0.0), ("instruct", 0.2)):
                level = max(0.02, BASE[task][at] - loss)
                lines.add(step, task, draw[task](level, 100 * at + number), prompt_format=prompt)
                for seed in (0, 1):
                    for rate, share in ((2e-5, 1.0), (2e-6, 0.4)):
                        level = BASE[task][at] + share * (TUNED[task][at] - BASE[task][at])
                        salt = 1000 * seed + 100 * at + number + 7
                        scores = draw[task](level, salt)
                        lines.add(step, task, scores, "mnli", seed, rate, prompt_format=prompt)
        lines.add(step, "arc_easy", right(0.3 + 0.1 * at, at))
        lines.add(step, "arc_easy", right(0.3 + 0.1 * at, at + 50), "mnli", 0)
    return lines


@pytest.fixture(scope="module")
def study():
    return make().study()


def of(frame: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows with these values."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame


def seeds_of(lines: Lines, **values) -> list[np.ndarray]:
    """The scores of the rows with these values."""
    every = [all(row[name] == value for name, value in values.items()) for row in lines.rows]
    return [scores for scores, chosen in zip(lines.scores, every, strict=True) if chosen]


MAIN = {"prompt_format": "default", "learning_rate": 2e-5}


def test_points_are_means_over_seeds(study):
    lines, done = make(), 0
    for row in of(study.points, stage="sft").itertuples():
        about = {name: getattr(row, name) for name in ("step", "task", "dataset", "learning_rate", "prompt_format")}
        scores = seeds_of(lines, **about)
        if not scores:
            assert row.missing == "no result" and study.examples[row.Index] is None
            continue
        mean = np.mean(scores, axis=0)
        assert row.value == pytest.approx(mean.mean()) and np.allclose(study.examples[row.Index], mean)
        assert (row.n, row.seeds, row.missing) == (N, len(scores), "")
        assert row.seed_spread == pytest.approx(np.ptp([each.mean() for each in scores]))
        assert row.low < row.value < row.high
        done += 1
    assert done == 4 * (3 * 2 * 2 + 1)
    levels = of(study.points, checkpoint="toy@10", stage="base", prompt_format="default").set_index("task")["chance"]
    assert levels.round(3).to_dict() == {"rte": 0.5, "mnli_matched": 0.333, "xsum": 0.75, "arc_easy": 0.25}


def test_gains_are_those_of_paired_scores(study):
    lines, frame = make(), tables.gains(study)
    done = 0
    for row in frame[frame["n"] > 0].itertuples():
        about = {"step": row.step, "task": row.task, "prompt_format": row.prompt_format}
        (base,) = seeds_of(lines, stage="base", **about)
        tuned = np.mean(seeds_of(lines, dataset="mnli", learning_rate=row.learning_rate, **about), axis=0)
        expected = stats.compare(tuned, base)
        parts = (row.difference, row.stderr, row.p, row.gain)
        assert parts == pytest.approx(
            (expected.mean, expected.stderr, expected.p_equal, expected.mean / (1 - row.chance)), abs=1e-9
        )
        ends = (row.difference_low, row.difference_high)
        assert ends == pytest.approx((expected.low, expected.high), abs=1e-6)
        done += 1
    assert done == 4 * (3 * 2 * 2 + 1) and (frame["test"] == "paired").all()
    one = of(frame, checkpoint="toy@300", **MAIN)
    assert one["p_holm"].to_numpy() == pytest.approx(stats.holm(one["p"])) and len(one) == 4


def test_verdicts_and_seeds(study):
    frame = of(tables.verdicts(study), **MAIN).set_index("task")
    assert frame["verdict"].to_dict() == {"rte": "learned in fine-tuning", "mnli_matched": "learned in fine-tuning"}
    assert frame["latent"].all() and not frame["one_seed"].any() and (frame["test"] == "paired").all()
    alone = of(tables.verdicts(study), stage="base").set_index(["task", "prompt_format"])
    assert alone.loc[("xsum", "default"), "verdict"] in ("undecided", "not learned")  # its chance level is high here
    spread = of(tables.seed_variance(study), checkpoint="toy@300", task="rte", **MAIN).iloc[0]
    scores = seeds_of(make(), step=300, task="rte", dataset="mnli", **MAIN)
    means = [each.mean() for each in scores]
    assert (spread["seeds"], spread["between_sd"]) == (2, pytest.approx(np.std(means, ddof=1)))
    within = np.mean([each.var(ddof=1) / N for each in scores])
    assert spread["within_sd"] == pytest.approx(within**0.5)
    assert spread["verdict_on_one_seed"] == "0: learned in fine-tuning; 1: learned in fine-tuning"
    assert spread["verdicts_agree"]


def test_transfer_weighs_tasks_the_same(study):
    gained, found = of(tables.gains(study), checkpoint="toy@300", **MAIN), of(tables.transfer(study), **MAIN)
    found = of(found, checkpoint="toy@300").set_index("relation")
    assert sorted(found.index) == ["benchmark", "cross_task", "id", "ood"]
    for relation, row in found.iterrows():
        rows = gained[gained["relation"] == relation]
        assert row["change"] == pytest.approx(rows["difference"].mean()) and row["tasks"] == len(rows)
        assert row["mrc"] == pytest.approx((rows["difference"] / rows["base"]).mean())
    lost = of(tables.forgetting(study), checkpoint="toy@300", **MAIN)
    assert sorted(lost["relation"]) == ["benchmark", "cross_task"]
    assert lost.set_index("relation").loc["cross_task", "change"] == pytest.approx(0.3 - 0.62, abs=0.05)


def test_turning_points_and_best_buys(study):
    turned = of(tables.turning(study), task="mnli_matched", **MAIN).iloc[0]
    values = of(study.points, task="mnli_matched", dataset="mnli", **MAIN)["value"].to_numpy()
    at = int(stats.turning_points(values))
    assert (turned["turning_tuned"], turned["before_tuned"]) == (f"toy@{STEPS[at]}", f"toy@{STEPS[at - 1]}")
    assert turned["still_rising_tuned"] == (at == 3) and 0 < turned["share_tuned"] <= 1
    assert turned["overlap"] == (turned["turning_base"] == turned["turning_tuned"])
    alone = of(tables.turning(study), stage="base")
    assert len(alone) == 0  # every task was tuned for
    bought = of(tables.best_buy(study), task="rte", **MAIN).iloc[0]
    values = of(study.points, task="rte", dataset="mnli", **MAIN)["value"].to_numpy()
    first = next(at for at, value in enumerate(values) if value >= values.max() - 0.02)
    assert (bought["checkpoint"], bought["tokens_b"]) == (f"toy@{STEPS[first]}", STEPS[first] / 100)
    assert (bought["score"], bought["best_score"]) == pytest.approx((values[first], values.max()))


def test_curves_that_turn_at_different_checkpoints_are_apart():
    lines, hard = Lines(), np.random.default_rng(0).random(300)
    for at, step in enumerate(STEPS):
        for task, levels in (("rte", (0.2, 0.6, 0.6, 0.6)), ("gpt3nli", (0.4, 0.4, 0.4, 0.4))):
            lines.add(step, task, hard < levels[at])
            lines.add(step, task, hard < 0.2 + 0.2 * at, "mnli", 0)
        lines.add(step, "paws", hard < levels[at])
    found = tables.turning(lines.study()).set_index("task")
    assert found["turning_base"].to_dict() == {"rte": "toy@30", "gpt3nli": "toy@10", "paws": "toy@10"}
    assert found["before_base"].to_dict() == {"rte": "toy@10", "gpt3nli": "", "paws": ""}
    assert found["turning_tuned"].to_dict() == {"rte": "toy@300", "gpt3nli": "toy@300", "paws": ""}
    assert found["still_rising_tuned"].to_dict() == {"rte": True, "gpt3nli": True, "paws": None}
    assert found["apart"].to_dict() == {"rte": True, "gpt3nli": True, "paws": None}
    assert (found.loc["rte", "share_tuned"], found.loc["rte", "share_overlap"]) == (1, 0)


def test_best_buy_of_a_dataset_is_that_of_its_own_tasks_mean():
    lines = Lines()
    levels = {"mnli_matched": (0.3, 0.5, 0.8), "mnli_mismatched": (0.4, 0.9, 0.61)}
    for at, step in enumerate(STEPS[:3]):
        for number, (task, level) in enumerate(levels.items()):
            lines.add(step, task, right(level[at], number + 10 * at), "mnli", 0)
    found = tables.best_buy(lines.study())
    own = of(found, task="mean of id tasks").iloc[0]
    means = np.mean([[each.mean() for each in seeds_of(lines, task=task)] for task in levels], axis=0)
    assert len(found) == 3 and own["best_score"] == pytest.approx(means.max())
    assert own["checkpoint"] == f"toy@{STEPS[int(stats.best_buys(means))]}"


def test_formats_and_their_trend(study):
    frame = tables.formats(study)
    base = of(frame, stage="base", task="xsum", checkpoint="toy@300").iloc[0]
    assert (base["best"], base["worst"], base["formats"]) == ("default", "instruct", "default, instruct")
    assert base["range"] == pytest.approx(0.2, abs=0.01) and base["range_low"] <= base["range"] <= base["range_high"]
    assert "arc_easy" not in set(frame["task"])  # one format alone
    tuned = of(frame, stage="sft")
    assert (tuned["range_observed"] == 0).all() and (tuned["range_high"] == 0).all() and len(tuned) == 4 * 3 * 2
    means = of(tables.format_means(study), checkpoint="toy@300").iloc[0]
    own = of(frame, stage="base", checkpoint="toy@300").set_index("task")["range_observed"]
    plain = (own["rte"] + own["mnli_matched"]) / 2
    assert means[["tasks", "tasks_expected", "tunings", "tunings_expected"]].tolist() == [2, 2, 4, 4]
    assert means["base"] == pytest.approx(plain, abs=0.03)
    trend = tables.format_trend(study).set_index(["stage", "task", "learning_rate"])["slope"]
    assert trend.loc[("sft", "rte", 2e-5)] == 0
    slope = np.polyfit(np.log10(np.array(STEPS) / 100), of(frame, stage="base", task="xsum")["range"], 1)[0]
    assert of(tables.format_trend(study), stage="base", task="xsum")["slope"].iloc[0] == pytest.approx(slope, abs=0.01)
    assert "mean of tasks" in trend.index.get_level_values("task")


def test_transitions_and_trajectories(study):
    lines = make()
    row = of(tables.transitions(study), task="rte", checkpoint="toy@100", **MAIN).iloc[0]
    (base,) = seeds_of(lines, stage="base", task="rte", step=100, prompt_format="default")
    tuned = np.mean(seeds_of(lines, dataset="mnli", task="rte", step=100, **MAIN), axis=0)
    assert row["wrong_right"] == pytest.approx(np.mean((1 - base) * tuned))
    assert row["right_wrong_by_chance"] == pytest.approx(base.mean() * (1 - tuned.mean()))
    assert "xsum" not in set(tables.transitions(study)["task"])
    found = of(tables.trajectories(study), task="rte", **MAIN)
    answers = np.array(
        [seeds_of(lines, stage="base", task="rte", step=step, prompt_format="default")[0] for step in STEPS]
    )
    late = [answers[at:].all(axis=0).mean() for at in range(4)]
    assert found["base_learned"].tolist() == pytest.approx(late)
    assert found["base_new"].sum() == pytest.approx(late[-1]) and len(found) == 4
    both = np.array([np.mean(seeds_of(lines, dataset="mnli", task="rte", step=step, **MAIN), axis=0) for step in STEPS])
    assert found["lost"].tolist() == pytest.approx(((answers == 1) & (both <= 0.5)).mean(axis=1).tolist())


def test_rates_that_change_a_conclusion_are_flagged(study):
    found = of(tables.rates(study), prompt_format="default")
    last = of(found, checkpoint="toy@300", task="mnli_matched").iloc[0]
    assert (last["fixed_rate"], last["best_rate"], last["rates"]) == (2e-5, 2e-5, "2e-06, 2e-05")
    values = of(study.points, task="mnli_matched", checkpoint="toy@300", prompt_format="default")
    assert last["best"] == values[values["stage"] == "sft"]["value"].max()
    assert last["base"] == values[values["stage"] == "base"]["value"].iloc[0]
    assert {"rte", "mnli_matched", "xsum"} == set(found["task"]) and not found["flips"].any()  # more, and less
    first = of(found, checkpoint="toy@10", task="rte").iloc[0]
    said = dict(each.split(": ") for each in first["verdicts"].split("; "))
    assert set(said) == {"2e-06", "2e-05"}


def test_rates_contradict_each_other_where_one_gains_and_one_loses():
    lines = Lines()
    for step in (10, 300):
        lines.add(step, "rte", right(0.5, 1, 400))
        for rate, level in ((2e-6, 0.52), (2e-5, 0.9), (2e-4, 0.1 if step == 300 else 0.5)):
            lines.add(step, "rte", right(level, 1, 400), "mnli", 0, rate)
    found = tables.rates(lines.study()).set_index("checkpoint")
    judged = "learned in fine-tuning at 2e-05, not learned at 0.0002"
    assert found.loc["toy@10", "contradiction"] == judged and found["flips"].all()
    assert found.loc["toy@300", "contradiction"] == f"tuning gains at 2e-06, 2e-05 and loses at 0.0002; {judged}"


def test_a_format_trend_names_what_it_leaves_out():
    lines = Lines()
    for at, step in enumerate(STEPS):
        for number, name in enumerate(("default", "instruct")):
            lines.add(step, "xsum", text(0.3 + 0.1 * at * number, at), prompt_format=name)
            if (step, name) != (30, "instruct"):
                lines.add(step, "rte", right(0.6 - 0.1 * at * number, at), prompt_format=name)
            if step == 10:
                lines.add(step, "paws", right(0.6, number), prompt_format=name)
    found = tables.format_trend(lines.study()).set_index("task")
    columns = ["checkpoints", "checkpoints_expected", "missing"]
    assert found.loc["rte", columns].tolist() == [3, 4, "without toy@30"]
    assert found.loc["xsum", columns].tolist() == [4, 4, ""] and np.isnan(found.loc["paws", "slope"])
    assert found.loc["mean of tasks", ["tasks", "tasks_expected", "missing"]].tolist() == [2, 3, "without paws"]


def test_tuned_below_chance_is_said_beside_the_verdict():
    lines = Lines()
    for step in (10, 300):
        lines.add(step, "rte", right(0.24, 1, 400))
        lines.add(step, "rte", right(0.5 if step == 300 else 0.3, 2, 400), "mnli", 0)
    (row,) = tables.verdicts(lines.study()).to_dict("records")
    assert (row["verdict"], row["caveat"]) == ("learned in fine-tuning", "tuned is not above chance")
    assert (tables.verdicts(make().study())["caveat"] == "").all()


def test_gains_of_groups_count_a_task_of_several_rates_once(study):
    gained, judged = (of(table(study), prompt_format="default") for table in (tables.gains, tables.verdicts))
    judged = judged.assign(verdict="both")
    last = of(group_gains(gained, judged), checkpoint="toy@300").iloc[0]
    own = of(gained, checkpoint="toy@300")
    own = own[own["relation"].isin(("id", "ood"))]
    assert (last["tasks"], last["n"]) == (2, 2 * N) and last["change"] == pytest.approx(own["difference"].mean())


def test_shot_curves_are_compared_with_four_shots():
    lines = Lines()
    for shots, level in ((0, 0.3), (2, 0.5), (4, 0.7), (6, 0.8)):
        lines.add(10, "rte", right(level, 3), num_shots=shots)
        lines.add(10, "cnn", text(level, 4), num_shots=shots) if shots < 4 else None
    found = tables.shots(lines.study())
    rte = of(found, task="rte").set_index("num_shots")
    assert (rte["against"] == 4).all() and len(found) == 6
    assert rte.loc[4, ["difference", "difference_low", "difference_high", "p"]].tolist() == [0, 0, 0, 1]
    assert rte.loc[0, "difference"] == pytest.approx(right(0.3, 3).mean() - right(0.7, 3).mean())
    assert (of(found, task="cnn")["against"] == 0).all()


@pytest.mark.parametrize("asked", ["num_shots", "prompt_format"])
def test_what_one_seed_alone_was_asked_is_compared_with_that_seed(asked):
    """Seed 0 answers both ways alike, seed 1, asked one way only, is right far more often: not the prompt's doing."""
    way = {"num_shots": (4, 0), "prompt_format": ("default", "io")}[asked]
    lines = Lines()
    for step in (10, 30):
        mine = right(0.3, step)
        lines.add(step, "rte", mine, "mnli", 0, **{asked: way[0]})
        lines.add(step, "rte", mine, "mnli", 0, **{asked: way[1]})
        lines.add(step, "rte", right(0.9, step + 1), "mnli", 1, **{asked: way[0]})
    if asked == "num_shots":
        found = tables.shots(lines.study())
        assert len(found) == 4 and (found["difference"] == 0).all() and (found["seeds_compared"] == 1).all()
        assert of(found, num_shots=4)["value"].min() > of(found, num_shots=0)["value"].max() + 0.1  # the mean of both
    else:
        found = tables.formats(lines.study())
        assert len(found) == 2 and (found["range_observed"] == 0).all()
        assert tables.format_trend(lines.study())["slope"].abs().max() < 1e-9

    lines = Lines()  # no seed in common
    lines.add(10, "rte", right(0.3, 1), "mnli", 0, **{asked: way[0]})
    lines.add(10, "rte", right(0.9, 2), "mnli", 1, **{asked: way[1]})
    if asked == "num_shots":
        found = of(tables.shots(lines.study()), num_shots=0)
        assert found["difference"].isna().all() and (found["seeds_compared"] == 0).all() and len(found) == 1
    else:
        found = tables.formats(lines.study())
        assert list(found["missing"]) == ["no seed that all formats have"] and found["range"].isna().all()


def test_checkpoints_are_in_the_order_of_tokens():
    """Steps of a second stage begin again; what has no tokens comes last."""
    lines = Lines()
    places = {"stage1-900": (900, 9.0), "stage2-10": (10, 10.0), "stage2-20": (20, 11.0), "main": (None, None)}
    for number, (name, (step, tokens)) in enumerate(places.items()):
        for dataset in ("", "mnli"):
            level = 0.2 + 0.2 * number
            place = {"step": step, "tokens_b": tokens, "checkpoint": f"toy@{name}"}
            lines.add(0, "rte", right(level, number), dataset, 0, **place)
    study = lines.study()
    assert study.checkpoints == {"toy": [f"toy@{name}" for name in places]}
    judged = tables.verdicts(study).iloc[0]
    assert (judged["first"], judged["last"]) == ("toy@stage1-900", "toy@main")
    assert of(study.points, stage="base")["order"].tolist() == [0, 1, 2, 3]


def test_only_common_examples_are_compared():
    """A cell that was scored on fewer examples, and seeds that were scored on different ones."""
    lines = Lines()
    for step in (10, 20):
        lines.add(step, "rte", right(0.5, step))
        lines.add(step, "rte", right(0.6, step + 1)[:40], "mnli", 0)
        ids = [f"{number:04d}" for number in range(20, 80)]
        lines.add(step, "rte", right(0.6, step + 2), "mnli", 1, ids=ids)
    study = lines.study()
    points = of(study.points, stage="sft")
    assert (points["n"] == 20).all() and points["missing"].tolist() == ["40 examples that not every seed has"] * 2
    both = (right(0.6, 11)[20:40] + right(0.6, 12)[:20]) / 2
    assert points["value"].iloc[0] == pytest.approx(both.mean())
    gained = tables.gains(study).iloc[0]
    assert (gained["n"], gained["n_unpaired"]) == (20, 40)
    assert gained["difference"] == pytest.approx(both.mean() - right(0.5, 10)[20:40].mean())
    judged = tables.verdicts(study).iloc[0]
    assert (judged["n"], judged["n_unpaired"], judged["missing"]) == (20, 40, "")
    pair = np.array([[0, 2]])
    (which, scores, unpaired), *more = together(study, pair)
    assert (which.tolist(), scores.shape, unpaired, more) == ([0], (1, 2, 20), 40, [])


def test_a_seed_that_one_end_lacks_is_no_seed_of_the_curve():
    lines = Lines()
    for step, seeds in ((10, (0, 1)), (300, (0, 1, 2))):
        lines.add(step, "rte", right(0.5, step))
        for seed in seeds:
            lines.add(step, "rte", right(0.5 + step / 1000, 7 * step + seed), "mnli", seed)
    found = of(tables.seed_variance(lines.study()), checkpoint="toy@300", task="rte")
    assert found["seeds"].tolist() == [3] and found["verdict_on_one_seed"].str.contains("2").tolist() == [False]


def test_one_answer_to_all_questions_is_not_learned():
    """Of yes and no one may be right more often: always giving it is what chance allows."""
    lines, yes = Lines(), np.arange(N) % 3 > 0
    for step, scores in ((10, ~yes), (300, yes)):
        lines.add(step, "boolq", scores.astype(float))
    sheets = lines.sheets()
    sheets = [replace(each, target=np.where(yes, "yes", "no"), chance=np.full(N, 0.5)) for each in sheets]
    study = collect(lines.table(), sheets)
    assert study.points["chance"].tolist() == pytest.approx([2 / 3] * 2)
    verdict = tables.verdicts(study).iloc[0]
    assert verdict["verdict"] != "learned in pre-training" and verdict["above_chance"] == pytest.approx(0)


def test_a_task_read_in_an_unusual_way_alone_is_shown():
    lines = Lines()
    for step in (10, 300):
        lines.add(step, "rte", right(0.5, step))
        lines.add(step, "paws", right(0.5, step), method="free")
    study = lines.study()
    shown = at_usual(study.points, usual_settings(study.points, tables.main_setting(study)))
    assert sorted(set(shown["task"])) == ["paws", "rte"]


def test_names_in_words():
    rows = pd.DataFrame(
        {"family": "toy", "stage": ["base", "sft", "sft"], "dataset": ["", "mnli", "mnli"], "task": "rte"}
    ).assign(learning_rate=[float("nan"), 2e-5, 2e-6])
    said = [who(row, rows) for _, row in rows.iterrows()]
    assert said == ["rte", "mnli → rte at rate 2e-05", "mnli → rte at rate 2e-06"]
    assert verdict_sentence(pd.Series({"missing": "no BASE at Qwen2.5@main"}), {}) == "No BASE at Qwen2.5@main."
    tiny = pd.Series({"rise": -0.0001, "rise_low": -0.1, "rise_high": 0.1})
    assert interval_text(tiny, "rise").startswith("+0.000 [")


def test_nothing_in_common_is_said():
    lines = Lines()
    for step in (10, 20):
        lines.add(step, "rte", right(0.5, step))
        lines.add(step, "rte", right(0.6, 1), "mnli", 0, ids=[f"{number:04d}" for number in range(100, 160)])
    study = lines.study()
    assert tables.gains(study)["missing"].tolist() == ["no example in common"] * 2
    assert tables.verdicts(study)["missing"].tolist() == ["no example in common"]
    assert len(EVERY) == 16 and all(isinstance(getattr(tables, name)(study), pd.DataFrame) for name in EVERY)


def test_means_alone_are_compared_unpaired():
    """What published tables tell: a value and its standard error, no examples."""
    lines = make()
    study = collect(lines.table(), None, levels={"xsum": 0.1, "rte": 0.527, "mnli_matched": 0.354})
    assert all(each is None for each in study.examples)
    row = of(study.points, task="rte", stage="base", checkpoint="toy@10", prompt_format="default").iloc[0]
    (scores,) = seeds_of(lines, stage="base", task="rte", step=10, prompt_format="default")
    room = scipy_stats.norm.ppf(0.975) * scores.std() / N**0.5
    ends = (scores.mean() - room, scores.mean() + room)
    assert (row["low"], row["high"]) == pytest.approx(ends) and row["chance"] == 0.527
    gained = of(tables.gains(study), task="rte", checkpoint="toy@300", **MAIN).iloc[0]
    assert gained["test"] == "unpaired" and gained["difference"] == pytest.approx(gained["tuned"] - gained["base"])
    judged = of(tables.verdicts(study), prompt_format="default").set_index(["stage", "task", "learning_rate"])
    assert judged.loc[("sft", "mnli_matched", 2e-5), "verdict"] == "learned in fine-tuning"
    assert (judged["test"] == "unpaired").all()
    trend, mean = tables.format_trend(study), tables.format_means(study)
    assert len(trend) and mean["base"].notna().all() and (tables.turning(study)["share_base"] > 0).any()
    assert len(tables.transitions(study)) == len(tables.trajectories(study)) == len(tables.seed_variance(study)) == 0


ODD = {  # name -> which lines of the study are there
    "base_alone": lambda row: row["stage"] == "base",
    "tuned_alone": lambda row: row["stage"] == "sft",
    "one_cell": lambda row: row["cell_id"] == "10--2e-05-None",
    "one_checkpoint": lambda row: row["step"] == 10,
    "no_last_tuned": lambda row: row["step"] < 300 or row["stage"] == "base",
    "a_seed_lost": lambda row: (row["step"], row["seed"]) != (100, 1),
}


@pytest.fixture(scope="module")
def columns(study):
    """The columns of every table."""
    return {each: list(getattr(tables, each)(study).columns) for each in EVERY}


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_odd_studies_have_every_table(name, means, columns):
    whole, lines = make(), Lines()
    for row, scores, ids in zip(whole.rows, whole.scores, whole.ids, strict=True):
        if ODD[name](row):
            lines.rows.append(row), lines.scores.append(scores), lines.ids.append(ids)
    odd = collect(lines.table(), None if means else lines.sheets(), dict.fromkeys(TASKS, 0.5))
    for each in EVERY:
        found = getattr(tables, each)(odd)
        assert list(found.columns) == columns[each], each
    judged = tables.verdicts(odd)
    assert ((judged["verdict"] != "no verdict") == (judged["missing"] == "")).all()
    gained = tables.gains(odd)
    assert (gained["difference"].notna() | (gained["missing"] != "")).all()
    if name == "a_seed_lost":
        assert "seed 1" in set(gained["missing"]) and (of(gained, missing="seed 1")["seeds"] == 1).all()
    if name in ("base_alone", "one_cell"):
        assert len(gained) == 0 and (judged["stage"] == "base").all()
    if name == "tuned_alone":
        assert (gained["missing"] == "no BASE").sum() == (gained["tuned"].notna()).sum() > 0


def test_a_value_alone_needs_its_standard_error():
    lines = Lines()
    lines.add(10, "rte", right(0.5, 1), "mnli", 0, stderr=None)
    with pytest.raises(ValueError, match="1 rows without a standard error, the first: toy@10 sft mnli rte"):
        collect(lines.table(), None)


def test_what_only_the_last_checkpoint_was_asked_is_no_gap():
    lines = Lines()
    for step in STEPS:
        lines.add(step, "rte", right(0.5, 1))
        lines.add(step, "rte", right(0.5, 2), "mnli", 0) if step != 30 else None
    lines.add(STEPS[-1], "rte", right(0.5, 3), "mnli", 0, method="free")
    found = tables.overview(lines.study()).set_index("stage")
    assert found["missing"].to_dict() == {"base": 0, "sft": 1}
    assert found.loc["sft", ["points", "checkpoints", "checkpoints_expected"]].tolist() == [4, 3, 4]


def test_runs_that_differ_in_more_than_their_seed_are_refused():
    lines = Lines()
    for cell in ("a", "b"):
        lines.add(10, "rte", right(0.5, 1), "mnli", 0, cell_id=cell)
    with pytest.raises(ValueError, match="toy@10 sft mnli rte: cells a, b differ in more than seed"):
        lines.study()


def test_main_setting_is_what_the_tuned_have():
    lines = make()
    for step in STEPS:
        for task in ("boolq", "sciq", "hellaswag"):
            lines.add(step, task, right(0.5, 1), num_shots=4)
    study = lines.study()
    setting = tables.main_setting(study)
    assert (setting["prompt_format"], setting["num_shots"]) == ("default", 0)
