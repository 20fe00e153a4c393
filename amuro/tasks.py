"""Every dataset that is trained on and every task that is evaluated, as frozen data (docs: eval/tasks/README.md).

A `Task` names its source on the hub, the split, how a row's fields are called there and here, and the label words.
`Dataset` does the same for a training set, plus which tasks are in its own domain (`id`) and next to it (`ood`).
`amuro/data.py` loads what is described here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from amuro.names import did_you_mean
from amuro.prompts import TEMPLATES

RELATIONS = ("id", "ood", "cross_task", "benchmark")
METHODS = ("token_prob", "all_subtokens", "free", "constrained")  # ways to read a label off a model
TASK_VERSION = 1  # as in eval/tasks/_base_yaml; raise both when scores would change: versions are never compared


@dataclass(frozen=True)
class Source:
    """A public dataset: its hub id and configuration, our mirror folder, licence and paper.

    `revision` is a git ref of the hub repository. The default is the hub's own Parquet conversion, which exists for
    every public set under `{config}/{split}/*.parquet` and needs no loading script (datasets >= 4 runs none). The
    commit that the ref pointed to is resolved at loading and recorded with every result.
    """

    hub_id: str
    config: str
    folder: str
    licence: str
    paper: str
    revision: str = "refs/convert/parquet"


@dataclass(frozen=True)
class Reading:
    """How a raw row of a source becomes ours: `fields` maps our name to the source's; `target` is the answer's field.

    `labels` maps a raw label to its word; `adapt` rewrites rows whose answer is not a plain field. `choices` names the
    field (after `adapt`) that lists what to choose from; `target` is then the index of the right one, counted from 0.
    """

    family: str
    fields: dict[str, str]
    target: str
    labels: dict[int, str] | None = None
    adapt: Callable[[dict], dict] | None = None
    choices: str = ""


@dataclass(frozen=True)
class Task:
    """One thing evaluated: the scored split of a source, the split its shots come from, and how it is scored.

    Of `metrics` and `methods` the first is the one that counts unless another is asked for.
    """

    name: str
    source: Source
    reading: Reading
    split: str
    shots_split: str | None = "train"
    deviation: str = ""

    @property
    def family(self) -> str:
        return self.reading.family

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.reading.labels.values()) if self.reading.labels else ()

    @property
    def metrics(self) -> tuple[str, ...]:
        if self.reading.choices:
            return ("accuracy", "accuracy_norm")
        return ("accuracy",) if self.labels else ("rouge_l",)

    @property
    def metric(self) -> str:
        return self.metrics[0]

    @property
    def methods(self) -> tuple[str, ...]:
        if self.reading.choices:
            return ("loglikelihood",)
        return METHODS if self.labels else ("generate",)

    @property
    def prompt_formats(self) -> tuple[str, ...]:
        return tuple(TEMPLATES[self.family])


@dataclass(frozen=True)
class Dataset:
    """One training set and the tasks it is related to.

    `stage` is `sft` where rows become prompt and completion by `reading` (6,000 by seed), `instruct` where they are
    conversations (field `messages`), which belong to no task of the suite.
    """

    name: str
    source: Source
    reading: Reading | None = None
    id: tuple[str, ...] = field(default=())
    ood: tuple[str, ...] = field(default=())
    split: str = "train"
    stage: str = "sft"


def _social_answer(row: dict) -> dict:
    """The right answer of a SocialIQa row, which carries either `answer` or answerA/B/C and a label 1..3."""
    if "answer" in row or "label" not in row:
        return row
    letters = {"1": "answerA", "2": "answerB", "3": "answerC"}
    label = str(row["label"]).strip()
    if label not in letters or letters[label] not in row:
        raise ValueError(f"field 'label' is {row['label']!r}; allowed: {', '.join(letters)}, naming answerA, B or C")
    return {**row, "answer": row[letters[label]]}


def _first_answer(row: dict) -> dict:
    answers = row.get("Answer")
    if not isinstance(answers, list) or not answers:
        raise ValueError(f"field 'Answer' is {answers!r}; allowed: a list with at least one answer")
    return {**row, "Answer": answers[0]}


def _similar(row: dict) -> dict:
    """STS-B: two sentences say the same if their similarity, 0 to 5, is above 3.5; -1 marks a hidden score."""
    score = row.get("label")
    if type(score) not in (int, float) or (score != -1 and not 0 <= score <= 5):
        raise ValueError(f"field 'label' is {score!r}; allowed: a score from 0 to 5")
    return {**row, "label": -1 if score == -1 else int(score > 3.5)}


def _lettered(row: dict) -> dict:
    """ARC and OpenBookQA: `choices` holds the texts and their letters (or digits), `answerKey` the right one's."""
    choices, key = row.get("choices"), row.get("answerKey")
    texts, letters = (choices.get(name) if isinstance(choices, dict) else None for name in ("text", "label"))
    if not isinstance(texts, list) or not isinstance(letters, list) or len(texts) != len(letters):
        raise ValueError(f"field 'choices' is {choices!r}; allowed: lists 'text' and 'label' of one length")
    if any(not isinstance(each, str) for each in letters) or len(set(letters)) < len(letters):
        raise ValueError(f"field 'choices' has the labels {letters!r}; allowed: texts, each once")
    if key in HIDDEN:
        return {**row, "choices": texts}
    if not isinstance(key, str) or key.strip() not in letters:
        raise ValueError(f"field 'answerKey' is {key!r}; allowed: {', '.join(map(str, letters))}")
    return {**row, "choices": texts, "answerKey": letters.index(key.strip())}


