"""How the commands of the analysis begin and end: `report`, `paper` and `wandb_report` alike.

return finish(run, make_parser(), argv)
"""

import argparse
import os
import sys
from collections.abc import Callable


def finish(work: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """The exit code of `work` on the flags in `argv`; a mistake, or a place that cannot be written, ends in one line on
    stderr and code 2 (AMURO_DEBUG=1 shows the traceback)."""
    parser.allow_abbrev, parser.error = False, _refuse
    try:
        arguments = parser.parse_args(argv)
        if blank := [name for name, value in vars(arguments).items() if isinstance(value, str) and not value.strip()]:
            raise ValueError(f"--{blank[0]}: a value is needed, or leave the flag out")
        return work(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("AMURO_DEBUG"):
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def _refuse(message: str):
    raise ValueError(f"{message}; see --help")
