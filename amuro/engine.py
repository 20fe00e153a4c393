"""The evaluation engine: lm-evaluation-harness requests answered as its own `HFLM` answers them, only sooner.

    lm = Engine(model, tokenizer)                       # a drop-in for HFLM(pretrained=model, tokenizer=tokenizer)
    answers = lm.answer(task.instances)                 # one per request, in order

Where the time goes in few-shot evaluation is the prompt, most of which all examples of a task have in common. So:

- every distinct context is one *row*, whatever is asked of it: all candidates, all choices and the greedy text of one
  example come from one pass. Continuations of several tokens are branches of the row, which do not see each other;
- rows that begin alike are a group: its prefix runs once, and its keys and values are put before every row's own;
- rows are sorted by length and batched by a token budget; running out of memory halves the batch and goes on;
- logits are computed only where they are read;
- decoding writes keys and values into memory reserved at the start (nothing is copied as the text grows), and rows that
  have stopped leave the batch.

The answers equal the stock ones in float32 (tests/test_engine.py). Models that this does not fit (sliding windows,
state spaces, no explicit positions) are answered by the stock code, and a line says so.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from amuro.cache import ReservedLayer
from amuro.rows import Row, is_plain, make_rows, prefix_groups

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}  # a batch's own tokens: they fill the device; more only costs memory
DECODING_ROWS = {"cpu": 64, "cuda": 512}  # texts written at once, unless a batch size is given
MEMORY_SHARE = 0.6  # of the free memory that a batch may take by our estimate


@dataclass
class Prefilled:
    """Rows that wait for their text: their contexts are computed. `logits` (rows, vocabulary) are those of the next
    token, `seen` (rows, columns) says which columns of the cache a row's new tokens see."""

    rows: list[Row]
    logits: torch.Tensor
    seen: torch.Tensor
    layers: list[ReservedLayer]