def _endings(row: dict) -> dict:
    """HellaSwag: the activity and the context's two parts as one text, all of it cleaned by the harness's function.

    Without `ctx_a` and `ctx_b`, `ctx` is taken for the two joined (the hub's `ctx` does not begin the second in upper
    case, so it is no substitute where the parts are there).
    """
    from lm_eval.tasks.hellaswag.utils import preprocess

    if "ctx_a" in row and "ctx_b" in row:
        activity, first, second = _texts(row, "activity_label", "ctx_a", "ctx_b")
        context = f"{first} {second.capitalize()}"
    else:
        activity, context = _texts(row, "activity_label", "ctx")
    endings, label = row.get("endings"), row.get("label")
    if isinstance(endings, list):
        endings = [preprocess(each) if isinstance(each, str) else each for each in endings]
    index = int(label) if isinstance(label, str) and re.fullmatch("[0-9]", label) else label  # the hub holds it as text
    return {**row, "context": preprocess(f"{activity}: {context}"), "endings": endings, "label": index}


def _yes_or_no(row: dict) -> dict:
    """BoolQ: a truth value in place of an index."""
    answer = row.get("answer")
    if answer not in HIDDEN and not isinstance(answer, bool):
        raise ValueError(f"field 'answer' is {answer!r}; allowed: true, false")
    return {**row, "choices": ["no", "yes"], "answer": int(answer) if isinstance(answer, bool) else answer}


def _right_one_last(row: dict) -> dict:
    """SciQ: three wrong answers, then the right one, in the harness's order."""
    choices = _texts(row, "distractor1", "distractor2", "distractor3", "correct_answer")
    (support,) = _texts(row, "support")
    return {**row, "support": support.lstrip(), "choices": choices, "gold": 3}


def _texts(row: dict, *names: str) -> list[str]:
    for name in names:
        if not isinstance(row.get(name), str):
            raise ValueError(f"field {name!r} is {row.get(name)!r}; allowed: text")
    return [row[name] for name in names]


HIDDEN = (-1, "-1", "-", "")  # what stands in a gold label's place where it is withheld
NLI = {0: "entailment", 1: "neutral", 2: "contradiction"}
YES_NO = {0: "no", 1: "yes"}

