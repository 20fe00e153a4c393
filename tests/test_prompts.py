"""Golden prompts: the exact strings of the paper's Table 5, and of the harness's own tasks."""

import pytest

from amuro.prompts import BENCHMARK, FIELDS, PAPER, PROMPT_FORMATS, TEMPLATES, completion, prompt

ROW = {
    "document": "Doc {x}.",
    "context": "Con.",
    "answer": "Ans",
    "premise": "Pre.",
    "hypothesis": "Hyp.",
    "sentence1": "One.",
    "sentence2": "Two.",
}
GOLDEN = {
    ("summary", "default"): "### Input: Doc {x}.\n ### Summary:",
    ("summary", "instruct"): "Please read the following text: Doc {x}. Provide a summary:",
    ("summary", "io"): "Doc {x}.",
    ("question", "default"): "### Input: Con.\n ### Answer: Ans\n ### Question:",
    ("question", "instruct"): "Given the context: Con. And the answer: Ans Generate a suitable question:",
    ("question", "io"): "Con. Ans",
    ("inference", "default"): "### Input_1: Pre.\n ### Input_2: Hyp.\n ### Inference:",
    ("inference", "instruct"): "Consider the following texts: Text 1: Pre. Text 2: Hyp. The relation is",
    ("inference", "io"): "Pre. Hyp.",
    ("paraphrase", "default"): "### Input_1: One.\n ### Input_2: Two.\n ### Paraphrase Classification:",
    ("paraphrase", "instruct"): "Let's compare the two sentences: Sentence_1: One. Sentence_2: Two. "
    "Are they paraphrasing?:",
    ("paraphrase", "io"): "One. Two.",
}


@pytest.mark.parametrize(("family", "prompt_format"), GOLDEN)
def test_every_prompt_is_the_papers(family, prompt_format):
    assert prompt(family, prompt_format, ROW) == GOLDEN[family, prompt_format]


def test_the_golden_strings_cover_every_family_and_format():
    assert set(GOLDEN) == {(family, each) for family in PAPER for each in PROMPT_FORMATS}
    assert set(TEMPLATES) == set(FIELDS) == {*PAPER, *BENCHMARK} and len(GOLDEN) == 12


def test_a_benchmarks_prompt_is_the_harnesss_text_unstripped():
    row = {"question": "Why ", "passage": " P.", "support": "", "context": "C "}
    golden = {
        "arc": "Question: Why \nAnswer:",
        "openbookqa": "Why ",
        "hellaswag": "C ",
        "boolq": " P.\nQuestion: Why ?\nAnswer:",
        "sciq": "\nQuestion: Why \nAnswer:",
    }
    assert {family: prompt(family, "default", row) for family in BENCHMARK} == golden
    assert all(set(formats) == {"default"} for formats in BENCHMARK.values())


def test_the_space_belongs_to_the_completion():
    assert completion("neutral") == " neutral"
    empty = {**ROW, "context": ""}
    assert prompt("question", "io", empty) == "Ans"
    assert all(text == text.strip() for text in (prompt(*key, ROW) for key in GOLDEN))
