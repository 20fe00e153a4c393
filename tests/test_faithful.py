"""What a training does, held against its definition: which ids and labels, in which order, at which rate, in which
precision, with which losses; and what its seeds decide. Small random models on the CPU, the scripts' own settings."""

import json
import math
from fractions import Fraction

import pytest
import torch
import trl.trainer.utils
from conftest import make_checkpoint, make_tokenizer, run
from safetensors.torch import load_file
from test_settings import train_sft
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    TrainerCallback,
)
from trl import get_peft_config
from trl.kernels import chunked_logprob

from amuro import checkpoints, data, results, settings, training
from amuro.cells import read_record
from amuro.encoding import encode_rows
from amuro.prompts import completion, prompt
from amuro.tasks import DATASETS, SFT

SHAPE = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, pad_token_id=1)
SHAPE |= dict(eos_token_id=0, bos_token_id=None, max_position_embeddings=2048)
ARCHITECTURES = {
    "olmo": (OlmoConfig, OlmoForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM),
}
LORA = ("--use_peft", "true", "--lora_target_modules", "q_proj", "v_proj")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def make_model(tokenizer, name: str = "olmo", seed: int = 0):
    config, model = ARCHITECTURES[name]
    torch.manual_seed(seed)
    return model(config(vocab_size=len(tokenizer), **SHAPE))


class Watch(TrainerCallback):
    """Keeps what the model is given in training, and the rate of every optimizer step."""

    def __init__(self, model):
        self.batches, self.rates = [], []
        model.register_forward_pre_hook(self.keep, with_kwargs=True)

    def keep(self, model, inputs, named):
        self.batches.append({key: named[key].clone() for key in ("input_ids", "labels", "attention_mask")})

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def rows(self) -> list[tuple[list[int], list[int]]]:
        """(ids, labels) of every row in the order in which it was trained, without padding, which must be masked."""
        found = []
        for batch in self.batches:
            for ids, labels, mask in zip(*batch.values(), strict=True):
                n = int(mask.sum())
                assert mask[:n].all() and (labels[n:] == -100).all()
                found.append((ids[:n].tolist(), labels[:n].tolist()))
        return found


def train(folder, tokenizer, examples, *flags, model=None):
    """(model, what `fit` tells, what was seen) after a training on examples with a command's flags."""
    published = ["--checkpoint", "toy@1", "--dataset", "mnli", "--report_to", "none", "--logging_steps", "1"]
    flags = [*published, "--learning_rate", "1e-3", *map(str, flags)]
    arguments, sft, lora, _ = settings.parse(train_sft.make_parser(), flags, stage="sft")
    training.share_batch(sft, arguments.batch_size, given="--per_device_train_batch_size" in flags)
    sft.output_dir = str(folder)
    model = model or make_model(tokenizer)
    watch = Watch(model)
    told = training.fit(training.trainer(model, tokenizer, sft, examples, get_peft_config(lora), [watch]))
    return model, told, watch


def made_up(tokenizer, n: int) -> list[dict]:
    """`n` examples of different lengths, no two alike."""
    text = [f" {'the cat sees ' * (1 + number % 5)}{number}" for number in range(n)]
    ids = [tokenizer(each)["input_ids"] + [0] for each in text]
    return [{"input_ids": each, "labels": [-100] * (len(each) - 3) + each[-3:]} for each in ids]


