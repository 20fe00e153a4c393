"""The names in the authors' tables, read by one grammar.

read_model("olmo1b_hf_ckpt342000_mnli_3epoch_2e-6_4shots")    Model(step=342000, dataset="mnli", shots=4, ...)
read_task("xsum_inputoutput")                                 ("xsum", "io")
"""

import re
from dataclasses import dataclass

# A base model is spelled in four ways, a tuned one in three; `_hf` says that the weights were converted after the
# authors mended their conversion. Without a number of shots there are none.
GRAMMAR = re.compile(
    r"""(?: (?:olmo1b_)?checkpoint-(?P<base_step>\d+)(?:_original)?    # an untuned checkpoint
          | olmo1b(?:_hf)?_original                                    # the untuned end of the history
          | olmo1b(?:_hf)?(?:_ckpt(?P<tuned_step>\d+)|_main)?          # a tuned checkpoint, or the tuned end
            _(?P<dataset>[a-z]+)_(?P<epochs>\d+)epoch_(?P<rate>\d+e-\d+)
        )
        (?:_hf)? (?:_(?P<shots>\d+)shots)? (?P<chat>_cot_chat)?""",
    re.VERBOSE | re.ASCII,
)
FORMATS = {"_instruct": "instruct", "_inputoutput": "io"}  # the ending of an evaluation set -> our prompt_format


@dataclass(frozen=True)
class Model:
    """What a model id says. `step` is None of `main`; a base model has no dataset, epochs and rate. `weights` is the
    id without what concerns the evaluation alone."""

    weights: str
    step: int | None
    dataset: str
    epochs: int | None
    learning_rate: float | None
    shots: int
    converted: bool
    chat: bool


def read_model(name: str) -> Model | None:
    """What a model id of the authors' tables means; None where it does not follow the grammar."""
    found = GRAMMAR.fullmatch(name)
    if not found:
        return None
    step = found["base_step"] or found["tuned_step"]
    return Model(
        weights=re.sub(r"(_\d+shots)?(_cot_chat)?$", "", name),
        step=int(step) if step else None,
        dataset=found["dataset"] or "",
        epochs=int(found["epochs"]) if found["epochs"] else None,
        learning_rate=float(found["rate"]) if found["rate"] else None,
        shots=int(found["shots"] or 0),
        converted="_hf" in name,
        chat=bool(found["chat"]),
    )


def read_task(name: str) -> tuple[str, str]:
    """(evaluation set, prompt_format) of a name in the column `eval dataset`."""
    for ending, prompt_format in FORMATS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), prompt_format
    return name, "default"
