"""Which columns the page's tables show, under which headings, and what is said above each table."""

P_VALUES = ("p_pretraining", "p_finetuning", "p_latent", "p_above_chance", "mrc_p", "p")
SHARES = ("wrong_right", "right_wrong", "wrong_right_by_chance", "right_wrong_by_chance", "seed_share")
WHO = {"family": "family", "dataset": "tuned on", "learning_rate": "learning rate"}
TABLES = {  # attribute of Report -> (heading, columns, caption)
    "overview": ("What there is", {"family": "family", "stage": "stage", "dataset": "dataset",
        "learning_rate": "learning rate", "checkpoints": "checkpoints", "checkpoints_expected": "of",
        "seeds": "seeds", "tasks": "tasks", "points": "points", "missing": "with gaps"},
        "A point is one task in one setting, method and metric at one checkpoint, averaged over seeds."),
    "verdicts": ("Verdicts and their tests", {**WHO, "task": "task", "relation": "relation", "verdict": "verdict",
        "caveat": "but", "latent": "latent", "rise": "BASE rise", "above_chance": "BASE − chance",
        "gain": "tuned − BASE", "tuned_above_chance": "tuned − chance", "gain_detectable": "detectable",
        "tuned_rise": "tuned rise", "p_pretraining": "p pre-training", "p_finetuning": "p fine-tuning",
        "p_latent": "p latent", "p_above_chance": "p tuned > chance", "n": "n", "seeds": "seeds",
        "one_seed": "rests on one seed", "missing": "missing"},
        "Rises are from the first to the last checkpoint; p-values are one-sided against the margin and Holm-adjusted. "
        "Detectable: how far beyond the margin a gain must be to be found with 80 % power by one test, before the "
        "correction over tasks. A row with nothing in `tuned on` judges BASE alone."),
    "forgetting": ("Forgetting and transfer", {**WHO, "relation": "on", "checkpoint": "checkpoint",
        "change": "tuned − BASE", "tasks": "tasks", "tasks_expected": "of", "n": "n", "seeds": "seeds", "mrc": "MRC",
        "mrc_p": "p (MRC ≠ 0)", "median_ratio": "median ratio", "base_zero": "BASE is 0 (no ratio)",
        "missing": "missing"},
        "Change on the tasks of the other datasets (cross_task) and on the benchmarks, mean over tasks; p is two-sided "
        "and uncorrected."),
    "format_means": ("Prompt formats", {"checkpoint": "checkpoint", "num_shots": "shots", "base": "BASE",
        "tuned": "tuned", "tasks": "tasks", "tasks_expected": "of", "tunings": "tunings", "tunings_expected": "of",
        "n": "n"},
        "Best minus worst prompt format, mean over the id and ood tasks of the tuned models; per task in "
        "tables/formats.csv."),
    "format_trend": ("Does the prompt matter less with more pre-training?", {**WHO, "stage": "stage", "task": "task",
        "num_shots": "shots", "slope": "slope", "checkpoints": "checkpoints", "checkpoints_expected": "of",
        "tasks": "tasks", "tasks_expected": "of", "n": "n", "missing": "missing"},
        "How much best minus worst format grows with ten times the tokens (least squares over the checkpoints); below "
        "0 the prompt matters less and less."),
    "turning": ("Turning points", {**WHO, "task": "task", "relation": "relation", "before_base": "BASE: after",
        "turning_base": "by", "share_base": "of resamples", "before_tuned": "tuned: after", "turning_tuned": "by",
        "share_tuned": "of resamples", "overlap": "at the same place", "share_overlap": "so in resamples",
        "apart": "clearly apart", "checkpoints": "checkpoints",
        "checkpoints_expected": "of", "missing": "missing"},
        "Where the curve of BASE and of the tuned models stops rising by more than the margin; how many of the "
        "resampled curves turn at the same checkpoint."),
    "best_buy": ("Best buy", {**WHO, "task": "task", "relation": "relation", "checkpoint": "checkpoint",
        "tokens_b": "tokens (billions)", "score": "score", "best_checkpoint": "best at", "best_score": "best score",
        "share": "of resamples", "checkpoints": "checkpoints",
        "checkpoints_expected": "of"},
        "The earliest checkpoint whose tuned score is not worse than the best one's by more than the margin."),
    "shots": ("Number of shots", {**WHO, "stage": "stage", "task": "task", "checkpoint": "checkpoint",
        "prompt_format": "prompt", "num_shots": "shots", "value": "score", "against": "against shots",
        "difference": "difference", "p": "p", "n": "n", "seeds": "seeds"},
        "Scores by the number of examples in the prompt, and the difference to that with four (else to the fewest), at "
        "the last checkpoint; p is two-sided and uncorrected."),
    "transitions": ("Answers turned by tuning", {**WHO, "task": "task", "checkpoint": "checkpoint",
        "wrong_right": "wrong → right", "wrong_right_by_chance": "by chance", "right_wrong": "right → wrong",
        "right_wrong_by_chance": "by chance", "p": "p", "n": "n", "seeds": "seeds"},
        "Shares of the examples that BASE has wrong and the tuned model right, and the reverse, beside what "
        "independent answers at the same rates would give, at the last checkpoint; p: both are as likely, two-sided "
        "and uncorrected (of one seed McNemar's test, of several a paired bootstrap)."),
    "seed_variance": ("Seeds", {**WHO, "task": "task", "checkpoint": "checkpoint", "seeds": "seeds", "value": "score",
        "between_sd": "SD between seeds", "within_sd": "SD over examples", "seed_share": "share of seeds",
        "verdict_on_one_seed": "verdict on each seed alone", "verdicts_agree": "agree"},
        "How much of a score is the seed's: standard deviations, and the seeds' share of both variances, at the last "
        "checkpoint."),
    "rates": ("Learning rates", {"family": "family", "stage": "stage", "dataset": "tuned on", "task": "task",
        "checkpoint": "checkpoint", "base": "BASE", "fixed_rate": "one rate", "fixed": "score at it",
        "best_rate": "best rate here", "best": "score at it", "rates": "rates", "verdicts": "verdicts",
        "contradiction": "contradiction"},
        "The score at the one rate that is best over all checkpoints, and at the best rate of each (too high by the "
        "noise of that choice). Contradiction: one rate says the opposite of another."),
    "methods": ("Ways of reading an answer", {"family": "family", "checkpoint": "checkpoint", "stage": "stage",
        "dataset": "dataset", "learning_rate": "learning rate", "task": "task", "prompt_format": "prompt",
        "num_shots": "shots", "apply_chat_template": "chat template", "method": "method", "value": "score",
        "chance": "chance", "n": "n", "n_unparsable": "unparsable", "seeds": "seeds"},
        "Scores at the last checkpoint, of the tasks whose answers were read in more than one way. Unparsable: answers "
        "without a label, of all seeds; they count as wrong."),
    "warnings": ("Warnings", {"family": "family", "stage": "stage", "dataset": "tuned on", "task": "task",
        "prompt_format": "prompt", "num_shots": "shots", "method": "answers read by",
        "share_truncated": "inputs shortened", "share_unparsable": "answers without a label", "n": "n",
        "cells": "cells"},
        "Inputs that were shortened to fit the model's context, and answers in which no label was found (they count as "
        "wrong): shares of all examples of the cells that have any."),
    "coverage": ("Coverage", {"family": "family", "checkpoint": "checkpoint", "stage": "stage", "dataset": "dataset",
        "learning_rate": "learning rate", "seed": "seed", "units_missing": "units missing", "units_expected": "of",
        "missing": "what", "why": "why", "command": "command that fills it"},
        "What other cells of the same kind have, or what was asked for, and is not there."),
    "costs": ("Cost", {"family": "family", "dataset": "dataset", "phase": "phase", "relation": "tasks",
        "cells": "cells", "device": "device", "gpu_hours": "GPU-hours", "cpu_hours": "CPU-hours",
        "paper_gpu_hours": "the paper's GPU-hours"},
        "Hours of training and evaluation per dataset, as the cells recorded them; no dataset: BASE. Of the paper's "
        "own family its hours (Table 4) stand beside them."),
    "provenance": ("Provenance", {"what": "what", "value": "value", "cells": "cells"},
        "What the records of the cells say of themselves, and how many cells say it."),
}  # fmt: skip
