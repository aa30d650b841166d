"""How byte-level tokenizers cut a text before they merge bytes, by the names that GGUF files have for it.

A GGUF file says only a name (`tokenizer.ggml.pre`). What it stands for is in the tokenizers that llama.cpp's converter
gives the name to, and in llama.cpp's own regular expressions where there is no such tokenizer (`default`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Regex, normalizers, pre_tokenizers

if TYPE_CHECKING:
    import tokenizers
    from tokenizers.pre_tokenizers import PreTokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SIGN = r"[^\r\n\p{L}\p{N}]?"
WORD = rf"{SIGN}\p{{L}}+"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED_WORD = rf"{SIGN}{UPPER}*{LOWER}+|{SIGN}{UPPER}+{LOWER}*"


@dataclass(frozen=True)
class Cutting:
    """Regular expressions, each of which cuts what those before it left; none of them stand for GPT-2's.

    With `digits`, each digit is cut off first. `composed` texts are brought to Unicode's form NFC. With `whole_words`,
    a piece that is a token is not merged from bytes. `begins` says whether texts begin with the bos token where a file
    does not say.
    """

    patterns: tuple[str, ...] = ()
    digits: bool = False
    composed: bool = False
    whole_words: bool = False
    begins: bool = False

    def apply(self, backend: tokenizers.Tokenizer) -> None:
        """Make `backend` cut texts in this way."""
        if self.composed:
            backend.normalizer = normalizers.NFC()
        steps: list[PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if self.digits else []
        steps += [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns]
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not self.patterns)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, last]) if steps else last


NEOX = Cutting(composed=True)
DIGITS = Cutting(digits=True)
LLAMA3 = (rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1,3}}|{SIGNS}|{REST}",)
QWEN2 = (rf"{CONTRACTIONS}|{WORD}|\p{{N}}|{SIGNS}|{REST}",)
TEKKEN = (rf"{CASED_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{REST}",)

CUTTINGS: dict[str, Cutting] = {
    "gpt-2": Cutting(),
    "mpt": NEOX,
    "olmo": NEOX,
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "refact": DIGITS,
    "llama3": Cutting(LLAMA3, whole_words=True, begins=True),
    "llama-v3": Cutting(LLAMA3, whole_words=True, begins=True),
    "llama-bpe": Cutting(LLAMA3, whole_words=True, begins=True),
    "falcon3": Cutting(LLAMA3, whole_words=True, begins=True),
    "dbrx": Cutting(LLAMA3),
    "smaug-bpe": Cutting(LLAMA3),
    "qwen2": Cutting(QWEN2, composed=True),
    "deepseek-r1-qwen": Cutting(QWEN2),
    "tekken": Cutting(TEKKEN, whole_words=True, begins=True),
    "default": Cutting((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}
"""The Pythia, GPT-NeoX and Dolly tokenizers go by the names `olmo` and `mpt`, whose token ids theirs are."""

UNSAID = {"gptneox": "olmo", "qwen2": "qwen2", "qwen3": "qwen2"}
"""What `default`, or no name at all as in files of 2023, stands for in architectures with one tokenizer each."""
