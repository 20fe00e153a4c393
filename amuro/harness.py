"""The task classes that every `eval/tasks/*.yaml` names, for any lm-evaluation-harness model class.

    lm_eval --model hf --model_args pretrained=DIR --include_path eval/tasks --tasks 'amuro_*' --num_fewshot 4

`load` is the YAMLs' data hook. `Generate` scores ROUGE-L, `Choices` compares whole answers, and `amuro.labels.Labels`
reads a label. All fit shots and text to the model's context themselves, so that nothing is ever cut from the left: that
needs the tokenizer, which the harness hands over as metadata (`pretrained=` or `tokenizer=` in --model_args).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import datasets
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import resolve_max_length
from rouge_score import rouge_scorer
from transformers import AutoConfig

from amuro.cells import SHOT_SEED
from amuro.data import evaluation_rows, resolve_data_dir
from amuro.encoding import encode_all, load_tokenizer, shorten
from amuro.prompts import FIELDS, PROMPT_FORMATS, prompt
from amuro.tasks import METHODS, TASKS

CHAT = ("system_instruction", "apply_chat_template", "fewshot_as_multiturn", "chat_template")


@dataclass(frozen=True)
class Answer:
    """What one way of reading makes of a model's responses to one example: the answer, and its score per metric."""

    prediction: str
    scores: dict[str, float]
    unparsable: bool = False


def load(task: str, data_dir: str | None = None, shot_seed: int = SHOT_SEED, **_) -> datasets.DatasetDict:
    """The `test` and `shots` splits of a task. What else the metadata holds are the harness's model arguments."""
    scored = evaluation_rows(task, resolve_data_dir(data_dir), int(shot_seed))
    return datasets.DatasetDict(
        test=datasets.Dataset.from_list(scored.test.rows), shots=datasets.Dataset.from_list(scored.shots)
    )


@lru_cache(maxsize=4)
def encoder(pretrained: str, tokenizer: str, place: tuple, add_bos_token: bool | None, max_length: int | None) -> HFLM:
    """The harness's own encoding (BOS rules, `_encode_pair`, context length), without a model.

    ValueError where the folder or repository has no tokenizer.
    """
    lm = object.__new__(HFLM)
    lm.backend, lm.add_bos_token, lm.custom_prefix_token_id = "causal", add_bos_token, None
    add_bos = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    lm.tokenizer = load_tokenizer(tokenizer, **dict(place), **add_bos)
    try:
        config = AutoConfig.from_pretrained(pretrained, **{"trust_remote_code": False, **dict(place)})
    except Exception as error:  # the library has no kind of its own for a file that it cannot use
        raise ValueError(f"{pretrained}: no config that can be used ({' '.join(str(error).split())})") from error
    lm._max_length = int(max_length or resolve_max_length(config, lm.tokenizer, default=2048))
    return lm


