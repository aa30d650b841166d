"""The checks against the program published with IFEval, as the LM Evaluation Harness has it."""

import random
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from roslin.evaluate.ifeval import CHECKS, UNCHECKED, Instruction, load_prompts, loose_readings

ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    *[(i.kind, dict(i.arguments)) for prompt in load_prompts() for i in prompt.instructions],
    *[("detectable_format:number_bullet_lists", {"num_bullets": n}) for n in (1, 2)],
    *[("length_constraints:number_paragraphs", {"num_paragraphs": n}) for n in (1, 2)],
    *[("detectable_format:number_highlighted_sections", {"num_highlights": n}) for n in (1, 3)],
    ("detectable_content:postscript", {"postscript_marker": "PS:"}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Salt"}),
]

ANSWERS = [
    "",
    " \n ",
    "Yes.",
    "My answer is no. I think.",
    '"Ask your bank."',
    "He said: Ask Your Bank.",
    "A gull, an ICE-cold rope. Shadows shadow the shadowy shadow.",
    "the gulls, ropes and icebergs: whitewash is not cold",
    "SNOW IS WHITE AND COLD, LOVE THE GARDEN",
    "all small, no capitals. x xx q zzzz",
    "one two three ***four*** five",
    "first\n***\nsecond *** third",
    "***\nfirst\n***\nsecond",
    "a *** *** b",
    "***",
    "Arrive early.\n\nsalt, pepper",
    "Arrive early.\n\n'Salt' is\n\n\n\nthird",
    "\n\nsalt",
    'first\n\n"salt." it said\n\nlast',
    "[date] and [name], [] [\n] [a [b]]",
    "Thanks.\n\nP.S. bring cake\nP. P. S. no",
    "p.s. low, p.p.s. lower; PS: none",
    "P.P.S finally",
    "* one\n* two\n- three\n** bold **\n  * four",
    "*\n\n* x\n-\n--",
    "- a\n- b\n- c\n- d\n- e",
    "*one* and **two** and ** ** and *\n* and ***three***",
    "*a* *b* *c* *d* **",
    "Section 1\nx\nSection2 y\nsection 3\nPART 1 PART 2",
    '{"a": [1, 2]}',
    '```json\n{"a": 1}\n```',
    "```\n[1,]\n```",
    "```JSON [1] ```",
    "[" * 3000,
    "<<A title>> then",
    "<< >> or <<>>",
    "<<<x\n>>",
    "one ****** two",
    "one ****** one",
    "****** one ****** two ******",
    "one ****** ****** two",
    "Name a river that flows through Vienna. The Danube.",
    "what colour DO blue and yellow paint make? Green.",
    '"quoted"',
    '"',
    "NASA, the U.S. and NATO's X-RAY of A B2 DON'T I'M",
    '3 CATS and 2 DOGS (VERY BIG), "REALLY" OK.',
    "Drive safely!\n*Drive safely!*\n",
    "sure, here it is:\nMy answer is yes.\nbye, now",
    "milk Milk MILK\nEvery drop counts.",
]

PIECES = (
    *(
        "gull",
        "rope",
        "ICE",
        "*bold*",
        "**x**",
        "salt,",
        "white.",
        "[date]",
        "Section",
        "1",
        "2",
        "PART",
        "***",
        "******",
    ),
    *(
        "\n",
        "\n\n",
        "-",
        "*",
        "P.S.",
        "P.P.S",
        "<<T>>",
        "{",
        "}",
        '"',
        "sunlight",
        "shadow",
        "wheel!",
        "wheel?",
        "cold",
    ),
    *("Every", "drop", "counts.", "zz", "x,", "I'll", "don't", "U.S.", "a-b", "DON'T", "love", "GARDEN", "milk"),
)


def made_up() -> Iterator[str]:
    """Texts of the pieces that the checks look for, in any order."""
    rng = random.Random(5)
    for _ in range(300):
        yield " ".join(rng.choice(PIECES) for _ in range(rng.randint(1, 40)))


