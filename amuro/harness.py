"""The task classes that every `eval/tasks/*.yaml` names, for any lm-evaluation-harness model class.

    lm_eval --model hf --model_args pretrained=DIR --include_path eval/tasks --tasks 'amuro_*' --num_fewshot 4

`load` is the YAMLs' data hook. `Labels` reads a label off the next-token probabilities (token_prob, paper section 3.3):
one `loglikelihood` request of one token per candidate, so that stock models answer it. `Generate` scores ROUGE-L.
Both fit shots and text to the model's context themselves, so that nothing is ever cut from the left: that needs the
tokenizer, which the harness hands over as metadata (`pretrained=` or `tokenizer=` in --model_args).
"""

from functools import cached_property

import datasets
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import resolve_max_length
from rouge_score import rouge_scorer
from transformers import AutoConfig, AutoTokenizer

from amuro.data import SHOT_SEED, evaluation_rows, resolve_data_dir
from amuro.encoding import shorten
from amuro.prompts import PROMPT_FORMATS, prompt
from amuro.tasks import TASKS

BOUNDARY = 200  # characters before a candidate, at most, that can influence how it is tokenised


def boundary(context: str) -> str:
    """The end of a context that decides how what follows it is tokenised: its last line, or that line's end."""
    return context[-BOUNDARY:].rpartition("\n")[2] or context[-BOUNDARY:]


def load(task: str, data_dir: str | None = None, shot_seed: int = SHOT_SEED, **_) -> datasets.DatasetDict:
    """The `test` and `shots` splits of a task. What else the metadata holds are the harness's model arguments."""
    scored = evaluation_rows(task, resolve_data_dir(data_dir), int(shot_seed))
    return datasets.DatasetDict(
        test=datasets.Dataset.from_list(scored.test.rows), shots=datasets.Dataset.from_list(scored.shots)
    )


class AmuroTask(ConfigurableTask):
    """Fixed nested shots, fitted to the context: whole shots are left out from the end, then source text is."""

    def __init__(self, config: dict):
        self.spec = TASKS[config["dataset_kwargs"]["task"]]
        if config["doc_to_text"] not in PROMPT_FORMATS:
            raise ValueError(f"{config['task']}: doc_to_text must be one of {', '.join(PROMPT_FORMATS)}")
        self.truncated: set[str] = set()  # example ids that lost shots or source text
        # The harness hands over the raw YAML, `class` included, which its own TaskConfig does not know.
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def doc_to_text(self, doc: dict, doc_to_text=None) -> str:
        return prompt(self.spec.family, self.config.doc_to_text, doc)

    @property
    def room(self) -> int:
        """New tokens that must fit after the prompt."""
        raise NotImplementedError

    @cached_property
    def lm(self) -> HFLM:
        """The harness's own encoding (BOS rules, `_encode_pair`, context length), without a model."""
        given = self.config.metadata or {}
        if not (given.get("tokenizer") or given.get("pretrained")):
            raise ValueError(
                f"{self.config.task}: fitting the prompts needs the tokenizer; give pretrained= or tokenizer= in "
                "--model_args, or metadata={'pretrained': DIR} to the TaskManager"
            )
        place = {
            key: given[key] for key in ("revision", "subfolder", "trust_remote_code") if given.get(key) is not None
        }
        lm = object.__new__(HFLM)
        lm.backend, lm.add_bos_token, lm.custom_prefix_token_id = "causal", given.get("add_bos_token"), None
        add_bos = {} if lm.add_bos_token is None else {"add_bos_token": lm.add_bos_token}
        lm.tokenizer = AutoTokenizer.from_pretrained(given.get("tokenizer") or given["pretrained"], **place, **add_bos)
        config = AutoConfig.from_pretrained(given.get("pretrained") or given["tokenizer"], **place)
        lm._max_length = int(given.get("max_length") or resolve_max_length(config, lm.tokenizer, default=2048))
        return lm

    def fits(self, context: str) -> bool:
        return len(self.lm.tok_encode(context)) + self.room <= self.lm.max_length

    def fewshot_context(self, doc: dict, num_fewshot: int, **kwargs) -> str:
        pool = len(self.dataset["shots"])
        if num_fewshot > pool:
            raise ValueError(
                f"{self.config.task}: {num_fewshot} shots asked, its pool has {pool}; allowed: 0 to {pool}"
            )
        build = super().fewshot_context
        for shots in range(num_fewshot, -1, -1):
            context = build(doc, shots, **kwargs)
            if self.fits(context):
                if shots < num_fewshot:
                    self.truncated.add(doc["example_id"])
                return context
        self.truncated.add(doc["example_id"])
        return build(shorten(doc, self.spec.family, lambda short: self.fits(build(short, 0, **kwargs))), 0, **kwargs)

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        raise NotImplementedError

    def construct_requests(self, doc: dict, ctx: str, metadata=None, **_) -> list[Instance]:
        assert self.fits(ctx), f"{self.config.task}: a request of {doc['example_id']} exceeds the context"
        return self.requests(doc, ctx, metadata)

    def predict(self, responses: list) -> str:
        """The answer that the responses to one example's requests amount to."""
        raise NotImplementedError

    def score(self, doc: dict, prediction: str) -> float:
        raise NotImplementedError

    def process_results(self, doc: dict, results: list) -> dict[str, float]:
        return {
            self.spec.metric: self.score(doc, self.predict(results)),
            "n_truncated": float(doc["example_id"] in self.truncated),
        }

    def aggregation(self) -> dict:
        return {self.spec.metric: mean, "n_truncated": sum}

    def higher_is_better(self) -> dict:
        return {self.spec.metric: True, "n_truncated": False}