def order(n: int, seed: int, epoch: int) -> list[int]:
    """The rows' order in one epoch: the permutation of the seed, which the epoch is added to."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def schedule(peak: float, steps: int) -> list[float]:
    """The published schedule: linear from 0 over the first 3 % of the steps, rounded up, then linear to 0."""
    warm = math.ceil(Fraction(3, 100) * steps)
    return [peak * (k / warm if k < warm else (steps - k) / (steps - warm)) for k in range(steps)]


def cell_flags(family, mirror, runs, *more) -> list[str]:
    places = ["--checkpoint", f"{family}@main", "--dataset", "mnli", "--data_dir", mirror, "--runs", runs]
    flags = ["--report_to", "none", "--learning_rate", "1e-3", "--tasks", "none", "--keep_weights", "all"]
    return [*map(str, places), *flags, *more]


def equal_weights(one, two) -> bool:
    """Whether two models, or two files of weights, have the same bits."""
    one, two = (each if isinstance(each, dict) else each.state_dict() for each in (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_model_sees_prompt_completion_and_eos_in_the_seeds_order(tokenizer, mirror, tmp_path):
    """Every batch as the trainer's dataloader hands it to the model, over two epochs, for all datasets."""
    seen = 0
    for name in SFT:
        family = DATASETS[name].reading.family
        rows = data.training_rows(name, str(mirror), 20).rows
        examples, _ = encode_rows(rows, family, tokenizer, 2048)
        _, told, watch = train(tmp_path, tokenizer, examples, "--num_train_epochs", 2, "--seed", 5)
        found = watch.rows()
        for place, number in enumerate(order(20, 5, 0) + order(20, 5, 1)):
            start = tokenizer(prompt(family, "default", rows[number]))["input_ids"]
            answer = tokenizer(completion(rows[number]["target"]))["input_ids"] + [tokenizer.eos_token_id]
            assert found[place] == (start + answer, [-100] * len(start) + answer)
            seen += 1
        assert len(found) == 40 and told["steps"] == 6
        assert [len(batch["input_ids"]) for batch in watch.batches] == [8, 8, 4, 8, 8, 4]
    assert seen == 4 * 40


def test_steps_and_rates_are_the_formulas(tokenizer, tmp_path):
    cases = [(24, 8, 3), (20, 8, 2), (7, 8, 5), (9, 4, 1), (40, 2, 2), (34, 1, 1), (67, 1, 1)]
    for n, batch, epochs in cases:
        flags = ("--batch_size", batch, "--num_train_epochs", epochs, "--learning_rate", 2e-6)
        _, told, watch = train(tmp_path, tokenizer, made_up(tokenizer, n), *flags)
        assert told["steps"] == len(watch.rates) == math.ceil(n / batch) * epochs
        assert watch.rates == schedule(2e-6, told["steps"])
        assert [entry["learning_rate"] for entry in told["log"]] == watch.rates and watch.rates[0] == 0.0
    assert len(cases) == 7


def test_published_warm_up_is_three_per_cent_rounded_up():
    """A share of the steps as a float, as the library wants it since `warmup_ratio` is gone."""
    cases = [("mnli", 2250, 68), ("paws", 2247, 68), ("xsum", 100, 3), ("socialiqa", 1, 1), ("xsum", 3350, 101)]
    for dataset, steps, warm in cases:
        flags = ["--checkpoint", "olmo-1b@1000", "--dataset", dataset, "--report_to", "none"]
        sft = settings.parse(train_sft.make_parser(), flags, stage="sft")[1]
        assert sft.warmup_steps == 0.03 and sft.lr_scheduler_type == "linear" and sft.get_warmup_steps(steps) == warm
    assert len(cases) == 5


def test_the_effective_batch_decides_and_not_its_parts(tokenizer, tmp_path):
    """8 rows at once and 8 rows in 2, 4 or 8 parts, the last batch of an epoch being short: the same weights."""
    examples = made_up(tokenizer, 20)
    whole, told, _ = train(tmp_path, tokenizer, examples, "--batch_size", 8)
    for per_device in (4, 2, 1):
        flags = ("--batch_size", 8, "--per_device_train_batch_size", per_device)
        parts, again, watch = train(tmp_path, tokenizer, examples, *flags)
        assert again["steps"] == told["steps"] == 9 and len(watch.batches[0]["input_ids"]) == per_device
        for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
            assert torch.allclose(one, two, rtol=0, atol=1e-6)
    refused = [(8, 3), (8, 16), (6, 4), (1, 2)]
    for batch, per_device in refused:
        with pytest.raises(ValueError, match=f"--batch_size {batch} .*--per_device_train_batch_size {per_device}"):
            train(tmp_path, tokenizer, examples, "--batch_size", batch, "--per_device_train_batch_size", per_device)
    assert len(refused) == 4