class AmuroTask(ConfigurableTask):
    """Fixed nested shots, fitted to the context: whole shots are left out from the end, then source text is."""

    def __init__(self, config: dict):
        self.spec = TASKS[config["dataset_kwargs"]["task"]]
        if config["doc_to_text"] not in PROMPT_FORMATS:
            raise ValueError(f"{config['task']}: doc_to_text must be one of {', '.join(PROMPT_FORMATS)}")
        self.truncated: set[str] = set()  # example ids that lost shots or source text
        self.lengths: dict[str, int] = {}  # tokens of texts met so far
        # Ids of contexts, and of continuations under (context, continuation): an engine need not encode them again.
        self.encoded: dict[str | tuple[str, str], list[int]] = {}
        self.chat: dict = {}  # the harness's arguments that wrap prompts in a chat template
        # The harness hands over the raw YAML, `class` included, which its own TaskConfig does not know.
        super().__init__(config={key: value for key, value in config.items() if key != "class"})
        asked = (self.config.metadata or {}).get("methods") or self.spec.methods[0]
        asked = asked.split(",") if isinstance(asked, str) else list(asked)
        if unknown := set(asked) - {*METHODS, *self.spec.methods}:
            raise ValueError(f"methods: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(METHODS)}")
        # One --metadata holds for all tasks of a command, and only labels are read in several ways.
        self.methods = tuple(name for name in asked if name in self.spec.methods) or self.spec.methods[:1]

    def doc_to_text(self, doc: dict, doc_to_text=None) -> str:
        return prompt(self.spec.family, self.config.doc_to_text, doc)

    @cached_property
    def lm(self) -> HFLM:
        """The encoding of the model that is asked. ValueError where the metadata do not name a tokenizer."""
        given = self.config.metadata or {}
        if not (given.get("tokenizer") or given.get("pretrained")):
            raise ValueError(
                f"{self.config.task}: fitting the prompts needs the tokenizer; give pretrained= or tokenizer= in "
                "--model_args, or metadata={'pretrained': DIR} to the TaskManager"
            )
        known = ("revision", "subfolder", "trust_remote_code")
        return encoder(
            given.get("pretrained") or given["tokenizer"],
            given.get("tokenizer") or given["pretrained"],
            tuple((key, given[key]) for key in known if given.get(key) is not None),
            given.get("add_bos_token"),
            given.get("max_length"),
        )

    @property
    def delimiter(self) -> str:
        """What stands between prompt and answer: nothing where a chat template ends the prompt."""
        return "" if self.chat.get("apply_chat_template") else self.config.target_delimiter

    # ---- fitting

    @property
    def room(self) -> int:
        """New tokens that must fit after the texts of a request."""
        raise NotImplementedError

    def continuations(self, doc: dict) -> list[str]:
        """What is scored after the context, each of which must fit with it; none where only new tokens count."""
        return []

    def length(self, text: str) -> int:
        """Tokens of a text, as the harness encodes it."""
        if text not in self.lengths:
            self.lengths[text] = len(self.lm.tok_encode(text))
        return self.lengths[text]

    def fits(self, doc: dict, context: str) -> bool:
        """Whether nothing of a request would be cut."""
        texts = [context, *(context + each for each in self.continuations(doc))]
        return all(self.length(text) + self.room <= self.lm.max_length for text in texts)

    def fewshot_context(self, doc: dict, num_fewshot: int, **kwargs) -> str:
        pool = len(self.dataset["shots"])
        if num_fewshot > pool:
            raise ValueError(
                f"{self.config.task}: {num_fewshot} shots asked, its pool has {pool}; allowed: 0 to {pool}"
            )
        build = super().fewshot_context
        for shots in range(num_fewshot, -1, -1):
            context = build(doc, shots, **kwargs)
            if self.fits(doc, context):
                if shots < num_fewshot:
                    self.truncated.add(doc["example_id"])
                return context
        self.truncated.add(doc["example_id"])
        fits = lambda short: self.fits(short, build(short, 0, **kwargs))  # noqa: E731
        return build(shorten(doc, self.spec.family, fits), 0, **kwargs)

    def check_context(self, limit: int | None = None, **chat) -> None:
        """ValueError where an example does not fit the context even without shots and source text.

        Cheap: only texts of more bytes than the context has tokens are encoded.
        """
        self.chat, source = chat, FIELDS[self.spec.family][0]
        for doc in self.task_docs.select(range(min(limit or len(self.task_docs), len(self.task_docs)))):
            empty = {**doc, source: ""}
            context = super().fewshot_context(empty, 0, **chat)
            longest = max(len((context + each).encode()) for each in ("", *self.continuations(doc)))
            if longest + self.room > self.lm.max_length and not self.fits(empty, context):
                raise ValueError(
                    f"{self.config.task}: example {doc['example_id']} does not fit the model's context of "
                    f"{self.lm.max_length} tokens, even without shots and with an empty {source!r}"
                )

    # ---- requests and answers

    def build_all_requests(self, *, limit=None, samples=None, rank=0, world_size=1, **kwargs) -> None:
        """As the harness's, after all prompts have been encoded in one batched call."""
        self.chat = {key: kwargs[key] for key in CHAT if key in kwargs}
        shots = min(self.config.num_fewshot or 0, len(self.dataset["shots"]))
        part = dict(limit=limit, samples=samples, rank=rank, world_size=world_size)
        docs = [doc for _, doc in self.doc_iterator(**part)]
        for start in range(0, len(docs), 1000):  # in parts, for the memory that the encodings take
            pairs = []
            for doc in docs[start : start + 1000]:
                context = super().fewshot_context(doc, shots, **self.chat)
                pairs += [(context, each) for each in ("", *self.continuations(doc))]
            self._learn(pairs)
            self.prepare([context for context, each in pairs if not each])
        super().build_all_requests(**part, **kwargs)

    def prepare(self, contexts: list[str]) -> None:
        """What a task looks up about many contexts at once."""

    def _learn(self, pairs: list[tuple[str, str]]) -> None:
        """Encode contexts (an empty continuation) and what follows them."""
        encodings = encode_all(self.lm, [context + each for context, each in pairs])
        for (context, continuation), ids in zip(pairs, encodings, strict=True):
            self.lengths[context + continuation] = len(ids)
            if not continuation:
                self.encoded[context] = ids
            elif context == context.rstrip():  # else the harness splits the two at another place
                self.encoded[context, continuation] = ids[len(self.encoded[context]) :]

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        raise NotImplementedError

    def construct_requests(self, doc: dict, ctx: str, metadata=None, **_) -> list[Instance]:
        assert self.fits(doc, ctx), f"{self.config.task}: a request of {doc['example_id']} exceeds the context"
        return self.requests(doc, ctx, metadata)

    def answers(self, doc: dict, responses: list) -> dict[str, Answer]:
        """What each of the task's `methods` makes of the responses to one example's requests."""
        raise NotImplementedError

    def process_results(self, doc: dict, results: list) -> dict[str, float]:
        answers = self.answers(doc, results)
        values = {
            self._name(metric, method): score
            for method, answer in answers.items()
            for metric, score in answer.scores.items()
        }
        counts = {"n_truncated": float(doc["example_id"] in self.truncated)}
        if "free" in answers:
            counts["n_unparsable"] = float(answers["free"].unparsable)
        return values | counts

    def _name(self, metric: str, method: str) -> str:
        """A metric's name in the harness's own table, which has no column for the method."""
        return metric if method == self.spec.methods[0] else f"{metric}_{method}"

    def aggregation(self) -> dict:
        counts = ["n_truncated", *(["n_unparsable"] if "free" in self.methods else [])]
        return {name: mean for name in self._names()} | {name: sum for name in counts}

    def higher_is_better(self) -> dict:
        return {name: name in self._names() for name in self.aggregation()}

    def _names(self) -> list[str]:
        return [self._name(metric, method) for method in self.methods for metric in self.spec.metrics]


