"""Text to ids and back: the tokenizer with Dolly's keys, from a transformers folder or a GGUF file."""

from roslin.tokens.stream import TextStream
from roslin.tokens.tokenizer import Example, Tokenizer, encode_all

__all__ = ["Example", "TextStream", "Tokenizer", "encode_all"]
