"""`amuro checkpoints`: which pre-training histories there are, which of their checkpoints to take, and whether to trust
them. Only `fetch` and `audit --weights` download weights; nothing here loads torch.

    amuro checkpoints families
    amuro checkpoints select pythia-410m -n 8
    amuro checkpoints audit pythia-410m 1000,18000,143000
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from amuro.registry.audit import HELP, audit_weights
from amuro.registry.audit import audit as look
from amuro.registry.families import (
    Family,
    Revision,
    families,
    family,
    keep_refs,
    main_of,
    matching,
    on_line,
    published_defects,
    revisions,
    short,
    shown,
)
from amuro.registry.findings import report, save
from amuro.registry.intact import whole
from amuro.registry.listing import about, check_format, columns, facts, number, remarks, row, short_list, write
from amuro.registry.selection import Choice, Point, gaps, like_paper, sweep_line, table
from amuro.registry.selection import select as select_
from amuro.registry.snapshots import Snapshot, snapshots


def folder(typed: str | Path) -> Path:
    """A folder's name as it was typed; refuses what no one means: nothing (an empty variable), an unexpanded ~."""
    text = str(typed)
    if not text.strip() or text.startswith("~"):
        raise typer.BadParameter("the name of a folder is needed, with ~ written out; or leave the flag out")
    return Path(text)


