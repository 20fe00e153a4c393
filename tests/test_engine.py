"""The engine against the stock harness and against plain torch: same answers on four architectures, and robust."""

import os
import random
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import transformers
from conftest import ROOT, make_tokenizer
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from test_settings import eval_run

from amuro.cells import Unit
from amuro.engine import Engine
from amuro.evaluation import Request, load_task
from amuro.prompts import PROMPT_FORMATS
from amuro.rows import SHARED_TOKENS, Row, make_rows, prefix_groups
from amuro.tasks import METHODS, TASKS

ARCHITECTURES = ("Olmo", "GPTNeoX", "Llama", "Olmo2")


def make_model(architecture: str, tokenizer, **changes):
    """A tiny model with random weights; Llama's with grouped keys and values."""
    torch.manual_seed(7)
    settings = dict(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.2,  # far from ties
        pad_token_id=1,
        eos_token_id=0,
        bos_token_id=None,
    )
    settings |= {"num_key_value_heads": 2} if architecture in ("Llama", "Mistral") else {}
    config = getattr(transformers, f"{architecture}Config")(**settings | changes)
    return getattr(transformers, f"{architecture}ForCausalLM")(config).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def asked(request, tmp_path_factory):
    """(model, tokenizer, folder) of one architecture."""
    tokenizer = make_tokenizer()
    model, folder = make_model(request.param, tokenizer), tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer, folder


@pytest.fixture(scope="module")
def olmo(tmp_path_factory):
    tokenizer = make_tokenizer()
    model, folder = make_model("Olmo", tokenizer), tmp_path_factory.mktemp("olmo")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer, folder


def task_of(folder, mirror, name: str, prompt_format: str, shots: int, methods=None, limit: int = 12):
    """A task with its requests built."""
    units = [Unit(name, prompt_format, shots, 42, each, "float32") for each in methods or TASKS[name].methods[:1]]
    task = load_task(folder, Request((), str(mirror), None, None), units)
    task.build_all_requests(limit=limit)
    return task


def stock_answers(lm: HFLM, requests: list[Instance]) -> list:
    answers: list = [None] * len(requests)
    for kind in {request.request_type for request in requests}:
        numbers = [number for number, each in enumerate(requests) if each.request_type == kind]
        for number, answer in zip(numbers, getattr(lm, kind)([requests[n] for n in numbers], True), strict=True):
            answers[number] = answer
    return answers


def same(ours: list, stock: list) -> int:
    """Assert that answers agree: text to the letter, log-probabilities to 1e-4; how many there were."""
    for own, other in zip(ours, stock, strict=True):
        if isinstance(own, str):
            assert own == other
        else:
            assert own[0] == pytest.approx(other[0], abs=1e-4) and own[1] == other[1]
    return len(ours)


@pytest.mark.slow
def test_answers_equal_the_stock_harness(asked, mirror):
    model, tokenizer, folder = asked
    stock, seen = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=5), 0
    labels, texts, choices = ("mnli_matched", "paws", "rte"), ("xsum", "socialiqa"), ("arc_easy", "hellaswag", "boolq")
    cases = [(name, each, ["token_prob", "free"]) for name in labels for each in PROMPT_FORMATS]
    cases += [(name, each, None) for name in texts for each in PROMPT_FORMATS]
    cases += [(name, "default", None) for name in choices]
    for name, prompt_format, methods in cases:
        for shots in (0, 3):
            task = task_of(folder, mirror, name, prompt_format, shots, methods, limit=7)
            expected = stock_answers(stock, task.instances)
            for known in ({}, task.encoded):
                seen += same(Engine(model, tokenizer).answer(task.instances, known), expected) > 0
    assert seen == 18 * 2 * 2


