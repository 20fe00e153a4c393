"""What is trained on: prompt ids, completion ids, EOS; the loss on the latter two; over-long rows shortened."""

import pytest
from conftest import SHARED, make_tokenizer, needs_shared

from amuro import data
from amuro.encoding import IGNORED, encode, encode_rows, shorten
from amuro.prompts import completion, prompt
from amuro.tasks import DATASETS


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_every_row_is_prompt_completion_and_eos(mirror, kind):
    tokenizer, rows_seen = make_tokenizer(kind), 0
    for name, spec in DATASETS.items():
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
    for name, spec in DATASETS.items():
        rows = data.training_rows(name, str(SHARED), 300).rows
        examples, _ = encode_rows(rows, spec.reading.family, tokenizer, 2048)
        assert all(len(example["input_ids"]) <= 2048 and example["labels"][-1] == 0 for example in examples)
        counts[name] = len(examples)
    assert counts == dict.fromkeys(DATASETS, 300)
