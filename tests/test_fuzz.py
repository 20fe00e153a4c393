"""Parsers under random text: whatever is written, they take it or say what is wrong in a ValueError; and what they take
reads back as it was.

The examples are the same in every run; `FUZZ=5000 pytest tests/test_fuzz.py` takes more of them, new ones.
"""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_settings import train_sft

from amuro import checkpoints, data, lineage, strict
from amuro.cells import Cell
from amuro.conversations import tidy
from amuro.recipes import read_recipe
from amuro.registry.families import family, parse_revision
from amuro.registry.family_files import read_family
from amuro.registry.findings import file_name
from amuro.run_config import named, normal
from amuro.running import grids
from amuro.tasks import TASKS

EXAMPLES = int(os.environ.get("FUZZ", "40"))
settings.register_profile(
    "here",
    max_examples=EXAMPLES,
    derandomize="FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("here")

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # halves of surrogate pairs too
WRITTEN = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029\ufeff"), max_size=20
)
NUMBERS = st.integers() | st.floats()
PLAIN = st.none() | st.booleans() | NUMBERS | ANY
NESTED = st.recursive(
    PLAIN, lambda part: st.lists(part, max_size=3) | st.dictionaries(ANY, part, max_size=3), max_leaves=8
)
KEYS = st.sampled_from(
    "name repo folder pattern stages defects main tokens_b tokens_per_step count sizes repos".split()
)
FLAGS = st.sampled_from(
    "learning_rate seed dataset checkpoint per_device batch_size bf16 per_dataset recipe help".split()
)


def or_told(call):
    """What a call returns; None where it raises a ValueError (which the commands print in one line)."""
    try:
        return call()
    except ValueError as error:
        assert str(error).strip()
        return None


def write(path: Path, content) -> Path:
    """A file of JSON, or of text as it is."""
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# ---- sweeps

VALUES = st.lists(NUMBERS.map(str) | WRITTEN, min_size=1, max_size=3)
AXES = st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True), VALUES, min_size=1, max_size=3)


@given(AXES)
def test_a_sweep_reads_back(place, axes):
    """Quoted, every text that can be printed is a value as it is written; a command's flags give its key again."""
    sweep = {"program": "train_sft.py", "method": "grid", "parameters": {k: {"values": v} for k, v in axes.items()}}
    path = write(place / "s.yaml", yaml.safe_dump(sweep, default_style='"', allow_unicode=True, width=10_000))
    found = or_told(lambda: grids.expand([path]))
    if found is None:
        assert not all(v.isprintable() for values in axes.values() for v in values)
        return
    assert [dict(each.flags) for each in found[:1]] == [{name: values[0] for name, values in axes.items()}]
    for each in found[:4]:
        assert grids.of_argv(each.program, each.argv).key == each.key
        assert grids.of_argv(each.program, reversed(each.argv)).key == each.key


@given(st.dictionaries(st.sampled_from(grids.KEYS) | ANY, NESTED, max_size=5))
def test_any_mapping_as_a_sweep(place, content):
    or_told(lambda: grids.read([write(place / "m.yaml", content)]))


@given(ANY)
@example("a: &a [*a]")
@example("? [a]\n: b")
@example("!!set {a}")
@example("{" * 500)
@example("a: !!timestamp x\nparameters: {b: {value: 2026-99-99}}")
def test_any_text_as_yaml(place, text):
    path = write(place / "t.yaml", text)
    for read in (strict.read_yaml, lambda each: grids.read([each])):
        or_told(lambda read=read: read(path))


@given(NUMBERS.map(str) | ANY)
@example("9" * 5000)
@example("1e999")
@example("-0.0")
def test_one_spelling_of_a_number(text):
    """`plain` keeps the number, and its own result."""
    once = grids.plain(text)
    assert grids.plain(once) == once
    if re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", text, re.ASCII) and len(text) < 300:
        assert float(once) == float(text)


@given(st.lists(ANY | st.from_regex(r"--[a-z_]{1,8}(=[a-z0-9.]{0,5})?", fullmatch=True), max_size=6))
def test_any_command_line(argv):
    command = or_told(lambda: grids.of_argv("train_sft.py", argv))
    if command:
        assert re.fullmatch("[0-9a-f]{16}", command.key)
        assert grids.of_argv(command.program, command.argv).key == command.key


# ---- recipes, families, references


@pytest.fixture(scope="module")
def parser():
    return train_sft.make_parser()


@given(st.dictionaries(FLAGS | ANY, NESTED, max_size=4) | ANY)
def test_recipes(place, parser, content):
    path = write(place / "r.yaml", content)
    recipe = or_told(lambda: read_recipe(str(path), parser))
    if recipe:
        flags = {action.dest for action in parser._actions}
        assert set(recipe) <= flags | {"per_dataset"}


POINT = st.fixed_dictionaries({}, optional={"step": PLAIN, "tokens_b": PLAIN, "path": PLAIN, "more": PLAIN})
HISTORY = st.fixed_dictionaries({"name": PLAIN, "checkpoints": st.lists(POINT | PLAIN, max_size=3) | PLAIN})


@given(HISTORY | NESTED | ANY)
def test_family_files(place, content):
    write(place / "family.json", content)
    found = or_told(lambda: read_family(place))
    if found:
        assert re.fullmatch(r"[\w.-]{1,64}", found["name"], re.ASCII)
        assert all(each["step"] >= 0 and each["tokens_b"] >= 0 for each in found["checkpoints"])
    or_told(lambda: checkpoints.resolve(f"{place}@1"))