XSUM = Source("EdinburghNLP/xsum", "default", "xsum", "MIT (code); BBC text", "arXiv:1808.08745")
XLSUM = Source("csebuetnlp/xlsum", "english", "xlsum", "CC BY-NC-SA 4.0", "arXiv:2106.13822")
CNN = Source("abisee/cnn_dailymail", "3.0.0", "cnn_dailymail", "Apache-2.0", "arXiv:1704.04368")
SOCIAL = Source("lighteval/siqa", "default", "social_i_qa", "CC BY 4.0", "arXiv:1904.09728")
SCIQ = Source("allenai/sciq", "default", "sciq", "CC BY-NC 3.0", "arXiv:1707.06209")
TWEETQA = Source("ucsbnlp/tweet_qa", "default", "tweet_qa", "CC BY-SA 4.0", "arXiv:1907.06292")
MNLI = Source("nyu-mll/glue", "mnli", "glue_mnli", "OANC, CC BY 3.0 and others", "arXiv:1704.05426")
RTE = Source("nyu-mll/glue", "rte", "glue_rte", "none stated", "arXiv:1804.07461")
GPT3NLI = Source("pietrolesci/gpt3_nli", "default", "gpt3_nli", "MIT", "https://github.com/krandiash/gpt3-nli")
PAWS = Source("google-research-datasets/paws", "labeled_final", "paws", "free use with attribution", "arXiv:1904.01130")
QQP = Source("nyu-mll/glue", "qqp", "glue_qqp", "Quora terms (non-commercial)", "arXiv:1804.07461")
STSB = Source("nyu-mll/glue", "stsb", "glue_stsb", "CC BY-SA 4.0 and others", "arXiv:1708.00055")
ARC_EASY = Source("allenai/ai2_arc", "ARC-Easy", "ai2_arc_easy", "CC BY-SA 4.0", "arXiv:1803.05457")
ARC_CHALLENGE = Source("allenai/ai2_arc", "ARC-Challenge", "ai2_arc_challenge", "CC BY-SA 4.0", "arXiv:1803.05457")
OPENBOOKQA = Source("allenai/openbookqa", "main", "openbookqa", "Apache-2.0", "arXiv:1809.02789")
HELLASWAG = Source("Rowan/hellaswag", "default", "hellaswag", "MIT", "arXiv:1905.07830")
BOOLQ = Source("google/boolq", "default", "boolq", "CC BY-SA 3.0", "arXiv:1905.10044")
TULU = Source("allenai/tulu-v2-sft-mixture", "default", "instruction_mix", "ODC-BY", "arXiv:2311.10702")

READ_XSUM = Reading("summary", {"document": "document"}, "summary")
READ_SOCIAL = Reading("question", {"context": "context", "answer": "answer"}, "question", adapt=_social_answer)
READ_MNLI = Reading("inference", {"premise": "premise", "hypothesis": "hypothesis"}, "label", NLI)
READ_PAWS = Reading("paraphrase", {"sentence1": "sentence1", "sentence2": "sentence2"}, "label", YES_NO)
READ_ARC = Reading("arc", {"question": "question"}, "answerKey", adapt=_lettered, choices="choices")
READ_OPENBOOKQA = Reading("openbookqa", {"question": "question_stem"}, "answerKey", adapt=_lettered, choices="choices")
READ_HELLASWAG = Reading("hellaswag", {"context": "context"}, "label", adapt=_endings, choices="endings")
READ_BOOLQ = Reading(
    "boolq", {"passage": "passage", "question": "question"}, "answer", adapt=_yes_or_no, choices="choices"
)
READ_SCIQ = Reading(
    "sciq", {"support": "support", "question": "question"}, "gold", adapt=_right_one_last, choices="choices"
)

FIXED = "fixed shots, the same for all examples (the harness draws new ones for each)"

_TASKS = (
    Task("xsum", XSUM, READ_XSUM, "test"),
    Task("xlsum", XLSUM, Reading("summary", {"document": "text"}, "summary"), "test"),
    Task("cnn", CNN, Reading("summary", {"document": "article"}, "highlights"), "test"),
    Task(
        "socialiqa",
        SOCIAL,
        READ_SOCIAL,
        "validation",
        deviation="the right answer alone is shown (the code: all three)",
    ),
    Task(
        "sciq_qg",
        SCIQ,
        Reading("question", {"context": "support", "answer": "correct_answer"}, "question"),
        "test",
        deviation="the right answer alone is shown (the code: all four)",
    ),
    Task(
        "tweetqa",
        TWEETQA,
        Reading("question", {"context": "Tweet", "answer": "Answer"}, "Question", adapt=_first_answer),
        "validation",
        deviation="validation split (the code: train)",
    ),
    Task("mnli_matched", MNLI, READ_MNLI, "validation_matched"),
    Task("mnli_mismatched", MNLI, READ_MNLI, "validation_mismatched"),
    Task(
        "rte",
        RTE,
        Reading("inference", {"premise": "sentence1", "hypothesis": "sentence2"}, "label", {0: NLI[0], 1: NLI[1]}),
        "validation",
        deviation="two candidates, 'not entailment' is shown as 'neutral' (the code: train split, three candidates)",
    ),
    Task(
        "gpt3nli",
        GPT3NLI,
        Reading("inference", {"premise": "text_a", "hypothesis": "text_b"}, "label", NLI),
        "train",
        shots_split=None,
    ),
    Task("paws", PAWS, READ_PAWS, "test"),
    Task(
        "qqp",
        QQP,
        Reading("paraphrase", {"sentence1": "question1", "sentence2": "question2"}, "label", YES_NO),
        "validation",
        deviation="labelled validation split (the code: the unlabelled test split)",
    ),
    Task(
        "stsb",
        STSB,
        Reading("paraphrase", {"sentence1": "sentence1", "sentence2": "sentence2"}, "label", YES_NO, adapt=_similar),
        "validation",
        deviation="labelled validation split (the code: the unlabelled test split)",
    ),
    Task("arc_easy", ARC_EASY, READ_ARC, "validation", deviation=FIXED),
    Task("arc_challenge", ARC_CHALLENGE, READ_ARC, "validation", deviation=FIXED),
    Task("openbookqa", OPENBOOKQA, READ_OPENBOOKQA, "validation", deviation=FIXED),
    Task("hellaswag", HELLASWAG, READ_HELLASWAG, "validation", deviation=FIXED),
    Task(
        "boolq",
        BOOLQ,
        READ_BOOLQ,
        "validation",
        deviation=f"{FIXED}; rows of google/boolq (the harness: aps/super_glue, whose passages begin with a title)",
    ),
    Task("sciq", SCIQ, READ_SCIQ, "validation", deviation=FIXED),
)
TASKS = {task.name: task for task in _TASKS}

