"""Few-shot prompts: worked examples before each question, drawn and joined as the LM Evaluation Harness does.

Source: lm_eval 0.4.13, api/samplers.py (ContextSampler) and api/task.py (fewshot_context).
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from roslin.errors import InputError
from roslin.evaluate.question import Question
from roslin.evaluate.tasks import DELIMITER, Document, Task

SEED = 1234
"""The harness's own, for each task anew."""
BETWEEN_EXAMPLES = "\n\n"


def with_shots(
    task: Task, documents: Sequence[Document], pool: Sequence[Document], shots: int, *, seed: int = SEED
) -> list[Question]:
    """The questions of `documents`, each behind `shots` examples from `pool` with their right answers.

    The examples of a question depend on how many questions stand before it: draw for a whole task, or for its first
    questions, and select afterwards. Raises InputError where the pool is too small.
    """
    spare = int(task.draws_around_itself)
    if len(pool) < shots + spare:
        raise InputError(
            f"{task.name}: {shots} examples a question need at least {shots + spare} rows of its {task.shots_split} "
            f"split, and there are {len(pool)}. Ask with fewer, or give the whole split."
        )
    draw = Random(seed)
    examples = [_example(document.question) for document in pool]
    questions = []
    for document in documents:
        places = draw.sample(range(len(pool)), shots + spare)
        if task.draws_around_itself:
            places = [place for place in places if pool[place].row != document.row][:shots]
        if len(places) < shots:
            places = _drawn_again(task, document, pool, shots, draw)
        questions.append(_behind("".join(examples[place] for place in places), document.question))
    return questions


def _drawn_again(task: Task, document: Document, pool: Sequence[Document], shots: int, draw: Random) -> list[int]:
    """Places of `shots` rows that differ from the document: more copies of it were drawn than there were spare rows."""
    others = [place for place, other in enumerate(pool) if other.row != document.row]
    if len(others) < shots:
        raise InputError(
            f"{task.name}: all but {len(others)} of the rows that examples are drawn from are equal to the question "
            f"itself. Ask with fewer examples than {shots}, or give the whole {task.shots_split} split."
        )
    return draw.sample(others, shots)


def _example(question: Question) -> str:
    """A question with its right answer, as the harness writes it.

    Where the contexts are the choices and nothing follows the blank, there is no answer, and nothing is put behind it.
    """
    right = question.choices[question.gold]
    contexts_are_choices = right.characters == len(right.context)
    if contexts_are_choices and right.continuation == DELIMITER:
        return right.context
    return right.context + right.continuation + BETWEEN_EXAMPLES


def _behind(examples: str, question: Question) -> Question:
    choices = (replace(choice, context=examples + choice.context) for choice in question.choices)
    return replace(question, choices=tuple(choices))
