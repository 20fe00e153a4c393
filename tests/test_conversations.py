"""Conversations: which are sound, the template, ids and the loss on answers and their EOS only."""

import json
import random
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import SHARED, make_tokenizer, needs_shared, run, sentence, write_jsonl
from hub import Hub, commit_of
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from amuro import conversations as c
from amuro import data
from amuro.encoding import IGNORED, encode_all

KINDS = ["bytes", "metaspace", "bos"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    """Byte-level, SentencePiece-like, and byte-level with a BOS that the tokenizer adds by itself."""
    made = make_tokenizer("bytes" if request.param == "bos" else request.param)
    if request.param == "bos":
        made.add_special_tokens({"bos_token": "<s>"})
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
        )
        assert made("a dog")["input_ids"][0] == made.bos_token_id
    c.set_template(made)
    return made


def turns(*texts: str, system: str = "") -> list[dict]:
    """A conversation of these texts, the user's first."""
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": c.ROLES[n % 2], "content": text} for n, text in enumerate(texts)]


def rows_of(*conversations: list[dict]) -> list[dict]:
    return [{"messages": messages, "id": f"c{number}"} for number, messages in enumerate(conversations)]


def load(tmp_path, *conversations, **how) -> data.Rows:
    path = tmp_path / "mine.jsonl"
    write_jsonl(path, [{"messages": messages} for messages in conversations])
    return data.conversation_rows(str(path), None, **how)


def some(n: int) -> list[list[dict]]:
    """Conversations of one to three exchanges, some with a system turn, with text that ends and begins in every way."""
    rng = random.Random(0)
    ends = ("", ".", "!", "\n\n- a\n- b", " 東京", '"', ")", "\n```\ncode  x\n```", ":", "  \n x", "é", "1")
    text = lambda: rng.choice(ends).strip() + sentence(rng, rng.randint(1, 6)) + rng.choice(ends).rstrip()  # noqa: E731
    return [
        turns(*(text() for _ in range(2 * rng.randint(1, 3))), system=text() * (number % 3 == 0)) for number in range(n)
    ]


def by_hand(messages: list[dict], tokenizer) -> tuple[str, list[bool]]:
    """The text of a conversation, written out, and for every character whether it is learned."""
    adds_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    text, learned = tokenizer.bos_token if adds_bos else "", []
    for turn in messages:
        text += f"<|{turn['role']}|>\n"
        learned += [False] * (len(text) - len(learned))
        text += turn["content"]
        if turn["role"] == "assistant":
            text += tokenizer.eos_token
            learned += [True] * (len(text) - len(learned))
        text += "\n"
    text = text[:-1]
    return text, (learned + [False] * len(text))[: len(text)]


def test_loss_is_on_answers_and_their_eos_only(tokenizer):
    """Ids are those of the written-out text; a label stands where the token's characters are an answer's or its EOS."""
    conversations = some(60)
    examples, counts = c.encode_conversations(rows_of(*conversations), tokenizer, 2048)
    assert len(examples) == 60 and counts == {}
    for messages, example in zip(conversations, examples, strict=True):
        text, learned = by_hand(messages, tokenizer)
        plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        marks = [learned[first] for first, _ in plain["offset_mapping"]]
        assert example["input_ids"] == plain["input_ids"]
        assert example["labels"] == [i if mark else IGNORED for i, mark in zip(plain["input_ids"], marks, strict=True)]
        answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        told = tokenizer.decode([label for label in example["labels"] if label != IGNORED])
        assert told.split(tokenizer.eos_token) == [*answers, ""]


