"""Amuro: what more pre-training buys after fine-tuning, and what fine-tuning makes a model forget."""

__version__ = "0.1.0"
