"""Texts as ids the way the LM Evaluation Harness makes them, for any tokenizer.

Source of the rules: lm_eval 0.4.13, `TemplateLM.loglikelihood` and `_encode_pair` (api/model.py) and
`HFLM.tok_encode` (models/huggingface.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roslin.engine import ScoreRow
from roslin.errors import InputError

EncodeTexts = Callable[[Sequence[str], bool], list[list[int]]]
"""Ids of texts; the flag says whether they get what every text begins with. Special tokens in them are special."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer under the harness's rules.

    `prefix_id` stands for a context that is empty, and a text that begins with `prefix_text` gets no other beginning.
    `marks` says whether texts get the tokenizer's own beginning at all. `ending_blank` are the special tokens that end
    with blanks, as Dolly's response key does.
    """

    texts: EncodeTexts
    prefix_id: int
    prefix_text: str
    marks: bool
    ending_blank: Sequence[str]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as a prompt begins."""
        begun = [self.marks and not text.startswith(self.prefix_text) for text in texts]
        with_mark = iter(self.texts([text for text, mark in zip(texts, begun, strict=True) if mark], True))
        without = iter(self.texts([text for text, mark in zip(texts, begun, strict=True) if not mark], False))
        return [next(with_mark if mark else without) for mark in begun]

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[ScoreRow]:
        """Each (context, continuation) as one row of ids, of which the continuation's are scored.

        A row is the context's own ids and, of those of both in one, what stands behind as many: where a token reaches
        over the border, the two do not belong together, and HFLM does just so. Blanks that a context ends with count
        as the continuation's. Raises InputError naming every pair whose continuation has no tokens.
        """
        ended = [self._without_blanks(context) for context, _ in pairs]
        contexts = list(dict.fromkeys(end for (context, _), end in zip(pairs, ended, strict=True) if context))
        known = dict(zip(contexts, self.encode(contexts), strict=True))
        wholes = iter(self.encode([context + continuation for context, continuation in pairs if context]))
        bare = iter(self.texts([continuation for context, continuation in pairs if not context], False))
        rows = [
            _behind(known[end], next(wholes)) if context else self._behind_nothing(next(bare))
            for (context, _), end in zip(pairs, ended, strict=True)
        ]
        check_rows(pairs, rows)
        return rows

    def _behind_nothing(self, continuation: list[int]) -> ScoreRow:
        """A continuation behind the prefix token, unless it begins with that itself."""
        ids = continuation if continuation[:1] == [self.prefix_id] else [self.prefix_id, *continuation]
        return ScoreRow(ids, 1)

    def _without_blanks(self, context: str) -> str:
        """The context up to the blanks that the continuation takes over: none that belong to a special token.

        Here the harness itself goes wrong: it cuts the newline off Dolly's response key, which then is no such token
        any more but three others, and so takes the continuation's first two tokens for the context's.
        """
        end = len(context.rstrip())
        for token in self.ending_blank:
            place = context.rfind(token)
            if place >= 0:
                end = max(end, place + len(token))
        return context[:end]


def check_rows(pairs: Sequence[tuple[str, str]], rows: Sequence[ScoreRow]) -> None:
    """Raise InputError naming every (context, continuation) whose row has no token to score, or none before it."""
    empty = [number for number, row in enumerate(rows) if row.scored < 1 or row.start < 1]
    if empty:
        named = [(number + 1, *pairs[number]) for number in empty[:10]]
        shown = "\n".join(f"{n}: context {_end(context)!r}, continuation {rest!r}" for n, context, rest in named)
        raise InputError(f"{len(empty)} of {len(rows)} requests have no token to score or none before it:\n{shown}")


def _behind(context: list[int], whole: list[int]) -> ScoreRow:
    return ScoreRow([*context, *whole[len(context) :]], len(context))


def ending_blank(special: Sequence[str]) -> list[str]:
    """Those of a tokenizer's special tokens that end with blanks and do not only consist of them."""
    return [content for content in special if content.strip() and content != content.rstrip()]


def fitting(row: ScoreRow, length: int, name: str) -> ScoreRow:
    """The row without the beginning that is too long for `length` positions, as HFLM cuts it.

    Raises InputError, calling the row `name`, when the continuation alone is longer than that.
    """
    over = row.read - length
    if over <= 0:
        return row
    if row.scored > length:
        raise InputError(f"{name}: a continuation has {row.scored} tokens, and the model has {length} positions.")
    return ScoreRow(row.ids[over:], row.start - over)


def _end(text: str) -> str:
    return text if len(text) <= 60 else f"…{text[-60:]}"