@given(st.dictionaries(KEYS | ANY, NESTED, max_size=5) | ANY)
@example({"name": "a", "repo": "a/b", "pattern": "(?P<step>" + "(" * 200})
def test_families_of_ones_own(place, content):
    or_told(lambda: family(str(write(place / "own.yaml", content))))


PATTERNS = st.sampled_from(
    [r"step(?P<step>\d+)", r"(?P<step>\d+)-(?P<tokens>[\d.]+[MBT])", r"(?P<stage>s\d)-(?P<step>\d+)"]
)


@given(PATTERNS, ANY | st.from_regex(r"(step)?\d{1,9}(-\d{1,4}[MBT])?", fullmatch=True))
def test_names_of_revisions(place, pattern, name):
    text = f"name: mine\nrepo: me/mine\npattern: '{pattern}'\n"
    mine = family(str(write(place / "mine.yaml", text)))
    found = or_told(lambda: parse_revision(mine, name))
    assert found is None or found[1] >= 0


@given(ANY, ANY)
@example("~nobody/x", "1")
@example("a/b", "../../c")
@example("a--b/c", "1")
@example("nursery", "9" * 5000)
@example("olmo-1b", "²")
def test_references(name, point):
    """Offline: nothing but local files can be found."""
    for reference in (f"{name}@{point}", name, f"lab/{name}@{point}", f"olmo-1b@{point}"):
        found = or_told(lambda reference=reference: checkpoints.resolve(reference))
        assert found is None


# ---- rows

TURN = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "assistant", "system"]) | PLAIN, "content": PLAIN}
)


@given(st.fixed_dictionaries({}, optional={"messages": st.lists(TURN | PLAIN, max_size=4) | NESTED, "id": NESTED}))
def test_conversations(row):
    found = or_told(lambda: tidy(row))
    if found:
        turns, _, reason = found
        assert reason or [turn["role"] for turn in turns[-2:]] == ["user", "assistant"]
        again = tidy({"messages": turns})
        assert reason or (again[0] == turns and not again[2])


@given(st.lists(NESTED | ANY, max_size=3), st.sampled_from(["train", "mine"]))
def test_files_of_conversations(place, rows, name):
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    or_told(lambda: data.conversation_rows(str(write(place / f"{name}.jsonl", lines)), None).digest)


@given(st.sampled_from(sorted(TASKS)), st.data())
def test_rows_of_every_task(task, drawn):
    """Every field of a task with anything in it: a row of texts, nothing, or a ValueError."""
    reading = TASKS[task].reading
    names = {*reading.fields.values(), reading.target, *([reading.choices] if reading.choices else [])}
    names |= {
        "answerA",
        "answerB",
        "answerC",
        "label",
        "ctx_a",
        "ctx_b",
        "activity_label",
        "distractor1",
        "distractor2",
    }
    names |= {"distractor3", "correct_answer"}
    fields = {
        name: NESTED | st.sampled_from([0, 1, "1", "A", {"text": ["a", "b"], "label": ["A", "B"]}]) for name in names
    }
    row = drawn.draw(st.fixed_dictionaries({}, optional=fields))
    ours = or_told(lambda: data.convert(reading, row))
    assert ours is None or all(isinstance(ours[name], str) for name in (*reading.fields, "target"))


@given(NESTED)
def test_json_reads_back(value):
    found = or_told(lambda: strict.parse_json(json.dumps(value), constants=True))
    if found is not None:
        assert json.dumps(found) == json.dumps(value)


# ---- names


def cell(**changed) -> Cell:
    about = {"family": "toy", "checkpoint": "toy@1", "step": 1, "tokens_b": 1.0, "base": "sha256:0"}
    return Cell(**about | changed)


@given(ANY, ANY, st.sampled_from(["", "mnli", "my-set.v1"]))
@example("../../evil", "..", "mnli")
@example("x" * 300, "x" * 300, "mnli")
def test_names_for_wandb_and_folders(group, checkpoint, dataset):
    """In the characters and lengths that W&B takes; a cell's folder is one of RUNS itself."""
    tuned = (
        {"stage": "sft", "dataset": dataset, "seed": 1, "hyperparameters": {"learning_rate": 1e-5}} if dataset else {}
    )
    one = cell(family=group, checkpoint=checkpoint, **tuned)
    assert re.fullmatch(r"[A-Za-z0-9_.-]*", lineage.plain(checkpoint)) and lineage.plain(lineage.plain(group)) == (
        lineage.plain(group)
    )
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", lineage.name_of(one)) and one.cell_id in lineage.name_of(one)
    about = named(one, "sft")
    assert len(about["name"]) <= 128 and len(about["group"]) <= 128 and all(len(tag) <= 64 for tag in about["tags"])
    assert one.folder("runs").parent == Path("runs") and one.folder("runs").name not in ("", ".", "..")
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,70}", file_name(group)) and Path(file_name(group)).name == file_name(
        group
    )


@given(PLAIN | st.lists(PLAIN, max_size=2))
def test_a_flags_value_in_a_sweep_is_its_own_spelling(value):
    """The value and how JSON and Python write it are one; NaN is never itself."""
    assume_same = not (isinstance(value, float) and value != value)
    if isinstance(value, bool | int | float) and assume_same and abs(value) < 10**4000:
        assert normal(str(value)) == normal(value)
    or_told(lambda: normal(str(value)))
