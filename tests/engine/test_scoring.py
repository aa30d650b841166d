import pytest
import torch

from roslin.engine import ScoreRow, score
from roslin.errors import InputError
from roslin.model import Decoder
from tiny_decoders import plain_logits


def test_scores_equal_the_plain_log_probabilities(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small limits, so that rows fall into several passes and logits into several chunks.
    monkeypatch.setattr("roslin.engine.scoring.TOKENS_PER_PASS", 50)
    monkeypatch.setattr("roslin.engine.scoring.LOGIT_ROWS", 7)
    torch.manual_seed(0)
    shapes = [(2, 1), (30, 4), (60, 59), (9, 1), (9, 8)]
    rows = [ScoreRow(torch.randint(0, 61, (length,)).tolist(), start) for length, start in shapes]
    for row, found in zip(rows, score(decoder, rows), strict=True):
        logprobs = plain_logits(decoder, row.ids).log_softmax(-1)
        expected = [logprobs[place - 1, row.ids[place]].item() for place in range(row.start, len(row.ids))]
        assert found == pytest.approx(expected, abs=1e-4)


def test_rows_that_cannot_be_scored_are_all_named(neox: Decoder) -> None:
    with pytest.raises(InputError) as error:
        score(neox, [ScoreRow([1, 2], 1), ScoreRow([1, 2], 0), ScoreRow([1] * 401, 1), ScoreRow([1, 99], 1)])
    text = str(error.value)
    assert "row 1" not in text
    for part in ("row 2: scoring starts at token 0 of 2", "row 3: 401 tokens", "row 4: ids outside"):
        assert part in text
