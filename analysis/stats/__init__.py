# ruff: noqa: F401  the names of the package, imported here to be found here
"""Statistics of the report: arrays in, numbers out. Nothing here reads a table or draws a figure.

    paired = compare(tuned_scores, base_scores)          mean difference, 95 % interval, p against the margin and 0
    found = verdicts([evidence(...), evidence(...)])     what was learned where, with Holm's correction over tasks

Scores are per example, in [0, 1]; the last axis is the examples, and rows are paired by position on it. Axes in front
are taken row by row. All resampling is seeded: equal input, equal output.
"""

from analysis.stats.comparisons import (
    ALPHA,
    MARGIN,
    Difference,
    Ratios,
    compare,
    compare_means,
    detectable,
    gain,
    holm,
    mcnemar,
    normal_difference,
    ratios_of_change,
)
from analysis.stats.curves import (
    SHARES,
    agreement,
    best_buys,
    curve_draws,
    normal_draws,
    turning_points,
)
from analysis.stats.estimates import (
    RESAMPLES,
    Estimate,
    Z,
    blocks,
    bootstrap,
    majority_rate,
    mean_interval,
    mean_of_means,
    percentiles,
    resample,
    standard_error,
    text_chance,
    wilson,
)
from analysis.stats.formats import (
    Range,
    format_range,
    mean_range,
    mean_trend,
    normal_noise,
    range_of_means,
    range_trend,
    trend_of_draws,
)
from analysis.stats.rates import envelope
from analysis.stats.seeds import Spread, seed_spread
from analysis.stats.transitions import (
    Transitions,
    learned_at,
    learned_by_chance,
    learned_share,
    transitions,
)
from analysis.stats.verdicts import (
    Evidence,
    Verdict,
    base_evidence,
    base_verdicts,
    evidence,
    evidence_of_means,
    verdicts,
)
