"""Turns the one results table into statistics, tables, figures and one report: python -m analysis.report --help."""
