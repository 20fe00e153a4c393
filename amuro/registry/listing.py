"""How the registry shows families and rows: aligned columns, CSV or JSON.

    write(rows, "csv")                      rows are dicts with the same keys
    columns([("step", "revision"), ...])    lines of a table

Nothing here asks the hub.
"""

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

from amuro.registry.families import Family, Revision, families, on_line

FORMATS = ("table", "csv", "json")


def check_format(output: str) -> None:
    """ValueError where --format is none of FORMATS."""
    if output not in FORMATS:
        raise ValueError(f"--format {output!r}: allowed: {', '.join(FORMATS)}")


def facts(each: Family) -> dict:
    """A family as a flat row for csv and json."""
    told = {name: getattr(each, name) for name in ("name", "repo", "size", "tokens_b", "tokens_per_step", "count")}
    told |= {name: getattr(each, name) for name in ("counts", "pattern", "main", "licence", "files", "note")}
    told |= {"needs_remote_code": each.needs_remote_code, "confirmed": each.confirmed}
    told |= {"examples": list(each.examples), "unconfirmed": list(each.unconfirmed)}
    told |= {"repos": [dict(repo) for repo in each.repos], "stages": [asdict(stage) for stage in each.stages]}
    return told | {"sources": each.sources, "defects": [asdict(defect) for defect in each.defects]}


def row(each: Family) -> tuple[str, ...]:
    """A family's line of the table; ? marks what is not confirmed."""
    values = {
        "tokens_b": number(each.tokens_b),
        "count": str(each.count or ""),
        "examples": each.examples[0] if each.examples else "a repository each" if each.repos else "main only",
    }
    doubted = [value + "?" * (name in each.unconfirmed and bool(value)) for name, value in values.items()]
    repo = each.repo.replace(each.size, "SIZE") if each.size else each.repo or f"{each.repos[0]['repo']} ..."
    return (each.group.replace("{size}", "SIZE"), *doubted, each.licence, repo)


def about(each: Family) -> Iterable[str]:
    """What else is known of a family, a line each."""
    if each.sizes:
        yield f"sizes: {', '.join(each.sizes)}"
    if each.needs_remote_code:
        yield "needs remote code: its weights are refused"
    if each.files:
        yield f"weights: {each.files}" + "?" * ("files" in each.unconfirmed)
    if each.main != "last" and each.pattern:
        said: dict[str | int, str] = {
            "apart": "a model that was trained on from there",
            "none": "no checkpoint of this history",
        }
        yield f"main: {said.get(each.main, f'step {each.main}')}" + "?" * ("main" in each.unconfirmed)
    if each.note:
        yield each.note
    group = [other for other in families().values() if other.group == each.group]
    for defect in dict.fromkeys(defect for other in group for defect in other.defects):
        yield f"defect{' of ' + ', '.join(defect.sizes) if defect.sizes else ''}: {defect.what} ({defect.source})"


def remarks(history: Family, found: list[Revision]) -> Iterable[str]:
    """What a reader of the list of a history's checkpoints should know, a line each."""
    if history.count and "count" not in history.unconfirmed and history.count != len(found):
        yield f"{len(found)} checkpoints are there, {history.count} are expected"
    if history.computed:
        per_step = f"{history.tokens_per_step:,}" if history.tokens_per_step else "its stage's tokens per step"
        doubt = ", which is not confirmed" if "tokens_per_step" in history.unconfirmed else ""
        yield f"no name tells tokens: tokens_b is computed, step x {per_step}{doubt}"
    if history.counts != "steps":
        yield f"`step` counts {history.counts}"
    if beside := sorted({each.stage for each in found} - {each.stage for each in on_line(history, found)}):
        yield f"runs beside the line, which `select` takes with --stage only: {', '.join(beside)}"
    if history.needs_remote_code:
        yield "needs remote code: its weights are refused"
    for defect in history.defects:
        yield f"published defect: {defect.what} ({defect.source})"


def number(value: float | None) -> str:
    """Billions of tokens with six digits, empty where unknown."""
    return "" if value is None else format(value, ".6g")


def short_list(steps: list[int]) -> str:
    """The first eight steps, and how many more."""
    return ", ".join(map(str, steps[:8])) + (f" and {len(steps) - 8} more" if len(steps) > 8 else "")


def columns(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> list[str]:
    """Rows as aligned lines, those columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ways = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return [
        "  ".join(way(text, width) for way, text, width in zip(ways, row, widths, strict=True)).rstrip() for row in rows
    ]


def write(rows: list[dict], output: str) -> None:
    """Rows as JSON, or as CSV with JSON in the cells that are lists."""
    if output == "json":
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows[0] if rows else [])
    for row in rows:
        writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for v in row.values()])
