"""What the YAMLs beside this file name: lm-eval loads it by path, the code is in `amuro.harness`."""

from amuro.harness import Choices, Generate, Labels, load  # noqa: F401
