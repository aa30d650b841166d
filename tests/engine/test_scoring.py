from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.engine import ScoreRow, score, score_groups
from roslin.engine.scoring import BRANCHED
from roslin.engine.tree import ChainAttention, Tree, TreeAttention
from roslin.errors import InputError, MachineError
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


@pytest.mark.parametrize("attention", [ChainAttention, TreeAttention])
@pytest.mark.parametrize("tokens", [1, 60, 4096])
def test_groups_score_as_their_rows_do_alone(
    decoder: Decoder, tokens: int, attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BRANCHED, "cpu", attention)
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
        def hidden(self, ids_N, positions_N, attend, places_M=None):
            read.append(len(ids_N))
            return super().hidden(ids_N, positions_N, attend, places_M)

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


@st.composite
def groups_of_rows(draw: st.DrawFn) -> list[list[ScoreRow]]:
    """Rows that begin alike or not, are each other's beginnings, or are equal: few different ids see to that."""
    ids = st.lists(st.integers(0, draw(st.sampled_from([1, 2, 60]))), max_size=12)
    stem = draw(ids)

    def row() -> ScoreRow:
        text = [*stem[: draw(st.integers(0, len(stem)))], *draw(ids), 1, 2]
        return ScoreRow(text, draw(st.integers(1, len(text) - 1)))

    groups = [[row() for _ in range(draw(st.integers(1, 4)))] for _ in range(draw(st.integers(1, 4)))]
    return groups + groups[: draw(st.integers(0, 1))]


SCORED_ANYHOW = [("gpt_neox", ""), ("mistral", ""), ("qwen3", ""), ("gpt_neox", "dynamic:3"), ("llama", "yarn:4")]


@pytest.mark.parametrize(("family", "scaling"), SCORED_ANYHOW)
def test_any_groups_in_any_passes_score_as_their_rows_do_alone(family: str, scaling: str) -> None:
    plain = tiny_decoder(family, positions=10 if scaling else 40)
    decoder = plain
    if scaling:
        decoder = Decoder(scaled(plain.config, scaling))
        decoder.load_state_dict(plain.state_dict())

    def alone(row: ScoreRow) -> float:
        logprobs = plain_logits(decoder, row.ids[:-1]).log_softmax(-1)
        return sum(logprobs[place - 1, row.ids[place]].item() for place in range(row.start, len(row.ids)))

    attentions = st.sampled_from([ChainAttention, TreeAttention])

    @settings(max_examples=25, deadline=None)
    @given(groups_of_rows(), st.sampled_from([1, 10, 30, 1000]), st.sampled_from([1, 20, 1000]), attentions)
    def check(groups: list[list[ScoreRow]], tokens: int, longest: int, attention: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(BRANCHED, "cpu", attention)
            patch.setattr("roslin.engine.scoring.LONGEST_TREE", longest)
            found = dict(score_groups(decoder, groups, tokens))
        assert sorted(found) == list(range(len(groups)))
        for number, rows in enumerate(groups):
            assert [row.log_likelihood for row in found[number]] == pytest.approx(list(map(alone, rows)), abs=1e-4)

    check()


def test_no_tree_grows_past_a_bound_however_many_tokens_a_pass_may_read(
    neox: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask has the square of a tree's tokens: rows with one id in common, and groups with many, fall into several."""
    longest: list[int] = []

    class Noting(TreeAttention):
        def __init__(self, trees: Sequence[Tree], *how: Any) -> None:
            longest.append(max(tree.size for tree in trees))
            super().__init__(trees, *how)

    monkeypatch.setattr("roslin.engine.scoring.LONGEST_TREE", 100)
    monkeypatch.setitem(BRANCHED, "cpu", Noting)
    torch.manual_seed(2)
    many = grown(1, [30] * 12, 20)
    stem = grown(40, [1], 1)[0].ids[:40]
    alike = [[ScoreRow([*stem, *row.ids], 41) for row in grown(0, [8, 8], 1)] for _ in range(12)]
    assert len(list(score_groups(neox, [many, *alike], 10_000))) == 13
    assert max(longest) <= 100


def test_questions_of_a_long_passage_are_read_together_in_small_passes_too(
    neox: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is in what they differ, not how long the passage is."""
    sizes: list[int] = []
    plain = neox.hidden
    monkeypatch.setattr(neox, "hidden", lambda ids_N, *how: (sizes.append(len(ids_N)), plain(ids_N, *how))[1])
    torch.manual_seed(3)
    passage = grown(200, [1], 1)[0].ids[:200]
    questions = [grown(0, [6], 1)[0].ids for _ in range(3)]
    groups = [[ScoreRow([*passage, *asked, answer], 206) for answer in (1, 2)] for asked in questions]
    assert len(list(score_groups(neox, groups, 100))) == 3
    assert sum(sizes) <= 200 + 3 * 6


def test_no_memory_is_told_as_what_the_machine_cannot(neox: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(neox, "hidden", full)
    with pytest.raises(MachineError, match="Out of memory on cpu"):
        list(score_groups(neox, [[ScoreRow([1, 2], 1)]]))
