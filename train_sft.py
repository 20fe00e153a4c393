"""Fine-tune one pre-training checkpoint on one dataset, evaluate it, and record the cell.

    python train_sft.py --checkpoint olmo-1b@342000 --dataset mnli
    python train_sft.py --checkpoint nursery@200 --dataset paws --data_dir nursery/data --recipe nursery-sft

Hyper-parameters not given are the published ones (amuro/published.yaml). Everything goes under --runs; the same cell
twice is a no-op, a killed one goes on, a changed setting is another cell.
"""

from pathlib import Path

from trl import SFTConfig, TrlParser

from amuro import checkpoints, data, evaluation, settings, tracking, training
from amuro.cells import Cell, read_record, write_record
from amuro.encoding import encode_rows
from amuro.prompts import PROMPTS_VERSION
from amuro.tasks import DATASETS


def make_parser() -> TrlParser:
    """All flags: ours and every SFTConfig flag."""
    parser = TrlParser((settings.TrainingArguments, SFTConfig), allow_abbrev=False, description=__doc__)
    return settings.quiet(parser, "train_sft.py --checkpoint CHECKPOINT --dataset DATASET [any flag below]")


def main(argv: list[str] | None = None) -> Path:
    """Run one cell and return its folder. Raises ValueError on a user's mistake, RuntimeError on a broken training."""
    arguments, sft, origins = settings.parse(make_parser(), argv, stage="sft")
    training.share_batch(sft, arguments.batch_size, given=origins["per_device_train_batch_size"] != "library")
    checkpoint = checkpoints.resolve(arguments.checkpoint)
    rows = data.training_rows(arguments.dataset, arguments.data_dir, arguments.num_train_rows, arguments.sample_seed)
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
        hyperparameters=training.hyperparameters(sft, arguments.batch_size),
        seed=sft.seed,
    )
    folder = cell.folder(arguments.runs)
    weights = folder / "weights"
    record = read_record(folder)
    todo = evaluation.missing(folder, asked, record["weights"] if record else "")
    if record and not todo and (arguments.keep_weights == "none" or weights.is_dir()):
        print(f"complete: {folder}")
        return folder
    print(f"cell {cell.cell_id}: {folder}\n{settings.describe(origins, arguments, sft)}")
    sft.output_dir = str(folder)
    base = checkpoints.fetch(checkpoint)
    evaluation.check_model(base, asked, todo)

    with tracking.run(cell, arguments.runs, enabled="wandb" in sft.report_to, num_train_rows=len(rows.rows)) as run:
        if record and weights.is_dir():
            model, tokenizer = checkpoints.load(weights)
        else:
            model, tokenizer = checkpoints.load(base)
            family = DATASETS[arguments.dataset].reading.family
            examples, n_truncated = encode_rows(rows.rows, family, tokenizer, sft.max_length)
            trainer = training.trainer(model, tokenizer, sft, examples)
            trained = training.fit(trainer)
            training.save(trainer.model, tokenizer, weights)
            used = {"rows": len(examples), "rows_truncated": n_truncated, "rows_refused": rows.refused}
            record = write_record(
                folder,
                cell,
                weights=checkpoints.digest(weights),
                training={**trained, **used, "rows_origin": rows.origin, **training.hardware()},
                settings=settings.with_origins(origins, arguments, sft),
            )
            todo = evaluation.missing(folder, asked, record["weights"])
        evaluation.evaluate_units(model, tokenizer, weights, cell, folder, asked, todo, record["weights"], run)
    if arguments.keep_weights == "none":
        training.remove(weights)
    print(f"done: {folder}")
    return folder


if __name__ == "__main__":
    settings.script(main)