def plain(model, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token: no batch, no padding, no cache."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)


def plain_label(model, tokenizer, context: str, labels: tuple[str, ...], method: str) -> str:
    """The label by the protocol's rules, from scratch."""
    start = tokenizer(context)["input_ids"]
    after = lambda text: tokenizer(context + text)["input_ids"][len(start) :]  # noqa: E731
    small, large = ({label: after(" " + word(label)) for label in labels} for word in (str.lower, str.capitalize))
    if method == "free":
        ids = list(start)
        while len(ids) < len(start) + 5 and tokenizer.eos_token_id not in ids[len(start) :]:
            ids.append(int(plain(model, ids).argmax()))
        text = tokenizer.decode(ids[len(start) :], skip_special_tokens=True).split("\n\n")[0].lower()
        words = "".join(each if each.isalnum() or each == "_" else " " for each in text).split()
        return next((word for word in words if word in labels), "")
    if method == "all_subtokens":
        pieces = [(token, label) for group in (small, large) for label, ids in group.items() for token in ids]
    else:
        pieces = [(ids[0], label) for label, ids in small.items()]
        if method == "token_prob" and all(len(ids) == 1 for ids in large.values()):
            pieces += [(ids[0], label) for label, ids in large.items()]
    scores, owners = plain(model, start), {}
    for token, label in pieces:
        owners.setdefault(token, label)
    return owners[max(owners, key=lambda token: float(scores[token]))]


def test_labels_equal_an_independent_computation(asked, mirror):
    """All four ways of reading a label, one example at a time in plain torch."""
    model, tokenizer, folder = asked
    engine, seen = Engine(model, tokenizer), 0
    for name in ("mnli_matched", "rte", "paws"):
        for prompt_format in PROMPT_FORMATS:
            task = task_of(folder, mirror, name, prompt_format, 2, METHODS)
            answers = engine.answer(task.instances, task.encoded)
            by_doc: dict[str, list] = {}
            for request, answer in zip(task.instances, answers, strict=True):
                by_doc.setdefault(request.doc["example_id"], [request, []])[1].append(answer)
            for request, responses in list(by_doc.values())[:6]:
                found = task.answers(request.doc, responses)
                for method in METHODS:
                    expected = plain_label(model, tokenizer, request.args[0], task.spec.labels, method)
                    assert found[method].prediction == expected, (name, prompt_format, method)
                    assert found[method].unparsable == (expected == "")
                    seen += 1
    assert seen == 3 * 3 * 6 * 4


def test_generation_equals_an_unbatched_loop(olmo, mirror):
    model, tokenizer, folder = olmo
    task = task_of(folder, mirror, "socialiqa", "default", 2)
    for request, text in zip(task.instances, Engine(model, tokenizer).answer(task.instances), strict=True):
        ids = tokenizer(request.args[0], return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(60):
            with torch.no_grad():
                token = model(ids, use_cache=False).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, token], 1)
            if token.item() == tokenizer.eos_token_id:
                break
        assert text == tokenizer.decode(ids[0, start:], skip_special_tokens=True).split("\n\n")[0]
    assert len(task.instances) == 12


def test_batch_size_and_order_change_nothing(olmo, mirror):
    model, tokenizer, folder = olmo
    requests = [
        request
        for name, methods in (("mnli_matched", METHODS), ("xsum", None), ("hellaswag", None))
        for request in task_of(folder, mirror, name, "default", 2, methods).instances
    ]
    expected, seen = Engine(model, tokenizer, 1).answer(requests), 0
    for batch_size in (2, 7, None):
        order = random.Random(batch_size or 0).sample(range(len(requests)), len(requests))
        shuffled = Engine(model, tokenizer, batch_size).answer([requests[number] for number in order])
        for number, answer in zip(order, shuffled, strict=True):
            if isinstance(answer, str):
                assert answer == expected[number]
            elif isinstance(answer, list):
                assert answer == pytest.approx(expected[number], abs=1e-4)
            else:
                assert answer[0] == pytest.approx(expected[number][0], abs=1e-4) and answer[1] == expected[number][1]
            seen += 1
    assert seen == 3 * len(requests) > 300


