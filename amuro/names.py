"""What an error says of a name that is not known.

unknown_of("mnlii", DATASETS)        `unknown; did you mean mnli? allowed: ...`
"""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(names: Iterable, allowed: Iterable[str]) -> str:
    """`; did you mean ...?` with what is nearest to unknown names, `;` where nothing is. What is allowed follows."""
    allowed = list(allowed)
    near = dict.fromkeys(each for name in names for each in get_close_matches(str(name), allowed, n=1))
    return f"; did you mean {', '.join(near)}?" if near else ";"


def unknown_of(name, allowed: Iterable[str]) -> str:
    """What an error says of an unknown name: the nearest one, and all that are allowed."""
    return f"unknown{did_you_mean([name], allowed)} allowed: {', '.join(allowed)}"
