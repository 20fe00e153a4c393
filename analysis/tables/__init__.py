# ruff: noqa: F401  the names of the package, imported here to be found here
"""Tables of the report: a study in, tidy DataFrames out.

    study = collect(table, results.load_scores("runs", table))
    gains(study), verdicts(study), forgetting(study), turning(study), ...

What is missing stays as a row that says so in `missing`; a study that has nothing of a kind has a table with columns
and no row. `test` says whether numbers are compared by example ("paired") or by means and standard errors ("unpaired").
"""

from analysis.tables.common import main_setting
from analysis.tables.curves import best_buy, turning
from analysis.tables.formats import format_means, format_trend, formats
from analysis.tables.gains import forgetting, gains, transfer
from analysis.tables.overview import overview
from analysis.tables.robustness import rates, seed_variance
from analysis.tables.shots import methods, shots
from analysis.tables.transitions import trajectories, transitions
from analysis.tables.verdicts import verdicts
