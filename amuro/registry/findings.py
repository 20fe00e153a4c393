"""What an audit found, kept under RUNS/audit/ so that later commands can warn without a network.

save("pythia-410m", bases, findings, runs)    writes RUNS/audit/pythia-410m.json, whole or not at all
audited(runs)                                 {base: findings} of all that was audited; no findings: nothing was found
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from amuro.cells import write_atomic
from amuro.strict import read_json

SEVERITIES = ("error", "warning")
# A name that is a file's name as it stands; not the names of devices, which some systems have in every folder.
PLAIN = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Finding:
    """Something wrong with one checkpoint. `base` identifies its weights (`repo@commit`, or a folder's digest), empty
    for a step that is not there. Severity `error`: the weights are not what they are named, or cannot be loaded;
    `warning`: comparisons with the rest of the history need care."""

    base: str
    step: int | None
    revision: str
    kind: str
    severity: str
    what: str


def report(findings: list[Finding]) -> str:
    """A table of the findings: one line for all checkpoints with the same one."""
    groups = {}
    for each in findings:
        groups.setdefault((each.severity, each.kind, each.what), []).append(each)
    lines = [f"{'severity':<9} {'kind':<10} {'steps':<28} what"]
    for (severity, kind, what), members in groups.items():
        lines.append(f"{severity:<9} {kind:<10} {steps(members):<28} {what}")
    count = {severity: sum(each.severity == severity for each in findings) for severity in SEVERITIES}
    bases = len({each.base or each.step for each in findings})
    return "\n".join([*lines, f"{count['error']} errors and {count['warning']} warnings on {bases} checkpoints"])


def steps(members: Iterable, most: int = 4) -> str:
    """The steps of findings or snapshots (the revision where there is none): `1000, 2000, ... 140000 (76)`."""
    shown = list(dict.fromkeys(each.revision if each.step is None else str(each.step) for each in members))
    if len(shown) <= most:
        return ", ".join(shown)
    return f"{', '.join(shown[: most - 2])}, ... {shown[-1]} ({len(shown)})"


def save(family_name: str, audited_bases: Iterable[str], findings: list[Finding], runs: Path) -> Path:
    """Write RUNS/audit/<family>.json. An audit of a part adds to what is known, one of all of it replaces it."""
    path = Path(runs) / "audit" / f"{file_name(family_name)}.json"
    bases = set(audited_bases)
    if path.is_file():
        before = _read(path)
        if not set(before) <= bases:
            findings = list(dict.fromkeys([*findings, *(each for found in before.values() for each in found)]))
            bases |= set(before)
    content = {"family": family_name, "audited": sorted(bases), "findings": [asdict(each) for each in findings]}
    write_atomic(path, json.dumps(content, indent=1).encode())
    return path


def audited(runs: Path) -> dict[str, list[Finding]]:
    """{base: its findings} of every audit kept under `runs`: an empty list where nothing was found, and no entry where
    nothing was audited. ValueError with the file that cannot be read."""
    found = {}
    for path in sorted((Path(runs) / "audit").glob("*.json")):
        for base, findings in _read(path).items():
            found[base] = list(dict.fromkeys([*found.get(base, []), *findings]))
    return found


def file_name(family_name: str) -> str:
    """A family's name as a file's name, always one of RUNS/audit itself: with a digest where it is not plain."""
    if PLAIN.fullmatch(family_name):
        return family_name
    readable = re.sub(r"[^a-z0-9]+", "-", family_name.lower())[-40:].strip("-")
    return f"family-{readable}-{hashlib.sha256(family_name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _read(path: Path) -> dict[str, list[Finding]]:
    try:
        content = read_json(path)
        found = {base: [] for base in content["audited"]}
        for each in content["findings"]:
            found.setdefault(each["base"], []).append(Finding(**each))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not an audit's findings ({error}); remove it and audit again") from None
    return found
