"""The audit: damaged histories of every kind are found, good ones raise no alarm, published defects are seen."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import run
from hub import Hub, commit_of

from amuro.checkpoints import resolve
from amuro.registry.audit import HELP, audit, audit_weights
from amuro.registry.families import Revision
from amuro.registry.findings import Finding, audited, file_name, report, save, steps
from amuro.registry.intact import faults
from amuro.registry.snapshots import INDEX, File, Header, Snapshot, parse_header, read_header, snapshots

WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
LAYERS = ("model.embed_tokens.weight", "model.layers.0.w", "model.layers.0.b", "model.layers.1.w", "lm_head.weight")
SINGLE = "model.safetensors"
ONE, TWO, THREE = (f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))


def safe(tensors: dict[str, tuple[str, tuple]], rng: random.Random) -> bytes:
    """A safetensors file of random bytes."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        first, end = end, end + WIDTH[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [first, end]}
    return packed(header) + rng.randbytes(end)


def packed(header: dict | bytes) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content


def taken_apart(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def checkpoint(rng: random.Random, sharded: bool, dtype: str = "F32", width: int = 4, more: tuple = ()) -> dict:
    """The files of one good checkpoint."""
    shapes = {name: (dtype, (11, width) if "embed" in name or "head" in name else (width, 3)) for name in LAYERS}
    shapes |= {name: ("F32", (2,)) for name in more}
    files = {"config.json": json.dumps({"vocab_size": 11, "hidden_size": width}).encode(), "tokenizer.json": b"{}"}
    files |= {"tokenizer_config.json": b'{"eos": 0}', "README.md": rng.randbytes(9)}
    if not sharded:
        return files | {SINGLE: safe(shapes, rng)}
    parts = dict(zip((ONE, TWO, THREE), (LAYERS[:2], LAYERS[2:4], LAYERS[4:]), strict=True))
    files |= {shard: safe({name: shapes[name] for name in names}, rng) for shard, names in parts.items()}
    total = sum(len(taken_apart(files[shard])[1]) for shard in parts)
    weight_map = {name: shard for shard, names in parts.items() for name in names}
    return files | {INDEX: json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}).encode()}


def history(seed: int, sharded: bool, n: int = 7) -> dict[int, dict[str, bytes]]:
    rng = random.Random(seed)
    return {step: checkpoint(rng, sharded) for step in sorted(rng.sample(range(0, 50_000, 500), n))}


def read(folder, made: dict) -> list[Snapshot]:
    """Snapshots of a history's folders; a key is a step or (stage, step)."""
    revisions = []
    for key, files in made.items():
        stage, step = key if isinstance(key, tuple) else ("", key)
        place = folder / f"{stage}step-{step}"
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        revisions.append(Revision(step, None, str(place), "", "", stage))
    return snapshots(revisions)


@pytest.mark.parametrize("seed", range(50))
def test_good_histories_raise_no_alarm(tmp_path, seed):
    """Also where a stage begins with the last one's weights, `main` is the last step, and details differ."""
    rng = random.Random(seed)
    sharded, dtype, width = rng.random() < 0.5, rng.choice(["F32", "F16", "BF16"]), rng.randint(2, 6)
    taken = sorted(rng.sample(range(0, 9000, 100), rng.randint(1, 9)))
    made = {("", step): checkpoint(rng, sharded, dtype, width) for step in taken}
    if seed % 3 == 0:  # a further stage of its own dtype and tokenizer, after the same weights again
        made[("stage2", 0)] = dict(made["", taken[-1]])
        made |= {("stage2", step): checkpoint(rng, sharded, dtype, width) for step in (100, 200)}
    if seed % 4 == 0:  # the version that wrote it, a second copy that is not loaded, buffers of an older version
        one = made["", taken[0]]
        one["config.json"] = json.dumps(json.loads(one["config.json"]) | {"transformers_version": "4.1"}).encode()
        one["pytorch_model.bin"] = rng.randbytes(20)
        if not sharded:
            one[THREE] = rng.randbytes(20)
    if seed % 5 == 0 and not sharded:
        made["", taken[0]] |= {SINGLE: checkpoint(rng, False, dtype, width, ("model.layers.0.attn.bias",))[SINGLE]}
    found = read(tmp_path, made)
    if seed % 2 == 0:
        found.append(replace(found[-1], step=None, revision="main"))
    assert audit(found) == []


