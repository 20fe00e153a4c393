"""Text to token ids, once for training and evaluation, and the shortening of rows that are too long.

`encode` gives what a model is trained on: the prompt's ids, then the completion's and EOS, the loss on the latter only.
The completion's ids are those that follow the prompt's in the encoding of the whole text, which is also how
lm-evaluation-harness splits a context from its continuation; BOS is whatever the tokenizer adds by itself.
"""

from collections.abc import Callable
from pathlib import Path

from amuro.prompts import FIELDS, completion, prompt

IGNORED = -100  # the label of a position without loss


def encode(prompt_text: str, completion_text: str, tokenizer) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one training row, each prompt + completion + EOS long.

    Raises ValueError where the prompt's tokens are not a prefix of the whole text's, since training and evaluation
    would then see different contexts.
    """
    start = tokenizer(prompt_text)["input_ids"]
    whole = tokenizer(prompt_text + completion_text)["input_ids"]
    if whole[: len(start)] != start or len(whole) == len(start):
        raise ValueError(
            f"the tokenizer merges the prompt's end with the completion's beginning: ...{prompt_text[-30:]!r} + "
            f"{completion_text[:30]!r}; the space between them must begin a token"
        )
    ids = [*whole, tokenizer.eos_token_id]
    return {"input_ids": ids, "labels": [IGNORED] * len(start) + ids[len(start) :]}


def load_tokenizer(place: str | Path, **settings):
    """The tokenizer of a folder or repository. ValueError where there is none: the library would make an empty one."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **settings)
    except (OSError, ValueError) as error:
        raise ValueError(f"{place}: no tokenizer that can be loaded ({error})") from None
    if not tokenizer("a word")["input_ids"]:
        raise ValueError(f"{place}: no tokenizer there; a checkpoint folder needs its tokenizer's files")
    return tokenizer


def encode_all(lm, texts: list[str]) -> list[list[int]]:
    """The ids of many texts as `lm.tok_encode` (lm-eval's HFLM) gives them one by one, in batched calls: BOS is what
    the tokenizer adds by itself, and is not added to a text that begins with it already (chat templates)."""
    bos = lm.tokenizer.decode(lm.prefix_token_id)
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    out: list[list[int]] = [[]] * len(texts)
    for has_bos, settings in ((False, usual), (True, {"add_special_tokens": False})):
        numbers = [number for number, text in enumerate(texts) if text.startswith(bos) == has_bos]
        for start in range(0, len(numbers), 1000):  # in parts, for the memory that the encodings take
            part = numbers[start : start + 1000]
            ids = lm.tokenizer([texts[number] for number in part], **settings)["input_ids"]
            for number, each in zip(part, ids, strict=True):
                out[number] = each
    return out


def shorten(row: dict, family: str, fits: Callable[[dict], bool]) -> dict:
    """The row with its source text cut at the end, at a space, to the longest that fits. ValueError where none does."""
    source = FIELDS[family][0]
    words = row[source].split(" ")
    low, high = 0, len(words)  # `low` words fit, `high` words do not
    cut = lambda n: {**row, source: " ".join(words[:n]).rstrip()}  # noqa: E731
    if not fits(cut(0)):
        raise ValueError(f"row {row['example_id']}: too long even with an empty {source!r}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(cut(middle)) else (low, middle)
    return cut(low)


def encode_rows(rows: list[dict], family: str, tokenizer, max_length: int) -> tuple[list[dict], int]:
    """Every row encoded in the default format, in order, none dropped; and how many had their source shortened.

    Raises ValueError where a row does not fit `max_length` tokens with an empty source.
    """

    def encoded(row: dict) -> dict[str, list[int]]:
        return encode(prompt(family, "default", row), completion(row["target"]), tokenizer)

    out, n_truncated = [], 0
    for row in rows:
        example = encoded(row)
        if len(example["input_ids"]) > max_length:
            row = shorten(row, family, lambda short: len(encoded(short)["input_ids"]) <= max_length)
            example = encoded(row)
            n_truncated += 1
        out.append(example)
    return out, n_truncated
