"""What is trained on: prompt ids, completion ids, EOS; the loss on the latter two; over-long rows shortened."""

import pytest
from conftest import SHARED, make_tokenizer, needs_shared

from amuro import data, encoding
from amuro.encoding import IGNORED, encode, encode_pairs, encode_rows, shorten
from amuro.prompts import completion, prompt
from amuro.tasks import DATASETS, SFT


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_every_row_is_prompt_completion_and_eos(mirror, kind):
    tokenizer, rows_seen = make_tokenizer(kind), 0
    for name in SFT:
        spec = DATASETS[name]
        rows = data.training_rows(name, str(mirror)).rows
        examples, n_truncated = encode_rows(rows, spec.reading.family, tokenizer, 2048)
        assert len(examples) == len(rows) and n_truncated == 0
        for row, example in zip(rows, examples, strict=True):
            start = tokenizer(prompt(spec.reading.family, "default", row))["input_ids"]
            whole = tokenizer(prompt(spec.reading.family, "default", row) + completion(row["target"]))["input_ids"]
            answer = whole[len(start) :]
            assert example["input_ids"] == start + answer + [tokenizer.eos_token_id]
            assert example["labels"] == [IGNORED] * len(start) + answer + [tokenizer.eos_token_id]
            assert tokenizer.decode(answer).strip() == row["target"]
            rows_seen += 1
    assert rows_seen == 4 * 24


def one_text_at_a_time(prompt_text, completion_text, tokenizer):
    """The definition, with a call for every text: the prompt's ids, those that follow them in the whole text, EOS."""
    start = tokenizer(prompt_text)["input_ids"]
    whole = tokenizer(prompt_text + completion_text)["input_ids"]
    if whole[: len(start)] != start or len(whole) == len(start):
        return None
    answer = [*whole[len(start) :], tokenizer.eos_token_id]
    return {"input_ids": start + answer, "labels": [-100] * len(start) + answer}


ODD_ENDS = [
    "",
    "a",
    "a:",
    "12",
    "a.",
    "a...",
    "a\n",
    "a \n\n",
    "a\t",
    "a ",
    "a  ",
    "é",
    "e\u0301",
    "犬",
    "🐈\u200d",
    "a\xa0",
    "<|",
    "</s>",
]
ANSWERS = [" no", " 12", " the cat.", "no", " ", "  no", "\nno", " é", " 🐈", "", ":", "\u0301"]


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_many_texts_at_once_encode_as_one_at_a_time(kind, monkeypatch):
    """To the id, also where the parts that the tokenizer is called with end; the same pairs are refused."""
    monkeypatch.setattr(encoding, "PART", 7)
    tokenizer = make_tokenizer(kind)
    pairs = [("the cat sees " + end, answer) for end in ODD_ENDS for answer in ANSWERS]
    expected = [one_text_at_a_time(*pair, tokenizer) for pair in pairs]
    sound = [pair for pair, example in zip(pairs, expected, strict=True) if example]
    assert list(encode_pairs(sound, tokenizer)) == [example for example in expected if example]
    refused = 0
    for pair, example in zip(pairs, expected, strict=True):
        if example is None:
            with pytest.raises(ValueError, match="merges the prompt's end"):
                encode(*pair, tokenizer)
            refused += 1
    assert len(sound) + refused == len(ODD_ENDS) * len(ANSWERS) and len(sound) > 100 and refused > 10


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_shortened_rows_stand_where_they_were(mirror, kind, monkeypatch):
    monkeypatch.setattr(encoding, "PART", 5)
    tokenizer, seen = make_tokenizer(kind), 0
    for name in SFT:
        family, rows = DATASETS[name].reading.family, data.training_rows(name, str(mirror)).rows

        def alone(row, family=family):
            return one_text_at_a_time(prompt(family, "default", row), completion(row["target"]), tokenizer)

        lengths = sorted(len(alone(row)["input_ids"]) for row in rows)
        room = lengths[16]
        fits = lambda row, room=room, alone=alone: len(alone(row)["input_ids"]) <= room  # noqa: E731
        examples, n_truncated = encode_rows(rows, family, tokenizer, room)
        assert examples == [alone(row if fits(row) else shorten(row, family, fits)) for row in rows]
        assert 0 < n_truncated == sum(length > room for length in lengths) < 8
        seen += len(examples)
    assert seen == 4 * 24


def test_a_row_that_merges_across_the_boundary_is_named(monkeypatch):
    monkeypatch.setattr(encoding, "prompt", lambda family, prompt_format, row: row["document"])
    monkeypatch.setattr(encoding, "completion", lambda target: target)
    rows = [{"document": "a tow", "target": target, "example_id": f"{target}-1"} for target in (" a cat.", "n")]
    with pytest.raises(ValueError, match=r"row n-1: the tokenizer merges the prompt's end .*\.\.\.'a tow' \+ 'n'"):
        encode_rows(rows, "summary", make_tokenizer(), 100)


def test_a_tokenizer_that_merges_across_the_boundary_is_refused():
    with pytest.raises(ValueError, match="merges the prompt's end"):
        encode("a tow", "n", make_tokenizer())


def test_a_long_row_keeps_its_prompt_and_answer_and_loses_source_text():
    tokenizer = make_tokenizer()
    row = {"document": "the red house " * 200, "target": "a dog sees the cat.", "example_id": "x"}
    short = {"document": "a dog.", "target": "a dog.", "example_id": "y"}
    (long, other), n_truncated = encode_rows([row, short], "summary", tokenizer, 100)
    assert n_truncated == 1 and 95 <= len(long["input_ids"]) <= 100 and len(other["input_ids"]) < 30
    text = tokenizer.decode(long["input_ids"])
    assert text.startswith("### Input: the red house") and text.endswith(
        "\n ### Summary: a dog sees the cat.<|endoftext|>"
    )
    with pytest.raises(ValueError, match="row x: too long even with an empty 'document'"):
        encode_rows([row], "summary", tokenizer, 12)


def test_shortening_finds_the_longest_that_fits():
    row = {"premise": "one two three four five", "hypothesis": "h", "example_id": "x"}
    cases = [(len("one two three"), "one two three"), (len("one two three") + 3, "one two three"), (3, "one"), (0, "")]
    for room, kept in cases:
        assert shorten(row, "inference", lambda short, room=room: len(short["premise"]) <= room)["premise"] == kept


@needs_shared
def test_real_rows_encode_whole():
    tokenizer, counts = make_tokenizer(), {}
    for name in SFT:
        spec = DATASETS[name]
        rows = data.training_rows(name, str(SHARED), 300).rows
        examples, _ = encode_rows(rows, spec.reading.family, tokenizer, 2048)
        assert all(len(example["input_ids"]) <= 2048 and example["labels"][-1] == 0 for example in examples)
        counts[name] = len(examples)
    assert counts == dict.fromkeys(SFT, 300)
