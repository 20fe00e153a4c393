"""The short form of bench/faults.py, and that it would see what it looks for."""

import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, run

from amuro import results
from amuro.running import claims

pytestmark = pytest.mark.slow

sys.path.insert(0, str(ROOT / "bench"))
from faults import CANARY, compare, leaks, race  # noqa: E402


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder of a short form, and what it printed."""
    out = tmp_path_factory.mktemp("faults")
    small = ("--kills", 5, "--ray_kills", 0, "--rounds", 1, "--stubs", 40, "--disk_faults", 3, "--cells", 4)
    done = run("bench/faults.py", "--out", out, *small, "--seed", 1)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out, done.stdout


@pytest.mark.slow
def test_five_kills_a_race_and_failing_disks_lose_and_change_nothing(short):
    _, told = short
    assert "| 5 SIGKILLs, scripts, 4 cells |" in told
    assert "0 cells lost, 0 rows twice, 0 half written, 0 differ, 0 left over" in told
    assert "40 cells, 0 lost, 0 recorded twice" in told and "0 files that hold it" in told
    assert told.count("1 faults, ") == told.count("0 half written, 1 same in the end") == 3


@pytest.mark.slow
def test_what_the_bench_looks_for_it_would_see(short, tmp_path):
    good = short[0] / "undisturbed" / "runs"
    assert set(compare(good, good).values()) == {0}

    def spoilt(what) -> dict:
        runs = tmp_path / what.__name__
        shutil.copytree(good, runs)
        what(runs, sorted(runs.glob("*/units/*.parquet"))[0])
        return {name: count for name, count in compare(runs, good).items() if count}

    def lost(runs, unit):
        shutil.rmtree(unit.parent.parent)

    def half(runs, unit):
        unit.write_bytes(unit.read_bytes()[:-200])

    def value(runs, unit):
        table = pq.read_table(unit)
        said = table.column("prediction").to_pylist()
        at = table.schema.get_field_index("prediction")
        other = pa.array(["?", *said[1:]], table.schema.types[at])
        pq.write_table(table.set_column(at, table.schema.field(at), other), unit)

    def weights(runs, unit):
        record = unit.parent.parent / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"weights": "sha256:0"}))

    def partial(runs, unit):
        (unit.parent.parent / "weights.partial").mkdir()

    assert spoilt(lost)["cells lost"] >= 2 and spoilt(half)["half written"] == 1
    assert spoilt(value) == {"differ": 1} and spoilt(weights) == {"differ": 1} and spoilt(partial) == {"left over": 1}
    assert results.load(good) is not None
    (tmp_path / "log").write_text(f"key {CANARY}")
    assert leaks(tmp_path)[1] == 1


def test_a_race_without_claims_would_be_seen(tmp_path, monkeypatch):
    """With leases that everyone gets, cells are worked on twice, and still recorded once."""

    def take(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / claims.FILE).touch()
        return True

    monkeypatch.setattr(claims.Lease, "take", take)
    monkeypatch.setattr(claims.SoftFileLease, "release", lambda self, force=False: None)
    folder = tmp_path / "race"
    folder.mkdir()
    found = race(folder, stubs=40, processes=8, seed=0)
    assert found["worked on twice"] > 0 and found["recorded twice"] == found["lost"] == 0
