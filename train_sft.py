"""Fine-tune one pre-training checkpoint on one dataset, evaluate it, and record the cell.

    python train_sft.py --checkpoint olmo-1b@342000 --dataset mnli
    python train_sft.py --checkpoint nursery@200 --dataset paws --data_dir nursery/data --recipe nursery-sft

Hyper-parameters not given are the published ones (amuro/published.yaml). Everything goes under --runs; the same cell
twice is a no-op, a killed one is taken up again, a changed setting is another cell.
"""

from pathlib import Path

from trl import ModelConfig, SFTConfig, TrlParser, get_peft_config

from amuro import checkpoints, data, evaluation, settings, tracking, training, weights
from amuro.cells import Cell, read_record
from amuro.encoding import encode_rows
from amuro.prompts import PROMPTS_VERSION
from amuro.registry.fetching import fetch
from amuro.resume import Keeper
from amuro.running import claims, disk, ledger
from amuro.tasks import DATASETS


def make_parser() -> TrlParser:
    """All flags: ours, every SFTConfig flag, and LoRA's."""
    parser = TrlParser((settings.TrainingArguments, SFTConfig, ModelConfig), allow_abbrev=False, description=__doc__)
    return settings.quiet(parser, "train_sft.py --checkpoint CHECKPOINT --dataset DATASET [any flag below]")


def read(argv: list[str] | None = None) -> tuple:
    """(our arguments, SFTConfig, ModelConfig, origins of their values). ValueError on a flag that is wrong."""
    return settings.parse(make_parser(), argv, stage="sft")


def main(argv: list[str] | None = None) -> Path:
    """Run one cell and return its folder. Raises ValueError on a user's mistake, RuntimeError on a broken training,
    Preempted where SIGTERM stopped the training, Claimed where another command has the cell."""
    arguments, sft, lora, origins = read(argv)
    training.share_batch(sft, arguments.batch_size, given=origins["per_device_train_batch_size"] != "derived")
    checkpoint = checkpoints.resolve(arguments.checkpoint)
    rows = data.training_rows(arguments.dataset, arguments.data_dir, arguments.num_train_rows, arguments.sample_seed)
    rows, held_out = rows.split(arguments.held_out_rows)
    family = DATASETS[arguments.dataset].reading.family
    asked = evaluation.request(arguments, arguments.dataset)
    cell = Cell(
        family=checkpoint.family,
        checkpoint=checkpoint.name,
        step=checkpoint.step,
        tokens_b=checkpoint.tokens_b,
        base=checkpoint.base,
        stage="sft",
        dataset=arguments.dataset,
        dataset_digest=rows.digest,
        prompts_version=PROMPTS_VERSION,
        hyperparameters=training.hyperparameters(sft, arguments.batch_size, lora),
        seed=sft.seed,
    )
    folder = cell.folder(arguments.runs)
    tuned = folder / "weights"
    ledger.about(folder, asked.units)
    tracked = {"enabled": "wandb" in sft.report_to, "parts": (arguments, sft, lora), "log_model": arguments.log_model}
    with claims.claim(folder, arguments.if_claimed) as lease:
        record = read_record(folder)
        todo = evaluation.missing(folder, asked, record["weights"] if record else "")
        weights.tidy(folder, record)
        if record and not todo and (arguments.keep_weights == "none" or tuned.is_dir()):
            weights.drop(tuned, record, arguments.keep_weights)
            training.say(f"complete: {folder}")
            tracking.repeat(cell, folder, **tracked, num_train_rows=len(rows.rows))
            return folder
        trains = not (record and tuned.is_dir())
        if trains:
            disk.refuse(folder)
        else:
            weights.check(tuned, record)
        sft.output_dir = str(folder)
        training.say(f"cell {cell.cell_id}: {folder}\n{settings.describe(origins, arguments, sft, lora)}")
        base = fetch(checkpoint)
        training.check_length(base, sft.max_length)
        evaluation.check_model(base, asked, todo)
        if trains:  # what is wrong with a row is said before the model is loaded
            reader = checkpoints.load_tokenizer(base)
            examples, truncated = encode_rows(rows.rows, family, reader, sft.max_length)
            unseen, _ = encode_rows(held_out, family, reader, sft.max_length)

        with tracking.run(cell, folder, **tracked, num_train_rows=len(rows.rows)) as run:
            if trains:
                model, tokenizer = checkpoints.load(base, device="cpu", attention=lora.attn_implementation, base=True)
                weights.check_space(model, sft, folder)
                held = [training.Held(lease)]
                trainer = training.trainer(model, tokenizer, sft, examples, get_peft_config(lora), held)
                keeper = Keeper(folder, cell.cell_id, keep=sft.save_total_limit or 1)
                trained = training.fit(trainer, keeper, unseen)
                lease.check()
                weights.save(trainer, tokenizer, folder)
                trained |= {"rows": len(examples), "rows_truncated": truncated, "rows_refused": rows.refused}
                trained |= {"rows_origin": rows.origin}
                values = settings.with_origins(origins, arguments, sft, lora)
                lease.check()
                record = training.write_record(folder, cell, keeper, trained, values, again=record is not None)
                todo = evaluation.missing(folder, asked, record["weights"])
                del model, trainer
            if todo:
                model, tokenizer = checkpoints.load(tuned)  # what is evaluated is what is stored
                evaluation.evaluate_units(model, tokenizer, tuned, cell, folder, asked, todo, record["weights"], run)
        lease.check()
        weights.drop(tuned, record, arguments.keep_weights)
        training.say(f"done: {folder}")
    return folder


if __name__ == "__main__":
    settings.script(main, "train_sft.py")