class Engine(HFLM):
    """`HFLM` on a loaded model; `batch_size` limits the rows of a batch (default: what fits in memory)."""

    def __init__(self, model, tokenizer, batch_size: int | None = None, **kwargs):
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size or 16, **kwargs)
        self.most_rows, self.state = batch_size, PartialState()
        self.unfit = _unfit(self.model)
        if self.unfit:
            print(f"engine: {type(self.model).__name__} {self.unfit}; the stock code answers, more slowly")
        self._pieces: dict[int, str] = {}  # text of a single token, as far as asked for

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self.answer(requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self.answer(requests)

    def next_token(self, requests: list[Instance]) -> list[list[float]]:
        """For (context, ids) requests: the log-probability of each id as the token after the context."""
        return self.answer(requests)

    @torch.no_grad()
    def answer(
        self,
        requests: list[Instance],
        encoded: dict | None = None,
        progress: Callable[[int], None] = lambda answered: None,
    ) -> list:
        """The answers to requests of all kinds, in order: `loglikelihood` -> (log-probability, is it greedy),
        `generate_until` -> text, `next_token` -> log-probabilities.

        `encoded` holds ids that are known already: of contexts, and of continuations under (context, continuation).
        `progress` is told the number of requests answered. Several processes (accelerate) share the work; each gets
        all answers. ValueError where a request exceeds the model's context: tasks must fit their prompts. RuntimeError
        where one row alone runs out of memory.
        """
        if self.unfit or not all(map(is_plain, requests)):
            return self._stock(requests, progress)
        rows = make_rows(self, requests, dict(encoded or {}))
        answers: dict[int, object] = {}
        for found in self._answers(prefix_groups(rows)):
            answers |= found
            progress(len(found) * self.state.num_processes)
        if self.state.num_processes > 1:
            answers = dict(gather_object(list(answers.items())))
        return [answers[number] for number in range(len(requests))]

    def _stock(self, requests: list[Instance], progress: Callable[[int], None]) -> list:
        methods = {"loglikelihood": super().loglikelihood, "generate_until": super().generate_until}
        if other := {each.request_type for each in requests} - methods.keys():
            raise ValueError(
                f"{', '.join(other)} requests need the engine, and {type(self.model).__name__} {self.unfit}"
            )
        answers = [None] * len(requests)
        for kind in dict.fromkeys(each.request_type for each in requests):
            numbers = [number for number, each in enumerate(requests) if each.request_type == kind]
            found = methods[kind]([requests[number] for number in numbers], True)
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
            progress(len(numbers))
        return answers

    # ---- rows to batches

    def _answers(self, groups: list[tuple[int, list[Row]]]) -> Iterator[dict[int, object]]:
        """The answers, batch by batch; of several processes each takes every p-th row. Rows that ask for text wait
        until there are enough of them, whatever their group and length: a decoding step costs little more for many rows
        than for one."""
        waiting: list[Prefilled] = []
        for n, group in groups:
            rows = sorted(group, key=lambda row: (len(row.ids) + row.extra, row.ids), reverse=True)
            for answers, prefilled in self._batches(n, rows[self.state.process_index :: self.state.num_processes]):
                yield answers
                if prefilled:
                    rows = [row for each in (*waiting, prefilled) for row in each.rows]
                    if len(rows) > self._decoding_rows(rows):
                        yield from self._texts(waiting)
                        waiting = []
                    waiting.append(prefilled)
        yield from self._texts(waiting)

    def _decoding_rows(self, rows: list[Row]) -> int:
        """How many such rows to decode at once: what was asked for, or what the memory allows to hold twice."""
        most = DECODING_ROWS.get(self.device.type, DECODING_ROWS["cpu"])
        longest = max(len(row.ids) + row.extra + row.new_tokens for row in rows)
        fitting = int(MEMORY_SHARE * _free_memory(self.device) / (2 * longest * self._kept_bytes))
        return min(self.most_rows or most, fitting)

    def _batches(self, n: int, rows: list[Row]) -> Iterator[tuple[dict[int, object], Prefilled | None]]:
        """The answers to log-probability requests of a group's batches, and what waits for text; the longest rows come
        first."""
        own = lambda row: len(row.ids) - n + row.extra  # noqa: E731
        prefix = self._prefill(rows[0].ids[:n]) if n and rows else None
        while rows:
            batch = rows[: self._size(n, rows, own)]
            done = self._unless_out_of_memory(partial(self._run, n, prefix, batch), batch)
            if done:
                yield done
                rows = rows[len(batch) :]

    def _texts(self, waiting: list[Prefilled]) -> Iterator[dict[int, object]]:
        """The texts of rows that wait, all at once or, where the memory does not suffice, in halves."""
        if not waiting:
            return
        rows = [row for each in waiting for row in each.rows]
        texts = self._unless_out_of_memory(lambda: self._decode(waiting), rows)
        if texts:
            yield texts
        elif len(waiting) > 1:
            yield from self._texts(waiting[: len(waiting) // 2])
            yield from self._texts(waiting[len(waiting) // 2 :])
        else:  # one batch of a prefix: its halves, computed again
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                for _, prefilled in self._batches(0, half):
                    yield from self._texts([prefilled])

    def _unless_out_of_memory(self, compute: Callable[[], object], rows: list[Row]):
        """The result, or None after halving the number of rows that are tried; RuntimeError with one row alone."""
        try:
            return compute()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if len(rows) == 1:
                raise RuntimeError(f"out of memory with one sequence of {len(rows[0].ids)} tokens") from error
        # Outside of the handler, whose traceback holds on to the memory.
        self.most_rows = len(rows) // 2
        torch.cuda.empty_cache()
        print(f"engine: out of memory with {len(rows)} rows, going on with {self.most_rows}")
        return None

    def _size(self, n: int, rows: list[Row], own: Callable[[Row], int]) -> int:
        """How many of the rows, longest first, make a batch. None is padded to more than twice its own length."""
        first, config, itemsize = rows[0], self.model.config.get_text_config(), self.model.dtype.itemsize
        tokens = BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        passing = own(first) * (8 * config.hidden_size + 3 * inner) * itemsize
        logits = (1 + first.extra) * config.vocab_size * (itemsize + 8)
        bytes_per_row = (n + own(first)) * self._kept_bytes + passing + logits
        memory = int(MEMORY_SHARE * _free_memory(self.device)) // bytes_per_row
        most = max(1, min(self.most_rows or len(rows), tokens // own(first) or 1, memory, len(rows)))
        return sum(2 * own(row) >= own(first) for row in rows[:most])

    @property
    def _kept_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * heads * head_dim * self.model.dtype.itemsize

    def _prefill(self, ids: tuple[int, ...]) -> DynamicCache:
        """Keys and values of a prefix, one row."""
        cache = DynamicCache(config=self.model.config)
        self._forward(torch.tensor([ids], device=self.device), None, None, cache, keep=1)
        return cache

    def _forward(self, ids, positions, mask, cache, keep: int) -> torch.Tensor:
        """Logits (rows, keep, vocabulary) of the last `keep` positions."""
        if mask is not None and self.model.config._attn_implementation == "eager":  # adds the mask to the scores
            mask = torch.zeros_like(mask, dtype=self.model.dtype).masked_fill(~mask, torch.finfo(self.model.dtype).min)
        return self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    # ---- a batch

    def _run(self, n: int, prefix: DynamicCache | None, rows: list[Row]) -> tuple[dict[int, object], Prefilled | None]:
        """One pass of one batch: [prefix][padding][own part of the context][branches]."""
        context, extra = max(len(row.ids) - n for row in rows), max(row.extra for row in rows)
        ids, positions, mask = self._layout(n, rows, context, extra)
        before: list = prefix.layers if prefix else [None] * self.model.config.get_text_config().num_hidden_layers
        layers = [ReservedLayer(n + context + extra, layer) for layer in before]
        logits = self._forward(ids, positions, mask, Cache(layers=list(layers)), keep=1 + extra)
        answers = self._read(rows, logits, 1 + extra)
        if not any(row.generating for row in rows):
            return answers, None
        seen = torch.ones(len(rows), n + context + extra, dtype=torch.bool, device=self.device)
        if mask is not None:  # what the context's last token sees: nothing of the branches, nor of the padding
            seen = mask[:, 0, context - 1]
        wanted = torch.tensor([number for number, row in enumerate(rows) if row.generating], device=self.device)
        _select(layers, wanted if len(wanted) < len(rows) else None)
        generating = [row for row in rows if row.generating]
        return answers, Prefilled(generating, logits[wanted, 0].clone(), seen[wanted], layers)

    def _layout(self, n: int, rows: list[Row], context: int, extra: int):
        """Ids and positions (rows, width), and which columns each position sees: (rows, 1, width, n + width) bool, None
        where plain causal attention says the same. The width is context + extra."""
        width = context + extra
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros(len(rows), width, dtype=torch.long)
        segment = torch.zeros(len(rows), n + width, dtype=torch.long)  # 0: everyone's, else who may see the column
        for number, row in enumerate(rows):
            own = row.ids[n:]
            pad = context - len(own)
            ids[number, pad:context] = torch.tensor(own)
            positions[number, pad:context] = torch.arange(n, len(row.ids))
            segment[number, n : n + pad] = -1
            for branch, offset in row.branches.items():
                start, end = context + offset, context + offset + len(branch)
                ids[number, start:end] = torch.tensor(branch)
                positions[number, start:end] = torch.arange(len(row.ids), len(row.ids) + len(branch))
                segment[number, n + start : n + end] = 1 + offset
            segment[number, n + context + row.extra :] = -1
        mask, segment = None, segment.to(self.device)
        if n or segment.any():
            columns = torch.arange(n + width, device=self.device)
            places = columns[n:, None]
            common = (segment == 0)[:, None] | (segment[:, None] == segment[:, n:, None])
            # A padding position sees itself, since attention to nothing is not a number.
            mask = ((columns <= places) & common & (segment >= 0)[:, None]) | (columns == places)
            mask = mask[:, None]
        return ids.to(self.device), positions.to(self.device), mask

    def _read(self, rows: list[Row], logits: torch.Tensor, kept: int) -> dict[int, object]:
        """Answers to all requests for log-probabilities. Position 0 of `logits` is the context's last token."""
        wanted: list[tuple[int, int, int]] = []  # row, position, token
        spans: dict[int, tuple[int, int]] = {}
        for number, row in enumerate(rows):
            for request, continuation in row.scored:
                start = 1 + row.branches.get(continuation[:-1], 0)
                places = [0, *range(start, start + len(continuation) - 1)]
                spans[request] = (len(wanted), len(wanted) + len(continuation))
                wanted += [(number, place, token) for place, token in zip(places, continuation, strict=True)]
            for request, tokens in row.listed:
                spans[request] = (len(wanted), len(wanted) + len(tokens))
                wanted += [(number, 0, token) for token in tokens]
        if not wanted:
            return {}
        numbers, places, tokens = torch.tensor(wanted, device=logits.device).T
        cells, which = torch.unique(numbers * kept + places, return_inverse=True)  # each position's softmax once
        logprobs = logits.flatten(0, 1)[cells].float().log_softmax(-1)
        values = logprobs[which, tokens].tolist()
        greedy = (logprobs.argmax(-1)[which] == tokens).tolist()
        answers: dict[int, object] = {}
        for row in rows:
            for request, _ in row.scored:
                start, end = spans[request]
                answers[request] = (sum(values[start:end]), all(greedy[start:end]))
            for request, _ in row.listed:
                start, end = spans[request]
                answers[request] = values[start:end]
        return answers

    def _decode(self, waiting: list[Prefilled]) -> dict[int, object]:
        """Greedy text of the rows. A step is one token of every row that has not stopped."""
        rows = [row for each in waiting for row in each.rows]
        columns = max(each.seen.shape[1] for each in waiting)
        capacity = columns + max(row.new_tokens for row in rows)
        prefilled = zip(*(each.layers for each in waiting), strict=True)
        layers = [ReservedLayer.joined(list(parts), columns, capacity) for parts in prefilled]
        cache = Cache(layers=list(layers))
        pad = torch.nn.functional.pad
        visible = torch.cat([pad(each.seen, (columns - each.seen.shape[1], 0), value=False) for each in waiting])
        visible = None if visible.all() else visible[:, None, None]  # None: every column
        logits, stops = torch.cat([each.logits for each in waiting]), self._stop_ids()
        length = torch.tensor([len(row.ids) for row in rows], device=self.device)
        made: list[list[int]] = [[] for _ in rows]
        live = list(range(len(rows)))
        while True:
            tokens = logits.argmax(-1)
            going = []
            for place, (number, token) in enumerate(zip(live, tokens.tolist(), strict=True)):
                if token in stops:
                    continue
                made[number].append(token)
                if len(made[number]) < rows[number].new_tokens and not self._stopped(made[number], rows[number].until):
                    going.append(place)
            if not going:
                break
            if len(going) < len(live):
                keep = torch.tensor(going, device=self.device)
                tokens, length, live = tokens[keep], length[keep], [live[place] for place in going]
                visible = visible if visible is None else visible[keep]
                _select(layers, keep)
            if visible is not None:
                visible = pad(visible, (0, 1), value=True)
            logits = self._forward(tokens[:, None], length[:, None], visible, cache, keep=1)[:, -1]
            length = length + 1
        answers = {}
        for row, ids in zip(rows, made, strict=True):
            text = self.tok_decode(ids, skip_special_tokens=True)
            for stop in row.until:
                text = text.split(stop)[0] if stop else text
            answers |= dict.fromkeys(row.generating, text)
        return answers

    def _stop_ids(self) -> set[int]:
        """Tokens that end a text: the tokenizer's EOS, and the model's own as the stock generation has them."""
        given = self.model.generation_config.eos_token_id
        return {self.eot_token_id, *(given if isinstance(given, list) else [] if given is None else [given])}

    def _stopped(self, ids: list[int], until: tuple[str, ...]) -> bool:
        """Whether the text of `ids` holds a stop string. Decoded whole only when the newest token may end one."""
        if ids[-1] not in self._pieces:
            self._pieces[ids[-1]] = self.tok_decode([ids[-1]], skip_special_tokens=False)
        piece = self._pieces[ids[-1]]
        if not any(stop[-1] in piece or "\ufffd" in piece for stop in until if stop):
            return False
        text = self.tok_decode(ids, skip_special_tokens=False)
        return any(stop in text for stop in until if stop)


def _select(layers: list[ReservedLayer], rows: torch.Tensor | None) -> None:
    """Keep only these rows of a cache; None keeps all."""
    for layer in layers if rows is not None else ():
        layer.select(rows)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _free_memory(device: torch.device) -> int:
    """Free bytes on the device, what PyTorch holds unused included."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def _unfit(model) -> str:
    """Why a model cannot be answered by the engine; empty where it can."""
    known = inspect.signature(model.forward).parameters
    if missing := [name for name in ("position_ids", "past_key_values", "logits_to_keep") if name not in known]:
        return f"takes no {', '.join(missing)}"
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return "does not attend to the whole context in every layer"
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return f"uses {model.config._attn_implementation} attention, not sdpa"
    given = model.generation_config
    if given.repetition_penalty not in (None, 1.0) or given.no_repeat_ngram_size or given.suppress_tokens:
        return "has a generation_config that changes the logits"
    return ""
