"""The only place where prompt text exists: the paper's Table 5 (arXiv 2408.06663), one template per family and format,
and the benchmarks, which have one format: the text of lm-evaluation-harness's own tasks, byte for byte.

    prompt("inference", "default", {"premise": "It rains.", "hypothesis": "It is dry."})
    -> "### Input_1: It rains.\n ### Input_2: It is dry.\n ### Inference:"

Training and evaluation both call `prompt` and `completion`; the space between them belongs to the completion, so that
the prompt's tokens are a prefix of the whole text's tokens.
"""

PROMPTS_VERSION = 1  # raise it when a template changes: it is part of every cell's identity
PROMPT_FORMATS = ("default", "instruct", "io")

PAPER = {
    "summary": {
        "default": "### Input: {document}\n ### Summary:",
        "instruct": "Please read the following text: {document} Provide a summary:",
        "io": "{document}",
    },
    "question": {
        "default": "### Input: {context}\n ### Answer: {answer}\n ### Question:",
        "instruct": "Given the context: {context} And the answer: {answer} Generate a suitable question:",
        "io": "{context} {answer}",
    },
    "inference": {
        "default": "### Input_1: {premise}\n ### Input_2: {hypothesis}\n ### Inference:",
        "instruct": "Consider the following texts: Text 1: {premise} Text 2: {hypothesis} The relation is",
        "io": "{premise} {hypothesis}",
    },
    "paraphrase": {
        "default": "### Input_1: {sentence1}\n ### Input_2: {sentence2}\n ### Paraphrase Classification:",
        "instruct": "Let's compare the two sentences: Sentence_1: {sentence1} Sentence_2: {sentence2} "
        "Are they paraphrasing?:",
        "io": "{sentence1} {sentence2}",
    },
}
BENCHMARK = {
    "arc": {"default": "Question: {question}\nAnswer:"},
    "openbookqa": {"default": "{question}"},
    "hellaswag": {"default": "{context}"},
    "boolq": {"default": "{passage}\nQuestion: {question}?\nAnswer:"},
    "sciq": {"default": "{support}\nQuestion: {question}\nAnswer:"},
}
TEMPLATES = PAPER | BENCHMARK

# The input fields of each family; the first is the source text, which is shortened where a row is too long.
FIELDS = {
    "summary": ("document",),
    "question": ("context", "answer"),
    "inference": ("premise", "hypothesis"),
    "paraphrase": ("sentence1", "sentence2"),
    "arc": ("question",),
    "openbookqa": ("question",),
    "hellaswag": ("context",),
    "boolq": ("passage", "question"),
    "sciq": ("support", "question"),
}


def prompt(family: str, prompt_format: str, row: dict) -> str:
    """The prompt of one row: the family's template filled with the row's fields, without space at either end.

    A benchmark's is left as the harness writes it, with the line break that an empty first field leaves.
    """
    text = TEMPLATES[family][prompt_format].format(**{field: row[field] for field in FIELDS[family]})
    return text if family in BENCHMARK else text.strip()


def completion(target: str) -> str:
    """The text to be learned or scored after a prompt: one space, then the target."""
    return " " + target