def copied(*names: str, to: tuple[int, ...], source: int) -> Callable:
    """Damage: files of the n-th checkpoint put into others; all weights where none is named."""

    def damage(made, keys):
        for each in to:
            chosen = names or [name for name in made[keys[source]] if name.endswith(".safetensors")]
            made[keys[each]] |= {name: made[keys[source]][name] for name in chosen}
        return {keys[each] for each in (*to, source)}

    return damage


def changed(at: int, name: str, change: Callable) -> Callable:
    """Damage: one file of the n-th checkpoint; None removes it."""

    def damage(made, keys):
        files = made[keys[at]]
        content = change(files[name]) if name in files else change(None)
        files.pop(name, None)
        if content is not None:
            files[name] = content
        return {keys[at]}

    return damage


def header(change: Callable) -> Callable:
    """Another header before the same data."""

    def edit(content):
        tensors, data = taken_apart(content)
        return packed(change(tensors) or tensors) + data

    return edit


def in_json(**values) -> Callable:
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


def in_map(**moves) -> Callable:
    """An index with tensors moved, added, or removed (None)."""

    def edit(content):
        index = json.loads(content)
        index["weight_map"] = {k: v for k, v in {**index["weight_map"], **moves}.items() if v}
        return json.dumps(index).encode()

    return edit


def fresh(name: str = SINGLE, **how) -> Callable:
    """That file of another good checkpoint, made otherwise."""
    return lambda _: checkpoint(random.Random(99), name != SINGLE, **how)[name]


def only(at: int, **files) -> Callable:
    """Damage: a checkpoint with these weights and no others."""

    def damage(made, keys):
        kept = {name: content for name, content in made[keys[at]].items() if "model" not in name}
        made[keys[at]] = kept | {name.replace("__", "."): content for name, content in files.items()}
        return {keys[at]}

    return damage


def gone(content):
    return None


def all_of(*damages) -> Callable:
    return lambda made, keys: set().union(*(damage(made, keys) for damage in damages))


