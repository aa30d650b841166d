"""Programming problems: small functions, run on inputs drawn at random by an interpreter of our own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from roslin.evaluate.limits.interpreter import Failed, Interpreter
from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict
from roslin.evaluate.limits.program import functions_in
from roslin.evaluate.limits.values import Refused, Value

INPUTS = 8
LONGEST_SHOWN = 80
"""Characters of a wrong value that a verdict shows."""
VERBS = ("blend", "measure", "filter", "tally", "shift", "fold", "grade", "mark")
LETTERS = "aeinorst"


@dataclass(frozen=True)
class Task:
    """A function to write: what it takes and does in words, what it must give, and how inputs are drawn."""

    kind: str
    words: str
    """With {k}, a number, and {letter}, which are drawn for each probe."""
    right: Callable[[Value, int, str], Value]
    draw: Callable[[Random], Value]


def _numbers(rng: Random) -> list[int]:
    return [rng.randint(-9, 30) for _ in range(rng.randint(3, 9))]


def _number(rng: Random) -> int:
    return rng.randint(0, 60)


def _text(rng: Random) -> str:
    return " ".join("".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 8))) for _ in range(rng.randint(3, 6)))


TASKS = (
    Task("a formula", "takes a number and returns it multiplied by {k} plus 3", lambda x, k, _: x * k + 3, _number),
    Task(
        "a condition",
        "takes a number and returns True if it is divisible by {k}, and False otherwise",
        lambda x, k, _: x % k == 0,
        lambda rng: rng.choice((rng.randint(1, 60), 12 * 5 * 7 * rng.randint(1, 9))),
    ),
    Task(
        "a sum over a list",
        "takes a list of numbers and returns the sum of those greater than {k}",
        lambda x, k, _: sum(n for n in x if n > k),
        _numbers,
    ),
    Task(
        "a new list",
        "takes a list of numbers and returns a list of the even ones, each multiplied by {k}",
        lambda x, k, _: [n * k for n in x if n % 2 == 0],
        _numbers,
    ),
    Task(
        "counting in a text",
        'takes a string and returns how often the letter "{letter}" occurs in it',
        lambda x, _, letter: x.count(letter),
        _text,
    ),
    Task(
        "turning a text",
        "takes a string and returns it reversed and in upper case",
        lambda x, _, __: x[::-1].upper(),
        _text,
    ),
    Task(
        "words of a text",
        "takes a string of words and returns how many of the words have more than {k} letters",
        lambda x, k, _: sum(len(word) > k for word in x.split()),
        _text,
    ),
    Task(
        "a range",
        "takes a list of numbers and returns the largest minus the smallest, plus {k}",
        lambda x, k, _: max(x) - min(x) + k,
        _numbers,
    ),
    Task(
        "a loop to a number",
        "takes a number n and returns the sum of all multiples of {k} from 1 to n",
        lambda x, k, _: sum(n for n in range(1, x + 1) if n % k == 0),
        lambda rng: rng.randint(5, 60),
    ),
    Task(
        "places in a list",
        "takes a list and returns a list of its items without the first {k} and in reverse order",
        lambda x, k, _: x[k:][::-1],
        _numbers,
    ),
)


def gives(name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> Check:
    """The answer defines a function of that name that gives each output for its input."""

    def check(answer: str) -> Verdict:
        try:
            functions = functions_in(answer)
            if name not in functions:
                return Verdict(False, f"defines no function {name}")
            for value, right in zip(inputs, outputs, strict=True):
                given = list(value) if isinstance(value, list) else value
                found = Interpreter(functions).call(name, [given])
                if found != right or type(found) is not type(right):
                    return Verdict(False, f"{name}({value!r}) gives {_shown(found)}; right is {right!r}")
        except Failed as error:
            return Verdict(False, f"{name}({value!r}) raises {error}")
        except Refused as error:
            return Verdict(False, f"not run: {error}")
        return Verdict(True, f"right on {len(inputs)} inputs")

    return check


def _shown(value: Value) -> str:
    said = repr(value)
    return said if len(said) <= LONGEST_SHOWN else f"{said[:LONGEST_SHOWN]} …"


def _asked(task: Task) -> Callable[[Random], Probe]:
    def make(rng: Random) -> Probe:
        k, letter = rng.randint(2, 6), rng.choice(LETTERS)
        name = f"{rng.choice(VERBS)}_{rng.randint(2, 99)}"
        inputs = [task.draw(rng) for _ in range(INPUTS)]
        outputs = [task.right(value, k, letter) for value in inputs]
        if all(output == outputs[0] for output in outputs):  # a constant would pass
            return make(rng)
        words = task.words.format(k=k, letter=letter)
        instruction = f"Write a Python function named {name} that {words}. Use no imports and no lambda."
        return Probe(task.kind, instruction, gives(name, inputs, outputs))

    return make


FAMILY = Family(
    name="programming",
    limitation="Programming problems",
    rule=f"defines the function, and an interpreter of a part of Python gets the right values for {INPUTS} inputs",
    blind="functions of a few lines; a right one outside that part of Python (imports, classes, lambda) fails",
    max_new_tokens=144,
    makers=tuple(_asked(task) for task in TASKS),
)
