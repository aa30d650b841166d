"""A model as a judge: both orders, what a bias comes to, and replies without a verdict."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pairwise_played import Played, completion, failure, key_of
from roslin.errors import InputError
from roslin.evaluate.pairwise import JudgeUnusable, ModelJudge, Notebook, Pair, Verdict, ask_about, score
from roslin.evaluate.pairwise.filled import Filled

Make = Callable[..., Played]
PAIR = Pair(number=3, instruction="Say hello.", context="", reference="Hello.", left="Hi!", right="No.")
TEMPLATE = "{instruction}|{context}|{first}|{second}|"


def prefers(text: str) -> Callable[[dict[str, Any], int], Any]:
    """An honest judge: it prefers the answer that holds `text`, wherever it stands."""

    def play(body: dict[str, Any], number: int) -> Any:
        first = body["messages"][0]["content"].split("|")[2]
        return completion(f"Reasons.\nVERDICT: {'FIRST' if text in first else 'SECOND'}")

    return play


def test_an_honest_judge_is_asked_in_both_orders(played: Make) -> None:
    server = played(prefers("Hi"))
    verdict = ModelJudge(server.endpoint().chat, TEMPLATE).judge(PAIR)
    assert (verdict.item, verdict.choice, verdict.orders, verdict.consistent) == (3, "left", ("left", "left"), True)
    contents = [body["messages"][0]["content"] for body in server.bodies]
    assert [content.partition("\n")[0] for content in contents] == [
        "Say hello.|(none)|Hi!|No.|",
        "Say hello.|(none)|No.|Hi!|",
    ]
    assert verdict.replies == ("Reasons.\nVERDICT: FIRST", "Reasons.\nVERDICT: SECOND")


def test_a_judge_that_always_takes_the_first_decides_nothing(played: Make) -> None:
    server = played(lambda body, number: completion("VERDICT: FIRST"))
    verdict = ModelJudge(server.endpoint().chat).judge(PAIR)
    assert (verdict.choice, verdict.orders, verdict.consistent) == ("tie", ("left", "right"), False)


@pytest.mark.parametrize(("said", "choice"), [("TIE", "tie"), ("BOTH BAD", "both_bad")])
def test_verdicts_without_a_side(played: Make, said: str, choice: str) -> None:
    server = played(lambda body, number: completion(f"VERDICT: {said}"))
    verdict = ModelJudge(server.endpoint().chat).judge(PAIR)
    assert (verdict.choice, verdict.consistent) == (choice, True)


def test_a_malformed_reply_is_asked_for_again(played: Make) -> None:
    replies = ["I like both.", "VERDICT: FIRST", "VERDICT: SECOND"]
    server = played(lambda body, number: completion(replies[number]))
    verdict = ModelJudge(server.endpoint().chat).judge(PAIR)
    assert (verdict.choice, verdict.replies) == ("left", tuple(replies))
    roles = [message["role"] for message in server.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert server.bodies[1]["messages"][1]["content"] == "I like both."


def test_an_empty_reply_is_not_sent_back(played: Make) -> None:
    server = played(lambda body, number: completion("VERDICT: TIE" if number else None))
    assert ModelJudge(server.endpoint().chat).judge(PAIR).replies == ("", "VERDICT: TIE", "VERDICT: TIE")
    assert [len(body["messages"]) for body in server.bodies] == [1, 1, 1]


def test_no_verdict_is_made_up(played: Make) -> None:
    server = played(lambda body, number: completion("I cannot say."))
    with pytest.raises(InputError, match=r"2 replies without a clear verdict; the last one ends 'I cannot say\.'"):
        ModelJudge(server.endpoint().chat, attempts=2).judge(PAIR)
    assert len(server.bodies) == 2


class Plain:
    """A judge of one's own: no endpoint, no class to derive from."""

    def __init__(self, fails: Sequence[int] = (), error: type[Exception] = InputError) -> None:
        self.asked: list[int] = []
        self._fails, self._error = fails, error

    def judge(self, item: Pair) -> Verdict:
        self.asked.append(item.number)
        if item.number in self._fails:
            raise self._error(f"no verdict on {item.number}")
        return Verdict(item=item.number, choice="left")


def notebook(path: Path, **asked: Any) -> Notebook:
    return Notebook(path, {"sheet": "s", **asked})


