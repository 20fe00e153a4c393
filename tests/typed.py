"""Commands as documents show them: found in a page or on top of a sweep, and parsed by the program they name.

    for command in commands(ROOT / "README.md"):
        parse(command)                                 fails where the program would refuse it

Nothing is executed. Of `git`, `pip` and `pre-commit`, which are none of ours, only the files are looked at. The working
folder has to be the repository's root.
"""

import argparse
import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
from conftest import ROOT

from amuro import cli, rates
from amuro.programs import load_program
from amuro.registry.families import families, family
from amuro.running.grids import read

PROGRAMS = "accelerate amuro cd git lm_eval make pip pre-commit python sbatch wandb".split()
START = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)})(?= |$)|export (?=[A-Z])|\. \S+activate\b")
EXAMPLES = {"--tasks snli": "--tasks rte", "--dataset snli": "--dataset mnli", "--tasks ag_news": "--tasks rte"}
ELSE = ("...", "…")  # stands in a command for flags that are not shown
MADE = re.compile(r"[A-Z]+|path/to/\S+|my_llama\.yaml|mine\.jsonl|mirror|cells\.sh")  # what a reader has in its place


program = cache(load_program)


# ---- finding commands


def commands(path: Path) -> list[str]:
    """The commands of a document or a sweep's comments, `&&` taken apart."""
    text = re.sub(r" *\\\n[# ]*", " ", path.read_text(encoding="utf-8"))
    found = of_comments(text) if path.suffix in (".yaml", ".sbatch") else of_page(text)
    return [part.strip() for command in found for part in command.split("&&")]


