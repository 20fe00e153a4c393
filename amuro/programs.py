"""The scripts of the repository, loaded by their path: `amuro` imports none of them.

load_program("train_sft.py").main(["--checkpoint", "nursery@200", ...])
"""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
EVALUATE = "eval/run.py"  # the program that makes no weights
AGAIN = 75  # an exit code, EX_TEMPFAIL of sysexits.h: run the same again (preempted, claimed, no room on the disk)


def load_program(path: str) -> ModuleType:
    """The module of a script, `path` being relative to the repository's root."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
