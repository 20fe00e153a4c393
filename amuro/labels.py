"""Tasks whose answer is a label word, read in several ways (paper section 3.3 and appendix C; eval/tasks/README.md).

token_prob      the candidate with the highest next-token log-probability names the label
constrained     the same without capitalised candidates: greedy decoding that must spell a label
free            the first label word in five greedy tokens
all_subtokens   every sub-token of every spelling is a candidate (the authors' code; needs Amuro's engine)
"""

import re
from functools import cached_property

from lm_eval.api.instance import Instance

from amuro.encoding import encode_all
from amuro.harness import AmuroTask, Answer

BOUNDARY = 200  # characters before a candidate, at most, that can influence how it is tokenised


def boundary(context: str) -> str:
    """The end of a context that decides how what follows it is tokenised: its last line, or that line's end."""
    return context[-BOUNDARY:].rpartition("\n")[2] or context[-BOUNDARY:]


class Labels(AmuroTask):
    """A label word, read off the next token's log-probabilities or off greedy text by each of the task's `methods`.

    Responses come in this order: one per candidate (token_prob, constrained), the text (free), the log-probabilities
    of all sub-tokens (all_subtokens); what no method needs is not asked.
    """

    room = 5  # as many as `free` takes, so that every way of reading sees the same prompt

    def __init__(self, config: dict):
        self._checked: dict[str, bool] = {}
        super().__init__(config)

    def spelled(self, tail: str, text: str) -> list[int]:
        """The ids of `text` after a context that ends so. ValueError where the tokenizer merges the two."""
        start, whole = self.lm.tok_encode(tail), self.lm.tok_encode(tail + text)
        if whole[: len(start)] != start:
            raise ValueError(f"{self.config.task}: the tokenizer merges {tail[-20:]!r} with {text!r} after it")
        return whole[len(start) :]

    @cached_property
    def _tail(self) -> str:
        return boundary(super().fewshot_context(self.task_docs[0], 0, **self.chat))

    @cached_property
    def candidates(self) -> list[tuple[str, str, int, bool]]:
        """(text, label, token, capitalised) per candidate: the first sub-token of " label", and of " Label" where the
        capitalised spelling is one token for every label (else one label would have two chances and another one).

        The text is the shortest beginning of the spelling that encodes to just this token: decoding an id instead
        would lose the space with SentencePiece tokenizers. Raises ValueError where two labels share a sub-token.
        """
        found: dict[int, tuple[str, str, int, bool]] = {}
        for capitalised in (False, True):
            texts = self._spellings(capitalised)
            ids = {text: self.spelled(self._tail, text) for text in texts.values()}
            if capitalised and any(len(each) > 1 for each in ids.values()):
                continue
            for label, text in texts.items():
                first = ids[text][0]
                pieces = (text[:n] for n in range(1, len(text) + 1))
                piece = next((each for each in pieces if self._is(each, first)), None)
                if piece is None:
                    raise ValueError(f"{self.config.task}: no beginning of {text!r} is its first sub-token alone")
                other = found.setdefault(first, (piece, label, first, capitalised))[1]
                if other != label:
                    raise ValueError(
                        f"{self.config.task}: labels {other!r} and {label!r} share the sub-token {piece!r}"
                    )
        return list(found.values())

    def _is(self, piece: str, token: int) -> bool:
        return self.lm.tok_encode(self._tail + piece) == [*self.lm.tok_encode(self._tail), token]

    def _spellings(self, capitalised: bool) -> dict[str, str]:
        spell = str.capitalize if capitalised else str.lower
        return {label: self.delimiter + spell(label) for label in self.spec.labels}

    @cached_property
    def subtokens(self) -> dict[int, str]:
        """Every sub-token of every spelling and its label, the first one where several share it (the authors' code)."""
        owners: dict[int, str] = {}
        for capitalised in (False, True):
            for label, text in self._spellings(capitalised).items():
                for token in self.spelled(self._tail, text):
                    owners.setdefault(token, label)
        return owners

    def prepare(self, contexts: list[str]) -> None:
        """Check for every context's end that each candidate is exactly its one token after it, in one batched call."""
        tails = list({boundary(context) for context in contexts} - self._checked.keys())
        if not tails or not self.asks_candidates:
            return
        texts = [tail + text for tail in tails for text in ("", *(text for text, *_ in self.candidates))]
        ids = encode_all(self.lm, texts)
        for number, tail in enumerate(tails):
            start, *ends = ids[number * (1 + len(self.candidates)) :][: 1 + len(self.candidates)]
            wanted = [[*start, token] for _, _, token, _ in self.candidates]
            self._checked[tail] = ends == wanted

    def one_token_each(self, context: str) -> bool:
        """Whether every candidate is exactly its one token after the context, in the harness's own encoding."""
        self.prepare([context])
        return self._checked[boundary(context)]

    @property
    def asks_candidates(self) -> bool:
        return "token_prob" in self.methods or "constrained" in self.methods

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        out: list[tuple[str, tuple]] = []
        if self.asks_candidates:
            if not self.one_token_each(context):
                raise ValueError(
                    f"{self.config.task}: a candidate of example {doc['example_id']} is not one token after its prompt"
                )
            out += [("loglikelihood", (context, text)) for text, *_ in self.candidates]
            if context == context.rstrip():
                self.encoded |= {(context, text): [token] for text, _, token, _ in self.candidates}
        if "free" in self.methods:
            out.append(
                ("generate_until", (context, {"until": ["\n\n"], "max_gen_toks": self.room, "do_sample": False}))
            )
        if "all_subtokens" in self.methods:
            out.append(("next_token", (context, tuple(self.subtokens))))
        return [Instance(kind, doc, arguments, number, metadata) for number, (kind, arguments) in enumerate(out)]

    def answers(self, doc: dict, responses: list) -> dict[str, Answer]:
        responses, found = list(responses), {}
        if self.asks_candidates:
            scored = [
                (responses.pop(0)[0], label, capitalised) for _, label, _, capitalised in self.candidates
            ]  # the first of equals wins
            found["token_prob"] = max(scored, key=lambda each: each[0])[1]
            found["constrained"] = max((each for each in scored if not each[2]), key=lambda each: each[0])[1]
        if "free" in self.methods:
            words = "|".join(map(re.escape, sorted(self.spec.labels, key=len, reverse=True)))
            match = re.search(rf"\b({words})\b", responses.pop(0), re.IGNORECASE)
            found["free"] = match[1].lower() if match else ""
        if "all_subtokens" in self.methods:
            listed = zip(responses.pop(0), self.subtokens.values(), strict=True)
            found["all_subtokens"] = max(listed, key=lambda each: each[0])[1]
        return {
            method: Answer(found[method], {"accuracy": float(found[method] == doc["target"])}, not found[method])
            for method in self.methods
        }
