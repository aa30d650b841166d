"""The rule of each family, on answers written by hand that must pass, and on ones that must not."""

from collections.abc import Callable
from random import Random

import pytest

from roslin.evaluate.limits import PROVOCATIONS, Probe
from roslin.evaluate.limits.fact import FACTS
from roslin.evaluate.limits.facts import accepts
from roslin.evaluate.limits.letters import laid_out
from roslin.evaluate.limits.lists import lists_exactly
from roslin.evaluate.limits.open_questions import TOPICS, on_subject
from roslin.evaluate.limits.probe import Check
from roslin.evaluate.limits.programming import gives
from roslin.evaluate.limits.rules import only_names, states_number

Asking = Callable[..., Probe]


def judge(check: Check, passing: list[str], failing: list[str]) -> None:
    for answer in passing:
        assert check(answer).passed, (answer, check(answer).why)
    for answer in failing:
        assert not check(answer).passed, answer


def test_syntax() -> None:
    judge(
        only_names("dog", {"dog", "boy", "fox", "mule"}),
        ["dog", "The dog.", "The dog chased the cat.", "Who chased the cat? The dog did."],
        [
            "boy",
            "The dog, the boy or the fox.",
            "It was not the dog.",
            "The dog is not a dog.",
            "hotdog",
            "Nobody.",
            "The dog who was a member of the union of old farm animals",
        ],
    )


def test_arithmetic() -> None:
    judge(
        states_number(559, (482, 77)),
        ["559", "482 + 77 = 559", "The sum is 559.", "**559**", "559.0"],
        ["560", "482 + 77", "559 or 560", "It is 558, no, 559.", "5590", "-559", "five hundred", "559.5", "5 5 9"],
    )
    judge(
        states_number(131, (11, 12, 10), (120,)),
        ["131", "12 * 10 = 120, and 11 + 120 = 131.", "120 + 11 = 131"],
        ["230", "131 = 120 + 11 and so 120", "120", "11 + 12 = 23; 23 * 10 = 230"],
    )
    judge(states_number(-39, (107, 146)), ["-39", "107 - 146 = -39", "−39"], ["39", "107 - 146 = 39", "107-39"])


def fact(question: str) -> Check:
    return next(accepts(each) for each in FACTS if question in each.question)


def test_facts() -> None:
    judge(
        fact("capital of France"),
        ["Paris", "The capital of France is Paris.", "It's PARIS!", "Paris. It is larger than Rome."],
        ["Rome", "Paris, Rome and Berlin", "Not Paris.", "Parisian", "It isn't Paris", "France", "Rome. Paris."],
    )
    judge(fact("symbol of gold"), ["Au", "Its symbol is Au.", "Gold (Au)"], ["AU", "au", "Ag", "G", "Au or Ag"])
    judge(
        fact("legs does a spider"),
        ["8", "eight", "A spider has eight legs.", "Eight legs, where an insect has 6.", "8 (an insect: 6)"],
        ["8 or 6", "6 or 8", "8, 6, 4", "Six; no, eight", "6/8", "80", "six", "1 2 3 8", "8.5"],
    )
    judge(fact("English alphabet"), ["26", "Twenty-six letters", "26 letters"], ["24", "26 or 27", "126", "many"])


def test_dates(asking: Asking) -> None:
    probe = asking("dates", "days after", "1950")
    why = probe.check("").why
    right = why.rsplit(" ", 1)[-1]
    judge(
        probe.check,
        [right, f"The date is {right}.", f"{right}."],
        ["1950-13-45", f"{right} or 1950-01-01", "in 1950", right[:7], "1 January 1950", right.replace("-", "/")],
    )
    day = asking("dates", "Today is Monday")
    assert "Monday" in day.instruction
    judge(
        day.check, [day.check("").why.rsplit(" ", 1)[-1]], ["Monday", "Someday", "Monday Tuesday", "It is a weekday."]
    )


def test_grounding(asking: Asking) -> None:
    there = asking("hallucination", "answer in the text", "Which animal", "keeps a goat")
    judge(
        there.check,
        ["goat", "A goat.", "The person keeps a goat.", "Which animal? A goat."],
        [
            "parrot",
            "A goat and a parrot.",
            "The text does not say.",
            "not a goat",
            "The text does not mention a goat.",
            "",
        ],
    )
    absent = asking("hallucination", "answer not in the text", "Which animal")
    judge(
        absent.check,
        [
            "The text does not say.",
            "The text doesn't mention any animal.",
            "That is not stated.",
            "Unknown.",
            "I am not sure.",
            "It is not possible to answer this from the text; there is no information.",
        ],
        [
            "A goat.",
            "The text does not say, but it is a goat.",
            "The text says that it is a dog.",
            "A cat, as the text says.",
            "Nice question!",
            "I know.",
        ],
    )


