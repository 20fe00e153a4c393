"""How the commands of the analysis end: `report`, `paper` and `wandb_report` alike.

return finish(run, make_parser().parse_args(argv))
"""

import argparse
import os
import sys
from collections.abc import Callable


def finish(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """The exit code of `work(arguments)`; a mistake, or a place that cannot be written, ends in one line on stderr and
    code 2 (AMURO_DEBUG=1 shows the traceback)."""
    try:
        return work(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("AMURO_DEBUG"):
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
