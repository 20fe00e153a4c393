"""What the training scripts share: what decides the weights, the batch over processes, the trainer and its guards.

A training that went wrong must not look like a result: a row without trained tokens, a NaN loss, weights that did not
move, or fewer steps than planned stop the script with the cause.
"""

import math
import resource
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
import trl.trainer.utils
from accelerate import PartialState
from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from trl import ModelConfig, SFTConfig, SFTTrainer

from amuro import cells, checkpoints, weights
from amuro.cells import Cell
from amuro.encoding import IGNORED
from amuro.resume import Keeper, Preempted
from amuro.running.claims import Lease, LostClaim
from amuro.strict import read_json
from amuro.units import read_unit

# Trainer settings that do not decide the weights: logging, saving, reporting, hardware. The batch enters as the
# effective `batch_size`, precision as `training_dtype`. All other settings that differ from the default are identity.
NOT_IDENTITY = """
output_dir run_name report_to project trackio_space_id trackio_bucket_id trackio_static_space_id logging_strategy
logging_steps logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level
log_level_replica disable_tqdm save_only_model save_strategy save_steps save_on_each_node save_total_limit
enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start eval_do_concat_batches
eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics
eval_packing per_device_train_batch_size gradient_accumulation_steps
bf16 fp16 use_cpu bf16_full_eval fp16_full_eval gradient_checkpointing activation_checkpointing
activation_checkpointing_kwargs gradient_checkpointing_kwargs activation_offloading torch_empty_cache_steps
dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
dataloader_multiprocessing_context dataloader_in_order dataset_num_proc ddp_find_unused_parameters ddp_bucket_cap_mb
ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed accelerator_config
parallelism_config local_rank debug skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint seed
completion_only_loss dataset_kwargs restore_callback_states_from_checkpoint
""".split()
ALWAYS_IDENTITY = """num_train_epochs max_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm
max_length optim adam_beta1 adam_beta2 adam_epsilon""".split()
CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length")  # how configs name it


def hyperparameters(sft: SFTConfig, batch_size: int, lora: ModelConfig) -> dict:
    """What decides the weights besides base, rows, prompts and seed: the core settings, all changed ones, and LoRA's
    where it is used."""
    default = {each.name: each.default for each in fields(SFTConfig)}
    chosen = {
        name: getattr(sft, name)
        for name in default
        if name in ALWAYS_IDENTITY or (name not in NOT_IDENTITY and getattr(sft, name) != default[name])
    }
    plain = {name: getattr(value, "value", value) for name, value in chosen.items()}  # enumerations by their value
    if lora.use_peft:
        names = [each.name for each in fields(lora) if each.name.startswith(("lora_", "use_"))]
        plain |= {name: getattr(lora, name) for name in names}
    precision = {"bf16": "bfloat16", "fp16": "float16"}.get(sft.mixed_precision, "float32")  # a launcher's counts too
    return {**plain, "batch_size": batch_size, "training_dtype": precision}


def share_batch(sft: SFTConfig, batch_size: int, given: bool) -> None:
    """Set the trainer's per-device batch and accumulation so that a step sees `batch_size` rows over all processes.

    `given` says whether --per_device_train_batch_size was given. Raises ValueError where it does not divide.
    """
    if sft.n_gpu > 1:  # the trainer would split the rows, or TRL the model, over all of them
        raise ValueError(
            f"one process sees {sft.n_gpu} GPUs: set CUDA_VISIBLE_DEVICES to one of them, or start a process per GPU "
            f"with torchrun or accelerate launch"
        )
    share, rest = divmod(batch_size, sft.world_size)
    per_device = sft.per_device_train_batch_size if given else share
    if rest or not per_device or share % per_device:
        raise ValueError(
            f"--batch_size {batch_size} over {sft.world_size} processes does not divide into "
            f"--per_device_train_batch_size {per_device}"
        )
    sft.per_device_train_batch_size, sft.gradient_accumulation_steps = per_device, share // per_device