class Generate(AmuroTask):
    """Greedy text up to a blank line or EOS, scored by ROUGE-L (F-measure, no stemming) against the reference."""

    _rouge = rouge_scorer.RougeScorer(["rougeL"])

    @property
    def room(self) -> int:
        return self.config.generation_kwargs["max_gen_toks"]

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        return [Instance("generate_until", doc, (context, self.config.generation_kwargs), 0, metadata)]

    def answers(self, doc: dict, responses: list) -> dict[str, Answer]:
        text = responses[0].strip()
        return {"generate": Answer(text, {"rouge_l": self._rouge.score(doc["target"], text)["rougeL"].fmeasure})}


class Choices(AmuroTask):
    """The choice with the highest log-likelihood after the prompt; `accuracy_norm` divides it by the choice's length in
    characters, as the harness's own multiple-choice tasks do."""

    room = 0  # the texts hold the answers

    def continuations(self, doc: dict) -> list[str]:
        return [self.delimiter + choice for choice in doc["choices"]]

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        return [
            Instance("loglikelihood", doc, (context, text), number, metadata)
            for number, text in enumerate(self.continuations(doc))
        ]

    def answers(self, doc: dict, responses: list) -> dict[str, Answer]:
        logprobs = np.array([logprob for logprob, _ in responses])
        best = int(logprobs.argmax())
        best_norm = int((logprobs / np.array([len(choice) for choice in doc["choices"]])).argmax())
        scores = {"accuracy": float(best == doc["gold"]), "accuracy_norm": float(best_norm == doc["gold"])}
        return {"loglikelihood": Answer(doc["choices"][best], scores)}
