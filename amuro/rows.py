"""Requests of lm-evaluation-harness as rows of tokens, and rows as groups that begin alike: what is computed only once.

make_rows(lm, requests, {})            one row per distinct context, whatever is asked of it
prefix_groups(rows)                    [(number of shared first tokens, rows)]
"""

from dataclasses import dataclass, field
from itertools import groupby

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from amuro.encoding import encode_all

SHARED_TOKENS = 16  # a prefix shorter than this is not worth a pass of its own
SHARED_ROWS = 3  # nor is one that fewer rows have in common


@dataclass
class Row:
    """One context and what is asked of it.

    `scored` holds (request, continuation ids) pairs, `listed` (request, ids): log-probabilities of single next tokens.
    `generating` are the requests for greedy text, all with the same `new_tokens` and `until`.
    """

    ids: tuple[int, ...]
    scored: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    listed: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    generating: list[int] = field(default_factory=list)
    new_tokens: int = 0
    until: tuple[str, ...] = ()
    branches: dict[tuple[int, ...], int] = field(default_factory=dict)  # ids after the context -> offset behind it

    @property
    def extra(self) -> int:
        """Tokens of all branches."""
        return sum(map(len, self.branches))

    def branch(self, ids: tuple[int, ...]) -> None:
        """Add tokens that follow the context, once."""
        if ids and ids not in self.branches:
            self.branches[ids] = self.extra


def make_rows(lm: HFLM, requests: list[Instance], known: dict) -> list[Row]:
    """One row per distinct context. `known` holds ids of contexts, and of continuations under (context, continuation).

    Raises ValueError where a request exceeds the model's context.
    """
    texts = {text for each in requests for text in _texts(each, known)} - known.keys()
    known.update(zip(texts, encode_all(lm, list(texts)), strict=True))
    eos = lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)
    rows: dict[object, Row] = {}
    for number, request in enumerate(requests):
        context, *whole = _texts(request, known)
        row = rows.setdefault(ids := tuple(known[context]), Row(ids))
        if request.request_type == "loglikelihood":
            continuation = tuple(known[whole[0]][len(ids) :] if whole else known[request.args])
            row.scored.append((number, continuation))
            row.branch(continuation[:-1])
            longest = len(ids) + len(continuation) - 1
        elif request.request_type == "next_token":
            row.listed.append((number, tuple(request.args[1])))
            longest = len(ids)
        else:
            settings = normalize_gen_kwargs(request.args[1], lm.max_gen_toks)
            new_tokens, until = settings["max_gen_toks"], tuple(handle_stop_sequences(settings["until"], eos=eos))
            if row.generating and (row.new_tokens, row.until) != (new_tokens, until):
                row = rows.setdefault((ids, new_tokens, until), Row(ids))
            row.generating.append(number)
            row.new_tokens, row.until = new_tokens, until
            longest = len(ids) + new_tokens
        if longest > lm.max_length:
            raise ValueError(
                f"a request of {longest} tokens exceeds the context of {lm.max_length}: ...{context[-60:]!r}"
            )
    return list(rows.values())


def _texts(request: Instance, known: dict) -> tuple[str, ...]:
    """The texts to encode: the context, and for a log-likelihood that is not known the whole. Spaces at a context's end
    belong to the continuation, as in the harness's own `_encode_pair`."""
    context = request.args[0]
    if request.request_type != "loglikelihood" or request.args in known:
        return (context,)
    return (context.rstrip(), context + request.args[1])


def is_plain(request: Instance) -> bool:
    """Whether a request has a context and, where it asks for text, asks for greedy text."""
    if not request.args[0].rstrip():
        return False
    if request.request_type != "generate_until":
        return True
    settings = normalize_gen_kwargs(request.args[1])
    return not settings["do_sample"] and not settings.keys() - {"until", "max_gen_toks", "do_sample", "temperature"}


def prefix_groups(rows: list[Row]) -> list[tuple[int, list[Row]]]:
    """(n, rows) groups that share their first n ids, n at most one less than the shortest row's; n is 0 where nothing
    worth a pass is shared. Every row is in exactly one group."""
    return [group for group in _split(sorted(rows, key=lambda row: row.ids)) if group[1]]


def _split(rows: list[Row]) -> list[tuple[int, list[Row]]]:
    """Of sorted rows: the branches that share clearly more than all rows do, each a group, then the others."""
    n = min(_shared(rows), min(len(row.ids) for row in rows) - 1)
    groups, rest = [], []
    for _, found in groupby(rows, lambda row: row.ids[n]):
        branch = list(found)
        deeper = SHARED_ROWS <= len(branch) < len(rows) and _shared(branch) >= n + SHARED_TOKENS
        if deeper:
            groups += _split(branch)
        else:
            rest += branch
    worth = n >= SHARED_TOKENS and len(rest) >= SHARED_ROWS
    return [*groups, (n if worth else 0, rest)]


def _shared(rows: list[Row]) -> int:
    """Number of first ids that all of these sorted rows have in common."""
    first, last = rows[0].ids, rows[-1].ids
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
