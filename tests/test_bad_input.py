"""The catalogue of bad inputs: each is refused in one line that says what, where, what is allowed and what to do,
before a model is loaded or a network is asked; none is taken in silence, none ends in a traceback.

What the other tests refuse already (test_settings, test_grids, test_data, test_families, ...) is not here again.
"""

import dataclasses
import json
import os
import random
import re
import resource
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, make_checkpoint, mirror_rows, run, write_jsonl
from test_settings import BASE, eval_run, instruct, parse, train_sft
from transformers.integrations import unset_hf_deepspeed_config

from amuro import checkpoints, cli, data, harness, settings, sync  # noqa: F401  harness: before the clock runs
from amuro.cells import Cell, find_cell, read_record
from amuro.lineage import load as load_parcel
from amuro.registry.families import family as family_of
from amuro.registry.findings import audited
from amuro.run_config import check_sweep
from amuro.running import grids, ledger
from amuro.running.costs import measured
from amuro.tasks import TASKS

N = "9" * 5000  # more digits than Python reads


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nothing is asked of a network, and no model is loaded, before a bad input is refused."""
    import transformers

    def never(*_, **__):
        raise AssertionError("a model was loaded, or a network asked")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    yield
    unset_hf_deepspeed_config()  # what a refused --deepspeed leaves in the process


def refused(call, told: str, seconds: float = 1.0) -> None:
    """The call raises a plain ValueError of one line that tells this (a pattern), at once."""
    started = time.process_time()
    with pytest.raises(ValueError) as error:
        call()
    taken, said = time.process_time() - started, str(error.value)
    assert type(error.value) is ValueError and re.search(told, said), repr(error.value)
    assert "\n" not in said and 15 < len(said) < 2000, said
    assert taken < seconds, f"{taken:.1f} s"


FLAGS = """
--learning_rate inf => learning_rate inf: must be a finite number
--learning_rate -1 => learning_rate -1.0: must be above 0
--learning_rate 1e400 => learning_rate inf: must be a finite number
--num_train_epochs 0 => num_train_epochs 0.0: must be above 0
--num_train_epochs -1 => num_train_epochs -1.0: must be above 0
--num_train_epochs nan => num_train_epochs nan: must be a finite number
--max_steps 0 => max_steps 0: must be at least 1, or -1 .by epochs
--max_steps -5 => max_steps -5: must be at least 1
--max_steps 1e3 => argument --max_steps.*invalid int value: '1e3'
--max_grad_norm -1 => max_grad_norm -1.0: must be at least 0
--max_grad_norm nan => max_grad_norm nan: must be a finite
--weight_decay -0.1 => weight_decay -0.1: must be at least 0
--weight_decay inf => weight_decay inf: must be a finite
--warmup_steps -1 => warmup_steps
--warmup_steps nan => warmup_steps nan: must be a finite
--adam_beta1 1.5 => adam_beta1 1.5: must be at most 1
--adam_beta1 1 => --optim adamw_torch_fused .* cannot be used .Invalid beta
--adam_beta2 -1 => adam_beta2 -1.0: must be at least 0
--adam_epsilon -1 => adam_epsilon -1.0: must be at least 0
--seed -1 => seed -1: must be at least 0
--seed 4294967296 => seed 4294967296: must be at most 4294967295
--seed 1.5 => argument --seed: invalid int
--sample_seed -1 => sample_seed -1: must be at least 0
--shot_seed -1 => shot_seed -1: must be at least 0
--per_device_train_batch_size 0 => per_device_train_batch_size 0: must be at least 1
--per_device_train_batch_size -1 => per_device_train_batch_size -1: must be at least 1
--batch_size 99999999999 => batch_size 99999999999: must be at most
--limit 99999999999999999999 => limit 9+: must be at most
--logging_steps -1 => logging_steps -1.0: must be at least 0
--logging_steps 0 => logging_steps
--label_smoothing_factor 5 => label_smoothing_factor 5.0: must be at most 1
--dataloader_num_workers -1 => dataloader_num_workers -1: must be at least 0
--neftune_noise_alpha -1 => neftune_noise_alpha -1.0: must be at least 0
--save_strategy epoch --save_total_limit 0 => save_total_limit 0: must be at least 1
--save_strategy steps --save_steps inf => a flag or the recipe has a value that cannot be used: .*infinity
--num_shots ٤ => num_shots '٤': a comma list of numbers from 0 to 8
--num_shots ² => num_shots '²': a comma list
--num_shots 4,04 => num_shots '04'
--num_shots 0,,4 => num_shots ''
--num_shots -1 => num_shots '-1'
--tasks , => --tasks: unknown empty list
--tasks none,id => --tasks none,id: none stands alone
--prompt_format , => --prompt_format '': unknown
--methods , => --methods '': unknown; .*allowed: token_prob
--runs= => --runs '': the name of a folder is needed
--runs=README.md => --runs README.md: is there, and no folder
--runs=a\tb => --runs 'a.tb': the name of a folder
--data_dir= => --data_dir '': the name of a folder is needed, or leave the flag out
--report_to wanbd => --report_to wanbd: allowed: wandb, none
--report_to tensorboard => --report_to tensorboard: allowed: wandb, none
--report_to none wandb => not used .*wandb
--if_claimed never => --if_claimed 'never': allowed: wait, leave
--lr_scheduler_type linar => argument --lr_scheduler_type.*'linar'
--lr_scheduler_kwargs {"a":1} => --lr_scheduler_type linear: cannot be used .*unexpected keyword argument 'a'
--lr_scheduler_kwargs {a:1} => {a:1}: not JSON
--optim adam => argument --optim.*'adam'
--optim adamw_bnb_8bit => --optim adamw_bnb_8bit .* cannot be used .*bitsandbytes
--optim_args x => --optim_args x: AdamW takes none
--use_liger_kernel => the package liger-kernel is not installed
--attn_implementation fast => --attn_implementation 'fast': unknown; .*allowed: eager, sdpa
--attn_implementation kernels-community/flash-attn => no code from a repository is run
--use_peft --lora_alpha 0 => --lora_alpha 0: must be above 0
--use_peft --lora_dropout nan => lora_dropout nan
--deepspeed nowhere.json => cannot be used: .*deepspeed
--accelerator_config {"a":1} => --accelerator_config cannot be given: the order of the rows
--fp16 true --bf16 false => --fp16: float16 needs a GPU
--train_sampling_strategy nosuch => argument --train_sampling_strategy.*choose from 'random'
--pad_to_multiple_of 0 => --pad_to_multiple_of 0: must be at least 1
--max_steps 1 => --max_steps 1: its one step would be warm-up, at rate 0; add --warmup_steps 0
--num_train_epochs 1e300 => --num_train_epochs 1e.300: must be at most 1000000
--dataloader_num_workers 100000 => --dataloader_num_workers 100000: must be at most 256
--use_peft --lora_r 100000000 => --lora_r 100000000 .*: from 1 to 65536
--runs=~/x => --runs ~/x: ~ is expanded by a shell alone
--tasks xsum --methods free => --methods free: none of the tasks has labels
--dataloader_drop_last => --dataloader_drop_last cannot be given: every row is trained on
--checkpoint => argument --checkpoint: expected one argument; see --help
--fsdp bogus => fsdp
--push_to_hub => --push_to_hub cannot be given: nothing is uploaded to the hub
--hub_model_id=me/x => --hub_model_id cannot be given: nothing is uploaded
--hub_token x => --hub_token cannot be given
--eval_steps 5 => --eval_steps cannot be given: nothing is scored while training
--do_eval => --do_eval cannot be given
--bf16 maybe => argument --bf16: Truthy value expected
--recipe= => --recipe '': no file
--recipe /etc => --recipe '/etc': no file /etc.yaml; recipes there
--recipe ../../x => --recipe '../../x': no file
--dataset= => --dataset '': unknown
--dataset a.jsonl => --dataset 'a.jsonl': unknown; .*allowed: xsum
--learning_rate= => invalid float value: ''
--learning_rate => expected one argument
mnli => not used .*mnli
-x => not used .*-x
"""
FLAGS = [tuple(line.split(" => ")) for line in FLAGS.strip().splitlines()]


@pytest.mark.parametrize(("typed", "told"), FLAGS)
def test_flags(typed, told):
    refused(lambda: parse(*BASE, *typed.replace("\\t", "\t").split(" ")), told)


MORE_FLAGS = [
    (instruct, "--dataset=", "--dataset '': unknown"),
    (instruct, "--train_fraction nan", "train_fraction nan: must be"),
    (instruct, "--train_fraction -0.1", "train_fraction -0.1: must be above 0"),
    (instruct, "--learning_rate inf", "learning_rate inf: must be a finite"),
    (instruct, "--attn_implementation x/y", "no code from a repository is run"),
    (eval_run.read, "--checkpoint ,", "give --checkpoint"),
    (eval_run.read, "--cell ,", "give --checkpoint .*--cell"),
    (eval_run.read, "--checkpoint a@1 --report_to wanbd", "--report_to 'wanbd': allowed: wandb, none"),
    (eval_run.read, "--checkpoint a@1 --report_to=", "--report_to '': allowed: wandb, none"),
    (eval_run.read, "--checkpoint a@1 --limit -3", "--limit -3: must be at least 1"),
    (eval_run.read, "--checkpoint a@1 --eval_batch_size 1e3", "invalid int value"),
    (eval_run.read, "--checkpoint a@1 --shot_seed -7", "--shot_seed -7: must be at least 0"),
    (eval_run.read, "--checkpoint a@1 --runs=", "--runs ''"),
    (eval_run.read, "--checkpoint a@1 --apply_chat_template perhaps", "Truthy value expected"),
    (eval_run.read, "--checkpoint a@1 --dtype float64", "--dtype 'float64': allowed: float32, bfloat16"),
    (eval_run.read, "--checkpoint a@1 --tasks none", "--tasks none: nothing would be evaluated"),
    (instruct, "--tasks id,ood", "--tasks id,ood: tulu has no such tasks; try benchmark or cross_task"),
    (eval_run.read, "--checkpoint a@1 --trust_remote_code", "no code from a repository is run"),
]


@pytest.mark.parametrize(("read", "typed", "told"), MORE_FLAGS)
def test_flags_of_the_other_scripts(read, typed, told):
    words = typed.split(" ")
    refused(lambda: read(words) if read is eval_run.read else read("--checkpoint", "a@1", *words), told)


RECIPES = [
    ("learning_rate: 1.0e-3\nlearning_rate: 1.0e-5", "not YAML .learning_rate is there more than once"),
    ("per_dataset: {xsum: {seed: 1, seed: 2}}", "seed is there more than once"),
    ("learning_rate: .nan", "learning_rate nan: must be"),
    ("weight_decay: .inf", "weight_decay inf: must be a finite"),
    ("batch_size: -8", "batch_size -8: must be at least 1"),
    ("recipe: olmo-1b-sft", "key recipe: a recipe cannot take another one"),
    ("per_dataset: {xsum: {dataset: mnli}}", "per_dataset: dataset: decides .* put it outside"),
    ("per_dataset: {xsum: {per_dataset: {}}}", "per_dataset: unknown"),
    ("per_dataset:", "per_dataset must be like"),
    ("help: true", "key help: a question, no setting"),
    ("help_all: true", "key help_all: a question"),
    ("1: 2", "key 1: unknown"),
    ("trust_remote_code: true", "no code from a repository is run"),
    ("report_to: [wandb, none]", "report_to"),
    ("runs: ''", "--runs ''"),
    ("learning_rate: !!python/object/apply:os.system [id]", "not YAML"),
    ("a: " + "[" * 3000, "nested too deeply"),
    ("seed: 2026-13-45", "not YAML"),
    ("train_sampling_strategy: nosuch", "train_sampling_strategy: 'nosuch': unknown; allowed: random"),
    ("log_level: nosuch", "log_level: 'nosuch': unknown; allowed: detail"),
    ("lr_scheduler_type: linar", "lr_scheduler_type: 'linar': unknown; did you mean linear"),
    ("seed: 010", "YAML 1.1 reads 010 as 8; write that"),
    ("batch_size: 1:30", "YAML 1.1 reads 1:30 as 90; write that"),
    ("logging_steps: 0x10", "YAML 1.1 reads 0x10 as 16; write that"),
    ("report_to: [1]", "report_to: .1.: texts are needed in the list"),
    ("lora_target_modules: [1]", "lora_target_modules: .1.: texts are needed"),
    ("---\nseed: 1\n---\nseed: 2", "not YAML .*another document"),
]


@pytest.mark.parametrize(("content", "told"), RECIPES)
def test_recipes(tmp_path, content, told):
    (tmp_path / "r.yaml").write_text(content)
    recipe = str(tmp_path / "r.yaml")
    refused(lambda: parse(*BASE, "--recipe", recipe), told, seconds=4 if "[[" in content else 1)


P = "parameters: {dataset: {value: mnli}}\n"
MANY = "parameters:\n" + "".join(f"  a{n}: {{values: [{', '.join(map(str, range(100)))}]}}\n" for n in range(6))
SWEEPS = [
    ("parameters: " + "[" * 3000, "nested too deeply"),
    ("parameters: {? [a, b] : {value: 1}}", "not YAML"),
    ("parameters: {a: {value: !!python/name:os.system }}", "not YAML"),
    ("parameters: {a: {value: !!binary aGk=}}", "is nested; a grid is flat"),
    (P + "---\n" + P, "not YAML .*another document"),
    ('parameters: {a: {value: "x\\0y"}}', "is no value: a text of at most 4000 printed characters"),
    ('parameters: {a: {value: "x\\ny"}}', "is no value"),
    ('parameters: {a: {value: "\\ud800"}}', "is no value"),
    (f"parameters: {{a: {{value: {N}}}}}", "is no value: a text of at most 4000"),
    ("\ufeff" + P, "unknown; did you mean parameters"),
    ("parameters: &p {a: {value: *p}}", "not YAML"),
    ("parameters: !!omap [a: 1]", "a mapping of flags is needed"),
    ("parameters: !!set {a}", "a mapping of flags is needed"),
    ("parameters: {a: {value: 1, values: [2]}}", "has value, values; in a flat grid"),
    ("parameters: {a: {distribution: uniform, min: 0, max: 1}}", "has distribution, min, max"),
    ("parameters: {a: {value: 1.5e}, b: {value: ~}}", "b: is empty or null"),
    ("parameters: {yes: {value: 1}}", "reads yes as true or false"),
    ("parameters: {ünïcode: {value: 1}}", "flags are written in snake_case"),
    ("parameters:\n\ta: 1", "not YAML"),
    ("program: [train_sft.py]\n" + P, "program"),
    ("early_terminate: {type: hyperband}\n" + P, "early_terminate: unknown"),
    (MANY, "1000000000000 points; a grid has at most 100000"),
]


@pytest.mark.parametrize(("content", "told"), SWEEPS)
def test_sweeps(tmp_path, content, told):
    (tmp_path / "s.yaml").write_text(f"program: train_sft.py\nmethod: grid\n{content}\n", encoding="utf-8")
    refused(lambda: grids.read([tmp_path / "s.yaml"]), told, seconds=4 if "[[" in content else 1)


NLI = {"premise": "P.", "hypothesis": "H.", "label": 0}
PAIR = {"sentence1": "A.", "sentence2": "B."}
ASKED = {"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c"}
TWEET = {"Tweet": "T.", "Question": "Q?"}
ENDED = {"activity_label": "A", "ctx_a": "B.", "ctx_b": "c", "endings": ["d", "e"]}


def lettered(labels, key="A", texts=("a", "b")) -> dict:
    return {"question": "Q?", "choices": {"text": list(texts), "label": labels}, "answerKey": key}


def line(row: dict, **more) -> str:
    return json.dumps({**row, **more})


ROWS = [
    ("mnli_matched", line(NLI, label=[0]), r"row 1: field 'label' is \[0\]; allowed: 0 .entailment"),
    ("mnli_matched", line(NLI, label={}), "field 'label' is {}; allowed"),
    ("mnli_matched", line(NLI, label=1.0), "field 'label' is 1.0; allowed"),
    ("mnli_matched", line(NLI, label=1.5), "field 'label' is 1.5; allowed"),
    ("mnli_matched", line(NLI, label=float("nan")), "field 'label' is nan; allowed"),
    ("mnli_matched", line(NLI, label=None), "field 'label' is None; allowed"),
    ("mnli_matched", line(NLI, label="entailment"), "field 'label' is 'entailment'; allowed"),
    ("mnli_matched", line(NLI, premise=["P."]), "field 'premise' is list; allowed: text"),
    ("mnli_matched", line(NLI, premise="\ud800"), "row 1: not JSON that can be read .*surrogate"),
    ("mnli_matched", line(NLI)[:-1] + ', "label": 1}', "row 1: .*'label' is there more than once"),
    ("mnli_matched", line(NLI)[:-1] + f', "x": {N}}}', "row 1: .*limit"),
    ("mnli_matched", "[" * 100_000, "row 1: .*nested too deeply"),
    ("mnli_matched", "\ufeff" + line(NLI), "row 1: not JSON .*BOM"),
    ("mnli_matched", line(NLI) + ",", "row 1: not JSON .Extra data"),
    ("mnli_matched", line(NLI) + line(NLI), "row 1: not JSON .Extra data"),
    ("mnli_matched", f"[{line(NLI)}]", "row 1: list; allowed: a JSON object"),
    ("mnli_matched", json.dumps(NLI, indent=1), "row 1: not JSON"),
    ("mnli_matched", line(NLI)[:20], "row 1: not JSON .Unterminated"),
    ("mnli_matched", line(NLI) + "\nnull", "row 2: NoneType; allowed: a JSON object"),
    ("mnli_matched", line(NLI) + "\r\n" + line(NLI, label=9), "row 2: field 'label' is 9"),
    ("mnli_matched", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1", "row 1: not JSON"),
    ("mnli_matched", "<!DOCTYPE html>", "row 1: not JSON"),
    ("mnli_matched", "", "no rows"),
    ("stsb", line(PAIR, label=float("nan")), "field 'label' is nan; allowed: a score from 0 to 5"),
    ("stsb", line(PAIR)[:-1] + ', "label": 1e999}', "field 'label' is inf"),
    ("stsb", line(PAIR, label=7), "field 'label' is 7"),
    ("stsb", line(PAIR, label=True), "field 'label' is True; allowed: a score"),
    ("stsb", line(PAIR, label="4"), "field 'label' is '4'"),
    ("socialiqa", line(ASKED, label="4"), "field 'label' is '4'; allowed: 1, 2, 3"),
    ("socialiqa", line(ASKED, label="١"), "allowed: 1, 2, 3"),
    ("tweetqa", line(TWEET, Answer=[]), "allowed: a list with at least one answer"),
    ("tweetqa", line(TWEET, Answer=[3]), "field 'Answer' is int; allowed: text"),
    ("tweetqa", line(TWEET, Answer={"a": 1}), "allowed: a list with at least one answer"),
    ("arc_easy", line(lettered(["A", "A"])), r"has the labels \['A', 'A'\]; allowed: texts, each once"),
    ("arc_easy", line(lettered([["A"], "B"], "B")), "allowed: texts, each once"),
    ("arc_easy", line(lettered("AB", texts="ab")), "lists 'text' and 'label' of one length"),
    ("arc_easy", line(lettered(["A", "B"], texts=["a", 3])), "allowed: a list of two texts or more"),
    ("arc_easy", line(lettered(["A", "B"], ["A"])), r"field 'answerKey' is \['A'\]; allowed: A, B"),
    ("hellaswag", line(ENDED, label="١"), "field 'label' is '١'; allowed: 0 to 1"),
    ("hellaswag", line(ENDED, label="01"), "field 'label' is '01'"),
    ("hellaswag", line(ENDED, label=True), "field 'label' is True"),
    ("hellaswag", line(ENDED, label=N), "field 'label' is '999"),
    ("boolq", line({"passage": "p", "question": "q", "answer": 1}), "field 'answer' is 1; allowed: true, false"),
    ("xsum", line({"document": ["a"], "summary": "s"}), "field 'document' is list; allowed: text"),
]


@pytest.mark.parametrize(("task", "content", "told"), ROWS)
def test_rows(tmp_path, task, content, told):
    spec = TASKS[task]
    path = tmp_path / spec.source.folder / f"{spec.split}.jsonl"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8", newline="")
    if told.startswith("field 'label' is '999"):  # long, for it tells the value
        with pytest.raises(ValueError, match=told):
            data.read_split(spec.source, spec.reading, spec.split, str(tmp_path))
        return
    refused(lambda: data.read_split(spec.source, spec.reading, spec.split, str(tmp_path)), f"{path.name}.*{told}")


def test_rows_that_are_no_text(tmp_path):
    """Compressed, another encoding: told with the row."""
    spec, ran = TASKS["mnli_matched"], 0
    path = tmp_path / spec.source.folder / f"{spec.split}.jsonl"
    path.parent.mkdir()
    for content in (b"\x1f\x8b\x08\x00\x00", line(NLI).encode("utf-16"), line(NLI, premise="é").encode() + b"\xe9"):
        path.write_bytes(content)
        refused(lambda: data.read_split(spec.source, spec.reading, spec.split, str(tmp_path)), "row 1: not ")
        ran += 1
    assert ran == 3


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
CONVERSATIONS = [
    ("mine", line({"messages": {}}), "field 'messages' is dict; allowed: a list of turns"),
    ("mine", line({"messages": "hi"}), "field 'messages' is str"),
    ("mine", line({"messages": []}), "no conversation to train on"),
    ("mine", line({"conversations": []}), "field 'messages' is missing .it has: conversations"),
    ("mine", line({"messages": [{"role": "user", "content": None}]}), "turn 1: 'content' is NoneType"),
    ("mine", line({"messages": [{"role": "user", "content": [{"text": "x"}]}]}), "turn 1: 'content' is list"),
    ("mine", line({"messages": [{"role": "human", "content": "x"}]}), "no conversation to train on"),
    ("mine", line({"messages": [*TURNS, {"role": "tool", "content": "x"}]}), "not user and assistant in turn"),
    ("mine", line({"messages": [{"role": "User", "content": "q"}]}), "no conversation to train on"),
    ("mine", line({"messages": [TURNS[0], {**TURNS[1], "content": "\udc80"}]}), "row 1: .*surrogate"),
    ("mine", line({"messages": TURNS, "id": "\ud800"}), "row 1: .*surrogate"),
    ("mine", '{"messages": NaN}', "field 'messages' is float"),
    ("mine", line({"messages": TURNS})[:-1] + ', "messages": []}', "'messages' is there more than once"),
    ("mnli", line({"messages": TURNS}), "mnli is another dataset's name; rename the file"),
    ("tulu", line({"messages": TURNS}), "tulu is another dataset's name; rename the file"),
    ("a b", line({"messages": TURNS}), "the file's name becomes the dataset's: letters, digits"),
    ("..", line({"messages": TURNS}), "rename the file"),
    ("x" * 200, line({"messages": TURNS}), "64 at most; rename the file"),
    ("a\nb", line({"messages": TURNS}), "rename the file"),
    ("a@b", line({"messages": TURNS}), "rename the file"),
]


@pytest.mark.parametrize(("name", "content", "told"), CONVERSATIONS)
def test_conversations(tmp_path, name, content, told):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(content, encoding="utf-8")
    refused(lambda: data.conversation_rows(str(path), None), told)


REFERENCES = [
    ("~nosuchuser/x@10", "no family or folder '~nosuchuser/x'"),
    ("a\0b@1", "no name of a family, folder or repository"),
    ("a\nb@1", "no name of a family"),
    ("\ud800@1", "no name of a family"),
    ("x" * 5000 + "@1", "longer than a name can be"),
    ("x/" * 2500 + "@1", "longer than a name can be"),
    ("nursery@", "write family@step"),
    ("@", "write family@step"),
    ("a/b@", "write family@step"),
    (" olmo-1b@1000", "did you mean olmo-1b@1000"),
    ("OLMo-1B@1000", "did you mean olmo-1b@1000"),
    ("olmo-1b@main@main", "no family or folder 'olmo-1b@main'"),
    ("https://huggingface.co/a/b@main", "no family or folder"),
    ("a/b/c@main", "no family or folder"),
    ("../x@1", "no family or folder '../x'"),
    ("/@1", "a folder without family.json"),
    ("~@1", "a folder without family.json"),
    ("C:\\x@1", "no family or folder"),
    ("/etc/passwd.yaml@1", "cannot be read"),
    ("{family}@-1", "neither a step nor main"),
    ("{family}@1e1", "neither a step nor main"),
    ("{family}@10.0", "neither a step nor main"),
    ("{family}@ 10", "neither a step nor main"),
    ("{family}@²", "neither a step nor main"),
    ("{family}@١٠", "neither a step nor main"),
    ("{family}@" + N, "neither a step nor main"),
    ("{family}@../step-10/../..", "neither a step nor main"),
]


@pytest.mark.parametrize(("reference", "told"), REFERENCES)
def test_references(family, reference, told):
    if len(reference) > 4000 and "family" in reference:  # long, for it tells what was written
        with pytest.raises(ValueError, match=told):
            checkpoints.resolve(reference.format(family=family))
        return
    refused(lambda: checkpoints.resolve(reference.format(family=family)), told)


def history(name="x", **point) -> str:
    return json.dumps({"name": name, "checkpoints": [{"step": 1, "tokens_b": 1, "path": "a", **point}]})


FAMILIES = [
    (history(step=True), r"checkpoints\[0\] needs 'step' .*, not True"),
    (history(step=-1), "step: -1 is not a number from 0 to"),
    (history(step=10**30), "is not a number from 0 to"),
    (history(step=1.0), "needs 'step' .*, not 1.0"),
    (history(tokens_b=float("nan")), "NaN is no number"),
    (history(tokens_b=float("inf")), "Infinity is no number"),
    (history(tokens_b=-1), "tokens_b: -1 is not a number from 0"),
    (history(tokens_b=True), "needs 'tokens_b' .*, not True"),
    (history(tokens_b="1"), "needs 'tokens_b' .*, not '1'"),
    (history(tokens_b=10**400), "is not a number from 0"),
    (history(tokens_b=None), "needs 'tokens_b' .*, not None"),
    (history(path=""), "path: '' is no folder's name"),
    (history(path="a\0"), "is no folder's name"),
    (history(path=None), "needs 'path' .*, not None"),
    (history(path="../gone"), "gone, which has no config.json"),
    (history(path="/etc"), "is /etc, which has no config.json"),
    (history(""), "name '': letters, digits, '.', '_' and '-' only, 64 at most"),
    (history("../../evil"), "name '../../evil': letters"),
    (history("a\nb"), "name 'a.nb': letters"),
    (history("a\0b"), "name 'a.x00b': letters"),
    (history("x" * 300), "64 at most"),
    (history("a@b"), "name 'a@b': letters"),
    (history("a,b"), "name 'a,b': letters"),
    (history("é"), "name 'é': letters"),
    (history("\ud800"), "surrogate"),
    (history()[:-1] + ', "name": "y"}', "'name' is there more than once"),
    (history().replace("[", "{").replace("]", "}"), "not JSON"),
    ('{"name": "x", "checkpoints": {"1": "a"}}', "needs `name` and a list `checkpoints`"),
    ('{"name": "x", "checkpoints": [[]]}', r"checkpoints\[0\] needs 'step'"),
    (history()[:-2] + ', {"step": 1, "tokens_b": 2, "path": "b"}]}', "step 1 is there more than once; write one of"),
    ("[" * 100_000, "nested too deeply"),
    ("\ufeff" + history(), "not JSON .*BOM"),
    ("", "not JSON"),
    (history().replace('"step": 1', f'"step": {N}'), "limit"),
]


@pytest.mark.parametrize(("content", "told"), FAMILIES)
def test_histories(tmp_path, content, told):
    (tmp_path / "family.json").write_text(content, encoding="utf-8")
    if "1000000000" in content:  # long, for it tells the value
        with pytest.raises(ValueError, match=told):
            checkpoints.resolve(f"{tmp_path}@1")
        return
    refused(lambda: checkpoints.resolve(f"{tmp_path}@1"), told)


OWN = "name: mine\nrepo: me/mine\npattern: 'step(?P<step>\\d+)'\n"
OWN_FAMILIES = [
    (OWN + "tokens_per_step: .nan", "tokens_per_step: nan is not a number from 0"),
    (OWN + "tokens_per_step: -1", "tokens_per_step: -1 is not a number from 0"),
    (OWN + "tokens_b: .inf", "tokens_b: inf is not a number"),
    (OWN + "main: -5", "main: -5 is not a number from 0"),
    (OWN + "name: other", "name is there more than once"),
    (OWN.replace("mine\n", "nursery\n", 1), "name 'nursery' is that of a known family"),
    (OWN.replace("mine\n", "a/../b\n", 1), "letters, digits"),
    (OWN.replace("repo: me/mine", "folder: ~nosuchuser/x"), "no such folder"),
    (OWN.replace("repo: me/mine", "repo: ../../x"), "write OWNER/NAME"),
    (OWN + "needs_remote_code: 1", "needs_remote_code: 1 is not of type bool"),
    (OWN + "note: !!python/name:os.system", "not YAML"),
    (OWN + "stages: [{branch: yes}]", "stages.0. needs name"),
    (OWN + "defects: [{what: x}]", "defects.0. needs source"),
    (OWN + "repos: [{repo: a/b}]", "repos.0. needs step, tokens_b"),
    (OWN + "sizes: [1, 2]", "sizes: .1, 2.; a list of texts is needed"),
    (OWN + "sizes: []", "sizes: ..; a list of texts is needed"),
    (OWN.replace("repo: me/mine", 'folder: "a\\0b"'), "no such folder .it does not print"),
]


@pytest.mark.parametrize(("content", "told"), OWN_FAMILIES)
def test_histories_of_ones_own(tmp_path, content, told):
    (tmp_path / "mine.yaml").write_text(content)
    refused(lambda: family_of(str(tmp_path / "mine.yaml")), f"mine.yaml: .*{told}")


# ---- folders and files that are there


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A checkpoint that is whole."""
    return make_checkpoint(tmp_path_factory.mktemp("good") / "s")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """A mirror of two tasks."""
    folder = tmp_path_factory.mktemp("rows")
    for name, each in mirror_rows(random.Random(0), 24).items():
        if name.split("/")[0] in ("glue_mnli", "sciq"):
            write_jsonl(folder / f"{name}.jsonl", each)
    return folder


