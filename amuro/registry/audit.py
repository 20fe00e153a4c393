"""Is every checkpoint of a history what it is named? From hashes, sizes and headers alone; weights only when asked.

    audit(snapshots(revisions))      findings, worst first; none where all is well
    audit_weights(fetched)           from the weights themselves: NaN, vocabulary, norms along the steps

Published histories had such faults, seen by nobody for years: https://github.com/EleutherAI/pythia/issues/205 (86 of
154 steps with weights of the end), /206 (a shard of the end in two steps), https://github.com/allenai/OLMo/issues/915.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from amuro.registry.findings import SEVERITIES, Finding, steps
from amuro.registry.intact import BUFFER, faults, index_faults, some
from amuro.registry.snapshots import Snapshot, weight_files

HELP = """Finds, without downloading weights: the same weights under two steps, a shard of another step, shards that are
not there, an index that disagrees with its shards, truncated files, revisions with pickled weights only or without
any, and a dtype, shape, tokenizer or config that changes along the history.

It cannot see two steps whose weights were exchanged, or weights of another run: they differ from all others, as good
ones do. --weights downloads them and also finds NaN, a vocabulary that does not fit, and, from five checkpoints on, one
whose norms are far from those of its neighbours. The first and the last have no two neighbours, and two neighbours
exchanged are too near to each other: neither is seen.

