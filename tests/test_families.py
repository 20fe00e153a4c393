"""The table of families, what revisions' names tell, and a history of one's own."""

import csv

import pytest
from conftest import SHARED, needs_shared
from hub import Hub, commit_of

from amuro.checkpoints import Checkpoint
from amuro.registry import families as module
from amuro.registry.families import (
    Family,
    families,
    family,
    matching,
    on_line,
    parse_revision,
    published_defects,
    revisions,
    short,
)
from amuro.registry.families import refuse_remote_code as refuse

LIST = SHARED.parent / "paper" / "OLMo-1B.csv"

# Real names: family, name, stage, step, billions of tokens (None: nothing tells; of a stage, with those before it).
REAL = """
olmo-1b step1000-tokens4B - 1000 4
olmo-1b step342000-tokens1433B - 342000 1433
olmo-1b step738020-tokens3094B - 738020 3094
olmo-1b-0724 step0-tokens0B - 0 0
olmo-1b-0724 step1454000-tokens3048B - 1454000 3048
olmo-7b step452000-tokens2000B - 452000 2000
olmo-7b step556000-tokens2460B - 556000 2460
olmo-7b step557000-tokens2464B - 557000 2464
olmo2-1b stage1-step1000000-tokens2098B stage1 1000000 2098
olmo2-1b stage1-step1907359-tokens4001B stage1 1907359 4001
olmo2-1b stage2-ingredient3-step23852-tokens51B stage2-ingredient3 23852 4052
olmo2-1b-early stage1-step0-tokens0B stage1 0 0
olmo2-1b-early stage1-step1000-tokens3B stage1 1000 3
olmo2-1b-early stage1-step2000-tokens5B stage1 2000 5
olmo2-7b stage1-step928646-tokens3896B stage1 928646 3896
olmo2-7b stage1-step101000-tokens424B stage1 101000 424
olmo2-7b step150-tokens1B stage1 150 1
olmo2-7b stage2-ingredient1-step11931-tokens50B stage2-ingredient1 11931 3946
olmo2-13b stage1-step596057-tokens5001B stage1 596057 5001
olmo2-13b stage1-step102500-tokens860B stage1 102500 860
olmo2-13b stage2-ingredient4-step35773-tokens300B stage2-ingredient4 35773 5301
olmo2-32b stage1-step721901-tokens6056B stage1 721901 6056
olmo3-7b stage1-step0 stage1 0 0
olmo3-7b stage1-step1413814 stage1 1413814 5929.97
olmo3-7b stage2-step1000 stage2 1000 None
pythia-70m step0 - 0 0
pythia-410m step512 - 512 1.07374
pythia-12b-deduped step143000 - 143000 299.893
amber ckpt_000 - 0 3.5
amber ckpt_179 - 179 630
amber ckpt_358 - 358 1256.5
crystal CrystalCoder_phase1_checkpoint_079721 phase1 79721 344.953
crystal CrystalCoder_phase2_checkpoint_214387 phase2 214387 1272.01
crystal CrystalCoder_phase3_checkpoint_027728 phase3 27728 1382
k2 ckpt_360 - 360 None
redpajama-7b 240b_tokens - 240 240
redpajama-7b 960b_tokens - 960 960
redpajama-7b 1t_tokens - 1000 1000
baichuan2-7b train_00220B - 220 220
baichuan2-7b train_01100B - 1100 1100
baichuan2-7b train_02420B - 2420 2420
bloom-560m global_step1000 - 1000 None
bloom-1b1 global_step10000 - 10000 None
bloom-7b1 global_step600000 - 600000 None
smollm2-1.7b step-125000 - 125000 262.144
smollm2-1.7b step-250000 - 250000 524.288
smollm2-1.7b step-5125000 - 5125000 10747.9
smollm3-3b stage1-step-40000 stage1 40000 94.3718
smollm3-3b stage2-step-4200000 stage2 4200000 9909.04
smollm3-3b stage3-step-4720000 stage3 4720000 11135.9
smollm3-3b lc-32k-to-64k-step-20000 lc-32k-to-64k 20000 None
apertus-8b step50000-tokens210B - 50000 210
apertus-8b step2400000-tokens13112B - 2400000 13112
apertus-8b step2627139-tokens15T - 2627139 15000
""".split("\n")[1:-1]