WEIGHTS = "model.safetensors"


def cut(size: int):
    """The weights end after so many bytes."""
    return lambda s: (s / WEIGHTS).write_bytes((s / WEIGHTS).read_bytes()[:size])


def text(name: str, content: str):
    return lambda s: (s / name).write_text(content)


def config(**changed):
    return lambda s: (s / "config.json").write_text(json.dumps(json.loads((s / "config.json").read_text()) | changed))


def tensors(change):
    """Other weights in the file."""

    def do(folder: Path):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return do


def without_eos(folder: Path):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))


def link_to_nothing(folder: Path):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "gone")


def shards(folder: Path):
    """One of two, and an index that leads out of the folder."""
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../../evil.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


BEFORE = [  # told before the weights are read
    (cut(5), "5 bytes that do not begin as a safetensors file does; copy or convert"),
    (cut(0), "0 bytes that do not begin"),
    (cut(2000), "it has 2000 bytes, by its header"),
    (cut(100_000), "it has 100000 bytes, by its header"),
    (text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\nsize 9\n"), "do not begin as a safetensors file"),
    (link_to_nothing, "no file, or a link to none"),
    (lambda s: (s / WEIGHTS).rename(s / "pytorch_model.bin"), "no safetensors weights there"),
    (lambda s: (s / WEIGHTS).rename(s / "model-00001-of-00002.safetensors"), "1 of 2 shards are there"),
    (shards, "shards that the index names are not there: .*evil"),
    (lambda s: (s / "config.json").unlink(), "has no config.json"),
    (text("config.json", ""), "config.json is not JSON"),
    (text("config.json", "[]"), "config.json is not JSON"),
    (text("config.json", "[" * 100_000), "config.json is not JSON"),
    (text("config.json", "{}"), "no config that can be used"),
    (config(model_type="nosuch"), "no config that can be used .*nosuch"),
    (config(model_type="own", auto_map={"AutoConfig": "evil.Config"}), "no config that can be used .*custom code"),
    (config(max_position_embeddings="big"), "expected int, got str"),
    (config(max_position_embeddings=4), "does not fit the model's context of 4 tokens"),
    (lambda s: [(s / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], "no tokenizer there"),
    (text("tokenizer.json", "{"), "no tokenizer that can be loaded"),
    (without_eos, "the tokenizer has no EOS token"),
]
WHILE = [  # seen in the weights themselves, where the library has nothing to say, or fills in random ones
    (
        tensors(lambda state: state["lm_head.weight"][0].fill_(float("nan"))),
        "lm_head.weight hold values that are not n",
    ),
    (tensors(lambda state: state.pop("lm_head.weight")), "lm_head.weight of the model that config.json describes are"),
    (tensors(lambda state: state.update(extra=state.pop("model.layers.0.mlp.up_proj.weight"))), "are not in the weigh"),
    (config(num_hidden_layers=3), "model.layers.2.* and 4 more of the model that config.json describes are not in"),
    (config(num_hidden_layers=1), "has no place for model.layers.1"),
    (config(hidden_size=64), r"not the shapes that config.json describes: lm_head.weight \[\d+, 48\] for \[\d+, 64\]"),
    (config(vocab_size=10), "not the shapes that config.json describes"),
    (config(model_type="bert"), "41 more of the model that config.json describes are not in the weights"),
    (config(dtype="float9"), "no .* that can be "),
    (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "cannot be loaded .*bitsandb"),
]


def broken(good: Path, folder: Path, change) -> Path:
    """A family of one checkpoint, which is changed."""
    shutil.copytree(good, folder / "s")
    change(folder / "s")
    (folder / "family.json").write_text(history(path="s"))
    return folder


@pytest.mark.parametrize(("change", "told"), BEFORE)
def test_checkpoints_that_are_not_whole(good, rows, tmp_path, change, told):
    place = ["--checkpoint", f"{broken(good, tmp_path, change)}@1", "--data_dir", str(rows)]
    asked = ["--tasks", "mnli_matched", "--num_shots", "0", "--limit", "2", "--report_to", "none"]
    refused(lambda: eval_run.main([*place, *asked, "--runs", str(tmp_path / "runs")]), told)
    assert not list((tmp_path / "runs").rglob("run.json"))


@pytest.mark.parametrize(("change", "told"), WHILE)
def test_weights_that_are_not_the_models(good, tmp_path, monkeypatch, change, told):
    monkeypatch.undo()
    folder = broken(good, tmp_path, change) / "s"
    refused(lambda: checkpoints.load(folder, device="cpu"), told, seconds=5)


def test_rows_longer_than_the_context(good, rows, tmp_path):
    """Positions beyond the context, which some models have without a word."""
    place = ["--checkpoint", f"{broken(good, tmp_path, lambda s: None)}@1", "--data_dir", str(rows)]
    argv = [*place, "--dataset", "mnli", "--max_length", "4096", "--tasks", "none", "--runs", str(tmp_path / "runs")]
    refused(lambda: train_sft.main([*argv, "--report_to", "none"]), "--max_length 4096: the model's context is 2048")


CELL = Cell("toy", "toy@1", 1, 1.0, "sha256:0")
RECORD = {"cell_id": CELL.cell_id, "cell": dataclasses.asdict(CELL), "weights": "sha256:0"}


def record(**changed) -> str:
    """A record with other fields of its cell."""
    return json.dumps(RECORD | {"cell": RECORD["cell"] | changed})


RECORDS = [
    ("[]", "not a record of a cell"),
    ("null", "not a record of a cell"),
    ("", "not a record of a cell"),
    ('"x"', "not a record of a cell"),
    ('{"cell_id": "x"}', "'cell' is missing"),
    (json.dumps(RECORD | {"cell": []}), "not a record of a cell"),
    (record(new=1), "unexpected keyword argument 'new'"),
    (record(stage="bogus"), "stage is 'bogus'; allowed: base, sft, instruct"),
    (record(step="1"), "step is '1'"),
    (record(seed=True), "seed is True"),
    (record(hyperparameters=[]), r"hyperparameters is \[\]"),
    (record(tokens_b=float("nan")), "tokens_b is nan"),
    (record(seed=7), "cell_id is .*, its settings give .*: changed afterwards"),
    (record(base="sha256:1"), "changed afterwards"),
    (json.dumps(RECORD | {"cell_id": "0" * 12}), "changed afterwards"),
    (json.dumps(RECORD | {"training": []}), r"training is \[\]"),
    (json.dumps(RECORD | {"weights": 3}), "weights is 3"),
    (json.dumps(RECORD)[:-1] + ', "cell_id": "x"}', "changed afterwards"),
]


@pytest.mark.parametrize(("content", "told"), RECORDS)
def test_records_of_another_version_or_hand(tmp_path, content, told):
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "run.json").write_text(content)
    for call in (lambda: read_record(tmp_path / "cell"), lambda: find_cell(tmp_path, "cell")):
        refused(call, f"run.json: not a record of a cell .*{told}.*; remove the folder|run.json.*{told}")


def entry(**changed) -> str:
    return json.dumps({"key": "a", "program": "train_sft.py", "flags": {}, "state": "done"} | changed)


def times(content: str):
    """The times of a cell's evaluations."""

    def do(runs: Path):
        (runs / "cell").mkdir(parents=True)
        (runs / "cell" / "run.json").write_text(json.dumps(RECORD))
        (runs / "cell" / "evaluations.jsonl").write_text(content)

    return do


def at(name: str, content: str):
    def do(runs: Path):
        (runs / name).parent.mkdir(parents=True)
        (runs / name).write_text(content)

    return do


PARCEL, OPEN = "wandb/offline-run-x/amuro/parcel.json", "wandb/offline-run-x/open.json"
FILES = [
    (times("{\n"), measured, "not the times of a cell .*remove"),
    (times("[]\n"), measured, "not the times of a cell"),
    (times('{"seconds": "1", "device": "cpu"}\n'), measured, "not the times of a cell"),
    (at("commands/a.json", "{"), ledger.read, "not an entry of the ledger .*remove it"),
    (at("commands/a.json", "[]"), ledger.read, "not an entry of the ledger"),
    (at("commands/a.json", entry(flags=[])), ledger.read, "not an entry of the ledger"),
    (at("commands/a.json", entry(flags={"seed": 1})), ledger.read, "flags, units and kept must be texts"),
    (at("commands/a.json", entry(state="maybe")), ledger.read, "state 'maybe'"),
    (at("commands/a.json", entry(folders=["x"])), ledger.read, "not an entry of the ledger"),
    (at("commands/a.json", entry(written="x")), ledger.read, "written must be numbers"),
    (at("commands/a.json", entry(new=1)), ledger.read, "unexpected keyword argument 'new'"),
    (at(PARCEL, "{"), sync.sync, "parcel.json: not what a run waits to hand over .*remove"),
    (at(PARCEL, "[]"), sync.sync, "not what a run waits to hand over"),
    (at(PARCEL, '{"a": 1}'), lambda runs: load_parcel(runs / "wandb/offline-run-x"), "not what a run waits to hand"),
    (at(OPEN, "{"), sync.sync, "open.json: does not say whose run it is .*remove it"),
    (at(OPEN, "{}"), sync.sync, "does not say whose run it is"),
    (at("audit/a.json", "[" * 100_000), audited, "not an audit's findings .*audit again"),
    (at("audit/a.json", '{"audited": [[1]], "findings": []}'), audited, "not an audit's findings"),
    (at("audit/a.json", '{"audited": [], "findings": [{"base": "x"}]}'), audited, "not an audit's findings"),
    (lambda runs: None, sync.sync, "no such folder; give the one that cells are written under"),
]


@pytest.mark.parametrize(("write", "read", "told"), FILES)
def test_files_under_runs(tmp_path, write, read, told):
    write(tmp_path / "runs")
    refused(lambda: read(tmp_path / "runs"), told)


AGENTS = [
    ("", "not the parameters"),
    ("- a", "not the parameters"),
    ("[", "not YAML"),
    ("a: 1\na: 2", "more than once"),
]


@pytest.mark.parametrize(("content", "told"), [*AGENTS, (None, "cannot be read")])
def test_what_an_agent_hands_over(tmp_path, monkeypatch, content, told):
    monkeypatch.setenv("WANDB_SWEEP_ID", "x")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "p.yaml"))
    if content is not None:
        (tmp_path / "p.yaml").write_text(content)
    refused(lambda: check_sweep((settings.EvaluationArguments("a@1"),)), f"p.yaml: .*{told}")


