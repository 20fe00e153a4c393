"""Tuned weights on disk: room for them, whole or absent, and gone when they are no longer wanted.

weights.check_space(model, sft, folder)      before the training
weights.save(trainer, tokenizer, folder)     writes folder/weights/, and with LoRA folder/adapter/
weights.tidy(folder, record)                 what a killed command has left there, under the cell's claim
weights.remove(folder / "weights")
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from peft import PeftModel
from safetensors import SafetensorError
from torch.distributed.tensor import DTensor
from trl import SFTConfig, SFTTrainer

from amuro import checkpoints
from amuro.cells import write_atomic
from amuro.running import claims
from amuro.running.disk import SAVING


def check_space(model, sft: SFTConfig, folder: Path) -> None:
    """ValueError where a cell's folder cannot be written or the disk has no room for its weights and checkpoints."""
    weights = sum(weight.numel() for weight in model.parameters()) * 4
    need = weights * (1 if sft.save_strategy == "no" else SAVING)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}); give another --runs") from None
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ValueError(
            f"{folder}: {need / 2**30:.1f} GiB are needed for weights{' and checkpoints' * (need > weights)}, "
            f"{free / 2**30:.1f} GiB are free; make room or give another --runs"
        )


def save(trainer: SFTTrainer, tokenizer, folder: Path) -> None:
    """Write `weights/` under a cell's folder: safetensors, config and tokenizer, readable for all. With LoRA they are
    merged with the adapter, which `adapter/` keeps too. Each folder is either whole or absent.

    ValueError where one cannot be written.
    """
    model = trainer.model
    sharded = any(isinstance(weight, DTensor) for weight in model.parameters())
    gathered = trainer.accelerator.get_state_dict(model) if sharded else None  # all processes take part
    if PartialState().is_main_process:
        if isinstance(model, PeftModel):
            _write(folder / "adapter", model.save_pretrained)
            model = model.merge_and_unload()
        _write(folder / "weights", lambda place: _store(model, tokenizer, gathered, place))
    trainer.accelerator.free_memory()  # the optimizer's; also waits for the others


def _store(model, tokenizer, gathered: dict | None, place: Path) -> None:
    model.save_pretrained(place, state_dict=gathered)
    tokenizer.save_pretrained(place)


def _write(folder: Path, write: Callable) -> None:
    """A folder that is either whole or absent."""
    remove(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write(partial)
        for path in partial.iterdir():
            path.chmod(0o644)  # the library writes weights as 0600, which locks a group out of its own results
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"{folder}: cannot be written ({error}); nothing of it is kept") from None


def check(tuned: Path, record: dict) -> None:
    """ValueError where kept weights are not those of their cell's record: changed or replaced afterwards."""
    if checkpoints.digest(tuned) != record["weights"]:
        raise ValueError(f"{tuned}: not the weights of the cell's record; remove the folder to train the cell again")


def tidy(folder: Path, record: dict | None) -> None:
    """Remove what a killed command has left in a cell's folder: what it was writing or removing, weights of a repeated
    training that came to no record, and the checkpoints of one that is complete. Only under the cell's claim."""
    if PartialState().is_main_process:
        _tidy(folder, record)
    PartialState().wait_for_everyone()  # all look at what is there afterwards


def _tidy(folder: Path, record: dict | None) -> None:
    for path in [*folder.glob(".run.json.*"), *folder.glob("units/.*.parquet.*"), *folder.glob(f"{claims.ASIDE}*")]:
        path.unlink()
    tuned, left = folder / "weights", ["*.partial", "*.removed"]
    if record is not None and tuned.is_dir():
        newer = tuned.stat().st_mtime > (folder / "run.json").stat().st_mtime  # else there is no need to read them
        if newer and checkpoints.digest(tuned) != record["weights"]:
            remove(tuned)
        else:
            left.append("checkpoint-*")  # without weights they are of a training that is being repeated
    for pattern in left:
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def drop(tuned: Path, record: dict, keep_weights: str) -> None:
    """Remove a complete cell's weights, once evaluated or left by a killed command, where neither its record nor the
    command at hand keeps them. Only under the cell's claim."""
    if PartialState().is_main_process and record["settings"]["keep_weights"]["value"] == keep_weights == "none":
        remove(tuned)


def remove(folder: Path) -> None:
    """Remove a folder of weights; cut off half-way, nothing under its name is left."""
    removed = folder.with_name(f"{folder.name}.removed")
    if removed.is_dir():
        shutil.rmtree(removed)
    if folder.is_dir():
        shutil.rmtree(folder.rename(removed))