# Names that are near, and are no checkpoint of the family.
STRANGE = """
olmo-1b main
olmo-1b step1000
olmo-1b step1000-tokens4B-unsharded
olmo-1b xstep1000-tokens4B
olmo-1b step-tokensB
olmo-1b step١٠٠٠-tokens4B
olmo2-1b stage3-step1000-tokens4B
olmo2-1b stage2-step1000-tokens4B
olmo3-7b stage1-step1000-tokens4B
pythia-70m step
pythia-70m step1000-old
amber ckpt_0
amber ckpt_3590
crystal CrystalCoder_phase4_checkpoint_000100
redpajama-7b 240b
redpajama-7b tokens
baichuan2-7b train_220B
bloom-560m step1000
smollm2-1.7b step125000
smollm3-3b it-mid-training
smollm3-3b main
apertus-8b step2627139-tokens15Q
llama3-8b step1000
""".split("\n")[1:-1]


def test_real_names_are_parsed():
    for line in REAL:
        name, revision, stage, step, tokens_b = line.split()
        found = parse_revision(families()[name], revision)
        assert found is not None, line
        assert found[:2] == ("" if stage == "-" else stage, int(step)), line
        assert found[2] == (None if tokens_b == "None" else pytest.approx(float(tokens_b), rel=1e-5)), line
    assert len(REAL) >= 50 and len({line.split()[0] for line in REAL}) >= 20


def test_a_pattern_that_takes_something_else_than_numbers_is_told():
    of_words = Family(name="mine", repo="me/mine", pattern=r"step-(?P<step>\w+)")
    with pytest.raises(ValueError, match="mine: pattern .* takes a step or tokens from 'step-abc' that are no number"):
        parse_revision(of_words, "step-abc")
    half = Family(name="mine", repo="me/mine", pattern=r"(?:step-(?P<step>\d+)|final)")
    assert parse_revision(half, "final") is None and parse_revision(half, "step-5")[1] == 5


def test_other_names_are_not_guessed():
    for line in STRANGE:
        name, revision = line.split()
        assert parse_revision(families()[name], revision) is None, line
    assert len(STRANGE) >= 20


def test_the_table_is_whole():
    """Each of its examples matches, each family has a licence and sources, each doubt names a fact."""
    facts = {*module.Family.__dataclass_fields__}
    for each in families().values():
        assert each.licence and "licence" in each.sources, each.name
        assert all(source.startswith("https://") for source in each.sources.values()), each.name
        assert set(each.unconfirmed) <= facts and each.confirmed == (not each.unconfirmed), each.name
        assert bool(each.pattern) == bool(each.examples) and "{" not in each.name + each.repo, each.name
        assert all(parse_revision(each, example) for example in each.examples), each.name
        assert all(defect.what and defect.source for defect in each.defects), each.name
        if isinstance(each.main, int):
            assert each.count and parse_revision(each, each.examples[0]), each.name
    assert len(families()) >= 45
    asked = "olmo-1b olmo-1b-0724 olmo-7b olmo2-1b olmo2-1b-early olmo2-7b olmo2-13b olmo2-32b olmo3-7b pythia-70m"
    asked += " pythia-12b-deduped tinyllama amber crystal k2 redpajama-7b openllama-7b baichuan2-7b bloom-560m"
    asked += " smollm2-1.7b smollm3-3b apertus-8b llama3-8b"
    assert set(asked.split()) <= set(families())


