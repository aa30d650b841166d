"""Instruction and context to answer: one, streamed, many at once, or scored."""

from roslin.answer.answer import Answer, Question, Score, Settings, TokenLogprob
from roslin.answer.prompts import ChatPrompts, DollyPrompts, Prompts
from roslin.answer.roslin import AnswerStream, Roslin
from roslin.answer.text import AnswerText

__all__ = [
    "Answer",
    "AnswerStream",
    "AnswerText",
    "ChatPrompts",
    "DollyPrompts",
    "Prompts",
    "Question",
    "Roslin",
    "Score",
    "Settings",
    "TokenLogprob",
]