def test_rows_stop_one_by_one(olmo, mirror):
    """With likely line ends and EOS most texts end early, at different steps; the texts are still stock's."""
    _, tokenizer, folder = olmo
    model = make_model("Olmo", tokenizer)
    with torch.no_grad():
        for token in (tokenizer("\n")["input_ids"][0], tokenizer("\n\n")["input_ids"][0], tokenizer.eos_token_id):
            model.lm_head.weight[token] *= 3
    task = task_of(folder, mirror, "socialiqa", "io", 1)
    ours = Engine(model, tokenizer).answer(task.instances)
    assert ours == HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4).generate_until(task.instances, True)
    tokens = [len(tokenizer(text)["input_ids"]) for text in ours]
    assert min(tokens) < 30 and len(set(tokens)) > 3


def test_no_pass_has_more_rows_than_asked_for(olmo, mirror, monkeypatch):
    """Also where batches of several groups are decoded together; and with no limit, texts are decoded all at once."""
    model, tokenizer, folder = olmo
    requests = task_of(folder, mirror, "socialiqa", "default", 2).instances
    requests += task_of(folder, mirror, "socialiqa", "instruct", 2).instances
    forward, seen = Engine._forward, []
    monkeypatch.setattr(
        Engine, "_forward", lambda self, ids, *a, **k: seen.append(ids.shape) or forward(self, ids, *a, **k)
    )
    expected = Engine(model, tokenizer).answer(requests)
    assert max(rows for rows, width in seen if width == 1) == len(requests) == 24
    seen.clear()
    assert Engine(model, tokenizer, 5).answer(requests) == expected
    assert max(rows for rows, _ in seen) == 5


def test_running_out_of_memory_halves_the_batch_and_goes_on(olmo, mirror, monkeypatch, capsys):
    model, tokenizer, folder = olmo
    requests = task_of(folder, mirror, "paws", "default", 2, ["token_prob", "free"]).instances
    expected = Engine(model, tokenizer).answer(requests)
    forward, most = Engine._forward, 3

    def small_memory(self, ids, *arguments, **settings):
        if ids.shape[0] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids, *arguments, **settings)

    monkeypatch.setattr(Engine, "_forward", small_memory)
    engine = Engine(model, tokenizer)
    assert same(engine.answer(requests), expected) == len(requests)
    assert engine.most_rows == 3 and "out of memory with 12 rows, going on with 6" in capsys.readouterr().out
    most = 0
    with pytest.raises(RuntimeError, match="out of memory with one sequence of"):
        Engine(model, tokenizer).answer(task_of(folder, mirror, "paws", "default", 0).instances)


def test_out_of_memory_while_decoding_loses_no_row_of_several_processes(olmo, mirror, monkeypatch):
    model, tokenizer, folder = olmo
    requests = task_of(folder, mirror, "paws", "default", 2, ["token_prob", "free"]).instances
    forward = Engine._forward

    def small_memory(self, ids, *arguments, **settings):
        if ids.shape[1] == 1 and ids.shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids, *arguments, **settings)

    monkeypatch.setattr(Engine, "_forward", small_memory)
    found: list[int] = []
    for number in range(2):
        engine = Engine(model, tokenizer)
        engine.state = SimpleNamespace(process_index=number, num_processes=2)
        with torch.no_grad():
            answers = list(engine._answers(prefix_groups(make_rows(engine, requests, {}))))
        found += [each for part in answers for each in part]
    assert sorted(found) == list(range(len(requests)))


