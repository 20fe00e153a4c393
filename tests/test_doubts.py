"""What an audit or a publication says against a checkpoint reaches the status and the report."""

from conftest import run
from test_report import make_runs

from amuro.cells import Cell, write_record
from amuro.registry.doubts import doubts, of_runs
from amuro.registry.findings import Finding, save
from analysis import report


def test_faults_of_checkpoints_are_told_wherever_their_cells_are(tmp_path, capsys):
    runs = tmp_path / "runs"
    make_runs(runs, seeds=(0,))
    assert of_runs(runs) == []
    fault = Finding("sha256:100", 100, "step-100", "identical", "error", "the weights of 20, 100 are the same")
    save("nursery", ["sha256:20", "sha256:100"], [fault], runs)
    line = "nursery@100: error: the weights of 20, 100 are the same (audit)"
    assert of_runs(runs) == [line]  # once, for its three cells
    assert report.main(["--runs", str(runs), "--out", str(tmp_path / "out")]) == 0
    assert f"warning: {line}" in capsys.readouterr().out
    assert f"<li>{line}</li>" in (tmp_path / "out" / "index.html").read_text()
    shown = run("-m", "amuro.cli", "status", "--runs", str(runs))
    assert shown.returncode == 0 and f"warning: {line}" in shown.stdout


def test_published_defects_are_found_by_family_and_by_repository(tmp_path):
    named = Cell("olmo2-7b", "olmo2-7b@101000", 101000, 424.0, "allenai/OLMo-2-1124-7B@c0ffee")
    by_repository = Cell("allenai/OLMo-2-1124-7B", "allenai/OLMo-2-1124-7B@x", 101000, None, named.base)
    good = Cell("olmo2-7b", "olmo2-7b@102000", 102000, 428.0, "allenai/OLMo-2-1124-7B@beef")
    for cell in (named, by_repository, good):
        write_record(cell.folder(tmp_path), cell)
    assert len(of_runs(tmp_path)) == 2 and all("allenai/OLMo#915" in each for each in of_runs(tmp_path))
    assert doubts([good], tmp_path) == []
