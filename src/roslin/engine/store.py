"""A network's paged cache, and all by which its passes find their way through it."""

import torch

from roslin.engine.blocks import BlockPool
from roslin.engine.cache import KVCache
from roslin.engine.cpu.decoder import KernelDecoder
from roslin.engine.network import Network, SharedNetwork
from roslin.engine.resident import Resident
from roslin.engine.slots import Slots
from roslin.engine.streams import Streams


class Store:
    """The memory of keys and values, who holds which of its blocks, and where the sequences stand that run."""

    def __init__(
        self, network: Network, blocks: int, sequences: int, *, kernels: bool, kept: torch.dtype | None = None
    ) -> None:
        """Empty, with room for `blocks` of up to `sequences` at once. `kernels`: attention by Triton's.

        `kept` is the dtype of keys and values; None: the one that is usual for the network.
        """
        config, device = network.config, network.device
        kept = kept or usual_cache(network)
        if isinstance(network, SharedNetwork):
            self.cache, blocks = network.new_cache(blocks, sequences, kept)
        else:
            self.cache = KVCache(config, kept, device)
        self.pool = BlockPool(blocks, self.cache.provide)
        self.slots = Slots(sequences, config.positions)
        self.resident = Resident(self.slots, device)
        lengths = lengths_matter(network)
        self.streams = Streams(self.cache, self.slots, self.resident, kernels=kernels, reach=lengths)
        self.original = config.rotary_scaling.original if config.rotary_scaling and lengths else None
        """Positions beyond which keys depend on how long their sequence is; None where they never do."""


def usual_cache(network: Network) -> torch.dtype:
    """The dtype of keys and values unless another one is asked for."""
    return network.weights if isinstance(network, KernelDecoder) else network.dtype


def lengths_matter(network: Network) -> bool:
    """Whether a token's position turns it by how long its sequence is."""
    scaling = network.config.rotary_scaling
    return scaling is not None and scaling.kind == "dynamic"