def test_published_defects_of_a_checkpoint():
    def of(family, step, repo=""):
        return published_defects(Checkpoint(family, f"{family}@{step}", step, None, f"{repo}@c0ffee"))

    assert len(of("pythia-2.8b", 1)) == 2 and "EleutherAI/pythia#205" in of("pythia-2.8b", 1)[1]
    assert len(next(d for d in families()["pythia-2.8b"].defects if "86 of 154" in d.what).steps) == 86
    assert of("pythia-2.8b", 66000) == [] and of("pythia-12b", 50000) and not of("pythia-12b", 49000)
    assert "allenai/OLMo#915" in of("olmo2-7b", 175000)[0]
    assert of("EleutherAI/pythia-12b", 58000, repo="EleutherAI/pythia-12b")
    assert of("olmo-1b", 1000) == [] and of("toy", None) == []


def test_remote_code_is_refused_with_the_reason():
    told = {name for name, each in families().items() if each.needs_remote_code}
    assert told == {"olmo-7b", "crystal", "baichuan2-7b"}
    for name in told:
        with pytest.raises(ValueError, match="trust_remote_code stays off.*PATH@step"):
            refuse(families()[name])
    refuse(families()["olmo-1b"])


@pytest.fixture
def hub(monkeypatch):
    """Serves refs of empty revisions: hub({repo: [names]})."""
    opened = []

    def serve(repos: dict[str, list[str]]) -> Hub:
        opened.append(Hub({("models", repo): {name: {} for name in names} for repo, names in repos.items()}))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        api = __import__("huggingface_hub").HfApi
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: api(endpoint=opened[-1].url))
        return opened[-1]

    yield serve
    for each in opened:
        each.close()


def test_stages_are_in_order_and_a_step_may_be_ambiguous(hub):
    names = ["main", "stage2-ingredient1-step1000-tokens3B", "stage1-step20000-tokens42B", "stage1-step1000-tokens3B"]
    hub({"allenai/OLMo-2-0425-1B": [*names, "stage2-ingredient2-step1000-tokens3B", "experiment"]})
    olmo2 = families()["olmo2-1b"]
    found = revisions(olmo2)
    assert [(each.stage, each.step, each.tokens_b) for each in found] == [
        ("stage1", 1000, 3.0),
        ("stage1", 20000, 42.0),
        ("stage2-ingredient1", 1000, 4004.0),
        ("stage2-ingredient2", 1000, 4004.0),
    ]
    assert all(each.commit == commit_of(each.name) and each.repo == olmo2.repo for each in found)
    assert on_line(olmo2, found) == found[:2]
    assert len(matching(olmo2, found, "1000")) == 3 and matching(olmo2, found, "20000") == [found[1]]
    assert matching(olmo2, found, "stage1-step1000-tokens3B") == [found[0]] and matching(olmo2, found, "main") == []
    assert [short(olmo2, found, each) for each in found[:2]] == ["stage1-step1000-tokens3B", "20000"]


def test_main_stands_in_for_the_step_it_is(hub):
    hub({"EleutherAI/pythia-70m": ["main", "step0", "step1000"], "EleutherAI/pythia-160m": ["main", "step143000"]})
    found = revisions(families()["pythia-70m"])
    assert [(each.step, each.name) for each in found] == [(0, "step0"), (1000, "step1000"), (143000, "main")]
    assert found[-1].tokens_b == pytest.approx(299.892736) and found[-1].commit == commit_of("main")
    assert [each.name for each in revisions(families()["pythia-160m"])] == ["step143000"]


def test_a_repository_per_checkpoint(hub):
    tinyllama = families()["tinyllama"]
    hub({each["repo"]: ["main"] for each in tinyllama.repos})
    found = revisions(tinyllama)
    assert [each.step for each in found] == [50000, 240000, 480000, 715000, 955000, 1195000, 1431000]
    assert found[0].repo == "PY007/TinyLlama-1.1B-step-50K-105b" and found[0].commit and found[-1].tokens_b == 3000


