"""Text to token ids, once for training and evaluation, and the shortening of rows that are too long.

`encode` gives what a model is trained on: the prompt's ids, then the completion's and EOS, the loss on the latter only.
The completion's ids are those that follow the prompt's in the encoding of the whole text, which is also how
lm-evaluation-harness splits a context from its continuation; BOS is whatever the tokenizer adds by itself.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from amuro.prompts import FIELDS, completion, prompt

IGNORED = -100  # the label of a position without loss
PART = 1000  # texts per call of the tokenizer, for the memory that the encodings take


def encode(prompt_text: str, completion_text: str, tokenizer) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one training row, each prompt + completion + EOS long.

    Raises ValueError where the prompt's tokens are not a prefix of the whole text's, since training and evaluation
    would then see different contexts.
    """
    return next(encode_pairs([(prompt_text, completion_text)], tokenizer))


def encode_pairs(pairs: list[tuple[str, str]], tokenizer) -> Iterator[dict[str, list[int]]]:
    """`encode` of every (prompt, completion), in order; the tokenizer is called with many texts at once."""
    for first in range(0, len(pairs), PART):
        part = pairs[first : first + PART]
        starts = tokenizer([prompt_text for prompt_text, _ in part])["input_ids"]
        wholes = tokenizer([prompt_text + completion_text for prompt_text, completion_text in part])["input_ids"]
        for (prompt_text, completion_text), start, whole in zip(part, starts, wholes, strict=True):
            if whole[: len(start)] != start or len(whole) == len(start):
                raise ValueError(
                    f"the tokenizer merges the prompt's end with the completion's beginning: "
                    f"...{prompt_text[-30:]!r} + {completion_text[:30]!r}; the space between them must begin a token"
                )
            ids = [*whole, tokenizer.eos_token_id]
            yield {"input_ids": ids, "labels": [IGNORED] * len(start) + ids[len(start) :]}


def load_tokenizer(place: str | Path, **settings):
    """The tokenizer of a folder or repository; no code of it is run. ValueError where there is none (the library would
    make an empty one), or it has no EOS."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **{"trust_remote_code": False, **settings})
    except Exception as error:  # the library has no kind of its own for a file that it cannot use
        raise ValueError(f"{place}: no tokenizer that can be loaded ({' '.join(str(error).split())})") from error
    if not tokenizer("a word")["input_ids"]:
        raise ValueError(f"{place}: no tokenizer there; a checkpoint folder needs its tokenizer's files")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{place}: the tokenizer has no EOS token, which ends every completion")
    return tokenizer


def encode_all(lm, texts: list[str]) -> list[list[int]]:
    """The ids of many texts as `lm.tok_encode` (lm-eval's HFLM) gives them one by one, in batched calls: BOS is what
    the tokenizer adds by itself, and is not added to a text that begins with it already (chat templates)."""
    bos = lm.tokenizer.decode(lm.prefix_token_id)
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    out: list[list[int]] = [[]] * len(texts)
    for has_bos, settings in ((False, usual), (True, {"add_special_tokens": False})):
        numbers = [number for number, text in enumerate(texts) if text.startswith(bos) == has_bos]
        for start in range(0, len(numbers), PART):
            part = numbers[start : start + PART]
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

    Raises ValueError where a row does not fit `max_length` tokens with an empty source, or where the tokenizer merges
    a row's prompt with its completion.
    """
    texts = lambda row: (prompt(family, "default", row), completion(row["target"]))  # noqa: E731
    length = lambda row: len(encode(*texts(row), tokenizer)["input_ids"])  # noqa: E731
    out, n_truncated = [], 0
    encoded = encode_pairs([texts(row) for row in rows], tokenizer)
    for row in rows:
        try:
            example = next(encoded)
        except ValueError as error:
            raise ValueError(f"row {row['example_id']}: {error}") from None
        if len(example["input_ids"]) > max_length:
            short = shorten(row, family, lambda cut: length(cut) <= max_length)
            example = encode(*texts(short), tokenizer)
            n_truncated += 1
        out.append(example)
    return out, n_truncated
