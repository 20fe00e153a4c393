"""The paper's numbers (arXiv 2408.06663) from its own published rows.

    python -m analysis.paper --results DIR --out DIR2     its tables, figures and claims
    from analysis.paper import rows                       those rows in the columns of our table

`collect(rows(folder), None, LEVELS)` is a study of them, with the chance levels of the sets that the authors score.
"""

from analysis.paper.authors import LEVELS, rows

__all__ = ["LEVELS", "rows"]
