"""Every dataset that is trained on and every task that is evaluated, as frozen data (docs: eval/tasks/README.md).

A `Task` names its source on the hub, the split, how a row's fields are called there and here, and the label words.
`Dataset` does the same for a training set, plus which tasks are in its own domain (`id`) and next to it (`ood`).
`amuro/data.py` loads what is described here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

RELATIONS = ("id", "ood", "cross_task")
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

    `labels` maps a raw label to its word; `adapt` rewrites rows whose answer is not a plain field.
    """

    family: str
    fields: dict[str, str]
    target: str
    labels: dict[int, str] | None = None
    adapt: Callable[[dict], dict] | None = None


@dataclass(frozen=True)
class Task:
    """One thing evaluated: the scored split of a source, the split its shots come from, and the metric."""

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
    def metric(self) -> str:
        return "accuracy" if self.labels else "rouge_l"

    @property
    def method(self) -> str:
        return "token_prob" if self.labels else "generate"


@dataclass(frozen=True)
class Dataset:
    """One training set (6,000 rows by seed) and the tasks it is related to."""

    name: str
    source: Source
    reading: Reading
    id: tuple[str, ...] = field(default=())
    ood: tuple[str, ...] = field(default=())
    split: str = "train"


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
    if score != -1 and not (isinstance(score, int | float) and 0 <= score <= 5):
        raise ValueError(f"field 'label' is {score!r}; allowed: a score from 0 to 5")
    return {**row, "label": -1 if score == -1 else int(score > 3.5)}


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

READ_XSUM = Reading("summary", {"document": "document"}, "summary")
READ_SOCIAL = Reading("question", {"context": "context", "answer": "answer"}, "question", adapt=_social_answer)
READ_MNLI = Reading("inference", {"premise": "premise", "hypothesis": "hypothesis"}, "label", NLI)
READ_PAWS = Reading("paraphrase", {"sentence1": "sentence1", "sentence2": "sentence2"}, "label", YES_NO)

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
)
TASKS = {task.name: task for task in _TASKS}

_DATASETS = (
    Dataset("xsum", XSUM, READ_XSUM, id=("xsum", "xlsum"), ood=("cnn",)),
    Dataset("socialiqa", SOCIAL, READ_SOCIAL, id=("socialiqa",), ood=("sciq_qg", "tweetqa")),
    Dataset("mnli", MNLI, READ_MNLI, id=("mnli_matched", "mnli_mismatched"), ood=("rte", "gpt3nli")),
    Dataset("paws", PAWS, READ_PAWS, id=("paws",), ood=("qqp", "stsb")),
)
DATASETS = {dataset.name: dataset for dataset in _DATASETS}


def related(dataset: str, relation: str) -> tuple[str, ...]:
    """The tasks that stand in `relation` (id, ood or cross_task) to a dataset; cross_task = every other one's id."""
    if relation == "cross_task":
        return tuple(task for other in DATASETS.values() if other.name != dataset for task in other.id)
    return getattr(DATASETS[dataset], relation)


def relation_of(task: str, dataset: str) -> str:
    """How a task stands to a dataset: id, ood, cross_task, or "" where none of these holds."""
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
        raise ValueError(f"--tasks: unknown {', '.join(unknown) or 'empty list'}; allowed: {', '.join(allowed)}")
    for name in wanted:
        if name in RELATIONS:
            chosen.update(task for each in ([dataset] if dataset else DATASETS) for task in related(each, name))
        elif name == "all":
            chosen.update(TASKS)
        elif name != "none":
            chosen.add(name)
    return tuple(task for task in TASKS if task in chosen)