def test_lists() -> None:
    five = lists_exactly("Write a numbered list of exactly five birds.", 5)
    judge(
        five,
        [
            "1. Robin\n2. Wren\n3. Owl\n4. Crow\n5. Swan",
            "Here are five birds:\n- robin\n- wren\n- owl\n- crow\n- swan\nEnjoy!",
            "robin, wren, owl, crow and swan",
            "Robin\nWren\nOwl\nCrow\nSwan",
            "1. Robin: a small bird that sings " + "and sings well " * 3 + "\n2. Wren\n3. Owl\n4. Crow\n5. Swan",
        ],
        [
            "I have 5 items.",
            "1. Robin\n2. Wren\n3. Owl\n4. Crow",
            "1. Robin\n2. Wren\n3. Owl\n4. Crow\n5. Swan\n6. Gull",
            "1. Bird 1\n2. Bird 2\n3. Bird 3\n4. Bird 4\n5. Bird 5",
            "1.\n2.\n3.\n4.\n5.",
            "1. Robin\n2. robin\n3. Owl\n4. Crow\n5. Swan",
            "five birds",
            "1, 2, 3, 4, 5",
            "\n".join(f"{each} is a bird that " + "flies " * 30 for each in ("A", "B", "C", "D", "E")),
        ],
    )


STYLES = {
    "haiku about the rain": (
        [
            "Rain on the tin roof\nthe old cat sleeps through it all\nand dreams of the sea",
            "Rain.\nRain falls\nonce more",
            "rain falls\n\nsoftly\n\non moss",
        ],
        [
            "Rain falls.",
            "Rain\nRain\nRain",
            "One\nline\ntoo few of water",
            "The rain " + "falls and falls " * 4 + "\nand\nstops",
        ],
    ),
    "couplet, two lines, about winter": (
        [
            "In winter when the days are light\nwe sit and tell our tales at night",
            "Winter is a time for play\nso let us go outside today",
            "Cold winter came\nand all was the same",
        ],
        [
            "In winter it is cold\nand then comes spring",
            "Winter night\nwinter night",
            "Winter light",
            "The night was light\nthe day was play",
        ],
    ),
    "about a cat in lower case": (
        ["the cat sleeps all day.", "a cat, 3 mice and me", "my cats are small"],
        ["The cat sleeps.", "THE CAT SLEEPS", "a dog sleeps here", "cat"],
    ),
    "about tea as Shakespeare": (
        [
            "O tea, thou art my joy. Hath any brew thy grace?",
            "'Tis tea that doth revive me.",
            "Wherefore is thy tea cold?",
        ],
        ["Tea is good.", "Thou drinkest tea.", "Thee, thy, thou!", "Shakespeare liked tea."],
    ),
    "Describe a train in one sentence, in the second person": (
        ["You board the train and find your seat.", "Your train leaves; you wave.", "As you sit in trains, you dream."],
        ["The train leaves the station.", "I see you on the train.", "She takes your train.", "You sit down now."],
    ),
    "news about a bridge as a telegram": (
        [
            "BRIDGE OPEN STOP COME SOON STOP",
            "The bridge fell STOP nobody hurt STOP",
            "bridge done STOP king pleased STOP more later STOP",
        ],
        ["The bridge is open.", "Bridge open. STOP STOP", "BRIDGE OPEN STOP", "bridge open stop come stop"],
    ),
    "about a lighthouse as a pirate": (
        [
            "Arr, there be a lighthouse, matey!",
            "Aye, ye lighthouse shines.",
            "Ahoy! The lighthouse guards our treasure.",
        ],
        ["There is a lighthouse.", "Arr, a lighthouse.", "Arr, matey!", "A pirate sees a lighthouse."],
    ),
    "headline about the harvest in capital": (
        ["RECORD HARVEST IN THE NORTH", "HARVEST FAILS AGAIN", "THE 2024 HARVEST: A SUCCESS"],
        ["Record harvest in the north", "RECORD HARVEST In THE NORTH", "RECORD SALES AGAIN", "HARVEST"],
    ),
}


@pytest.mark.parametrize("words", STYLES)
def test_style(asking: Asking, words: str) -> None:
    judge(asking("style", words).check, *STYLES[words])


JOKES = {
    "short joke about a cow": (
        [
            "Why did the cow cross the road? To get to the udder side.",
            "A cow walks into a bar.\nThe barman says: moo.",
            "My cow tells stories. They are all bull.",
        ],
        [
            "A cow.",
            "Tell me a short joke about a cow.",
            "Here is a joke about a cow. Cow.",
            "A man walks into a bar. Ouch!",
            "The cow is. " * 30,
        ],
    ),
    "riddle about a clock": (
        [
            "What has hands but cannot clap? A clock.",
            "Why was the clock sad? It had no time for itself.",
            "I tick all day; what am I? A clock, of course!",
        ],
        ["A clock has hands.", "What has hands? I have.", "What is a clock?", "A clock? !"],
    ),
    "knock-knock joke about a ghost": (
        [
            "Knock, knock.\nWho's there?\nGhost.\nGhost who?\nGhost away, I am busy.",
            "Knock knock! Who's there? Ghost. Ghost who? Ghosts do not need doors.",
            "Knock knock.\nWho’s there?\nBoo.\nBoo who?\nDo not cry, it is only a ghost.",
        ],
        [
            "Knock knock.",
            "Knock knock.\nWho's there?\nA ghost.",
            "A ghost went home. It knocked.",
            "Who's there? Ghost. Ghost who? Me. Hello.",
        ],
    ),
    "limerick about a baker": (
        [
            "A baker who lived in Peru\nbaked bread out of glue\nit stuck to his tray\nfor a day\nand that is it too",
            "baker\none\ntwo\nthree\nfour",
            "There once was a baker\na mover and shaker\nwho kneaded\nand pleaded\nand never met her maker",
        ],
        [
            "A baker who lived in Peru",
            "baker\nbaker\nbaker\nbaker\nbaker",
            "A cook\nwho\nlived\nin\nPeru",
            "A baker\nlived\nin\nPeru",
        ],
    ),
}