@pytest.fixture(scope="module")
def reference() -> Iterator[dict[str, Any]]:
    """The harness's checkers, without what they would download: Punkt's model, and a model of languages (all English).

    Sentences are counted by what our own splitter says; see `test_texts.py` for that.
    """
    nltk = pytest.importorskip("nltk")
    pytest.importorskip("lm_eval")
    from roslin.evaluate.ifeval import texts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "find", lambda *_: None)
        patch.setitem(
            sys.modules, "langdetect", _module("langdetect", detect=lambda _: "en", LangDetectException=OSError)
        )
        patch.setitem(sys.modules, "immutabledict", _module("immutabledict", immutabledict=dict))
        from lm_eval.tasks.ifeval import instructions_registry, instructions_util

        plain = nltk.tokenize.word_tokenize
        patch.setattr(
            instructions_util,
            "nltk",
            SimpleNamespace(tokenize=nltk.tokenize, word_tokenize=lambda t: plain(t, preserve_line=True)),
        )
        patch.setattr(instructions_util, "count_sentences", lambda text: len(texts.sentences(text)))
        yield instructions_registry.INSTRUCTION_DICT


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module


def test_every_kind_has_a_check_or_is_said_to_have_none(reference: dict[str, Any]) -> None:
    assert {*CHECKS, *UNCHECKED} == reference.keys()
    assert len(reference) == 25


@pytest.mark.parametrize(("kind", "arguments"), ARGUMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_check_says_what_the_published_program_says(
    reference: dict[str, Any], kind: str, arguments: dict[str, Any]
) -> None:
    checker = reference[kind](kind)
    checker.build_description(**arguments)
    instruction = Instruction(kind, arguments)
    assert instruction.faults() == []
    for answer in [*ANSWERS, *made_up()]:
        if answer.startswith("[[["):
            continue  # on which the published program fails
        expected = bool(answer.strip()) and bool(checker.check_following(answer))
        assert instruction.follows(answer) == expected, answer


def test_loose_answers_are_read_as_published(reference: dict[str, Any]) -> None:
    from lm_eval.tasks.ifeval import utils

    for prompt in load_prompts():
        kinds = [i.kind for i in prompt.instructions]
        example = utils.InputExample(prompt.key, kinds, prompt.prompt, [dict(i.arguments) for i in prompt.instructions])
        for answer in [*ANSWERS[:33], *ANSWERS[34:]]:
            strict = utils.test_instruction_following_strict(example, answer).follow_instruction_list
            loose = utils.test_instruction_following_loose(example, answer).follow_instruction_list
            assert [i.follows(answer) for i in prompt.instructions] == strict, (prompt, answer)
            assert [i.follows_loosely(answer) for i in prompt.instructions] == loose, (prompt, answer)


def test_a_loose_reading_takes_lines_and_asterisks_away() -> None:
    assert loose_readings("Sure:\n*YES*\nBye") == [
        "Sure:\n*YES*\nBye",
        "*YES*\nBye",
        "Sure:\n*YES*",
        "*YES*",
        "Sure:\nYES\nBye",
        "YES\nBye",
        "Sure:\nYES",
        "YES",
    ]


def test_brackets_without_end_are_no_json() -> None:
    assert not Instruction("detectable_format:json_format", {}).follows("[" * 100_000)


def test_signs_that_mean_something_in_a_pattern_are_taken_as_they_are() -> None:
    assert Instruction("keywords:existence", {"keywords": ["C++"]}).follows("I like c++.")
    assert not Instruction("keywords:frequency", {"keyword": "a.c", "frequency": 1, "relation": "at least"}).follows(
        "abc"
    )
    letter = {"letter": "!", "let_frequency": 2, "let_relation": "at least"}
    assert Instruction("keywords:letter_frequency", letter).follows("No! Yes!")
