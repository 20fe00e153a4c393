"""Sweep YAMLs as grids: what they expand to, what is refused, and when two commands are one."""

import json
import re
import time

import pytest
import yaml

from amuro.running.grids import Command, expand, of_argv, plain, read, runs_of

HEAD = "program: train_sft.py\nmethod: grid\n"


def sweep(folder, parameters: str, head: str = HEAD, name: str = "a.yaml"):
    path = folder / name
    path.write_text(f"{head}parameters:\n" + "".join(f"  {line}\n" for line in parameters.splitlines()))
    return path


def test_a_grid_is_expanded_in_the_files_order_the_last_key_fastest(tmp_path):
    path = sweep(tmp_path, "checkpoint: {values: [toy@1, toy@2]}\nlimit: {value: 5}\ndataset: {values: [mnli, paws]}")
    commands = read([path])
    assert [command.argv for command in commands] == [
        [f"--checkpoint=toy@{step}", "--limit=5", f"--dataset={dataset}"]
        for step in (1, 2)
        for dataset in ("mnli", "paws")
    ]
    assert {(command.program, command.file) for command in commands} == {("train_sft.py", str(path))}
    assert commands[0].get("limit") == "5" and commands[0].get("seed") is None


SPELLINGS = [
    ("1e-5", "1.0e-5", "1e-05", "0.00001", "1.0E-5", "+1e-5"),
    ("3", "3.0", "3.", "+3", "3e0"),
    ("100000", "1e5", "100000.0"),
    ("true", "True", "TRUE"),
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_spellings_of_a_number_have_one_key(spellings):
    assert len({plain(text) for text in spellings}) == 1
    assert len({Command("train_sft.py", (("learning_rate", text),)).key for text in spellings}) == 1


def test_what_differs_has_another_key():
    texts = ["1", "true", "01", "1e", "x", "1e99999", "nan", "no", "", "None", "2", "0,2", "1e-7", "9007199254740993"]
    assert len({plain(text) for text in texts}) == len(texts)
    assert plain("9007199254740993") != plain("9007199254740992")


def test_flags_in_any_form_and_order_are_one_command():
    written = Command("train_sft.py", (("bf16", "true"), ("learning_rate", "1e-5"), ("checkpoint", "toy@1")))
    for argv in (
        ["--checkpoint", "toy@1", "--learning_rate", "1.0e-5", "--bf16"],
        ["--bf16", "--learning-rate=1e-05", "--checkpoint=toy@1"],
        ["--bf16", "True", "--learning_rate=7", "--learning_rate=0.00001", "--checkpoint=toy@1", "--runs=elsewhere"],
    ):
        assert of_argv("train_sft.py", argv).key == written.key
    assert re.fullmatch("[0-9a-f]{16}", written.key)
    assert Command("eval/run.py", written.flags).key != written.key
    assert of_argv("train_sft.py", written.argv).flags == written.flags
    assert of_argv("x", ["--lora_target_modules", "q", "k"]).flags == (("lora_target_modules", "q k"),)
    with pytest.raises(ValueError, match="a flag is expected"):
        of_argv("train_sft.py", ["mnli"])


def test_the_argv_of_an_agent_has_the_key_of_the_file(tmp_path):
    """W&B reads the file by YAML 1.1, sends it as JSON, and the agent writes --k=v."""
    path = sweep(tmp_path, "learning_rate: {values: [1e-5, 2.0e-6, 3]}\nbf16: {value: true}\nnum_shots: {value: '0'}")
    axes = json.loads(json.dumps(yaml.safe_load(path.read_text())["parameters"]))
    for command, rate in zip(read([path]), axes["learning_rate"]["values"], strict=True):
        agent = [f"--learning_rate={rate}", f"--num_shots={axes['num_shots']['value']}", f"--bf16={True}"]
        assert of_argv("train_sft.py", agent).key == command.key


def test_duplicates_are_dropped_and_the_first_is_kept(tmp_path):
    first = sweep(tmp_path, "dataset: {values: [mnli, paws]}\nlearning_rate: {value: 1e-5}")
    second = sweep(tmp_path, "learning_rate: {values: [1.0e-5, 2e-5]}\ndataset: {value: paws}", name="b.yaml")
    assert len(expand([first, second])) == 4
    kept = read([first, second])
    assert [(each.file[-6:], each.get("dataset"), each.get("learning_rate")) for each in kept] == [
        ("a.yaml", "mnli", "1e-5"),
        ("a.yaml", "paws", "1e-5"),
        ("b.yaml", "paws", "2e-5"),
    ]


def test_only_keeps_what_has_one_of_the_values_of_each_name(tmp_path):
    path = sweep(tmp_path, "dataset: {values: [mnli, paws, xsum]}\nlearning_rate: {values: [1e-5, 2e-6]}")
    assert len(read([path], ["dataset=mnli"])) == 2
    assert len(read([path], ["dataset=mnli", "dataset=paws", "learning_rate=0.00001"])) == 2
    for only, told in (
        (["dataset"], "write NAME=VALUE"),
        (["dataset=mnlii"], "of dataset there are mnli, paws, xsum"),
        (["datset=mnli"], "did you mean dataset?"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            read([path], only)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("no", 'YAML 1.1 reads no as true or false; write it out or quote it: "no"'),
        ("off", "reads off as true or false"),
        ("yes", "reads yes as true or false"),
        ("010", "reads 010 as another number"),
        ("0x10", "reads 0x10 as another number"),
        ("1_000", "reads 1_000 as another number"),
        ("1:30", "reads 1:30 as another number"),
        (".inf", "reads .inf as another number"),
        ("2026-11-21", "reads 2026-11-21 as a date"),
        ("null", "limit: is empty or null, which no flag takes; leave the key out"),
        ("", "limit: is empty or null"),
        ("{a: 1}", "limit: {'a': '1'} is nested; a grid is flat"),
        ("[1, 2]", "limit: ['1', '2'] is nested; a grid is flat"),
    ],
)
def test_what_yaml_reads_as_something_else_is_refused(tmp_path, value, told):
    path = sweep(tmp_path, f"dataset: {{value: mnli}}\nlimit: {{value: {value}}}")
    with pytest.raises(ValueError) as error:
        read([path])
    assert told in str(error.value) and str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    quoted = sweep(tmp_path, f'dataset: {{value: mnli}}\nlimit: {{value: "{value}"}}')
    assert read([quoted])[0].get("limit") == value


@pytest.mark.parametrize(
    ("head", "parameters", "told"),
    [
        ("program: train_stf.py\nmethod: grid\n", "a: {value: 1}", "did you mean train_sft.py?"),
        ("program: /bin/sh\nmethod: grid\n", "a: {value: 1}", "allowed: train_sft.py"),
        ("program: train_sft.py\nmethod: random\n", "a: {value: 1}", "write method: grid"),
        (HEAD + "methd: grid\n", "a: {value: 1}", "methd: unknown; did you mean method?"),
        (HEAD + "metric: {name: loss}\n", "a: {value: 1}", "metric: unknown"),
        (HEAD + "command: [sh, -c, x]\n", "a: {value: 1}", "command: leave it out"),
        (HEAD + "name: x\nname: y\n", "a: {value: 1}", "line 1: name is there more than once"),
        (HEAD, "a: {value: 1}\na: {value: 2}", "a is there more than once"),
        (HEAD, "a: 5", "a: has '5'; in a flat grid it has either value: ... or values: [...]"),
        (HEAD, "a: {min: 0, max: 1}", "a: has min, max; in a flat grid"),
        (HEAD, "a: {parameters: {b: {value: 1}}}", "a: has parameters; in a flat grid"),
        (HEAD, "a: {values: []}", "values must be a list"),
        (HEAD, "a: {values: 5}", "values must be a list"),
        (HEAD, "learning-rate: {value: 5}", "learning-rate: flags are written in snake_case"),
    ],
)
def test_what_is_no_flat_grid_is_refused(tmp_path, head, parameters, told):
    with pytest.raises(ValueError) as error:
        read([sweep(tmp_path, parameters, head)])
    assert told in str(error.value) and "\n" not in str(error.value)


def test_all_problems_of_all_files_are_told_at_once(tmp_path):
    one = sweep(tmp_path, "a: {value: no}\nb: 5", "program: x.py\nmethod: grid\n")
    two = sweep(tmp_path, "a: {value: 1}", HEAD + "nme: x\n", "b.yaml")
    with pytest.raises(ValueError) as error:
        read([one, two, tmp_path / "c.yaml"])
    for told in (
        "reads no",
        "b: has '5'",
        "program 'x.py'",
        "nme: unknown; did you mean name?",
        "c.yaml: no such file",
    ):
        assert told in str(error.value)


def test_text_that_is_no_sweep_is_refused(tmp_path):
    for text, told in (("", "is a mapping"), ("- a\n", "is a mapping"), ("a: [", "not YAML"), (HEAD, "parameters: a")):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ValueError, match=told):
            read([tmp_path / "a.yaml"])
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not YAML"):
        read([tmp_path / "a.yaml"])


def test_the_standard_command_and_the_other_keys_of_wandb_are_taken(tmp_path):
    head = HEAD + "name: a\ndescription: b\nproject: c\n"
    head += 'command: ["${env}", "${interpreter}", "${program}", "${args}"]\n'
    assert len(read([sweep(tmp_path, "dataset: {values: [mnli, paws]}", head)])) == 2


def test_where_commands_write(tmp_path):
    one = [Command("train_sft.py", (("runs", "there"),))]
    assert str(runs_of([])) == "runs" and str(runs_of(one)) == "there" and runs_of(one, tmp_path) == tmp_path
    with pytest.raises(ValueError, match="write to runs, there; give --runs"):
        runs_of([*one, Command("train_sft.py", ())])


def test_ten_thousand_points_are_read_in_seconds(tmp_path):
    steps, seeds = ", ".join(f"toy@{n}" for n in range(500)), ", ".join(map(str, range(20)))
    path = sweep(tmp_path, f"checkpoint: {{values: [{steps}]}}\nseed: {{values: [{seeds}]}}\nlimit: {{value: 3}}")
    started = time.perf_counter()
    assert len(read([path])) == 10_000
    assert time.perf_counter() - started < 5