def of_page(text: str) -> list[str]:
    """Indented and fenced (sh) blocks whose first line is a command, and code in a line that begins with one."""
    text = re.sub(r"^```(?!sh)\w*\n.*?^```$", "", text, flags=re.M | re.S)
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    blocks += re.findall(r"(?:(?<=\n\n)|\A)((?:    \S.*\n)+)", text)
    lines = [[re.split(r" {2,}", line.strip())[0] for line in block.splitlines()] for block in blocks]
    for block in lines:  # a file tree, or commands and nothing else
        assert len({bool(START.match(line)) for line in block}) == 1, block
    found = [line for block in lines for line in block if START.match(line)]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^(    |```).*$", "", text, flags=re.M))
    return found + [code for code in inline if START.match(code) and " " in code]


def of_comments(text: str) -> list[str]:
    """Commands of the comments on top: at a line's start, after a colon, or in backticks."""
    text = re.split(r"^(?:set -|\w+:)", text, maxsplit=1, flags=re.M)[0]
    lines = [re.sub(r"^#(!|SBATCH).*", "", line).lstrip("# ") for line in text.splitlines()]
    parts = [part for line in lines for part in re.split(r"[^,]*: +(?=sbatch |wandb |python )", line)]
    parts = [re.split(r" {2,}|, | \(", part)[0].rstrip(",") for part in parts if START.match(part)]
    return parts + re.findall(r"`((?:amuro|python) [^`]+)`", "\n".join(lines))


# ---- parsing them


def parse(command: str) -> str:
    """Parse a command as its program does; returns the program's name. Fails where it would fail."""
    for new, known in EXAMPLES.items():
        command = command.replace(new, known)
    words = shlex.split(re.sub(r" > \S+| \[flags.*?\]", "", command), comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        known_variable(words.pop(0))
    name, rest = words[0], [word for word in words[1:] if word not in ELSE]
    whole = len(rest) == len(words) - 1 and len(rest) > 0
    for word in rest:
        place = word.partition("=")[2] or word
        if re.match(r"(sweeps|eval|bench|docs|analysis|tests|amuro)/", place):
            assert list(ROOT.glob(place)), f"{command}: no {place}"
        check_reference(word)
    {
        "accelerate": accelerate,
        "amuro": lambda rest, whole: click(typer.main.get_command(cli.app), rest),
        "export": lambda rest, whole: known_variable(rest[0]),
        "lm_eval": lm_eval,
        "make": make,
        "python": python,
        "sbatch": sbatch,
        "wandb": wandb,
    }.get(name, lambda rest, whole: None)(rest, whole)
    return name


def known_variable(word: str) -> None:
    name = word.partition("=")[0]
    ours = any(name in path.read_text(encoding="utf-8") for path in (ROOT / "amuro").rglob("*.py"))
    assert ours or name in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS"), f"{name} is read nowhere"


def check_reference(word: str) -> None:
    """A checkpoint in a command is one of a known family, a repository, or what the reader has."""
    for reference in word.removeprefix("checkpoint=").split(","):
        name, _, point = reference.rpartition("@")
        if name and point:
            there = name in families() or name == "nursery" or "/" in name or MADE.fullmatch(name)
            assert there, f"{reference}: no such family"


def python(words: list[str], whole: bool) -> None:
    path = f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else words[0]
    rest = [word for word in words[2 if words[0] == "-m" else 1 :] if word not in ("--help", "--help_all")]
    if path in ("train_sft.py", "train_instruct.py", "eval/run.py"):
        script = program(path)
        script.read(rest) if whole and rest else script.settings.check_flags(rest, script.make_parser())
    elif path in ("analysis/report.py", "analysis/paper.py", "analysis/wandb_report.py"):
        module = __import__(words[1], fromlist=["make_parser"])
        module = __import__(f"{words[1]}.__main__", fromlist=["make_parser"]) if hasattr(module, "__path__") else module
        module.make_parser().parse_args(rest) if whole and rest else None
    elif path == "pytest.py":
        assert all((ROOT / word).exists() for word in rest if not word.startswith("-"))
    else:
        assert path.startswith("bench/") or path == "amuro/demo.py", path
        only_parse(path, rest)


class Parsed(Exception):
    """The arguments were taken."""


def only_parse(path: str, words: list[str]) -> None:
    """Run a script up to the end of its parsing."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, *given):
        real(self, words)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr("sys.argv", [path, *words])
        patch.syspath_prepend(ROOT / "bench")
        runpy.run_path(path, run_name="__main__")


def click(command, words: list[str]) -> None:
    """Parse by Click's own rules (Typer's and W&B's); a command named alone has to exist."""
    words = [word for word in words if word != "--help"]
    if hasattr(command, "commands"):
        context = command.make_context(command.name, list(words)) if words else None
        if context:
            name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            click(inner, rest)
        return
    if not words:
        return
    given = command.make_context(command.name, list(words)).params
    if command.name in ("plan", "run", "status", "sweep"):
        files = given.get("files") or [given["config_yaml_or_sweep_id"]] if command.name == "sweep" else given["files"]
        files = [place for file in files or [] if not MADE.fullmatch(str(file)) for place in ROOT.glob(str(file))]
        assert read(files, given.get("only") or ()) or not files
    if command.name == "rates":
        rates.read_rates(given["learning_rates"])
        train_sft = program("train_sft.py")
        flags = given["flags"] or []
        train_sft.read([f"--checkpoint={given['checkpoint']}", f"--dataset={given['dataset']}", *flags])
    if command.name in ("list", "select", "audit") and not MADE.fullmatch(given["name"]):
        assert family(given["name"])


def wandb(words: list[str], whole: bool) -> None:
    from wandb.cli.cli import cli as wandb_cli

    click(wandb_cli, words)


def lm_eval(words: list[str], whole: bool) -> None:
    from lm_eval._cli.harness import HarnessCLI

    given = HarnessCLI()._parser.parse_args(["run", *words])
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "eval" / "tasks").glob("*.yaml")]
    known = {word for text in files for word in re.findall(r"[\w-]+", re.search(r"task: .+\ntag: .+", text)[0])}
    for name in given.tasks if isinstance(given.tasks, list) else given.tasks.split(","):
        assert name in {*known, "amuro_*"}, f"no task or tag {name}"


def make(words: list[str], whole: bool) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if equals else rf"^{name}:.*##", text, re.M), word


def sbatch(words: list[str], whole: bool) -> None:
    at = next(n for n, word in enumerate(words) if not word.startswith("-"))
    assert all(re.fullmatch(r"--(nodes=\d+|array=\d+-\d+)", word) for word in words[:at]), words
    rest = words[at + 1 :]
    if words[at].endswith("ray.sbatch"):
        click(typer.main.get_command(cli.app), ["run", "--address", "auto", *rest])
    else:
        assert words[at].endswith("agents.sbatch")
        wandb(["agent", *rest], whole)


def accelerate(words: list[str], whole: bool) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert words.pop(0) == "launch"
    given = launch_command_parser().parse_args(words)
    assert given.config_file is None or (ROOT / given.config_file).is_file()
    python([*["-m"] * bool(given.module), given.training_script, *given.training_script_args], whole)