# ---- commands

COMMANDS = """
bogus => No such command 'bogus'; see amuro --help
plan => Missing argument 'FILE...'; see amuro plan --help
plan {here}/dir.yaml => dir.yaml: no such file
plan {here}/file => a W&B sweep is a mapping
plan {here}/s.yaml --processes 0 => '--processes': Input should be greater than or equal to 1; see amuro plan
plan {here}/s.yaml --processes x => '--processes': Input should be a valid integer
plan {here}/s.yaml --runs {here}/file => --runs .*file: is there, and no folder
plan {here}/s.yaml --only = => --only =: nothing has it
plan {here}/s.yaml --only dataset= => of dataset there are mnli
plan {here}/s.yaml --data_dir {here}/gone => --data_dir .*gone: no such folder
plan {here}/s.yaml --data_dir= => --data_dir '': the name of a folder is needed
plan --bogus => No such option: --bogus
run => Missing argument 'FILE...'
run {here}/s.yaml --retries -1 => '--retries': Input should be greater than or equal to 0
run {here}/s.yaml --disk_budget_gb -1 => '--disk_budget_gb': Input should be
run {here}/s.yaml --disk_budget_gb nan => '--disk_budget_gb': Input should be
run {here}/s.yaml --gpus_per_cell -1 => '--gpus_per_cell': Input should be
run {here}/s.yaml --cells_per_gpu 0 => '--cells_per_gpu': Input should be
run {here}/s.yaml --processes -1 => '--processes': Input should be
run {here}/s.yaml --runs {here}/file --dry_run => --runs .*file: is there, and no folder
run {here}/s.yaml --runs= => '--runs': the name of a folder is needed
run {here}/s.yaml --runs=~/x => '--runs': the name of a folder is needed, with ~ written out
nursery --out= => '--out': the name of a folder is needed
nursery --threads 100000 => --threads 100000: 256 at most
run {here}/s.yaml --address bogus => --address 'bogus': auto, or HOST:PORT
run {here}/s.yaml --runs {here}/file/x => --runs .*file/x: cannot be made .Not a directory
run {here}/s.yaml --address= => --address '': auto, or HOST:PORT
run {here}/s.yaml --dry-run => No such option: --dry-run .Possible options: --dry_run
status --runs {here}/gone => no complete cell there
status --runs {here}/empty => no complete cell there
status --only dataset=mnli => --only: takes a part of the commands of files
status {here}/s.yaml --runs {here}/file => --runs .*file: is there, and no folder
sync --runs {here}/gone => --runs .*gone: no such folder
sync --runs {here}/file => --runs .*file: no such folder
sync x => unexpected extra argument
nursery --out {here}/file => --out .*file: .*file is a file; choose another --out
nursery --out {here}/file/x => --out .*file/x: .*file is a file
nursery --preset huge => no preset 'huge'; there are default, tiny
nursery --seed -1 => '--seed': Input should be
nursery --threads 0 => '--threads': Input should be
nursery --text {here}/gone => no text: .*gone has no
nursery --text {here}/empty => no text: .*empty has no
rates --checkpoint a@1 => Missing option '--dataset'
rates --checkpoint {family}@10 --dataset mnlii => --dataset 'mnlii': unknown; did you mean mnli
rates --checkpoint {family}@10 --dataset mnli --learning_rates 1e-5,nan => two different rates at least
rates --checkpoint {family}@10 --dataset mnli --learning_rates 1e-5,inf => two different rates at least
rates --checkpoint {family}@10 --dataset mnli --learning_rates 1e-5,1.0e-5 => two different rates at least
rates --checkpoint {family}@10 --dataset mnli --held_out_rows 0 => '--held_out_rows': Input should be
checkpoints bogus => No such command 'bogus'; see amuro checkpoints --help
checkpoints list => Missing argument 'FAMILY'
checkpoints list {here}/empty => a folder without family.json
checkpoints list ~nosuchuser/x => no family '~nosuchuser/x'
checkpoints list {family} --format xml => --format 'xml': allowed: table, csv, json
checkpoints select {family} -n 0 => -n 0: from 2 checkpoints
checkpoints select {family} -n 99999999999999999999 => from 2 checkpoints
checkpoints select {family} -n 2 --by epochs => --by 'epochs': one of tokens
checkpoints select {family} -n 2 --include 15 => --include 15: there is no such checkpoint; nearest
checkpoints select {family} -n 2 --include {digits} => there is no such checkpoint
checkpoints select {family} -n 2 --like papers => --like 'papers': allowed: paper
checkpoints select {family} -n 2 --stage x => --stage 'x': there are none
checkpoints audit {family} x => STEPS 'x': neither a step nor
checkpoints audit {family} {digits} => neither a step nor
checkpoints audit {family} --runs {here}/file => --runs .*file: is there, and no folder
checkpoints audit {family} --format yaml => --format 'yaml': allowed
checkpoints fetch x => --checkpoint 'x': write family@step
checkpoints fetch {family}@9 => no step 9; nearest: 10, 20
checkpoints families x => unexpected extra argument
"""
COMMANDS = [tuple(each.split(" => ")) for each in COMMANDS.strip().splitlines()]


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with what the commands name."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "dir.yaml").mkdir()
    grid = "program: train_sft.py\nmethod: grid\nparameters: {checkpoint: {value: a/b@c}, dataset: {value: mnli}}\n"
    (folder / "s.yaml").write_text(grid)
    return folder


