"""What the training scripts share: one process's part of the batch, the model, the guards, and the stored weights.

A training that went wrong must not look like a result: a row without trained tokens, a NaN loss, weights that did not
move, or fewer steps than planned stop the script with the cause.
"""

import math
import resource
import shutil
import time
from dataclasses import fields
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from amuro.encoding import IGNORED

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


def hyperparameters(sft: SFTConfig, batch_size: int) -> dict:
    """What decides the weights besides base, rows, prompts and seed: the core settings, and all changed ones."""
    default = {each.name: each.default for each in fields(SFTConfig)}
    chosen = {
        name: getattr(sft, name)
        for name in default
        if name in ALWAYS_IDENTITY or (name not in NOT_IDENTITY and getattr(sft, name) != default[name])
    }
    plain = {name: getattr(value, "value", value) for name, value in chosen.items()}  # enumerations by their value
    precision = "bfloat16" if sft.bf16 else "float16" if sft.fp16 else "float32"
    return {**plain, "batch_size": batch_size, "training_dtype": precision}


def share_batch(sft: SFTConfig, batch_size: int, given: bool) -> None:
    """Set the trainer's per-device batch and accumulation so that a step sees `batch_size` rows over all processes.

    `given` says whether --per_device_train_batch_size was given. Raises ValueError where it does not divide.
    """
    if sft.n_gpu > 1 or sft.world_size > 1:  # several visible GPUs would silently multiply the batch
        raise ValueError("a cell trains in one process on one device: set CUDA_VISIBLE_DEVICES to one GPU")
    share, rest = divmod(batch_size, sft.world_size)
    per_device = sft.per_device_train_batch_size if given else share
    if rest or not per_device or share % per_device:
        raise ValueError(
            f"--batch_size {batch_size} over {sft.world_size} processes does not divide into "
            f"--per_device_train_batch_size {per_device}"
        )
    sft.per_device_train_batch_size, sft.gradient_accumulation_steps = per_device, share // per_device


def hardware() -> dict:
    """The device and the peak memory so far (GiB; of this process on the CPU, of PyTorch on a GPU)."""
    if torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name(), "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"device": "cpu", "threads": torch.get_num_threads(), "peak_memory_gib": round(peak, 3)}


class Guard(TrainerCallback):
    """Stops a training whose loss is not a number."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise RuntimeError(f"{name} is {value} at step {state.global_step}: lower --learning_rate")


def trainer(model, tokenizer, sft: SFTConfig, examples: list[dict]) -> SFTTrainer:
    """The trainer of pre-tokenised rows. Raises RuntimeError on a row without trained tokens or weights not in fp32."""
    for number, example in enumerate(examples):
        if all(label == IGNORED for label in example["labels"]):
            raise RuntimeError(f"training row {number} has no trained tokens")
    if wrong := [name for name, weight in model.named_parameters() if weight.dtype != torch.float32]:
        raise RuntimeError(
            f"master weights must be float32, {wrong[0]} is not: bf16 weights hardly move at these rates"
        )
    sft.dataset_kwargs = {"skip_prepare_dataset": True}  # the rows are encoded, fitted and complete
    dataset = Dataset.from_list(examples)
    return SFTTrainer(model, args=sft, train_dataset=dataset, processing_class=tokenizer, callbacks=[Guard()])


def fit(trainer: SFTTrainer) -> dict:
    """Train, and say what happened: steps, loss, seconds. RuntimeError where steps are missing or no weight moved."""
    sft, n = trainer.args, len(trainer.train_dataset)
    per_step = sft.per_device_train_batch_size * sft.gradient_accumulation_steps * sft.world_size
    planned = sft.max_steps if sft.max_steps > 0 else math.ceil(math.ceil(n / per_step) * sft.num_train_epochs)
    before = _checksums(trainer.model)
    started = time.perf_counter()
    done = trainer.train()
    seconds = time.perf_counter() - started
    if done.global_step != planned or planned == 0:
        raise RuntimeError(f"{done.global_step} optimizer steps were made, {planned} were planned for {n} rows")
    if not math.isfinite(done.training_loss):
        raise RuntimeError(f"the training loss is {done.training_loss}: lower --learning_rate")
    after = _checksums(trainer.model)
    moved = sum(before[name] != after[name] for name in after)
    if not moved:
        raise RuntimeError(f"no weight moved in {planned} steps: --learning_rate {sft.learning_rate} is too low")
    # Autocast wraps the model's forward for good; evaluation must see the weights as they are.
    trainer.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return {
        "steps": planned,
        "train_loss": done.training_loss,
        "seconds": round(seconds, 3),
        "tensors_moved": f"{moved} of {len(after)}",
        "log": [entry for entry in trainer.state.log_history if "loss" in entry],
    }


def _checksums(model) -> dict[str, tuple[float, float]]:
    return {
        name: (weight.detach().double().sum().item(), weight.detach().double().abs().sum().item())
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def save(model, tokenizer, folder: Path) -> None:
    """Weights (safetensors), config and tokenizer, readable for everyone who may; a folder that is there is whole."""
    remove(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    remove(partial)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    for path in partial.iterdir():
        path.chmod(0o644)  # the library writes weights as 0600, which locks a group out of its own results
    partial.rename(folder)


def remove(folder: Path) -> None:
    """Remove a folder of weights; cut off half-way, nothing under its name is left."""
    removed = folder.with_name(f"{folder.name}.removed")
    if removed.is_dir():
        shutil.rmtree(removed)
    if folder.is_dir():
        shutil.rmtree(folder.rename(removed))