FamilyName = Annotated[
    str,
    typer.Argument(
        metavar="FAMILY", help="a known family, your own YAML (families --help), or a folder with family.json"
    ),
]
Format = Annotated[str, typer.Option("--format", help="table, csv or json")]
app = typer.Typer(
    help="Known pre-training histories: what exists, a selection, an audit, a download.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("families")
def families_(output: Format = "table") -> None:
    """The known families: repository, tokens, checkpoints, how revisions are named, licence, known defects.

    A value with ? was inferred or read at second hand; csv and json give the source of each fact.

    A history of your own is a small YAML, given by its path wherever a family is named
    (`amuro checkpoints list my_llama.yaml`, `--checkpoint my_llama.yaml@2000`):

    \b
      name: my-llama
      repo: me/my-llama-checkpoints     # a hub repository with a revision per checkpoint, or instead
      # folder: checkpoints             # a folder with a subfolder per checkpoint, relative to the YAML
      pattern: 'step-(?P<step>\\d+)'     # a whole name; groups step, tokens (4B, 2T), stage
      tokens_per_step: 1048576          # only where names tell no tokens

    Families that need remote code are listed, and refused where weights are asked for: trust_remote_code stays off.
    Who trusts that code converts the checkpoints with transformers' own trust_remote_code=True and gives the folder.
    """
    check_format(output)
    if output != "table":
        return write([facts(each) for each in families().values()], output)
    groups = {}
    for each in families().values():
        groups.setdefault(each.group, each)  # the first of an entry's sizes stands for all
    rows = [("family", "tokens_b", "checkpoints", "revisions like", "licence", "repository")]
    lines = columns([*rows, *map(row, groups.values())], right=(1, 2))
    print(lines[0])
    for line, each in zip(lines[1:], groups.values(), strict=True):
        print(line, *(f"    {told}" for told in about(each)), sep="\n")
    print("nursery: the folder in $AMURO_NURSERY or ./nursery, raised by `amuro nursery`")
    print("?: inferred or read at second hand. Sources: --format json. Your own history: --help.")


@app.command("list")
def list_(name: FamilyName, output: Format = "table") -> None:
    """Step, tokens (billions), revision and commit of every checkpoint that exists.

    They come from the repository's refs, parsed by the family's pattern and never built: histories round their tokens
    in three ways. What is said about the list goes to stderr.
    """
    check_format(output)
    history = family(name)
    found = revisions(history)
    rows = [
        {
            "step": each.step,
            "tokens_b": each.tokens_b,
            "revision": shown(history, each),
            "commit": each.commit,
            "stage": each.stage,
            "repo": each.repo,
        }
        for each in found
    ]
    if output != "table":
        write(rows, output)
    else:
        shorter = [(str(each.step), number(each.tokens_b), shown(history, each), each.commit[:12]) for each in found]
        for line in columns([("step", "tokens_b", "revision", "commit"), *shorter], right=(0, 1)):
            print(line)
    for remark in remarks(history, found):
        print(f"note: {remark}", file=sys.stderr)


@app.command()
def select(
    name: FamilyName,
    n: Annotated[int, typer.Option("-n", help="how many, the first and the last among them")] = 8,
    by: Annotated[str, typer.Option(help="spaced uniformly in: tokens, log_tokens or step")] = "tokens",
    include: Annotated[str, typer.Option(help="comma list of steps or revisions that must be among them")] = "",
    like: Annotated[str, typer.Option(help="paper: the eight of arXiv 2408.06663, with the rule of each")] = "",
    stage: Annotated[str, typer.Option(help="within this stage alone; by default along the line of the history")] = "",
    output: Format = "table",
) -> None:
    """Choose checkpoints: the nearest that exist to a uniform spacing, the first and the last always in.

    Beside each stands where it was wanted (target) and how far off it is (snap), below them what does not exist (gaps),
    and a line for a W&B sweep YAML (sweeps/). Nothing is known of a turning point within a gap but its ends. Whether
    the weights are those of the step, `amuro checkpoints audit` says.

    \b
    amuro checkpoints select olmo-1b -n 8 --include 18000
    amuro checkpoints select pythia-410m -n 8 --by log_tokens
    amuro checkpoints select olmo-1b --like paper
    """
    check_format(output)
    if like not in ("", "paper"):
        raise ValueError(f"--like {like!r}: allowed: paper")
    history = family(name)
    found = revisions(history)
    line = [each for each in found if each.stage.startswith(stage)] if stage else on_line(history, found)
    if stage and not line:
        raise ValueError(f"--stage {stage!r}: there are {', '.join(sorted({each.stage for each in found})) or 'none'}")
    points = [Point(each.step, each.tokens_b, shown(history, each), short(history, found, each)) for each in line]
    chosen = like_paper(points) if like else select_(points, n, by, _words([include]))
    if output != "table":
        return write([_chosen(each) for each in chosen], output)
    print(table(chosen, gaps(points)))
    for defect in history.defects:
        if told := sorted({each.point.step for each in chosen} & set(defect.steps)):
            print(f"published defect: {defect.what} ({defect.source}); of these: {short_list(told)}")
    print("\nfor a sweep's parameters:\n  " + sweep_line(name, chosen))


@app.command(
    help="Are the checkpoints what their names say?\n\n"
    + HELP
    + """

Published defects of the checkpoints are told besides. With STEPS only these are compared, with each other and with
main: give none to find a twin anywhere in the history. Findings are kept in RUNS/audit.

\b
amuro checkpoints audit pythia-2.8b
amuro checkpoints audit olmo-1b 1000,18000,342000
amuro checkpoints audit path/to/family --weights"""
)
def audit(
    name: FamilyName,
    steps: Annotated[
        list[str] | None, typer.Argument(metavar="STEPS", help="steps or revisions; none: all of them")
    ] = None,
    weights: Annotated[bool, typer.Option("--weights", help="also download and read the weights")] = False,
    runs: Annotated[
        Path, typer.Option(parser=folder, metavar="FOLDER", help="the folder that findings are kept under")
    ] = Path("runs"),
    output: Format = "table",
) -> None:
    """Look for what is wrong with a history."""
    check_format(output)
    if runs.exists() and not runs.is_dir():
        raise ValueError(f"--runs {runs}: is there, and no folder; give another one")
    history = family(name)
    found = revisions(history)
    points = _words(steps or [])
    absent = [_step(point, "STEPS") for point in points if not matching(history, found, point)]
    picked = dict.fromkeys(each for point in points for each in matching(history, found, point))
    asked = list(picked) if points else found
    end = main_of(history)
    more = [end] if end and end.commit not in {each.commit for each in asked} else []
    seen = snapshots([*asked, *more]) if asked or more else []
    findings = look(seen, absent)
    if weights:
        findings += audit_weights(_fetched(history, asked, seen))
    told = seen[: len(asked)] if points else seen  # main was then only there to be compared with
    bases = {each.base for each in told}
    findings = [each for each in findings if each.base in bases or not each.base]
    path = save(history.name, bases, findings, runs)
    if output != "table":
        write([asdict(each) for each in findings], output)
    else:
        print(report(findings) if findings else f"nothing was found in {len(told)} checkpoints")
        for defect in history.defects:
            mine = sorted({each.step for each in asked} & set(defect.steps))
            if mine or not defect.steps:
                where = f"; of these: {short_list(mine)}" if mine else ""
                print(f"published defect: {defect.what} ({defect.source}){where}")
    print(f"kept in {path}", file=sys.stderr)
    if findings:
        raise typer.Exit(1)


@app.command()
def fetch(reference: Annotated[str, typer.Argument(metavar="FAMILY@STEP", help="as in --checkpoint")]) -> None:
    """Download one checkpoint into the hub's cache, and print its folder.

    Safetensors, config and tokenizer only: no .bin beside them, and .bin alone is refused, since a pickle can run code.
    Free space is checked first, the sha256 of the weights afterwards; an interrupted download goes on. Training and
    evaluation fetch by themselves: this is for machines that are offline later. There, HF_HUB_OFFLINE=1 lets the same
    FAMILY@STEP be found without the hub.
    """
    from amuro.checkpoints import resolve
    from amuro.registry.fetching import fetch as fetch_

    checkpoint = resolve(reference)
    for line in published_defects(checkpoint):
        print(f"warning: {checkpoint}: published defect: {line}", file=sys.stderr)
    print(fetch_(checkpoint))
    if checkpoint.repo:
        keep_refs(checkpoint.repo)


def _chosen(choice: Choice) -> dict:
    """A choice as a flat row."""
    point = choice.point
    row = {"step": point.step, "tokens_b": point.tokens_b, "revision": point.name, "target": choice.target}
    return row | {"snap": choice.snap, "by": choice.by, "rule": choice.rule}


def _fetched(history: Family, asked: list[Revision], seen: list[Snapshot]) -> Iterable[tuple[Snapshot, Path]]:
    """Each checkpoint whose files are all right so far, downloaded when its turn comes."""
    from amuro.checkpoints import checkpoint_of
    from amuro.registry.fetching import fetch

    for revision, snapshot in zip(asked, seen, strict=False):
        if whole(snapshot):
            yield snapshot, fetch(checkpoint_of(history, revision, shown(history, revision)))


def _words(given: list[str]) -> list[str]:
    return [word.strip() for each in given for word in each.split(",") if word.strip()]


def _step(word: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,18}", word, re.ASCII):
        raise ValueError(f"{where} {word[:40]!r}: neither a step nor a revision's name; see `amuro checkpoints list`")
    return int(word)