def test_only_float32_weights_are_trained(tokenizer, tmp_path):
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(RuntimeError, match=r"master weights must be float32, model\.embed_tokens\.weight is not"):
            train(tmp_path, tokenizer, made_up(tokenizer, 8), model=make_model(tokenizer).to(dtype))


def test_a_bf16_checkpoint_is_trained_in_float32_and_the_table_tells_the_dtype(mirror, tmp_path):
    """Upcast before the first step, so that small updates are kept; stored in float32; the dtype is a column."""
    place = make_checkpoint(tmp_path / "bf16" / "step-1")
    AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16).save_pretrained(place)
    stored = load_file(place / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert {weight.dtype for weight in checkpoints.load(place)[0].parameters()} == {torch.float32}
    entry = {"step": 1, "tokens_b": 0.0, "path": "step-1"}
    (place.parent / "family.json").write_text(json.dumps({"name": "bf16", "checkpoints": [entry]}))
    flags = ["--tasks", "rte", "--limit", "4", "--num_shots", "0", "--keep_weights", "all", "--learning_rate", "2e-7"]
    folder = train_sft.main(cell_flags(place.parent, mirror, tmp_path / "runs", *flags))
    tuned = load_file(folder / "weights" / "model.safetensors")
    assert {tensor.dtype for tensor in tuned.values()} == {torch.float32}
    for name, before in stored.items():
        moved = (tuned[name] != before.float()).float().mean()
        assert moved > 0.5 or "embed" in name, name  # in bf16, steps of 2e-7 would move next to none
        assert (tuned[name] - before.float()).abs().max() < 1e-5
    record, table = read_record(folder), results.load(tmp_path / "runs")
    assert record["cell"]["hyperparameters"]["training_dtype"] == "float32"
    assert table["dtype"].tolist() == ["float32"] and table["dataset"].tolist() == ["mnli"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_twenty_losses_are_a_bare_loops(name, tokenizer, mirror, tmp_path):
    """Plain torch on the same rows in the same order, all logits, the same AdamW, the rates of the formula."""
    rows = data.training_rows("socialiqa", str(mirror)).rows
    examples, _ = encode_rows(rows, "question", tokenizer, 2048)
    _, told, _ = train(tmp_path, tokenizer, examples, "--num_train_epochs", 7, model=make_model(tokenizer, name))
    logged, rates = [entry["loss"] for entry in told["log"]], schedule(1e-3, 21)
    model = make_model(tokenizer, name)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for epoch in range(7):
        numbers = order(24, 42, epoch)
        for batch in ([examples[number] for number in numbers[first : first + 8]] for first in (0, 8, 16)):
            width = max(len(row["input_ids"]) for row in batch)
            fill = lambda key, value, batch=batch, width=width: torch.tensor(  # noqa: E731
                [row[key] + [value] * (width - len(row[key])) for row in batch]
            )
            mask = fill("input_ids", -1) != -1
            logits = model(input_ids=fill("input_ids", 0), attention_mask=mask.long()).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), fill("labels", -100)[:, 1:].flatten()
            )
            optimizer.param_groups[0]["lr"] = rates[len(losses)]
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(logged) == len(losses) == 21 and losses[-1] < losses[0] - 0.5
    assert logged[:20] == pytest.approx(losses[:20], rel=0, abs=1e-5)