E = "model.embed_tokens.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4\n"
BOTH = [  # (kind, sharded or single, damage); -1 is the last checkpoint
    ("identical", False, copied(to=(3,), source=2)),
    ("identical", False, copied(to=(0,), source=1)),
    ("identical", False, copied(to=(0, 3, 5), source=2)),
    ("identical", False, copied(to=(2,), source=-1)),
    ("identical", False, copied(to=(0, 1, 2, 3, 4, 5), source=-1)),
    ("identical", True, copied(to=(4,), source=1)),
    ("identical", True, copied(to=(0, 2), source=-1)),
    ("shard", True, copied(ONE, to=(2, 4), source=-1)),
    ("shard", True, copied(ONE, to=(3,), source=1)),
    ("shard", True, copied(THREE, to=(0,), source=5)),
    ("shard", True, copied(ONE, TWO, to=(1,), source=2)),
    ("shard", True, all_of(copied(ONE, to=(1,), source=2), copied(TWO, to=(1,), source=4))),
    ("shard", True, lambda made, keys: made[keys[2]].update({TWO: made[keys[2]][ONE]}) or {keys[2]}),
    ("missing", True, changed(2, TWO, gone)),
    ("missing", True, changed(0, ONE, gone)),
    ("missing", True, all_of(changed(-1, ONE, gone), changed(-1, THREE, gone))),
    ("missing", True, all_of(changed(3, TWO, gone), changed(3, INDEX, gone))),
    ("index", True, changed(3, INDEX, gone)),
    ("empty", True, only(3)),
    ("empty", False, only(-1)),
    ("empty", False, lambda made, keys: made[keys[3]].clear() or {keys[3]}),
    ("index", True, changed(1, INDEX, in_map(**{E: TWO}))),
    ("index", True, changed(1, INDEX, in_map(**{E: None}))),
    ("index", True, changed(1, INDEX, in_map(**{"model.more": ONE}))),
    ("index", True, changed(1, INDEX, in_json(metadata={"total_size": 7}))),
    ("index", True, changed(1, INDEX, lambda content: content[:-9])),
    ("index", True, changed(1, INDEX, lambda content: b"[]")),
    ("index", True, changed(1, INDEX, in_json(weight_map=[1]))),
    ("index", True, changed(1, "model-00004-of-00004.safetensors", fresh(ONE))),
    *(("truncated", False, changed(4, SINGLE, lambda content, n=n: content[:n])) for n in (0, 4, 8, 60, 300, -100, -1)),
    ("truncated", True, changed(-1, THREE, lambda content: content[: len(content) // 2])),
    ("truncated", False, changed(0, SINGLE, lambda content: content + b"\0")),
    ("truncated", False, changed(2, SINGLE, lambda content: POINTER)),
    ("truncated", False, changed(2, SINGLE, lambda content: b"\0" * len(content))),
    ("truncated", False, changed(2, SINGLE, lambda content: packed(b"{'no': json}") + content)),
    ("truncated", False, changed(2, SINGLE, lambda content: packed({"w": {"dtype": "F32"}}) + content)),
    ("truncated", False, changed(2, SINGLE, lambda content: packed({"w": [1]}) + content)),
    ("truncated", False, changed(2, SINGLE, header(lambda tensors: tensors[E].update(shape=[12, 4])))),
    ("truncated", False, changed(2, SINGLE, header(lambda tensors: {key: tensors[key] for key in (E, LAYERS[4])}))),
    ("pickled", False, only(2, pytorch_model__bin=b"pickle")),
    ("pickled", False, only(-1, **{f"pytorch_model-0000{n}-of-00002__bin": b"pickle" for n in (1, 2)})),
    ("dtype", False, changed(3, SINGLE, fresh(dtype="F16"))),
    ("dtype", False, all_of(*(changed(at, SINGLE, lambda _, at=at: checkpoint(random.Random(at), False, "BF16")[SINGLE])
                              for at in (0, 1, 2)))),
    ("shape", False, changed(5, SINGLE, fresh(width=5))),
    ("tensors", False, changed(5, SINGLE, fresh(more=("model.layers.2.w",)))),
    ("tensors", False, changed(1, SINGLE, header(lambda tensors: tensors.update(w=tensors.pop("model.layers.0.b"))))),
    ("tokenizer", False, changed(3, "tokenizer.json", lambda content: b'{"model": {}}')),
    ("tokenizer", True, changed(0, "tokenizer_config.json", gone)),
    ("tokenizer", True, changed(2, "special_tokens_map.json", lambda _: b"{}")),
    ("tokenizer", True, changed(2, "spiece.model", lambda _: b"{}")),
    ("config", False, changed(3, "config.json", in_json(rope_theta=500000))),
    ("config", False, changed(3, "config.json", gone)),
    ("config", True, changed(3, "config.json", lambda content: b"{")),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BOTH)))
def test_every_damage_is_found_where_it_is(tmp_path, number):
    kind, sharded, damage = BOTH[number]
    made = history(number, sharded)
    damaged = damage(made, list(made))
    findings = audit(read(tmp_path, made))
    assert {each.step for each in findings if each.kind == kind} == damaged, report(findings)
    assert {each.step for each in findings} == damaged, report(findings)  # and nowhere else
    assert all(each.base and each.what and "\n" not in each.what for each in findings)


def test_of_two_that_differ_the_earlier_is_told(tmp_path):
    made = {step: checkpoint(random.Random(step), False, dtype) for step, dtype in ((1, "F32"), (2, "BF16"))}
    found = audit(read(tmp_path, made))
    assert [(each.step, each.kind, each.severity) for each in found] == [(1, "dtype", "warning")]
    assert found[0].what.startswith("F32 where 1 of 2 have BF16: lm_head.weight, model.embed_tokens.weight")


def test_a_missing_shard_is_told_once_and_not_as_lost_tensors(tmp_path):
    made = history(5, True)
    del made[list(made)[2]][TWO]
    assert [each.what for each in audit(read(tmp_path, made))] == [f"shards that the index names are not there: {TWO}"]


def test_a_header_that_claims_to_be_huge_is_not_asked_for():
    asked = []
    assert read_header((2**28).to_bytes(8, "little"), 2**30, asked.append).problem and not asked


def test_steps_that_are_named_and_absent(tmp_path):
    found = audit(read(tmp_path, history(0, False)), absent=[1234, 5678])
    assert [(each.kind, each.step, each.severity) for each in found] == [
        ("absent", 1234, "warning"),
        ("absent", 5678, "warning"),
    ]


def test_neighbours_exchanged_are_not_seen_and_the_help_says_so(tmp_path):
    made = history(3, False)
    first, second = list(made)[2:4]
    made[first][SINGLE], made[second][SINGLE] = made[second][SINGLE], made[first][SINGLE]
    assert audit(read(tmp_path, made)) == []
    assert "cannot see two steps whose weights were exchanged" in HELP and "Exit code 1" in HELP


def test_a_local_family_is_identified_as_its_checkpoints_are(tmp_path):
    made = history(4, True, n=3)
    found = read(tmp_path, made)
    entries = [{"step": each.step, "tokens_b": 1, "path": each.revision} for each in found]
    (tmp_path / "family.json").write_text(json.dumps({"name": "mine", "checkpoints": entries}))
    assert [each.base for each in found] == [resolve(f"{tmp_path}@{step}").base for step in made]
    assert all(each.base.startswith("sha256:") for each in found)


# Hash tables of the shape of the published cases: real steps, file names and relations, made-up hashes.

PYTHIA = [0, *(2**power for power in range(10)), *range(1000, 144_000, 1000)]
CONFIG = {"config.json": File(9, "config")}
HEADER = parse_header(json.dumps({"w": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode())


def table(steps_, contents: Callable, main: int | None = None) -> list[Snapshot]:
    """Snapshots with the weight files that `contents(step)` gives as {name: hash}; `main` is a copy of that step."""

    def one(step, revision):
        weights = {name: File(HEADER.start + 8, content) for name, content in contents(step).items()}
        headers = {name: HEADER for name in weights if name.endswith(".safetensors")}
        named = {"w" + name: name for name in headers}
        renamed = {name: Header(HEADER.start, {"w" + name: HEADER.tensors["w"]}) for name in headers}
        texts = {"config.json": {"a": 1}} | ({INDEX: {"weight_map": named}} if SINGLE not in weights else {})
        files = CONFIG | weights | ({INDEX: File(1, "index")} if SINGLE not in weights else {})
        return Snapshot(
            step if revision != "main" else None, revision, f"repo@{commit_of(revision)}", files, renamed, texts
        )

    return [one(step, f"step{step}") for step in steps_] + ([one(main, "main")] if main is not None else [])


def kinds(findings: list[Finding], severity: str = "error") -> dict[str, set]:
    chosen = [each for each in findings if each.severity == severity]
    return {kind: {each.step for each in chosen if each.kind == kind} for kind in {each.kind for each in chosen}}


def test_pythia_2_8b_whose_86_steps_have_weights_of_the_end():
    """https://github.com/EleutherAI/pythia/issues/205: 76 branches with main's file, 10 with another."""
    round_ = [55000, 60000, 65000, 70000, 80000, 90000, 100000, 103000, 110000, 120000, 130000, 140000]
    first = [step for step in PYTHIA if step <= 53000] + round_
    second = [54000, 56000, 57000, 58000, 59000, 61000, 62000, 63000, 64000, 143000]
    assert (len(PYTHIA), len(first), len(second)) == (154, 76, 10)
    content = lambda step: {SINGLE: "A" if step in first else "B" if step in second else str(step)}  # noqa: E731
    found = audit(table(PYTHIA, content, main=0))
    assert kinds(found) == {"identical": {*first, *second} - {143000}}
    assert kinds(found, "warning") == {"identical": {143000, None}}
    text = report(found)
    assert len(text.splitlines()) == 6 and "0, 1, ... main (77)" in text and "85 errors and 2 warnings" in text


def test_pythia_12b_with_the_last_first_shard_in_two_steps_and_pickled():
    """https://github.com/EleutherAI/pythia/issues/206; main is step143000, as it should be."""
    names = [f"pytorch_model-0000{number}-of-00003.bin" for number in (1, 2, 3)]

    def content(step):
        first = "last" if step in (50000, 58000, 143000) else f"{step}-1"
        return dict(zip(names, (first, f"{step}-2", f"{step}-3"), strict=True))

    found = audit(table(PYTHIA, content, main=143000))
    assert kinds(found) == {"shard": {50000, 58000}, "pickled": {*PYTHIA, None}}
    assert kinds(found, "warning") == {"shard": {143000, None}}
    what = next(each.what for each in found if each.kind == "shard")
    assert names[0] in what and "50000, 58000, 143000, main" in what


def test_pythia_steps_0_and_1():
    """https://github.com/EleutherAI/pythia/issues/83: the same weights, which is true and still to be known."""
    found = audit(table(PYTHIA, lambda step: {SINGLE: str(max(step, 1))}, main=143000))
    assert kinds(found) == {"identical": {0, 1}} and not kinds(found, "warning")


def test_olmo_2_7b_with_three_identical_steps():
    """https://github.com/allenai/OLMo/issues/915: all six shards of three branches."""
    names = [f"model-0000{number}-of-00006.safetensors" for number in range(1, 7)]
    alike = (101000, 175000, 300000)
    content = lambda step: {name: f"{100 if step in alike else step}-{name}" for name in names}  # noqa: E731
    found = audit(table(range(1000, 400_000, 1000), content))
    assert kinds(found) == {"identical": set(alike)} and not kinds(found, "warning")
    assert "the weights of 101000, 175000, 300000 are the same" in report(found)


# Over the network: the same findings, and only as many requests as are needed.

AUDIT = """
import json, sys
from dataclasses import asdict
from amuro.registry.audit import audit
from amuro.registry.snapshots import snapshots
from amuro.registry.families import Revision
revisions = [Revision(*each) for each in json.loads(sys.argv[1])]
try:
    print(json.dumps([asdict(each) for each in audit(snapshots(revisions))]))
except ValueError as error:
    print(json.dumps({"error": str(error)}))
assert "torch" not in sys.modules
"""


def over_the_hub(tmp_path, made: dict, absent: tuple = (), **how) -> tuple[list | dict, Hub]:
    """What the audit of a history on a hub prints, and the hub that was asked."""
    hub = Hub({("models", "lab/model"): {f"step{step}": files for step, files in made.items()}}, **how)
    names = {step: f"step{step}" for step in (*made, *absent)}
    revisions = [(step, None, name, commit_of(name), "lab/model", "") for step, name in names.items()]
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    done = run("-c", AUDIT, json.dumps(revisions), **home)
    hub.close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), hub


def test_the_hub_is_asked_for_metadata_only_and_for_each_content_once(tmp_path):
    made = history(1, True, n=9)
    steps_ = list(made)
    made[steps_[3]] |= {name: made[steps_[-1]][name] for name in (ONE, TWO, THREE)}
    made[steps_[5]][TWO] = made[steps_[5]][TWO][:-2]
    big = checkpoint(random.Random(5), True, more=())  # its header is longer than the first request
    long = {f"model.{'x' * 200}.{number}": ("F32", (1,)) for number in range(500)}
    big[ONE] = safe({**{name: ("F32", (11, 4)) for name in LAYERS[:1]}, **long}, random.Random(6))
    made[steps_[6]] = big
    path = f"api/models/lab/model/tree/{commit_of(f'step{steps_[0]}')}"
    found, hub = over_the_hub(tmp_path, made, busy={path: 1})
    assert {(each["kind"], each["step"]) for each in found} == {
        ("identical", steps_[3]),
        ("identical", steps_[-1]),
        ("truncated", steps_[5]),
        *((kind, steps_[6]) for kind in ("index", "tensors")),
    } and found[0]["base"] == f"lab/model@{commit_of(found[0]['revision'])}"
    trees = [each for each in hub.requests if "/tree/" in each]
    assert len(trees) == len(made) + 1  # one was busy
    distinct = {files[name] for files in made.values() for name in (ONE, TWO, THREE)}
    texts = {files[name] for files in made.values() for name in ("config.json", INDEX)}
    asked = [each for each in hub.requests if "/resolve/" in each]
    assert len(asked) == len(distinct) + len(texts) + 1 == len(hub.ranges)  # the long header took two, all are ranges
    assert not any("README" in each for each in asked)


def test_a_revision_that_is_gone_and_a_hub_that_refuses(tmp_path):
    made = history(2, False, n=3)
    found, _ = over_the_hub(tmp_path, made, absent=(99999,))
    assert [(each["kind"], each["step"]) for each in found] == [("empty", 99999)]
    found, _ = over_the_hub(tmp_path, made, refused={"lab/model/resolve": (401, "GatedRepo")})
    assert "the hub refuses it (401)" in found["error"]


# Kept findings.


def test_findings_are_kept_by_base_and_read_without_a_network(tmp_path):
    one = Finding("repo@a", 1, "step1", "identical", "error", "as step 2")
    two = replace(one, base="repo@b", step=2, revision="step2")
    path = save("pythia-70m", ["repo@a", "repo@b", "repo@c"], [one, two], tmp_path)
    assert path == tmp_path / "audit" / "pythia-70m.json" and audited(tmp_path / "none") == {}
    assert audited(tmp_path) == {"repo@a": [one], "repo@b": [two], "repo@c": []}
    save(
        "pythia-70m", ["repo@a", "repo@d"], [], tmp_path
    )  # a part: what was found about the others, and with them, stays
    assert audited(tmp_path) == {"repo@a": [one], "repo@b": [two], "repo@c": [], "repo@d": []}
    save("pythia-70m", ["repo@a", "repo@b", "repo@c", "repo@d"], [one], tmp_path)
    save("other", ["repo@a"], [one, replace(one, kind="config")], tmp_path)
    assert audited(tmp_path)["repo@b"] == [] and [each.kind for each in audited(tmp_path)["repo@a"]] == [
        "identical",
        "config",
    ]
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []
    path.write_text("{")
    with pytest.raises(ValueError, match="pythia-70m.json: not an audit's findings .*; remove it and audit again"):
        audited(tmp_path)


def test_a_family_that_is_a_path_has_a_file_of_its_own():
    names = ["nursery", "/data/lab/family", "/data/lab-family", "../x", "con", "a" * 300, "Pythia"]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("nursery") == "nursery" and file_name("/data/lab/family").startswith("family-data-lab-family-")


def test_steps_are_shown_short():
    made = [Finding("", step, f"s{step}", "", "", "") for step in range(9)]
    assert steps(made[:4]) == "0, 1, 2, 3" and steps(made) == "0, 1, ... 8 (9)"


# The weights themselves.


def numbers(step: int, seed: int = 0, shrink: float = 0.0, dtype: str = "F32", rows: int = 40) -> dict[str, bytes]:
    """A checkpoint whose norms grow with its step as in a training, and may shrink at the end."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed + step)
    header, data = {}, b""
    for number in range(12):
        shape = (rows, 8) if number == 0 else (8, 16) if number < 11 else (16,)
        start, growth, when = fixed.uniform(0.02, 0.1), fixed.uniform(0.3, 3), fixed.uniform(100, 5000)
        scale = start * (1 + growth * step / (step + when)) * (1 - shrink * step / 143000)
        values = rng.normal(size=shape)
        values *= scale / np.sqrt((values**2).mean())
        raw = values.astype("<f4" if dtype != "F16" else "<f2")
        raw = (raw.view("<u4") >> 16).astype("<u2").tobytes() if dtype == "BF16" else raw.tobytes()
        name = "gpt_neox.embed_in.weight" if number == 0 else f"gpt_neox.layers.{number}.weight"
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    vocabulary = {"model": {"vocab": {"a": 0, "b": 37}}, "added_tokens": [{"id": 38, "content": "<eos>"}]}
    config = json.dumps({"vocab_size": rows}).encode()
    return {SINGLE: packed(header) + data, "config.json": config, "tokenizer.json": json.dumps(vocabulary).encode()}


SOME = (0, 64, 512, 1000, 4000, 16000, 33000, 64000, 103000, 143000)


def weights_audited(folder, made: dict) -> list[Finding]:
    found = read(folder, made)
    return audit_weights((each, folder / f"step-{each.step}") for each in found)


@pytest.mark.parametrize("seed", range(12))
def test_weights_of_good_histories_raise_no_alarm(tmp_path, seed):
    rng = random.Random(seed)
    taken = sorted(rng.sample(SOME, rng.randint(2, len(SOME))))
    how = {"seed": seed, "dtype": ("F32", "F16", "BF16")[seed % 3], "shrink": rng.uniform(0, 0.3)}
    assert weights_audited(tmp_path, {step: numbers(step, **how) for step in taken}) == []


def test_norms_that_always_jump_about_raise_no_alarm(tmp_path):
    made = {}
    for step in range(50_000, 70_000, 1000):
        tensors, data = taken_apart(numbers(step)[SINGLE])
        values, rng = np.frombuffer(data, "<f4").copy(), np.random.default_rng(step)
        for each in tensors.values():
            values[each["data_offsets"][0] // 4 : each["data_offsets"][1] // 4] *= rng.uniform(0.9, 1.1)
        made[step] = numbers(step) | {SINGLE: packed(tensors) + values.tobytes()}
    assert weights_audited(tmp_path, made) == []


@pytest.mark.parametrize(
    ("at", "other"), [(512, 143000), (64, 143000), (64000, 512), (4000, 0), (103000, 1000), (16000, 64)]
)
def test_a_checkpoint_far_out_of_order_is_found(tmp_path, at, other):
    """Converted anew, so that no hash tells; alone it is reported, and not its neighbours."""
    made = {step: numbers(step) for step in SOME} | {at: numbers(other, seed=1)}
    found = weights_audited(tmp_path, made)
    assert [(each.kind, each.step, each.severity) for each in found] == [("norms", at, "error")], report(found)


def test_two_checkpoints_with_a_part_of_the_last_weights_are_found(tmp_path):
    """As in pythia-12b: the embeddings and early layers of two steps."""
    near = list(range(44000, 64000, 1000))
    made = {step: numbers(step, shrink=0.4) for step in near}
    for step in (50000, 58000):
        mine, last = taken_apart(made[step][SINGLE]), taken_apart(numbers(143000, shrink=0.4)[SINGLE])
        end = mine[0]["gpt_neox.layers.4.weight"]["data_offsets"][1]
        made[step][SINGLE] = packed(mine[0]) + last[1][:end] + mine[1][end:]
    assert {(each.kind, each.step) for each in weights_audited(tmp_path, made)} == {("norms", 50000), ("norms", 58000)}


def test_weights_of_a_checkpoint_that_is_not_whole_are_passed_over(tmp_path):
    made = {step: numbers(step) for step in SOME}
    made[64][SINGLE] = made[64][SINGLE][:-1]
    made[512][SINGLE] = b""
    del made[1000]["config.json"]
    assert weights_audited(tmp_path, made) == []


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found(tmp_path, dtype, value):
    made = {step: numbers(step, dtype=dtype) for step in SOME[:3]}
    content = bytearray(made[64][SINGLE])
    raw = np.array([value], "<f4" if dtype != "F16" else "<f2")
    content[-2:] = raw.tobytes()[-2:]  # the upper half of a float32 is a bfloat16
    made[64][SINGLE] = bytes(content)
    found = weights_audited(tmp_path, made)
    assert [(each.kind, each.step) for each in found] == [("nan", 64)] and "layers.11" in found[0].what


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": b'{"vocab_size": 39}'}, "have 40 rows, the config's vocab_size is 39"),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": 40}}}'}, "have 40 rows, the tokenizer has ids up to 40"),
        ({"tokenizer.json": b'{"model": {"vocab": [["a", 0.1]]}, "added_tokens": [{"id": 41}]}'}, "ids up to 41"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json cannot be read (KeyError: 'model')"),
        ({"tokenizer.json": b"{"}, "tokenizer.json cannot be read (JSONDecodeError: "),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_found(tmp_path, files, told):
    made = {step: numbers(step) for step in SOME[:2]}
    made[64] |= files
    found = weights_audited(tmp_path, made)
    assert [(each.kind, each.step) for each in found] == [("vocabulary", 64)] and told in found[0].what


@pytest.mark.parametrize("dtype", ["I64", "BOOL", "F8_E4M3"])
def test_weights_that_are_no_numbers_with_a_point_are_refused(tmp_path, dtype):
    """A library would cast them without a word."""
    WIDTH.setdefault(dtype, 1)
    (one,) = read(tmp_path, {5: checkpoint(random.Random(0), sharded=False, dtype=dtype)})
    assert any(f"is {dtype}; weights are F64, F32, F16, BF16" in str(each) for each in faults(one))


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    files = checkpoint(random.Random(0), sharded=False) | {"adapter_config.json": b"{}"}
    (one,) = read(tmp_path, {5: files})
    assert any("an adapter would be added to the weights" in str(each) for each in faults(one))
