import pytest
import torch

from roslin.engine import ScoreRow, score, score_groups
from roslin.errors import InputError
from roslin.model import Decoder, scaled
from tiny_decoders import plain_logits, tiny_decoder


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
        score(neox, [ScoreRow([1, 2], 1), ScoreRow([1, 2], 0), ScoreRow([1] * 402, 1), ScoreRow([1, 99], 1)])
    text = str(error.value)
    assert "row 1" not in text
    for part in ("row 2: scoring starts at token 0 of 2", "row 3: 402 tokens", "row 4: ids outside"):
        assert part in text


def grown(prefix: int, rests: list[int], start: int) -> list[ScoreRow]:
    """Rows that begin with the same random ids and go on by themselves."""
    shared = torch.randint(0, 61, (prefix,)).tolist()
    return [ScoreRow([*shared, *torch.randint(0, 61, (rest,)).tolist()], start) for rest in rests]


def groups_of_all_kinds() -> list[list[ScoreRow]]:
    torch.manual_seed(1)
    winogrande = grown(5, [9, 7], 6)
    return [
        grown(12, [4, 9, 1, 3], 12),  # choices behind a context
        grown(30, [1, 1], 30),  # one token each: nothing but the context is read
        winogrande,  # scored from behind the place at which the rows part
        grown(0, [8, 6], 3),  # nothing in common
        grown(9, [5], 2),  # a row alone
        [ScoreRow(winogrande[0].ids, 4), ScoreRow(winogrande[0].ids, 9)],  # twice the same ids
        [ScoreRow([1, 2, 3, 4, 5, 6], 2), ScoreRow([1, 2, 3], 2)],  # one row begins like the other
        grown(7, [20, 2, 2], 3),  # scored in the shared part too
        *same_passage(),
    ]


def same_passage() -> list[list[ScoreRow]]:
    """Two groups that begin alike."""
    rows = grown(20, [4, 5], 21)
    return [[ScoreRow([*row.ids, ending], 22) for ending in (1, 2)] for row in rows]


@pytest.mark.parametrize("tokens", [1, 60, 4096])
def test_groups_score_as_their_rows_do_alone(decoder: Decoder, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.engine.scoring.LOGIT_ROWS", 7)
    groups = groups_of_all_kinds()
    found = dict(score_groups(decoder, groups, tokens))
    assert sorted(found) == list(range(len(groups)))
    for number, rows in enumerate(groups):
        for row, got in zip(rows, found[number], strict=True):
            logits = plain_logits(decoder, row.ids)
            picked = [(logits[place - 1], row.ids[place]) for place in range(row.start, len(row.ids))]
            assert got.log_likelihood == pytest.approx(sum(x.log_softmax(-1)[i].item() for x, i in picked), abs=1e-4)
            assert got.tokens == len(picked)
            assert got.greedy == all(x.argmax().item() == i for x, i in picked)


def test_what_a_group_shares_is_read_once(neox: Decoder) -> None:
    read: list[int] = []

    class Counting(type(neox)):  # type: ignore[misc]
        def hidden(self, ids_N, positions_N, attend):
            read.append(len(ids_N))
            return super().hidden(ids_N, positions_N, attend)

    counting = Counting(neox.config)
    counting.load_state_dict(neox.state_dict())
    [_] = score_groups(counting, [grown(30, [5, 4, 6], 30)])
    assert read.pop() == 30 + 4 + 3 + 5
    # Two questions about one passage, each with two endings of one token, which is not read.
    assert len(list(score_groups(counting, same_passage()))) == 2
    assert read.pop() == 20 + 4 + 5


def test_greedy_is_said_of_the_first_choice_alone(neox: Decoder) -> None:
    prompt = [3, 14, 15, 9, 2]
    best = plain_logits(neox, prompt)[-1].argmax().item()
    rows = [ScoreRow([*prompt, best], 5), ScoreRow([*prompt, (best + 1) % 61], 5)]
    [(_, [first, second])] = score_groups(neox, [rows])
    assert (first.greedy, second.greedy) == (True, False)


def test_a_group_without_rows_is_refused(neox: Decoder) -> None:
    with pytest.raises(InputError, match="without rows"):
        list(score_groups(neox, [[ScoreRow([1, 2], 1)], []]))


def test_positions_stretched_by_length_are_not_shared() -> None:
    stretched = tiny_decoder("gpt_neox")
    stretched = Decoder(scaled(stretched.config, "dynamic:2"))
    scaling = stretched.config.rotary_scaling
    assert scaling is not None
    rows = grown(scaling.original - 2, [3, 40], scaling.original - 2)
    [(_, found)] = score_groups(stretched, [rows])
    alone = [sum(logprobs) for row in rows for logprobs in score(stretched, [row])]
    assert [row.log_likelihood for row in found] == pytest.approx(alone, abs=1e-4)