_DATASETS = (
    Dataset("xsum", XSUM, READ_XSUM, id=("xsum", "xlsum"), ood=("cnn",)),
    Dataset("socialiqa", SOCIAL, READ_SOCIAL, id=("socialiqa",), ood=("sciq_qg", "tweetqa")),
    Dataset("mnli", MNLI, READ_MNLI, id=("mnli_matched", "mnli_mismatched"), ood=("rte", "gpt3nli")),
    Dataset("paws", PAWS, READ_PAWS, id=("paws",), ood=("qqp", "stsb")),
    Dataset("tulu", TULU, stage="instruct"),
)
DATASETS = {dataset.name: dataset for dataset in _DATASETS}
SFT = tuple(dataset.name for dataset in _DATASETS if dataset.stage == "sft")
BENCHMARK = ("arc_easy", "arc_challenge", "openbookqa", "hellaswag", "boolq", "sciq")


def related(dataset: str, relation: str) -> tuple[str, ...]:
    """The tasks that stand in `relation` to a dataset: its own id and ood, cross_task = every other one's id, and
    benchmark = the six tasks that stand in it to all. To conversations (`tulu`, or a file of them) all are cross_task
    that are no benchmark."""
    if relation == "benchmark":
        return BENCHMARK
    if dataset not in SFT:
        return tuple(task for task in TASKS if task not in BENCHMARK) if relation == "cross_task" else ()
    if relation == "cross_task":
        return tuple(task for other in DATASETS.values() if other.name != dataset for task in other.id)
    return getattr(DATASETS[dataset], relation)


def relation_of(task: str, dataset: str) -> str:
    """How a task stands to a dataset: the first of `RELATIONS` that holds, or "" where none does."""
    return next((relation for relation in RELATIONS if task in related(dataset, relation)), "")


def select_tasks(names: str, dataset: str = "") -> tuple[str, ...]:
    """`--tasks`: a comma list of relations, task names, `all` or `none`, in the suite's order and without repeats.

    For a BASE model (no dataset) a relation means the union over all datasets. Raises ValueError on unknown names.
    """
    chosen: set[str] = set()
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    allowed = [*RELATIONS, "all", "none", *TASKS]
    unknown = [name for name in wanted if name not in allowed]
    if unknown or not wanted:
        hint = did_you_mean(unknown, allowed)
        raise ValueError(f"--tasks: unknown {', '.join(unknown) or 'empty list'}{hint} allowed: {', '.join(allowed)}")
    if "none" in wanted and len(set(wanted)) > 1:
        raise ValueError(f"--tasks {names}: none stands alone; leave it out, or the others")
    for name in wanted:
        if name in RELATIONS:
            chosen.update(task for each in ([dataset] if dataset else DATASETS) for task in related(each, name))
        elif name == "all":
            chosen.update(TASKS)
        elif name != "none":
            chosen.add(name)
    return tuple(task for task in TASKS if task in chosen)
