"""Attention of a layer whose products are made elsewhere: heads apart, turned, and gathered together again."""

from torch import Tensor

from roslin.model import Attend, Block, ModelConfig
from roslin.model.rotary import Turns


class HeadAttention:
    """What stands between the product for queries, keys and values and the one behind attention."""

    def __init__(self, config: ModelConfig, block: Block, *, turned: bool = False) -> None:
        """`turned`: the first product turns queries and keys itself, unless they are normed before."""
        self._layer = block.layer
        self._head_dim = config.head_dim
        self._heads = (config.heads, config.kv_heads, config.kv_heads)
        self._normed = block.normed_heads if config.qk_norm else None
        self._turns = self._normed is not None or not turned

    def __call__(self, qkv_NA: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """What each token gathers, [N, H * K], of queries, keys and values [N, (H + 2 G) * K]."""
        heads_NGK = qkv_NA.view(len(qkv_NA), sum(self._heads), self._head_dim)
        if self._normed is not None:
            heads_NGK = self._normed(heads_NGK)
        if self._turns:
            heads_NGK = turns.apply(heads_NGK)
        q_NHK, k_NGK, v_NGK = heads_NGK.split_with_sizes(self._heads, 1)
        return attend(self._layer, q_NHK, k_NGK, v_NGK).flatten(1).contiguous()
