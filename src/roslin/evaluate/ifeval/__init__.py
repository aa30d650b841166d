"""Instructions that a program can check: prompts, checks, and how many of them a model follows (IFEval)."""

from roslin.evaluate.ifeval.checks import CHECKS, UNCHECKED
from roslin.evaluate.ifeval.compare import IfevalComparison, Shift, compare_ifeval
from roslin.evaluate.ifeval.instruction import Instruction, loose_readings
from roslin.evaluate.ifeval.judge import AS_PUBLISHED, judge_ifeval
from roslin.evaluate.ifeval.prompt import ON_THE_HUB, OWN, CheckedPrompt, load_prompts
from roslin.evaluate.ifeval.report import Accuracy, Followed, IfevalReport

__all__ = [
    "AS_PUBLISHED",
    "CHECKS",
    "ON_THE_HUB",
    "OWN",
    "UNCHECKED",
    "Accuracy",
    "CheckedPrompt",
    "Followed",
    "IfevalComparison",
    "IfevalReport",
    "Instruction",
    "Shift",
    "compare_ifeval",
    "judge_ifeval",
    "load_prompts",
    "loose_readings",
]
