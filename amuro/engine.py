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
from collections import defaultdict
from collections.abc import Callable, Iterator

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from amuro.rows import Row, is_plain, make_rows, prefix_groups

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}  # a batch's own tokens: they fill the device; more only costs memory
MEMORY_SHARE = 0.6  # of the free memory that a batch may take by our estimate


class ReservedLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, capacity, dim), reserved at the first use and filled in place.

    `prefix` is a layer of one row that all rows begin with.
    """

    def __init__(self, capacity: int, prefix: DynamicLayer | None = None):
        super().__init__()
        self.capacity, self.prefix, self.length = capacity, prefix, prefix.get_seq_length() if prefix else 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.memory = [
            states.new_empty(*states.shape[:2], self.capacity, states.shape[3]) for states in (key_states, value_states)
        ]
        if self.prefix is not None:
            self.memory[0][:, :, : self.length] = self.prefix.keys
            self.memory[1][:, :, : self.length] = self.prefix.values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_, **__):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.memory[0][:, :, start : self.length] = key_states
        self.memory[1][:, :, start : self.length] = value_states
        self.keys, self.values = (states[:, :, : self.length] for states in self.memory)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows."""
        self.memory = [states[rows] for states in self.memory]


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
        for n, group in prefix_groups(rows):
            for mine in self._batches(n, group):
                answers |= mine
                progress(len(mine) * self.state.num_processes)
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

    def _batches(self, n: int, group: list[Row]) -> Iterator[dict[int, object]]:
        """The answers of a group's batches, longest rows first; of several processes each takes every p-th row."""
        own = lambda row: len(row.ids) - n + row.extra  # noqa: E731
        rows = sorted(group, key=lambda row: (own(row), row.ids), reverse=True)
        rows = rows[self.state.process_index :: self.state.num_processes]
        prefix = self._prefill(group[0].ids[:n]) if n and rows else None
        while rows:
            batch = rows[: self._size(n, rows, own)]
            try:
                answers = self._run(n, prefix, batch)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise RuntimeError(f"out of memory with one sequence of {len(batch[0].ids)} tokens") from error
                answers = None
            if answers is None:  # outside of the handler, whose traceback holds on to the memory
                self.most_rows = len(batch) // 2
                torch.cuda.empty_cache()
                print(f"engine: out of memory with {len(batch)} rows, going on with {self.most_rows}")
                continue
            yield answers
            rows = rows[len(batch) :]

    def _size(self, n: int, rows: list[Row], own: Callable[[Row], int]) -> int:
        """How many of the rows, longest first, make a batch. None is padded to more than twice its own length, except
        where text is generated: there a step costs more than padding."""
        first = rows[0]
        tokens = BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"]) * (4 if first.generating else 1)
        config = self.model.config.get_text_config()
        itemsize = self.model.dtype.itemsize
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kept = (n + own(first) + first.new_tokens) * 2 * config.num_hidden_layers * heads * head_dim * itemsize
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        passing = own(first) * (8 * config.hidden_size + 3 * inner) * itemsize
        logits = (1 + first.extra) * config.vocab_size * (itemsize + 8)
        memory = int(MEMORY_SHARE * _free_memory(self.device)) // (kept + passing + logits)
        most = max(1, min(self.most_rows or len(rows), tokens // own(first) or 1, memory, len(rows)))
        if first.generating:
            return most
        return sum(2 * own(row) >= own(first) for row in rows[:most])

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

    def _run(self, n: int, prefix: DynamicCache | None, rows: list[Row]) -> dict[int, object]:
        """The answers of one batch: [prefix][padding][own part of the context][branches], then greedy text."""
        context, extra = max(len(row.ids) - n for row in rows), max(row.extra for row in rows)
        width, new = context + extra, max(row.new_tokens for row in rows)
        ids, positions, mask = self._layout(n, rows, context, extra)
        layers = prefix.layers if prefix else [None] * self.model.config.get_text_config().num_hidden_layers
        cache = Cache(layers=[ReservedLayer(n + width + new, layer) for layer in layers])
        logits = self._forward(ids, positions, mask, cache, keep=1 + extra)
        answers = self._read(rows, logits, 1 + extra)
        generating = [number for number, row in enumerate(rows) if row.generating]
        if generating:
            visible = None  # all columns; else those that the last token of each row's context sees
            if extra or any(len(row.ids) - n < context for row in rows):
                visible = mask[:, :, context - 1 : context]
            answers |= self._decode(rows, generating, logits[:, 0], visible, cache)
        return answers

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

    def _decode(self, rows, generating: list[int], logits, visible, cache) -> dict[int, str]:
        """Greedy text of the rows numbered in `generating`, whose first logits (rows, vocabulary) are given."""
        live = torch.tensor(generating, device=self.device)
        made: dict[int, list[int]] = defaultdict(list)
        stops = self._stop_ids()
        if len(generating) < len(rows):
            logits, visible = logits[live], visible if visible is None else visible[live]
            _select(cache, live)
        current = list(generating)
        length = torch.tensor([len(rows[number].ids) for number in current], device=self.device)
        while True:
            tokens = logits.argmax(-1)
            going = []
            for place, (number, token) in enumerate(zip(current, tokens.tolist(), strict=True)):
                if token in stops:
                    continue
                made[number].append(token)
                row = rows[number]
                if len(made[number]) < row.new_tokens and not self._stopped(made[number], row.until):
                    going.append(place)
            if not going:
                break
            if len(going) < len(current):
                keep = torch.tensor(going, device=self.device)
                tokens, length, current = tokens[keep], length[keep], [current[place] for place in going]
                visible = visible if visible is None else visible[keep]
                _select(cache, keep)
            if visible is not None:
                visible = torch.nn.functional.pad(visible, (0, 1), value=True)
            logits = self._forward(tokens[:, None], length[:, None], visible, cache, keep=1)[:, -1]
            length = length + 1
        answers = {}
        for number in generating:
            text = self.tok_decode(made[number], skip_special_tokens=True)
            for stop in rows[number].until:
                text = text.split(stop)[0] if stop else text
            answers |= dict.fromkeys(rows[number].generating, text)
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


def _select(cache: Cache, rows: torch.Tensor) -> None:
    for layer in cache.layers:
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
