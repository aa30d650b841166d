"""One decoder in plain torch whose configuration covers the families, and its weights in and out of hub layouts.

This is the reference: whatever is faster elsewhere must equal it.
"""

from roslin.model.attention import Attend, PackedAttention, packed_positions, padded_logits
from roslin.model.config import ModelConfig
from roslin.model.decoder import Block, Decoder
from roslin.model.find import find_model
from roslin.model.open import load_config, load_decoder, load_for_answering, text_source
from roslin.model.save import save_decoder
from roslin.model.scaling import scaled
from roslin.model.vocabulary import fit_vocabulary

__all__ = [
    "Attend",
    "Block",
    "Decoder",
    "ModelConfig",
    "PackedAttention",
    "find_model",
    "fit_vocabulary",
    "load_config",
    "load_decoder",
    "load_for_answering",
    "packed_positions",
    "padded_logits",
    "save_decoder",
    "scaled",
    "text_source",
]