def check_length(place: Path, max_length: int) -> None:
    """ValueError where a row of `max_length` tokens would exceed the model's context."""
    config = read_json(place / "config.json")
    context = next((config[name] for name in CONTEXT if isinstance(config.get(name), int)), None)
    if context is not None and max_length > context:
        raise ValueError(f"--max_length {max_length}: the model's context is {context} tokens; give {context} at most")


def hardware() -> dict:
    """The devices and the peak memory so far (GiB; of this process on the CPU, of PyTorch on a GPU)."""
    about = {"processes": PartialState().num_processes, "torch": torch.__version__}
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
        return {**about, "device": torch.cuda.get_device_name(), "peak_memory_gib": round(peak, 3)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**about, "device": "cpu", "threads": torch.get_num_threads(), "peak_memory_gib": round(peak, 3)}


class Diverged(RuntimeError):
    """The loss is not a number."""


class Guard(TrainerCallback):
    """Stops a training whose loss is not a number."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {state.global_step}: lower --learning_rate")


class Held(TrainerCallback):
    """Stops a training whose cell another command has taken over."""

    def __init__(self, lease: Lease):
        self.lease = lease

    def on_step_end(self, args, state, control, **kwargs):
        self.lease.check()


def trainer(model, tokenizer, sft: SFTConfig, examples: list[dict], peft_config=None, callbacks=()) -> SFTTrainer:
    """The trainer of pre-tokenised rows, the batch as `share_batch` has set it.

    RuntimeError on a row without trained tokens or weights not in fp32; ValueError where several processes could not
    share the last batch of an epoch: it would be filled with rows that are then trained on twice.
    """
    n, batch = len(examples), sft.per_device_train_batch_size * sft.gradient_accumulation_steps * sft.world_size
    if sft.world_size > 1 and n % batch:
        raise ValueError(
            f"{n} rows do not make whole batches of {batch} for {sft.world_size} processes: "
            f"give --num_train_rows {n - n % batch}, or use one process"
        )
    for number, example in enumerate(examples):
        if all(label == IGNORED for label in example["labels"]):
            raise RuntimeError(f"training row {number} has no trained tokens")
    if wrong := [name for name, weight in model.named_parameters() if weight.dtype != torch.float32]:
        raise RuntimeError(
            f"master weights must be float32, {wrong[0]} is not: bf16 weights hardly move at these rates"
        )
    _project_trained_positions()
    sft.dataset_kwargs = {"skip_prepare_dataset": True}  # the rows are encoded, fitted and complete
    dataset = Dataset.from_list(examples)
    return SFTTrainer(
        model,
        args=sft,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=[Guard(), *callbacks],
    )


def _project_trained_positions() -> None:
    """Let TRL's loss compute the logits of trained positions only, as it does on GPUs, on the CPU too.

    TRL projects every position elsewhere, for devices that compile anew for each shape (trl/trainer/utils.py,
    `add_fused_lm_head`); a CPU does not. The losses are the same (tests/test_faithful.py), the steps shorter.
    """
    if trl.trainer.utils._use_triton(torch.device("cpu")):
        return
    on_gpu = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: device.type == "cpu" or on_gpu(device)


def fit(trainer: SFTTrainer, keeper: Keeper | None = None, held_out: Sequence[dict] = ()) -> dict:
    """Train, and say what happened: steps, loss (None where it went on), seconds. With a keeper it goes on from the
    newest whole checkpoint, whose seconds count too. `held_out` are examples whose mean loss is measured afterwards.

    RuntimeError where steps are missing or no weight moved; Preempted where SIGTERM came and a checkpoint was saved.
    """
    sft, n = trainer.args, len(trainer.train_dataset)  # type: ignore[arg-type]  # a Dataset here, which has a length
    per_step = sft.per_device_train_batch_size * sft.gradient_accumulation_steps * sft.world_size
    planned = sft.max_steps if sft.max_steps > 0 else math.ceil(math.ceil(n / per_step) * sft.num_train_epochs)
    before = _checksums(trainer.model)
    checkpoint = None
    if keeper:
        trainer.add_callback(keeper)
        sft.save_total_limit = None  # the keeper removes old ones once the new one is known to be whole
        checkpoint = keeper.newest()
    resumed_from = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    if resumed_from:
        say(f"going on from step {resumed_from} of {planned}: {checkpoint}")
    started = time.perf_counter()
    done = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = (keeper.before if keeper else 0.0) + time.perf_counter() - started
    if keeper and keeper.terminated and done.global_step < planned:
        say(f"SIGTERM: saved at step {done.global_step} of {planned}; the same command goes on from there")
        raise Preempted(done.global_step)
    if done.global_step != planned or planned == 0:
        raise RuntimeError(f"{done.global_step} optimizer steps were made, {planned} were planned for {n} rows")
    if not math.isfinite(done.training_loss):
        raise Diverged(f"the training loss is {done.training_loss}: lower --learning_rate")
    after = _checksums(trainer.model)
    moved = sum(before[name] != after[name] for name in after)
    if not moved:
        raise RuntimeError(
            f"no weight moved in {planned} steps: --learning_rate {sft.learning_rate} is too low, or they are warm-up"
        )
    # Autocast wraps the model's forward for good; from here on the weights count as they are.
    trainer.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    unseen = {"held_out_rows": len(held_out), "held_out_loss": mean_loss(trainer.model, held_out)} if held_out else {}
    return {
        "steps": planned,
        "resumed_from": resumed_from,
        "train_loss": None if resumed_from else done.training_loss,  # the library's mean is over this call's steps
        "seconds": round(seconds, 3),
        "tensors_moved": f"{moved} of {len(after)}",
        **unseen,
        "log": [entry for entry in trainer.state.log_history if "loss" in entry],
    }


def is_main() -> bool:
    """Whether this is the one process of several that writes, logs and prints."""
    return PartialState().is_main_process


def say(text: str) -> None:
    """Print, in one of several processes."""
    if is_main():
        print(text)


def _checksums(model) -> dict[str, tuple[float, float]]:
    """Sum and absolute sum of every trained tensor, gathered where it is spread over processes."""
    whole = lambda weight: weight.full_tensor() if isinstance(weight, DTensor) else weight  # noqa: E731
    return {
        name: (tensor.sum().item(), tensor.abs().sum().item())
        for name, weight in model.named_parameters()
        if weight.requires_grad
        for tensor in [whole(weight.detach()).double()]
    }


@torch.no_grad()
def mean_loss(model, examples: Sequence[dict], batch_size: int = 8) -> float:
    """Mean loss (nats) over the trained tokens of examples, by plain torch: how well held-out rows are predicted."""
    model.eval()
    total, tokens = 0.0, 0
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        width = max(len(each["input_ids"]) for each in part)
        fill = lambda key, value, part=part, width=width: torch.tensor(  # noqa: E731
            [each[key] + [value] * (width - len(each[key])) for each in part], device=model.device
        )
        labels = fill("labels", IGNORED)
        mask = fill("input_ids", -1) >= 0
        logits = model(input_ids=fill("input_ids", 0), attention_mask=mask.long()).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        ).item()
        tokens += int((labels[:, 1:] != IGNORED).sum())
    return total / tokens


def write_record(folder: Path, cell: Cell, keeper: Keeper, trained: dict, settings: dict, again: bool = False) -> dict:
    """Write `run.json`, from when on the training is complete, and remove its checkpoints. Returns the record.
    `again` says that a training was repeated: what the former weights were scored goes, where they were others (on a
    GPU they may be). LostClaim where another command has completed it with other weights,
    Preempted where SIGTERM came in the last step."""
    if is_main():
        ours, trained = checkpoints.digest(folder / "weights"), {**trained, **hardware()}
        record = cells.write_record(folder, cell, again, weights=ours, training=trained, settings=settings)
        if record["weights"] != ours:
            weights.remove(folder / "weights")
            raise LostClaim(f"{folder}: another command has completed the cell with other weights; these are removed")
        keeper.clear()
        for path in folder.glob("units/*.parquet") if again else ():
            if read_unit(path)["about"].get("scored", {}).get("weights") != ours:
                say(f"{path.name}: scored on the weights of an earlier training, removed")
                path.unlink()
    PartialState().wait_for_everyone()
    if keeper.told():
        say("SIGTERM: the training is complete; the same command evaluates it")
        raise Preempted(trained["steps"])
    return cells.read_record(folder)
