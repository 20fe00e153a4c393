"""Figures: frames that they draw (data), drawings (charts), the list of all (catalogue), files (files)."""

from analysis.figures.charts import CONFIG, PALETTE, axis_of
from analysis.figures.data import figure_frames
from analysis.figures.files import save, save_all

__all__ = ["CONFIG", "PALETTE", "axis_of", "figure_frames", "save", "save_all"]