Exit code 1 where anything is found. error: the weights are not what they are named, or cannot be loaded. warning:
comparing them with the rest of the history needs care."""
TOKENIZER = re.compile(r"(tokenizer|vocab|merges|special_tokens_map|added_tokens|chat_template)[^/]*|[^/]+\.model")
# What transformers writes into a config about itself; the dtype is read from the weights.
UNIMPORTANT = {"transformers_version", "_name_or_path", "use_cache", "torch_dtype", "dtype"}


def audit(snapshots: list[Snapshot], absent: Iterable[int] = ()) -> list[Finding]:
    """Everything wrong with a history, errors first. `absent`: steps that are named somewhere and do not exist.

    `snapshots` are in the history's order; a snapshot without a step is the repository's `main`.
    """
    findings = [finding(each, *fault) for each in snapshots for fault in faults(each)]
    findings += _identical(snapshots) + _shared_shards(snapshots)
    for _, members in groupby(snapshots, key=lambda each: each.stage):
        stage = [each for each in members if each.files]
        findings += _layouts(stage) + _tokenizers(stage) + _configs(stage)
    findings += [Finding("", step, "", "absent", "warning", "named, but no revision has it") for step in absent]
    return sorted(findings, key=lambda each: SEVERITIES.index(each.severity))


def audit_weights(fetched: Iterable[tuple[Snapshot, Path]]) -> list[Finding]:
    """What is wrong with weights, from (snapshot, folder) of each checkpoint, in the history's order. They are read one
    after the other, and the pairs taken one at a time, so that a generator may fetch each when its turn comes."""
    from amuro.registry.norms import problems

    return [finding(*problem) for problem in problems(fetched)]


def finding(snapshot: Snapshot, kind: str, severity: str, what: str) -> Finding:
    """What is wrong with one snapshot, as a Finding."""
    return Finding(snapshot.base, snapshot.step, snapshot.revision, kind, severity, what)


def _identical(history: list[Snapshot]) -> list[Finding]:
    """The same weights under different steps. The end of a history is mostly where they are from: there, a warning."""
    groups, ends, found = {}, _ends(history), []
    for each in history:
        if key := _key(each):
            groups.setdefault(key, []).append(each)
    for members in groups.values():
        if len(members) > 1 and not ends.issuperset(members) and not _next_stage(history, members):
            what = f"the weights of {steps(members)} are the same, byte for byte"
            found += [finding(each, "identical", "warning" if each in ends else "error", what) for each in members]
    return found


def _shared_shards(history: list[Snapshot]) -> list[Finding]:
    """A shard that is byte for byte that of another step, or of the same one, while the rest differs."""
    users, shared, ends, found = {}, {}, _ends(history), []
    for each in history:
        names = _weights(each)
        if len(set(_key(each))) < len(names):
            found.append(finding(each, "shard", "error", "two of its shards are the same file"))
        for name in names if len(names) > 1 else []:
            users.setdefault(each.files[name].content, {})[each] = name
    for places in users.values():
        if len({_key(each) for each in places}) > 1:
            shared.setdefault(tuple(places), []).append(next(iter(places.values())))
    for members, names in shared.items():
        what = f"{some(sorted(names))} of {steps(members)} are the same, byte for byte, and other shards differ"
        found += [finding(each, "shard", "warning" if each in ends else "error", what) for each in members]
    return found


def _weights(one: Snapshot) -> list[str]:
    """The weight files by which a revision is compared with others: those that are loaded, or the pickled ones."""
    return weight_files(one.files) or weight_files(one.files, "bin")


def _key(one: Snapshot) -> tuple[str, ...]:
    """What two revisions with the same weights have in common."""
    return tuple(sorted(one.files[name].content for name in _weights(one)))


def _ends(history: list[Snapshot]) -> set[Snapshot]:
    """`main` and the last step, which may well be the same."""
    numbered = [each for each in history if each.step is not None]
    return {each for each in history if each.step is None} | set(numbered[-1:])


def _next_stage(history: list[Snapshot], members: list[Snapshot]) -> bool:
    """Whether these are the end of one stage and the start of the next, which goes on from those weights."""
    first, last = history.index(members[0]), history.index(members[-1])
    return len(members) == 2 and last == first + 1 and members[0].stage != members[1].stage


def _most(members: list[Snapshot], value: Callable) -> tuple[list[tuple[Snapshot, frozenset]], frozenset, str]:
    """((snapshot, value) where that is not the most common value, the most common one, `n of m`). A value of None tells
    nothing."""
    values = [(each, value(each)) for each in members]
    counts = Counter(each for _, each in reversed(values) if each is not None)  # of a tie, the later one
    if len(counts) < 2:
        return [], frozenset(), ""
    common, count = counts.most_common(1)[0]
    odd = [(one, each) for one, each in values if each is not None and each != common]
    return odd, common, f"{count} of {counts.total()}"


def _layouts(members: list[Snapshot]) -> list[Finding]:
    """Tensors, shapes or dtypes that are not those of most checkpoints."""
    odd, common, share = _most(members, _layout)
    most, found = dict(common), []
    for one, layout in odd:
        mine = dict(layout)
        if differing := sorted(set(mine) ^ set(most)):
            found.append(finding(one, "tensors", "error", f"not the tensors that {share} have: {some(differing)}"))
        both = sorted(set(mine) & set(most))
        if shapes := [name for name in both if mine[name][1] != most[name][1]]:
            was = f"{list(mine[shapes[0]][1])} where {share} have {list(most[shapes[0]][1])}"
            found.append(finding(one, "shape", "error", f"{was}: {some(shapes)}"))
        if dtypes := [name for name in both if mine[name][0] != most[name][0]]:
            was = f"{mine[dtypes[0]][0]} where {share} have {most[dtypes[0]][0]}"
            found.append(finding(one, "dtype", "warning", f"{was}: {some(dtypes)}"))
    return found


def _layout(one: Snapshot) -> frozenset | None:
    """(tensor, (dtype, shape)) of every weight, None where not all headers are there."""
    headers = one.headers.values()
    if not headers or any(each.problem for each in headers) or any(kind == "missing" for kind, _ in index_faults(one)):
        return None
    tensors = {name: entry for header in headers for name, entry in header.tensors.items()}
    return frozenset((name, entry[:2]) for name, entry in tensors.items() if not BUFFER.fullmatch(name))


def _tokenizers(members: list[Snapshot]) -> list[Finding]:
    """Tokenizer files that are not those of most checkpoints."""
    odd, common, share = _most(members, _tokenizer)
    what = {one: some(sorted({name for name, _ in mine ^ common})) for one, mine in odd}
    return [finding(one, "tokenizer", "warning", f"not as {share} have: {names}") for one, names in what.items()]


def _tokenizer(one: Snapshot) -> frozenset:
    return frozenset((name, file.content) for name, file in one.files.items() if TOKENIZER.fullmatch(name))


def _configs(members: list[Snapshot]) -> list[Finding]:
    """Configs that differ from those of most checkpoints in what matters."""
    odd, common, share = _most(members, _config)
    most, found = dict(common), []
    for one, config in odd:
        mine = dict(config)
        keys = sorted(key for key in {*mine, *most} if mine.get(key) != most.get(key))
        shown = [f"{key} {mine.get(key, 'absent')} where {share} have {most.get(key, 'none')}" for key in keys]
        found.append(finding(one, "config", "warning", some(shown)))
    return found


def _config(one: Snapshot) -> frozenset | None:
    config = one.texts.get("config.json")
    if config is None:
        return None
    return frozenset(
        (key, json.dumps(value, sort_keys=True)) for key, value in config.items() if key not in UNIMPORTANT
    )
