"""The page `findings.md`: what is reproduced, what cannot be, and each claim of the paper beside its numbers."""

import pandas as pd

from analysis.paper.authors import HIDDEN
from analysis.paper.claims import VERDICTS, Claim
from analysis.paper.numbers import mrc, table6
from analysis.paper.reproduction import QUIRKS, Reproduction, identities, unknown

HEAD = """# The paper's claims beside its own published rows

Sun and Dredze, *Amuro & Char: Analyzing the Relationship between Pre-Training and Fine-Tuning of Large Language Models*
(arXiv 2408.06663). Every number below is computed from the three tables that the authors published. A verdict is about
what these rows can carry, not about what is true: every cell was run once; only means and standard errors are
published, so two scores are compared as if they were of different examples; the cells of one checkpoint are not
independent.
"""


def markdown(found: Reproduction) -> str:
    """The page."""
    parts = [HEAD, "## The rows\n", rows_read(found.every), "## What is reproduced\n", reproduced(found)]
    parts += ["## What the authors' code does otherwise\n", quirks(found), "## The claims\n", overview(found.claims)]
    parts += [section(number, claim) for number, claim in enumerate(found.claims, 1)]
    return "\n".join(parts)


def rows_read(every: pd.DataFrame) -> str:
    """How many rows there are, which are used, which are not and why, and which are not understood."""
    ids, lost = identities(every), unknown(every)
    sizes = ", ".join(f"{name} {count}" for name, count in every["table"].value_counts().items())
    reasons = every.loc[every["left_out"] != "", "left_out"].value_counts()
    lines = [f"{len(every)} rows ({sizes}) of {len(ids)} model ids; {(every['left_out'] == '').sum()} are used."]
    lines += [f"- {count} are not: {reason}" for reason, count in reasons.items()]
    names = ", ".join(dict.fromkeys(f"`{row.model_id}` ({row.eval_dataset})" for row in lost.itertuples()))
    lines.append(f"- not understood: {names or 'none; every id follows the grammar'}")
    return "\n".join([*lines, "\nids.csv lists every id with what it says and why rows of it are left out.\n"])


def reproduced(found: Reproduction) -> str:
    """The printed numbers, the figures, and what has no rows."""
    lines = [
        f"- Table 6: {found.table6['equal'].sum()} of {len(found.table6)} numbers to three digits (table6.csv)",
        f"- Table 3, column TokenProb: {found.table3['equal'].sum()} of {len(found.table3)} (table3.csv)",
    ]
    for name, frame in (("Table 6", found.table6), ("Table 3", found.table3)):
        for row in frame[~frame["equal"]].itertuples(index=False):
            numbers = f"printed {row.published:g}, computed {row.computed:.4f}"
            lines.append(f"  - {name}, {row[0]}, {row[1]}: {numbers}; {row.reason}")
    for row in found.mrc.itertuples():
        numbers = (
            f"printed {row.published:g} %, computed {row.computed:+.3f} %{f' ({row.reason})' if row.reason else ''}"
        )
        more = f"median {row.median:+.1f} %, t = {row.t:.2f}, p = {row.p:.3g}"
        lines.append(f"- mean ratio of change, {row.direction}: {numbers}; {more} (mrc.csv)")
    gaps = sum(int(frame["value"].isna().sum()) for frame in found.figures.values())
    lines.append(
        f"- figures {', '.join(map(str, found.figures))}: figure_NN.csv and pictures; {gaps} points have no row"
    )
    lines += [
        "\nNot reproducible, as no row is published: everything on Llama3-8B (figures 3 and 15, -61.0 % and 10.6 % in "
        "appendix G); the columns Free and Constrained of Table 3; the learning-rate search of appendix B but for one "
        "row. Table 4 counts hours. mnli_mismatched has no rows of models tuned on other sets. Figures 2 and 4 are "
        "examples: which sets they show is not in their captions, so MNLI stands for figure 2, and GPT3NLI for 4b. The "
        "error bars of figures 5 and 8 are random in the original (bootstrap); here they are standard errors over "
        "cells.\n",
    ]
    return "\n".join(lines)


def quirks(found: Reproduction) -> str:
    """What is switched on for the numbers above, and what comes out without it."""
    lines = ["Switched on above, off in our own analysis:\n", *(f"- `{name}`: {what}" for name, what in QUIRKS.items())]
    plain = table6(found.paper)
    once = plain[plain["group"] == "pretrain"]["computed"]
    means = ", ".join(f"{mean:+.3f}" for mean in once)
    equal = f"{plain['equal'].sum()} of {len(plain)} numbers of Table 6 are the printed ones"
    lines.append(f"\nWithout `sciq_twice` the means of the group learned in pre-training are {means}, and {equal}.")
    for row in mrc(found.paper).itertuples():
        lines.append(f"Without `listed_pairs`, over all {row.n_cells} cells, {row.direction} is {row.computed:+.3f} %.")
    hidden = found.table["task"].isin(HIDDEN) & (found.table["method"] != "loglikelihood")
    lines.append(f"Without `hidden_labels` {hidden.sum()} rows are left out.\n")
    return "\n".join(lines)


def overview(claims: list[Claim]) -> str:
    """The verdicts in a table, and their count."""
    counts = [f"{sum(claim.verdict == name for claim in claims)} {name}" for name in VERDICTS]
    lines = [f"{len(claims)} claims: {', '.join(counts)}.\n", "| | claim | verdict |", "|---|---|---|"]
    lines += [f"| {number} | {claim.title} | {claim.verdict} |" for number, claim in enumerate(claims, 1)]
    return "\n".join([*lines, ""])


def section(number: int, claim: Claim) -> str:
    """One claim."""
    lines = [f"### {number}. {claim.title}: {claim.verdict}\n", f"> {claim.says} ({claim.where})\n"]
    return "\n".join([*lines, f"{claim.finding}\n", f"*Test:* {claim.test}\n"])
