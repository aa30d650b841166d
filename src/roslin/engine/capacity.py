"""How many tokens the cache may hold, from the memory that is free."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from roslin.engine.blocks import BLOCK, blocks_for
from roslin.memory import Device, cache_tokens
from roslin.model import ModelConfig


@dataclass(frozen=True)
class Occupancy:
    """What of the cache is in use, in tokens of whole blocks."""

    held: int
    """By requests that run."""
    kept: int
    """By nobody, in case that others begin alike."""
    capacity: int
    """The most that can be in use."""


@dataclass(frozen=True)
class Capacity:
    """What a cache has room for."""

    blocks: int
    positions: int
    """Tokens of a full-length request."""

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.blocks * BLOCK

    @property
    def requests(self) -> int:
        """Full-length requests at once."""
        return self.blocks // blocks_for(self.positions)

    def __str__(self) -> str:
        """In words, for people."""
        full = f"{self.requests:,} full-length requests" if self.requests != 1 else "1 full-length request"
        return f"{self.tokens:,} tokens, or {full} of {self.positions:,}"


def capacity(
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    max_batch: int,
    beside: int = 0,
    kept: torch.dtype | None = None,
) -> Capacity:
    """Room for `max_batch` full-length requests, or less where free memory is less.

    `dtype` is that of the weights, `kept` that of keys and values (None: the same). `beside`: bytes that another cache
    on the device needs for each of the tokens.
    """
    where: Device = "cuda" if device.type == "cuda" else "cpu"
    free, memory = free_memory(device)
    size = (kept or dtype).itemsize
    tokens = cache_tokens(config, dtype.itemsize, max_batch, free, memory, where, kept=size, beside=beside)
    return Capacity(tokens // BLOCK, config.positions)


def free_memory(device: torch.device) -> tuple[int, int]:
    """Bytes that can still be had on a device, and all that it has. On a GPU, what torch holds unused is free."""
    if device.type == "cuda":
        free, memory = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), memory
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([_available(memory), *_left_in_the_group()]), memory


def _available(memory: int) -> int:
    """What the kernel counts as available; where it does not say, all memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return memory


def _left_in_the_group() -> list[int]:
    """What a container's limit leaves, if there is one: files that are cached do not count, for they make way."""
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("file "))
        return [] if most == "max" else [int(most) - used + cached]
    except (OSError, ValueError, StopIteration):
        return []
