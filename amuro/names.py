"""What an error says: of a name that is not known, and in one line.

unknown_of("mnlii", DATASETS)        `unknown; did you mean mnli? allowed: ...`
first_line(error)                    the first line of its text, or its type
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


def first_line(error: BaseException) -> str:
    """The first line of an error's text; the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