def test_logits_of_trained_positions_are_enough(tokenizer, mirror, tmp_path, monkeypatch):
    """TRL projects every position on the CPU, we those with a label: the same losses, and so many positions fewer."""
    rows = data.training_rows("socialiqa", str(mirror)).rows
    examples, _ = encode_rows(rows, "question", tokenizer, 2048)
    losses, positions, whole = [], [], trl.trainer.utils._ChunkedLogProbFunction

    class Counted:
        @staticmethod
        def apply(hidden, *arguments):
            positions[-1] += len(hidden)
            return whole.apply(hidden, *arguments)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Counted)
    for ours in (True, False):
        if not ours:
            monkeypatch.setattr(trl.trainer.utils, "_use_triton", chunked_logprob._use_triton)
            monkeypatch.setattr(training, "_project_trained_positions", lambda: None)
        positions.append(0)
        _, told, watch = train(tmp_path, tokenizer, examples)
        losses.append([entry["loss"] for entry in told["log"]])
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-5) and len(losses[0]) == 9
    assert positions[0] == 3 * sum(label != -100 for example in examples for label in example["labels"])
    assert positions[1] == sum(batch["labels"][:, 1:].numel() for batch in watch.batches) > 3 * positions[0]


@pytest.mark.slow
def test_a_cell_gives_the_same_bits_after_other_cells_and_in_a_fresh_process(family, mirror, tmp_path):
    """What ran before in the process does not reach the weights; the two seeds do, and are identity each."""
    seeds = {"first": (42, 42), "order": (7, 42), "sample": (42, 7), "again": (42, 42)}
    flags = {
        name: cell_flags(family, mirror, tmp_path / name, "--seed", str(seed), "--sample_seed", str(sample_seed))
        for name, (seed, sample_seed) in seeds.items()
    }
    folders = {name: train_sft.main(each) for name, each in flags.items()}
    done = run("train_sft.py", *cell_flags(family, mirror, tmp_path / "fresh", "--seed", "42", "--sample_seed", "42"))
    assert done.returncode == 0, done.stderr[-3000:]
    (folders["fresh"],) = (tmp_path / "fresh").glob("*-sft-*")
    bits = {name: load_file(folder / "weights" / "model.safetensors") for name, folder in folders.items()}
    same = {name: equal_weights(bits["first"], each) for name, each in bits.items()}
    assert same == {"first": True, "order": False, "sample": False, "again": True, "fresh": True}
    cells = {name: read_record(folder)["cell"] for name, folder in folders.items()}
    of = lambda name: (cells[name]["seed"], cells[name]["dataset_digest"])  # noqa: E731
    assert of("order") == (7, of("first")[1]) and of("sample")[0] == 42 and of("sample")[1] != of("first")[1]
    assert len({folder.name for folder in folders.values()}) == 3
    assert folders["fresh"].name == folders["again"].name == folders["first"].name


def test_a_lora_training_gives_the_same_bits_again(tokenizer, tmp_path):
    """Also the random adapters that it starts from."""
    examples, found = made_up(tokenizer, 16), []
    for noise in (1, 2):
        model = make_model(tokenizer)
        torch.rand(noise)
        model, _, _ = train(tmp_path, tokenizer, examples, *LORA, model=model)
        found.append({name: weight for name, weight in model.state_dict().items() if "lora" in name})
    assert len(found[0]) == 2 * 2 * 2 and equal_weights(*found)


def test_seed_orders_the_rows_and_sample_seed_draws_them(tokenizer, mirror, tmp_path):
    def trained(sample_seed: int, seed: int):
        """(the rows, the places among them in the order of training, the model)"""
        rows = data.training_rows("mnli", str(mirror), 16, sample_seed).rows
        examples, _ = encode_rows(rows, "inference", tokenizer, 2048)
        model, _, watch = train(tmp_path, tokenizer, examples, "--num_train_epochs", 1, "--seed", seed)
        plain = [tuple(example["input_ids"]) for example in examples]
        return plain, [plain.index(tuple(ids)) for ids, _ in watch.rows()], model

    rows, places, model = trained(42, seed=42)
    reordered, other_places, other = trained(42, seed=7)
    redrawn, same_places, _ = trained(7, seed=42)
    assert reordered == rows and other_places != places and not equal_weights(model, other)
    assert sorted(places) == sorted(other_places) == list(range(16))
    assert set(redrawn) != set(rows) and same_places == places == order(16, 42, 0)