def test_the_saved_tokenizer_gives_the_same_ids_and_marks(tokenizer, tmp_path):
    """What stock transformers does with the tokenizer that is saved beside the weights; and one that is asked."""
    conversations = some(40)
    examples, _ = c.encode_conversations(rows_of(*conversations), tokenizer, 2048)
    tokenizer.save_pretrained(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    for messages, example in zip(conversations, examples, strict=True):
        whole = stock.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert whole["input_ids"] == example["input_ids"]
        assert whole["assistant_masks"] == [int(label != IGNORED) for label in example["labels"]]
        asked = stock.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        context = stock(asked, add_special_tokens=False)["input_ids"]
        assert example["input_ids"][: len(context)] == context
        assert (example["input_ids"][0] == stock.bos_token_id) == (stock("a")["input_ids"][0] == stock.bos_token_id)


def test_evaluation_in_the_chat_template_sees_the_ids_of_training(tokenizer):
    """lm-eval's rule, as `encode_all` applies it: BOS is the tokenizer's own, and not doubled where the text has it."""
    ((example,), _) = c.encode_conversations(rows_of(turns("The cat?", "a dog.")), tokenizer, 99)
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    lm = SimpleNamespace(tokenizer=tokenizer, prefix_token_id=prefix, add_bos_token=None)
    text = tokenizer.apply_chat_template(turns("The cat?"), add_generation_prompt=True, tokenize=False)
    (asked,) = encode_all(lm, [text])
    assert example["input_ids"][: len(asked)] == asked and example["labels"][len(asked)] != IGNORED
    assert set(example["labels"][: len(asked)]) == {IGNORED}


def test_wrong_marks_are_an_error():
    rows = rows_of(turns("The cat?", "a dog."))
    tokenizer = make_tokenizer()
    tokenizer.chat_template = c.CHAT_TEMPLATE.replace(
        "eos_token }}{% endgeneration %}", "eos_token + ' '}}{% endgeneration %}"
    )
    with pytest.raises(RuntimeError, match="conversation c0: the template marks other tokens"):
        c.encode_conversations(rows, tokenizer, 99)
    tokenizer.chat_template = c.CHAT_TEMPLATE.replace("\\n' if add", "a' if add")
    with pytest.raises(RuntimeError, match="conversation c0: its tokens do not begin with those of the text before"):
        c.encode_conversations(rows, tokenizer, 99)


def test_whole_turns_are_cut_until_it_fits(tokenizer, capsys):
    messages = turns("The cat sees a dog.", "a house.", "The man?", "a bird.", "The sun?", "the rain.")
    ((whole,), _) = c.encode_conversations(rows_of(messages), tokenizer, 2048)
    ends = [n + 1 for n, label in enumerate(whole["labels"]) if label == tokenizer.eos_token_id]
    assert len(ends) == 3 and ends[2] == len(whole["input_ids"])
    for room, kept in ((ends[2], 3), (ends[2] - 1, 2), (ends[1], 2), (ends[1] - 1, 1), (ends[0], 1)):
        ((example,), counts) = c.encode_conversations(rows_of(messages), tokenizer, room)
        assert counts == ({c.CUT_TURNS: 1} if kept < 3 else {})
        ((same,), _) = c.encode_conversations(rows_of(messages[: 2 * kept]), tokenizer, 2048)
        assert example == same
    capsys.readouterr()
    examples, counts = c.encode_conversations(rows_of(messages, turns("a", "b")), tokenizer, ends[0] - 1)
    assert len(examples) == 1 and counts == {c.TOO_LONG: 1}
    assert f"1 conversations {c.TOO_LONG} (c0)\n" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--max_length 3: none of the 1 conversations can be trained on"):
        c.encode_conversations(rows_of(messages), tokenizer, 3)


def test_a_text_of_control_is_left_out_and_no_example_ends_within(tokenizer, capsys):
    """As a token it would end an answer within, as plain text it is not what the template gives."""
    eos, good = tokenizer.eos_token, turns("The cat?", "a dog.")
    bad = [turns(f"The {eos} cat?", "a dog."), turns("The cat?", f"a {eos} dog."), turns("The <|padding|>?", "a dog.")]
    bad += [turns("The cat?", "a dog.\n<|user|>\nThe cat?"), turns("The cat <|assistant|>", "a dog.")]
    bad += [turns("The cat?", "a dog.", system=f"The {eos}")]
    examples, counts = c.encode_conversations(rows_of(*bad, good), tokenizer, 2048)
    assert counts == {c.CONTROL: 6}
    assert f"6 conversations {c.CONTROL} (c0, c1, c2, ...)" in capsys.readouterr().out
    assert examples == c.encode_conversations(rows_of(good), tokenizer, 2048)[0]
    assert examples[0]["input_ids"].count(tokenizer.eos_token_id) == 1


def test_what_is_not_sound_is_left_out_counted_and_named(tmp_path, capsys):
    good, asked = turns("A?", "B."), {"role": "user", "content": "A?"}
    answered = {"role": "assistant", "content": "B."}
    cases = {
        c.DISORDER: [
            [asked, asked, answered],
            [answered, asked, answered],
            [answered],
            [asked, answered, answered],
            [asked, answered, {"role": "system", "content": "S."}],
            [asked, {"role": "tool", "content": "T."}, answered],
            [*turns("A?", "B.", system="S."), asked, {"role": "system", "content": "S."}, answered],
            [{"role": "system", "content": "S."}, {"role": "system", "content": "S."}, *good],
        ],
        c.EMPTY: [turns("A?", " \n"), turns("", "B."), turns("A?", c.END_MARK), turns("A?", "B.", " ", "C.")],
        c.NO_ANSWER: [[], [asked], [{"role": "system", "content": "S."}, asked], [{"role": "gpt", "content": "B."}]],
    }
    rows = load(tmp_path, good, *(each for lot in cases.values() for each in lot))
    assert [row["messages"] for row in rows.rows] == [good]
    assert rows.refused == {reason: len(lot) for reason, lot in cases.items()} and rows.cut == {}
    told = capsys.readouterr().out
    assert f"mine.jsonl: 8 conversations {c.DISORDER} (row 2, row 3, row 4, ...)\n" in told
    assert f"mine.jsonl: 4 conversations {c.EMPTY} (row 10, row 11, row 12, ...)\n" in told
    with pytest.raises(ValueError, match="no conversation to train on; {'left out: no assistant turn': 1}"):
        load(tmp_path, [asked])
    with pytest.raises(ValueError, match="mine.jsonl: no conversation to train on; the file is empty"):
        load(tmp_path)


def test_what_is_cut_is_counted_and_named(tmp_path, capsys):
    open_end, marked = turns("A?", "B.", "C?"), turns("A?", f"B. {c.END_MARK}\n", "C?", f"D.{c.END_MARK}")
    rows = load(tmp_path, open_end, marked, turns(" A?\n", "\tB. "), sample_seed=0)
    both = {json.dumps(row["messages"]) for row in rows.rows}
    assert both == {json.dumps(turns("A?", "B.")), json.dumps(turns("A?", "B.", "C?", "D."))}
    assert rows.cut == {c.CUT_QUESTION: 1, c.CUT_MARK: 1} and rows.refused == {}
    assert f"1 conversations {c.CUT_MARK} (row 2)\n" in capsys.readouterr().out
    assert len({row["example_id"] for row in rows.rows}) == 3  # of which two are equal


BAD = [
    ({"text": "a"}, r"row 2: field 'messages' is missing \(it has: text\); allowed: a list of turns"),
    ({"messages": "a"}, "row 2: field 'messages' is str; allowed: a list of turns"),
    ({"messages": ["a"]}, "row 2: field 'messages' is list; allowed: a list of turns, each with the texts 'role' and"),
    ({"messages": [{"role": "user"}]}, "row 2: field 'messages', turn 1: 'content' is missing; allowed: text"),
    ({"messages": [*turns("a"), {"role": "user", "content": None}]}, "turn 2: 'content' is NoneType; allowed: text"),
    ({"messages": [{"from": "human", "content": "a"}]}, "turn 1: 'role' is missing; allowed: text"),
]


@pytest.mark.parametrize(("row", "told"), BAD)
def test_a_row_that_is_no_conversation_is_named(tmp_path, row, told):
    write_jsonl(tmp_path / "mine.jsonl", [{"messages": turns("A?", "B.")}, row])
    with pytest.raises(ValueError, match="mine.jsonl, row 2: .*" + told.removeprefix("row 2: ")):
        data.conversation_rows(str(tmp_path / "mine.jsonl"), None)


def test_the_sample_is_by_number_or_fraction_and_by_seed(mirror):
    draw = lambda **how: data.conversation_rows("tulu", str(mirror), **how)  # noqa: E731
    assert len(draw().rows) == 24 and draw().digest == draw().digest
    assert [len(draw(fraction=each).rows) for each in (0.5, 0.05, 0.001)] == [12, 1, 1]
    assert len(draw(n=10).rows) == len(draw(n=10, fraction=0.5).rows) == 10 and len(draw(n=99).rows) == 24
    assert draw(n=10).digest == draw(n=10).digest != draw(n=10, sample_seed=1).digest
    assert set(draw().rows[0]) == {"messages", "id", "example_id"}
    same = data.conversation_rows(str(mirror / "instruction_mix" / "train.jsonl"), None)
    assert same.rows == draw().rows and same.origin == draw().origin


def test_only_conversations_are_taken(mirror, tmp_path):
    for wrong in ("paws", "tulip"):
        with pytest.raises(ValueError, match=f"--dataset '{wrong}': allowed: tulu, or the path of a .jsonl file"):
            data.conversation_rows(wrong, str(mirror))
    with pytest.raises(ValueError, match="none.jsonl: no such file"):
        data.conversation_rows(str(tmp_path / "none.jsonl"), None)
    with pytest.raises(ValueError, match="paws is another dataset's name; rename the file"):
        data.conversation_rows(str(tmp_path / "paws.jsonl"), None)


def test_the_last_rows_are_held_out(mirror):
    rows = data.conversation_rows("tulu", str(mirror))
    kept, held_out = rows.split(4)
    assert kept.rows + held_out == rows.rows and len(held_out) == 4
    assert kept.digest == data.Rows(rows.rows[:20], "").digest != rows.digest and kept.origin == rows.origin
    assert rows.split(0) == (rows, [])
    for n in (24, 25):
        with pytest.raises(ValueError, match=f"--held_out_rows {n}: there are 24 training rows; hold out fewer"):
            rows.split(n)


def test_the_hubs_parquet_gives_the_same_conversations(mirror, tmp_path):
    lines = (mirror / "instruction_mix" / "train.jsonl").read_text().splitlines()
    (tmp_path / "repository" / "default" / "train").mkdir(parents=True)
    table = pd.DataFrame([json.loads(line) for line in lines])
    table.to_parquet(tmp_path / "repository" / "default" / "train" / "0000.parquet")
    source = data.DATASETS["tulu"].source
    hub = Hub({("datasets", source.hub_id): {"refs/convert/parquet": tmp_path / "repository"}})
    script = "from amuro import data; rows = data.conversation_rows('tulu', None); print(rows.digest, rows.origin)"
    done = run("-c", script, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="0")
    hub.close()
    assert done.returncode == 0, done.stderr
    digest, origin = done.stdout.split()[-2:]
    assert digest == data.conversation_rows("tulu", str(mirror)).digest
    assert origin == f"{source.hub_id}@{commit_of('refs/convert/parquet')}/default/train"


@needs_shared
def test_real_conversations_encode_whole():
    """Some T0 rows spell an end mark; 63 of them have nothing else for an answer."""
    rows = data.conversation_rows("tulu", str(SHARED))
    assert len(rows.rows) == 3273 and rows.refused == {c.EMPTY: 63} and rows.cut == {c.CUT_MARK: 1848}
    for kind in KINDS[:2]:
        tokenizer = make_tokenizer(kind)
        c.set_template(tokenizer)
        examples, counts = c.encode_conversations(rows.rows, tokenizer, 10_000)
        assert len(examples) == 3273 and counts == {}
        for row, example in zip(rows.rows, examples, strict=True):
            assert example["input_ids"].count(tokenizer.eos_token_id) == 1
            told = tokenizer.decode([label for label in example["labels"] if label != IGNORED])
            assert told == row["messages"][1]["content"] + tokenizer.eos_token
        short, counts = c.encode_conversations(rows.rows, tokenizer, 512)
        assert counts == {c.TOO_LONG: 3273 - len(short)} and all(len(example["labels"]) <= 512 for example in short)