@pytest.mark.parametrize(("typed", "told"), COMMANDS)
def test_commands(typed, told, here, family, monkeypatch):
    monkeypatch.chdir(here)
    argv = typed.format(here=here, family=family, digits=N).split(" ")
    monkeypatch.setattr(sys, "argv", ["amuro", *argv])
    if N in argv and "select" in argv:  # long, for it tells what was typed
        with pytest.raises(ValueError, match=told):
            cli.answer()
    else:
        refused(cli.answer, told, seconds=2)
    assert sorted(each.name for each in here.iterdir()) == ["dir.yaml", "empty", "file", "s.yaml"]


AMURO, LIGHT = ["-m", "amuro.cli"], 5  # seconds of computing; the scripts load torch, TRL and the harness first
REAL = [
    ([*AMURO, "plan"], LIGHT, "Missing argument"),
    ([*AMURO, "plan", "README.md"], LIGHT, "README.md: "),
    ([*AMURO, "run", "sweeps/nursery.yaml", "--processes", "0"], LIGHT, "'--processes'"),
    ([*AMURO, "run", "sweeps/nursery.yaml", "--runs", "README.md"], LIGHT, "is there, and no folder"),
    ([*AMURO, "status", "--runs", "README.md"], LIGHT, "is there, and no folder"),
    ([*AMURO, "sync", "--runs", "nowhere"], 15, "no such folder"),
    ([*AMURO, "checkpoints", "list", "~nosuchuser/x"], LIGHT, "no family"),
    ([*AMURO, "checkpoints", "select", "nowhere/family.yaml"], LIGHT, "cannot be read"),
    ([*AMURO, "nursery", "--preset", "huge"], 15, "no preset 'huge'"),
    ([*AMURO, "rates", "--checkpoint", "a@1", "--dataset", "mnli", "--learning_rates", "1"], 15, "two different rates"),
    (["train_sft.py"], 15, "required: --checkpoint, --dataset"),
    (["train_sft.py", *BASE, "--runs", "x" * 300], 15, "too long"),
    (["-m", "eval.run", "--checkpoint", ","], 15, "give --checkpoint"),
]


@pytest.mark.parametrize(("command", "seconds", "told"), REAL)
def test_real_commands(command, seconds, told, tmp_path):
    """Exit code 2, one line; the time that counts is the processor's, for others may be at work on the machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(*command, HF_HOME=str(tmp_path))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and told in done.stderr.splitlines()[-1]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < seconds
    assert not (ROOT / "nowhere").exists()


def test_the_catalogue_is_long_and_says_nothing_twice():
    """At least 150 cases, ten of them real commands; no input twice in a table."""
    tables = [
        FLAGS,
        RECIPES,
        SWEEPS,
        ROWS,
        CONVERSATIONS,
        REFERENCES,
        FAMILIES,
        OWN_FAMILIES,
        RECORDS,
        AGENTS,
        COMMANDS,
    ]
    assert all(len({str(case[:-1]) for case in table}) == len(table) for table in tables)
    tables += [MORE_FLAGS, BEFORE, WHILE, FILES]
    assert sum(map(len, tables)) >= 400 and len(REAL) >= 10
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # the commands' own guard: nothing could be asked of a hub
