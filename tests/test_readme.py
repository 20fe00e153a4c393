"""What the documents say can be typed: every command of README and the task README is known and parses."""

import re
import shlex

from conftest import ROOT
from test_settings import eval_run, train_sft

from amuro import rates, settings
from amuro.programs import load_program
from amuro.tasks import TASKS

train_instruct = load_program("train_instruct.py")


def commands(path: str) -> list[list[str]]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return [shlex.split(line.strip(), comments=True) for line in re.findall(r"^    (?=\S)(.+)$", text, re.M)]


def test_every_command_parses(tmp_path):
    seen, conversations = 0, tmp_path / "mine.jsonl"
    conversations.write_text("{}")
    for path in ("README.md", "eval/tasks/README.md"):
        for words in commands(path):
            if words[:2] == ["accelerate", "launch"] and "train_sft.py" in words:
                assert (ROOT / words[3]).is_file() and words[2] == "--config_file"
                words = ["python", *words[4:]]
            if words[:2] == ["python", "train_sft.py"]:
                settings.parse(train_sft.make_parser(), [word for word in words[2:] if word != "--help"], stage="sft")
            elif words[:2] == ["python", "train_instruct.py"]:
                given = [str(conversations) if word == "mine.jsonl" else word for word in words[2:]]
                settings.parse(train_instruct.make_parser(), given, stage="instruct")
            elif words[:2] == ["amuro", "rates"]:
                assert len(rates.read_rates(words[words.index("--learning_rates") + 1])) == 3
            elif words[:3] == ["python", "-m", "eval.run"]:
                (arguments,) = eval_run.make_parser().parse_args_into_dataclasses(args=words[3:])
                settings.check_evaluation(arguments)
            elif words[0] == "make":
                assert re.search(rf"^{words[1]}:.*##", (ROOT / "Makefile").read_text(), re.M), words
            elif words[0] not in ("lm_eval", "amuro") and words[:3] != ["python", "-m", "analysis.report"]:
                continue
            seen += 1
    assert seen >= 14


def test_the_task_readme_names_every_task_and_the_tree_every_file():
    tasks = (ROOT / "eval" / "tasks" / "README.md").read_text()
    assert all(f"| `{name}` |" in tasks for name in TASKS) and len(TASKS) == 19
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "amuro").glob("[a-z]*.py"):
        assert path.name in readme, path.name
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert target.startswith("https://") or (ROOT / target).exists(), target