class Generate(AmuroTask):
    """Greedy text up to a blank line or EOS, scored by ROUGE-L (F-measure, no stemming) against the reference."""

    _rouge = rouge_scorer.RougeScorer(["rougeL"])

    @property
    def room(self) -> int:
        return self.config.generation_kwargs["max_gen_toks"]

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        return [Instance("generate_until", doc, (context, self.config.generation_kwargs), 0, metadata)]

    def predict(self, responses: list) -> str:
        return responses[0].strip()

    def score(self, doc: dict, prediction: str) -> float:
        return self._rouge.score(doc["target"], prediction)["rougeL"].fmeasure


class Labels(AmuroTask):
    """token_prob: the candidate with the highest next-token log-probability names the label."""

    room = 5  # as many as reading the answer off free text takes, so that every way of reading sees the same prompt

    def __init__(self, config: dict):
        self._checked: dict[str, bool] = {}
        super().__init__(config)

    @cached_property
    def candidates(self) -> list[tuple[str, str]]:
        """(text, label) per candidate: the first sub-token of " label", and of " Label" where the capitalised spelling
        is one token for every label (else one label would have two chances and another one).

        The text is the shortest beginning of the spelling that encodes to just this token: decoding an id instead
        would lose the space with SentencePiece tokenizers. Raises ValueError where two labels share a sub-token.
        """
        tail = boundary(self.doc_to_text(self.task_docs[0]))
        ids = lambda text: self.lm._encode_pair(tail, text)[1]  # noqa: E731
        found: dict[int, tuple[str, str]] = {}
        for number, spelling in enumerate((str.lower, str.capitalize)):
            texts = {label: self.config.target_delimiter + spelling(label) for label in self.spec.labels}
            if number and any(len(ids(text)) > 1 for text in texts.values()):
                continue
            for label, text in texts.items():
                first = ids(text)[:1]
                piece = next((text[:n] for n in range(1, len(text) + 1) if ids(text[:n]) == first), None)
                if piece is None:
                    raise ValueError(f"{self.config.task}: no beginning of {text!r} is its first sub-token alone")
                other = found.setdefault(first[0], (piece, label))[1]
                if other != label:
                    raise ValueError(
                        f"{self.config.task}: labels {other!r} and {label!r} share the sub-token {piece!r}"
                    )
        return list(found.values())

    def one_token_each(self, tail: str) -> bool:
        """Whether every candidate is exactly one token after a context that ends so, in the harness's own encoding."""
        if tail not in self._checked:  # in the default format all contexts end alike
            encoded = [self.lm._encode_pair(tail, text) for text, _ in self.candidates]
            same_context = len({tuple(before) for before, _ in encoded}) == 1
            self._checked[tail] = same_context and all(len(own) == 1 for _, own in encoded)
        return self._checked[tail]

    def requests(self, doc: dict, context: str, metadata) -> list[Instance]:
        if not self.one_token_each(boundary(context)):
            raise ValueError(
                f"{self.config.task}: a candidate of example {doc['example_id']} is not one token after its prompt"
            )
        return [
            Instance("loglikelihood", doc, (context, text), number, metadata)
            for number, (text, _) in enumerate(self.candidates)
        ]

    def predict(self, responses: list) -> str:
        best = max(range(len(responses)), key=lambda number: responses[number][0])
        return self.candidates[best][1]

    def score(self, doc: dict, prediction: str) -> float:
        return float(prediction == doc["target"])
