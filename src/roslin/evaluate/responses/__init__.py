"""Judging by held-out instruction records: what a model makes of the responses, and what it answers itself."""

from roslin.evaluate.responses.change import Change
from roslin.evaluate.responses.compare import Changes, ResponseComparison, compare_responses
from roslin.evaluate.responses.drawing import Drawing
from roslin.evaluate.responses.figures import Figure, Figures, Quartiles
from roslin.evaluate.responses.judge import Progress, judge_responses
from roslin.evaluate.responses.judged import Judged, LeftOut
from roslin.evaluate.responses.likelihood import Likelihood
from roslin.evaluate.responses.metrics import METRICS, Metric
from roslin.evaluate.responses.report import ResponseReport
from roslin.evaluate.responses.rouge import rouge_l
from roslin.evaluate.responses.samples import samples_page
from roslin.evaluate.responses.traits import Traits, traits

__all__ = [
    "METRICS",
    "Change",
    "Changes",
    "Drawing",
    "Figure",
    "Figures",
    "Judged",
    "LeftOut",
    "Likelihood",
    "Metric",
    "Progress",
    "Quartiles",
    "ResponseComparison",
    "ResponseReport",
    "Traits",
    "compare_responses",
    "judge_responses",
    "rouge_l",
    "samples_page",
    "traits",
]