def test_another_error_is_not_taken_for_memory(olmo, mirror, monkeypatch):
    model, tokenizer, folder = olmo
    requests = task_of(folder, mirror, "paws", "default", 0).instances
    monkeypatch.setattr(Engine, "_run", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Engine(model, tokenizer).answer(requests)


@pytest.mark.parametrize("change", [{"sliding_window": 16}, {"sliding_window": None, "attn_implementation": "eager"}])
def test_other_attention_gives_the_stock_answers(olmo, mirror, change, capsys):
    """A sliding window is left to the stock code, and said; eager attention gets its mask as numbers."""
    _, tokenizer, folder = olmo
    model = make_model("Mistral", tokenizer, **change)
    requests = task_of(folder, mirror, "mnli_matched", "default", 2, ["token_prob", "free"]).instances
    engine = Engine(model, tokenizer)
    told = capsys.readouterr().out
    assert bool(engine.unfit) == bool(change["sliding_window"]) == ("does not attend to the whole context" in told)
    assert same(engine.answer(requests), stock_answers(HFLM(pretrained=model, tokenizer=tokenizer), requests)) > 0
    if engine.unfit:
        with pytest.raises(ValueError, match="next_token requests need the engine"):
            engine.answer([Instance("next_token", {}, ("the", (1, 2)), 0)])


def test_bfloat16_differs_from_stock_in_near_ties_only(olmo, mirror):
    """Half precision rounds by batch and padding, in the engine as in stock: equal within it, labels but for ties."""
    _, tokenizer, folder = olmo
    model = make_model("Olmo", tokenizer).to(torch.bfloat16)
    seen = 0
    for name in ("mnli_matched", "paws"):
        task = task_of(folder, mirror, name, "default", 3)
        ours = Engine(model, tokenizer).answer(task.instances, task.encoded)
        stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, softmax_dtype="float32")
        other = stock.loglikelihood(task.instances, True)
        each = len(task.candidates)
        for start in range(0, len(ours), each):
            own, theirs = ([answer[0] for answer in found[start : start + each]] for found in (ours, other))
            assert own == pytest.approx(theirs, abs=0.3)
            best = own.index(max(own))
            assert best == theirs.index(max(theirs)) or max(theirs) - theirs[best] < 0.3
            seen += 1
    assert seen == 24


def test_a_request_beyond_the_context_is_an_error(olmo):
    model, tokenizer, _ = olmo
    long = Instance("loglikelihood", {}, ("word " * 3000, " yes"), 0)
    with pytest.raises(ValueError, match=r"a request of \d+ tokens exceeds the context of 1024"):
        Engine(model, tokenizer).answer([long])


def test_groups_share_what_they_say_and_lose_no_row():
    rng, groups_seen = random.Random(0), 0
    for _ in range(300):
        stems = [tuple(rng.choices(range(4), k=rng.randrange(2, 60))) for _ in range(rng.randrange(1, 4))]
        ids = {
            rng.choice(stems) + tuple(rng.choices(range(4), k=rng.randrange(1, 12)))
            for _ in range(rng.randrange(1, 25))
        }
        groups = prefix_groups([Row(each) for each in ids])
        assert sorted(row.ids for _, rows in groups for row in rows) == sorted(ids)
        for n, rows in groups:
            assert len({row.ids[:n] for row in rows}) == 1 and all(n < len(row.ids) for row in rows)
            assert n == 0 or (n >= SHARED_TOKENS and len(rows) > 1)
            groups_seen += n > 0
    assert groups_seen > 100


@pytest.mark.slow
def test_two_processes_store_what_one_does(family, mirror, tmp_path):
    """`accelerate launch` with two CPU processes: the same predictions as one process."""
    asks = ["--tasks", "mnli_matched,xsum,arc_easy", "--methods", "token_prob,free", "--num_shots", "2"]
    asks += ["--checkpoint", f"{family}@20", "--data_dir", str(mirror), "--report_to", "none", "--limit", "10"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "eval.run"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = [*launch, *asks, "--runs", str(tmp_path / "two")]
    done = subprocess.run(two, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done: ") == 1
    eval_run.main([*asks, "--runs", str(tmp_path / "one")])
    files = sorted((tmp_path / "one").glob("*/units/*.parquet"))
    for path in files:
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(other))
    assert len(files) == 4
