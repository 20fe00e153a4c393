"""Keys and values in memory that is reserved once: nothing is copied as a text grows (transformers' own cache
concatenates, and so copies everything, at each step)."""

import torch
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, capacity, dim), reserved at the first use and filled in place.

    `prefix` is a layer of one row that all rows begin with.
    """

    def __init__(self, capacity: int, prefix: DynamicLayer | None = None):
        super().__init__()
        self.capacity, self.prefix, self.length = capacity, prefix, prefix.get_seq_length() if prefix else 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.memory = [
            states.new_empty(*states.shape[:2], self.capacity, states.shape[3]) for states in (key_states, value_states)
        ]
        if self.prefix is not None:
            self.memory[0][:, :, : self.length] = self.prefix.keys
            self.memory[1][:, :, : self.length] = self.prefix.values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_, **__):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.memory[0][:, :, start : self.length] = key_states
        self.memory[1][:, :, start : self.length] = value_states
        self.keys, self.values = (states[:, :, : self.length] for states in self.memory)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows."""
        self.memory = [states[rows] for states in self.memory]
        self.keys, self.values = (states[:, :, : self.length] for states in self.memory)

    @classmethod
    def joined(cls, parts: list["ReservedLayer"], length: int, capacity: int) -> "ReservedLayer":
        """The rows of several layers in one, each part's columns moved to the right up to `length`."""
        layer, first = cls(capacity), parts[0]
        layer.dtype, layer.device, layer.is_initialized, layer.length = first.dtype, first.device, True, length
        rows = sum(part.keys.shape[0] for part in parts)
        layer.memory = [each.new_zeros(rows, each.shape[1], capacity, each.shape[3]) for each in first.memory]
        start = 0
        for part in parts:
            end = start + part.keys.shape[0]
            layer.memory[0][start:end, :, length - part.length : length] = part.keys
            layer.memory[1][start:end, :, length - part.length : length] = part.values
            start = end
        return layer