@needs_shared
def test_the_real_list_of_olmo_1b(hub):
    steps = [int(row["Step"]) for row in csv.DictReader(LIST.open())]
    hub({"allenai/OLMo-1B-hf": ["main", *(f"step{step}-tokens{int(step * 4192700 / 1e9)}B" for step in steps[::-1])]})
    found = revisions(family("olmo-1b"))
    assert [each.step for each in found] == steps and len(found) == family("olmo-1b").count == 351
    assert found[0].name == "step1000-tokens4B" and found[-1].name == "step738020-tokens3094B"


OWN = """
name: my-llama
repo: me/my-llama
pattern: 'step-(?P<step>\\d+)'
tokens_per_step: 1048576
"""


def test_a_history_of_ones_own_on_the_hub(hub, tmp_path):
    (tmp_path / "mine.yaml").write_text(OWN)
    hub({"me/my-llama": ["main", "step-2000", "step-1000", "draft"]})
    mine = family(str(tmp_path / "mine.yaml"))
    found = revisions(mine)
    assert mine.name == "my-llama" and mine.computed and mine.confirmed
    assert [(each.step, each.tokens_b) for each in found] == [(1000, 1.048576), (2000, 2.097152)]


def test_a_history_of_ones_own_in_a_folder(tmp_path):
    for name in ("step-20-2M", "step-100-1T", "step-3-5B", "notes"):
        (tmp_path / "out" / name).mkdir(parents=True)
    text = "name: mine\nfolder: out\npattern: 'step-(?P<step>\\d+)-(?P<tokens>\\d+[MBT])'\n"
    (tmp_path / "mine.yml").write_text(text)
    found = revisions(family(str(tmp_path / "mine.yml")))
    assert [(each.step, each.tokens_b) for each in found] == [(3, 5.0), (20, 0.002), (100, 1000.0)]
    assert found[0].name == str(tmp_path / "out" / "step-3-5B") and found[0].repo == found[0].commit == ""
    (tmp_path / "mine.yml").write_text(text.replace("step-", "stp-"))
    with pytest.raises(ValueError, match="no subfolder's name matches"):
        revisions(family(str(tmp_path / "mine.yml")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "not YAML"),
        ("", "needs the keys name, repo"),
        ("- 1", "needs the keys name, repo"),
        (OWN.replace("name: my-llama", ""), "needs a name"),
        (OWN.replace("my-llama\n", "olmo-1b\n", 1), "is that of a known family"),
        (OWN.replace("my-llama\n", "../evil\n", 1), "letters, digits"),
        (OWN.replace("repo: me/my-llama\n", ""), "needs one of repo"),
        (OWN + "folder: out\n", "needs one of repo"),
        (OWN.replace("me/my-llama", "my-llama-alone"), "write OWNER/NAME"),
        (OWN.replace("repo: me/my-llama", "folder: nowhere"), "no such folder"),
        (OWN.replace("(?P<step>", "(?P<stp>"), "group 'stp'; allowed: step, tokens, stage"),
        (OWN.replace("(?P<step>", "("), "needs a group, such as"),
        (OWN.replace("(?P<step>", "(?P<step"), "no regular expression"),
        (OWN.replace("1048576", "1e6"), "tokens_per_step: '1e6' is not of type int or float"),
        (OWN.replace("tokens_per_step", "token_per_step"), "did you mean tokens_per_step"),
        (OWN + "main: lst\n", "allowed: last, apart, none, or a step"),
        (OWN + "stages: [stage1]\n", r"stages\[0\]: needs keys and values"),
        (OWN + "defects: [{what: bad, step: 1}]\n", "unknown key 'step'; did you mean steps"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path, text, told):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        family(str(tmp_path / "mine.yaml"))
    assert "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_what_is_near_is_named():
    with pytest.raises(ValueError, match="did you mean pythia-14m, pythia-31m, pythia-70m"):
        family("pythia")
    with pytest.raises(ValueError, match="known: olmo-1b, .*pythia-SIZE.*did you mean olmo-1b[?]"):
        family("olmo-1c")
    with pytest.raises(ValueError, match="mine.yaml: cannot be read .No such file"):
        family("nowhere/mine.yaml")
