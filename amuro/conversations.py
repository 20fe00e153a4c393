"""Conversations as training rows: which are sound, the chat template, and token ids with the loss on answers only.

    set_template(tokenizer)                                   before training: it is saved with the tokenizer
    encode_conversations(rows, tokenizer, max_length=2048)    examples of `input_ids` and `labels`, and what was cut

The format is that of Tulu: `<|user|>`, a newline, the text, a newline; `<|assistant|>`, a newline, the answer, EOS. All
of it but EOS is plain text. The rows come from `amuro/data.py` (`conversation_rows`).
"""

import re
from collections.abc import Iterator
from functools import partial

from amuro.encoding import IGNORED

ROLES = ("user", "assistant")  # in turn, after at most one "system"
TEMPLATE_VERSION = 1  # enters the identity of a cell; raise it when training text would change
HEADERS = ("<|system|>", "<|user|>", "<|assistant|>")
# Sets made for a tokenizer whose EOS is this text spell it at the end of an answer (Self-Instruct's T0 rows). The
# template ends every answer with the model's own EOS: left in, an answer would end twice, or the text would be learned.
END_MARK = "<|endoftext|>"

# An answer and its EOS stand between `generation` and `endgeneration`, which is how a tokenizer marks what is learned.
# The line break after an EOS begins the next turn: it is not learned, and does not follow the last one.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|' + message['role'] + '|>\\n' }}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{ message['content'] | trim + eos_token }}{% endgeneration %}{{ '' if loop.last else '\\n' }}
{%- else -%}
{{ message['content'] | trim + '\\n' }}
{%- endif -%}
{%- endfor -%}
{{ '<|assistant|>\\n' if add_generation_prompt else '' }}"""

CUT_QUESTION = "kept without the last user turn, which has no answer"
CUT_MARK = f"kept without the text {END_MARK} at the end of an answer"
CUT_TURNS = "kept without the last turns, which exceed the maximal length"
NO_ANSWER = "left out: no assistant turn"
DISORDER = "left out: not user and assistant in turn, after at most one system turn"
EMPTY = "left out: an empty turn"
TOO_LONG = "left out: the first answer ends beyond the maximal length"
CONTROL = "left out: the text spells a special token or a header of the template"


def tidy(row: dict) -> tuple[list[dict], set[str], str]:
    """(turns that can be learned from, what was cut off them, why the conversation is left out or "") of a raw row.

    Space around a turn, an end mark after an answer and a last question without an answer are cut off. Raises
    ValueError where `messages` is no list of turns with the texts `role` and `content`.
    """
    turns, cut = [], set()
    for role, text in _messages(row):
        text = text.strip()
        if role == "assistant" and text.endswith(END_MARK):
            text = text.removesuffix(END_MARK).rstrip()
            cut.add(CUT_MARK)
        turns.append({"role": role, "content": text})
    if turns and turns[-1]["role"] == "user":
        turns.pop()
        cut.add(CUT_QUESTION)
    roles = [turn["role"] for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    reasons = {
        NO_ANSWER: "assistant" not in roles,
        DISORDER: any(role != ROLES[number % 2] for number, role in enumerate(spoken)),
        EMPTY: not all(turn["content"] for turn in turns),
    }
    return turns, cut, next((reason for reason, holds in reasons.items() if holds), "")


def _messages(row: dict) -> list[tuple[str, str]]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        told = f"is {type(turns).__name__}" if "messages" in row else f"is missing (it has: {', '.join(row)})"
        raise ValueError(f"field 'messages' {told}; allowed: a list of turns, each with the texts 'role' and 'content'")
    for number, turn in enumerate(turns, 1):
        for name in ("role", "content"):
            if not isinstance(turn.get(name), str):
                told = f"is {type(turn[name]).__name__}" if name in turn else "is missing"
                raise ValueError(f"field 'messages', turn {number}: {name!r} {told}; allowed: text")
    return [(turn["role"], turn["content"]) for turn in turns]


def counted(found: dict[str, list[str]], origin: str) -> dict[str, int]:
    """The number of conversations for every reason, each told in a line that names the first three."""
    for reason, names in found.items():
        more = ", ..." if len(names) > 3 else ""
        print(f"{origin}: {len(names)} conversations {reason} ({', '.join(names[:3])}{more})")
    return {reason: len(names) for reason, names in found.items()}


def set_template(tokenizer) -> None:
    """Gives a tokenizer the chat template. The template writes BOS where the tokenizer adds one by itself to plain text
    (a chat's text is encoded without), so that training, evaluation and others' programs see the same ids."""
    adds_bos = tokenizer("a word")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = ("{{- bos_token -}}\n" if adds_bos else "") + CHAT_TEMPLATE


def encode_conversations(rows: list[dict], tokenizer, max_length: int) -> tuple[list[dict], dict[str, int]]:
    """Examples of `input_ids` and `labels` in the rows' order, at most `max_length` long, and the number of rows that
    are left out or lose turns, by reason. A row is `{"messages": [...], "id": name}`; the tokenizer has the template.

    The loss is on answers and their EOS. A text that spells a token of control is left out: as that token it would end
    an answer within, and as plain text it is not what the template gives. Raises ValueError where no row is left,
    RuntimeError where the template's marks and the text before each answer name other positions.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    control = re.compile("|".join(map(re.escape, [*special, *HEADERS])))
    found: dict[str, list[str]] = {}
    clear, examples = [], []
    for row in rows:
        if any(control.search(turn["content"]) for turn in row["messages"]):
            found.setdefault(CONTROL, []).append(row["id"])
        else:
            clear.append(row)
    for start in range(0, len(clear), 1000):  # in parts, for the memory that the encodings take
        for row, ids, answers in _encode(clear[start : start + 1000], tokenizer):
            kept = [(first, end) for first, end in answers if end <= max_length]
            if len(kept) < len(answers):
                found.setdefault(CUT_TURNS if kept else TOO_LONG, []).append(row["id"])
            if kept:
                ids = ids[: kept[-1][1]]
                labels = [IGNORED] * len(ids)
                for first, end in kept:
                    labels[first:end] = ids[first:end]
                examples.append({"input_ids": ids, "labels": labels})
    counts = counted(found, "training")
    if not examples:
        raise ValueError(
            f"--max_length {max_length}: none of the {len(rows)} conversations can be trained on ({counts})"
        )
    return examples, counts


def _encode(rows: list[dict], tokenizer) -> Iterator[tuple[dict, list[int], list[tuple[int, int]]]]:
    """(row, ids, first and end position of every answer with its EOS) of each row."""
    apply = partial(tokenizer.apply_chat_template, tokenizer_kwargs={"verbose": False})
    whole = apply([row["messages"] for row in rows], return_assistant_tokens_mask=True)
    # Found without the template's marks: an answer begins where the text ends that a model is asked with, whose tokens
    # must begin the conversation's, and goes to the next EOS.
    asked = [row["messages"][:n] for row in rows for n, turn in enumerate(row["messages"]) if turn["role"] == ROLES[1]]
    before = iter(apply(asked, add_generation_prompt=True)["input_ids"])
    for row, ids, marked in zip(rows, whole["input_ids"], whole["assistant_masks"], strict=True):
        answers, learned = [], [0] * len(ids)
        for _ in range(sum(turn["role"] == ROLES[1] for turn in row["messages"])):
            context = next(before)
            if ids[: len(context)] != context:
                raise RuntimeError(f"conversation {row['id']}: its tokens do not begin with those of the text before")
            first, end = len(context), ids.index(tokenizer.eos_token_id, len(context)) + 1
            learned[first:end] = [1] * (end - first)
            answers.append((first, end))
        if learned != marked:
            raise RuntimeError(f"conversation {row['id']}: the template marks other tokens than the answers and EOS")
        yield row, ids, answers