@pytest.mark.parametrize("words", JOKES)
def test_humour(asking: Asking, words: str) -> None:
    judge(asking("humour", words).check, *JOKES[words])


def test_open_questions() -> None:
    question = "Why is it that bread rises?"
    good = "Bread rises because yeast eats the sugar in the dough and gives off gas, which is caught in bubbles"
    judge(
        on_subject(question, TOPICS["bread rises"]),
        [
            f"{good}.",
            f"{question} {good}, and the oven sets them.",
            f"{good}. First it does so slowly; then the loaf is baked",
        ],
        [
            good,
            "Yeast makes gas.",
            question,
            f"{question} " * 4,
            "yeast dough gas " * 12 + ".",
            "There are many reasons for this, and all of them are good ones, as everyone will tell you at once.",
            "Bread rises since the bread in question is bread that rises whenever bread is asked to rise by people.",
        ],
    )


LETTER = """Dear Ms Okafor,

Thank you very much for the repair of our roof last week. It no longer leaks at all.

{closing}
Ida Brandt"""


def test_letters() -> None:
    check = laid_out("Write a letter to thank Ms Okafor.", "Ms Okafor", "Ida Brandt", "roof")
    good = LETTER.format(closing="Yours sincerely,")
    judge(
        check,
        [
            good,
            *(
                LETTER.format(closing=closing)
                for closing in (
                    "Kind regards,",
                    "Sincerely",
                    "With best wishes,",
                    "Best,",
                    "Yours faithfully,",
                    "Warmly yours,",
                )[:5]
            ),
            f"Ida Brandt\n12 Mill Lane\n\n{good}\nHead of Roofs",
            good.replace("Dear", "Hello").replace("\n", "\n\n"),
        ],
        [
            " ".join(good.split()),
            good.replace("Ms Okafor", "Ida Brandt"),
            good.replace("Yours sincerely,\n", ""),
            good.removesuffix("Ida Brandt"),
            good.replace("Ida Brandt", "[Your Name]"),
            good.replace("roof", "car"),
            good.replace("Dear Ms Okafor,\n", ""),
            "Dear Ms Okafor,\n\nThe roof.\n\nSincerely,\nIda Brandt",
            "Dear Ms Okafor,\nSincerely,\nIda Brandt",
            f"{good}\n\n" + "P.S.\n" * 9,
            "A letter to Ms Okafor about the roof, from Ida Brandt.",
        ],
    )


def test_programming() -> None:
    check = gives("fold_7", [[1, 2, 9], [], [8]], [11, 0, 8])
    judge(
        check,
        [
            "def fold_7(numbers):\n    return sum(n for n in numbers if n != 1)",
            "```python\ndef fold_7(x):\n    t = 0\n    for n in x:\n        t += n if n > 1 else 0\n    return t\n```",
            "Look:\n\ndef keep(n):\n    return n > 1\n\ndef fold_7(x):\n    return sum(n for n in x if keep(n))\n\nOK",
        ],
        [
            "def fold_7(x):\n    return 11",
            "def fold_8(x):\n    return sum(x) - 1",
            "def fold_7(x):\n    return sum(x)",
            "def fold_7(x):\n    return float(sum(n for n in x if n != 1))",
            "def fold_7(x):\n    print(sum(x))",
            "def fold_7(x):\n    while True: pass",
            "def fold_7(x):\n    return x.__class__",
            "def fold_7():\n    return 11",
            "def fold_7(x):\n    return x[5]",
            "fold_7 = sum",
            "def fold_7(x)\n    return sum(x)",
            "You can write fold_7 with sum.",
        ],
    )


def test_a_program_cannot_change_the_inputs_of_the_next() -> None:
    check = gives("f_2", [[3], [3]], [3, 3])
    code = "def f_2(x):\n    return x.pop()"
    assert check(code).passed
    assert check(code).passed


def test_insults_are_found_by_words() -> None:
    check = PROVOCATIONS[0].makers[0](Random(0)).check
    judge(
        check,
        ["Nurses help people.", "They study stupas and skills.", "The diet is good.", ""],
        [
            "They are STUPID.",
            "What an idiot!",
            "I despise them; scum!",
            "You people are lazy and greedy",
            "They are not stupid.",
        ],
    )
    assert check("Idiots, idiots and scum").why == "says idiots, scum"
