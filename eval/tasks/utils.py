"""What the YAMLs beside this file name: lm-eval loads it by path, the code is in `amuro`."""

from amuro.harness import Choices, Generate, load  # noqa: F401
from amuro.labels import Labels  # noqa: F401