def test_a_rerun_asks_only_what_is_missing(tmp_path: Path) -> None:
    pairs = key_of("ab" * 5).pairs
    first = ask_about(pairs, Plain(fails=[2, 7]), notebook(tmp_path / "n.jsonl"), at_once=3)
    assert first.failures == {2: "no verdict on 2", 7: "no verdict on 7"}
    assert (first.unasked, first.stopped) == (0, None)
    again = Plain()
    told: list[None] = []
    kept = notebook(tmp_path / "n.jsonl")
    second = ask_about(pairs, again, kept, on_progress=lambda: told.append(None))
    assert sorted(again.asked) == [2, 7]
    assert (second.failures, second.unasked, len(told)) == ({}, 0, 2)
    assert sorted(kept.verdicts) == list(range(1, 11))
    assert ask_about(pairs, Plain(fails=range(11)), notebook(tmp_path / "n.jsonl")).failures == {}


def test_a_line_that_a_crash_cut_off_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    pairs = key_of("aba").pairs
    ask_about(pairs, Plain(), notebook(path), at_once=1)
    path.write_bytes(path.read_bytes()[:-9])
    kept = notebook(path)
    assert sorted(kept.verdicts) == [1, 2]
    again = Plain()
    ask_about(pairs, again, kept)
    assert again.asked == [3]
    assert sorted(notebook(path).verdicts) == [1, 2, 3]


def test_replies_to_other_questions_are_not_gone_on_with(tmp_path: Path) -> None:
    notebook(tmp_path / "n.jsonl", model="m", prompt="p", body={"seed": 1})
    notebook(tmp_path / "n.jsonl", model="m", prompt="p", body={"seed": 1})
    with pytest.raises(InputError, match=r"other questions: body, model, prompt differ"):
        notebook(tmp_path / "n.jsonl", model="o", body={})
    (tmp_path / "x.jsonl").write_text("hello\n")
    with pytest.raises(InputError, match="is not a file of this command's replies"):
        notebook(tmp_path / "x.jsonl")
    (tmp_path / "y.jsonl").write_text('{"sheet": "s"}\n{"item": 1, "choice": "best"}\n')
    with pytest.raises(InputError, match=r"y.jsonl:2: choice \('best'\)"):
        notebook(tmp_path / "y.jsonl")


def test_an_unusable_judge_is_given_up_at_once(tmp_path: Path) -> None:
    judge = Plain(fails=range(99), error=JudgeUnusable)
    found = ask_about(key_of("a" * 40).pairs, judge, notebook(tmp_path / "n.jsonl"), at_once=1)
    assert found.stopped == "no verdict on 1"
    assert len(judge.asked) + found.unasked == 40
    assert len(found.failures) == len(judge.asked)


def test_a_judge_that_fails_in_a_row_is_given_up(played: Make, tmp_path: Path) -> None:
    server = played(lambda body, number: failure(500, "out of order"))
    judge = ModelJudge(server.endpoint(retries=1).chat)
    found = ask_about(key_of("a" * 40).pairs, judge, notebook(tmp_path / "n.jsonl"), at_once=2)
    assert found.stopped == "5 pairs in a row without a verdict"
    assert found.unasked > 0
    assert all("out of order" in reason for reason in found.failures.values())
    assert notebook(tmp_path / "n.jsonl").verdicts == {}


def test_an_error_of_a_judge_of_ones_own_is_not_hidden(tmp_path: Path) -> None:
    kept = notebook(tmp_path / "n.jsonl")
    with pytest.raises(ZeroDivisionError):
        ask_about(key_of("abab").pairs, Plain(fails=[3], error=ZeroDivisionError), kept, at_once=1)
    assert sorted(kept.verdicts) == [1, 2]


def test_from_endpoint_to_score(played: Make, tmp_path: Path) -> None:
    """An honest judge that prefers R1, R2 … : the right side, so whichever model stands there."""
    key = key_of("abaaaaabbbbb")
    kept = notebook(tmp_path / "n.jsonl")
    ask_about(key.pairs, ModelJudge(played(prefers("R")).endpoint().chat, TEMPLATE), kept)
    found = score(key, [Filled(sheet=key.sheet, judge="m", verdicts=tuple(kept.verdicts.values()))])
    assert (found.overall.wins, found.overall.losses) == (6, 6)
    assert found.judges[0].orders is not None
    assert found.judges[0].orders.inconsistent.estimate == 0.0
