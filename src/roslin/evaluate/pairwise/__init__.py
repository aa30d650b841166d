"""Two models side by side: blind sheets for people, models as judges, and the score of what they say."""

from roslin.evaluate.pairwise.agreement import Agreement, cohen, fleiss
from roslin.evaluate.pairwise.answers import Answered, answer_with_both
from roslin.evaluate.pairwise.endpoint import Endpoint, JudgeUnusable
from roslin.evaluate.pairwise.filled import Filled, read_filled
from roslin.evaluate.pairwise.inquiry import Notebook, Outcome, ask_about
from roslin.evaluate.pairwise.key import Item, Key, read_key
from roslin.evaluate.pairwise.model_judge import ModelJudge
from roslin.evaluate.pairwise.pair import Pair
from roslin.evaluate.pairwise.score import JudgeScore, Score, Standing, score
from roslin.evaluate.pairwise.sheet import as_page, draw, make_key
from roslin.evaluate.pairwise.sign_test import sign_test
from roslin.evaluate.pairwise.template import read_template
from roslin.evaluate.pairwise.verdict import Choice, Judge, Verdict

__all__ = [
    "Agreement",
    "Answered",
    "Choice",
    "Endpoint",
    "Filled",
    "Item",
    "Judge",
    "JudgeScore",
    "JudgeUnusable",
    "Key",
    "ModelJudge",
    "Notebook",
    "Outcome",
    "Pair",
    "Score",
    "Standing",
    "Verdict",
    "answer_with_both",
    "as_page",
    "ask_about",
    "cohen",
    "draw",
    "fleiss",
    "make_key",
    "read_filled",
    "read_key",
    "read_template",
    "score",
    "sign_test",
]
