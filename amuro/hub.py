"""Errors of the Hugging Face hub as one line that says what was wanted and what to do instead."""

from collections.abc import Iterator
from contextlib import contextmanager

from amuro.names import first_line


@contextmanager
def wanted(what: str, instead: str) -> Iterator[None]:
    """Turns a failure to reach or find something on the hub (network, offline mode, gate, rights) into a ValueError."""
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"{what}: no name of the hub ({' '.join(str(error).split())}); {instead}") from error
    except (HTTPError, OSError) as error:  # the hub's own errors derive from these
        raise ValueError(f"{what} cannot be had from the hub ({first_line(error)}); {instead}") from error
