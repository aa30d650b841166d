"""The interpreter: it agrees with Python on what it runs, and runs nothing else, for however short a time."""

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.evaluate.limits.interpreter import Failed, Interpreter
from roslin.evaluate.limits.program import functions_in
from roslin.evaluate.limits.values import Refused

PROGRAMS: tuple[tuple[str, list[Any]], ...] = (
    (
        """
def f(x: list[int]) -> bool:
    if x is None:
        raise ValueError("nothing")
    return [isinstance(x, int), isinstance(x, (str, list)), isinstance(True, int)]
""",
        [3, "a", [1]],
    ),
    (
        """
def f(x):
    return x * 3 + 1 if x > 2 else -x
""",
        [0, 2, 3, -7],
    ),
    (
        """
def f(x):
    total = 0
    for n in x:
        if n % 2 == 0:
            continue
        total += n
    return total
""",
        [[], [1, 2, 3]],
    ),
    (
        """
def f(x):
    return [n ** 2 for n in x if n > 1 and n not in (3, 4)]
""",
        [[1, 2, 3, 4, 5]],
    ),
    (
        """
def f(x):
    return x[::-1].upper().replace('A', '--').strip('-')
""",
        ["banana", "", "abc"],
    ),
    (
        """
def f(x):
    return ' '.join(w.capitalize() for w in x.split() if len(w) > 1)
""",
        ["to be or not a b"],
    ),
    (
        """
def f(x):
    a, b = 0, 1
    while a < x:
        a, b = b, a + b
    else:
        b = 0
    return [a, b]
""",
        [0, 10, 100],
    ),
    (
        """
def f(x):
    return 1 if x < 2 else x * f(x - 1)
""",
        [0, 1, 5, 12],
    ),
    (
        """
def g(a, b=2):
    return a // b
def f(x):
    return g(x) + g(x, 3)
""",
        [7, 9, -5],
    ),
    (
        """
def f(x):
    seen = {}
    for c in x:
        seen[c] = seen.get(c, 0) + 1
    return [seen[c] for c in sorted(seen)]
""",
        ["hello", ""],
    ),
    (
        """
def f(x):
    out = []
    for i, n in enumerate(x):
        out.append((i, n))
    out.sort(reverse=True)
    return out[0:2]
""",
        [[3, 1, 2]],
    ),
    (
        """
def f(x):
    return max(x) - min(x) + sum(x) + len(set(x)) + abs(x[-1])
""",
        [[3, -1, 3]],
    ),
    (
        """
def f(x):
    for d in range(2, x):
        if x % d == 0:
            return False
    return x > 1
""",
        [1, 2, 9, 13],
    ),
    (
        """
def f(x):
    x[0] += 5
    x.insert(1, 7)
    return x.pop() + x[1]
""",
        [[1, 2, 3]],
    ),
    (
        """
def f(x):
    return f'{x} is {x + 1}' if not x == 3 else None
""",
        [1, 3],
    ),
    (
        """
def f(x):
    'Says no.'
    n: int = 1
    while True:
        n *= 2
        if n > x:
            break
    return n
""",
        [5, 100],
    ),
    (
        """
def f(x):
    return 1 < x <= 5 or x is None
""",
        [0, 1, 5],
    ),
    (
        """
def f(x):
    return {k: v for k, v in zip(x, x[1:])}
""",
        ["abcd"],
    ),
)


@pytest.mark.parametrize(("code", "inputs"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_it_agrees_with_python(code: str, inputs: list[Any]) -> None:
    python: dict[str, Any] = {}
    exec(code, python)  # ours, not a model's
    for value in inputs:
        mine, theirs = (list(value) if isinstance(value, list) else value for _ in range(2))
        found = Interpreter(functions_in(code)).call("f", [mine])
        assert (found, type(found)) == (wanted := python["f"](theirs), type(wanted))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return x / 0", "ZeroDivisionError"),
        ("return [1][5]", "IndexError"),
        ("return {}['a']", "KeyError"),
        ("return 'a' + 1", "TypeError"),
        ("return int('one')", "ValueError"),
        ("return 2.0 ** 100000", "OverflowError"),
        ("a, b = 1, 2, 3", "3 values for 2 names"),
        ("return f(1, 2)", "takes 1 arguments, not 2"),
        ("return f()", "takes 1 arguments, not 0"),
        ("raise SystemExit", "it raises an error"),
        ("if x: raise ValueError('no')", "it raises an error"),
    ],
)
def test_errors_are_those_of_python(body: str, error: str) -> None:
    with pytest.raises(Failed, match=error):
        Interpreter(functions_in(f"def f(x):\n    {body}")).call("f", [3])


HOSTILE = (
    "return ().__class__.__bases__[0].__subclasses__()",
    "return x.__class__",
    "return __import__('os').system('true')",
    "import os",
    "return open('/etc/passwd').read()",
    "return eval('1')",
    "return exec('x = 1')",
    "return globals()",
    "return getattr(x, 'real')",
    "return type(x)",
    "return isinstance(x, object)",
    "return isinstance(x, x)",
    "return isinstance(x)",
    "return (lambda: 1)()",
    "return f.__globals__",
    "return f.__code__",
    "return '{0.__class__}'.format(x)",
    "return f'{x!r:>99999999}'",
    "return f'{x:>99999999}'",
    "return '%99999999d' % x",
    "global len",
    "class A: pass",
    "try:\n        return 1\n    except BaseException:\n        return 2",
    "with open('a') as file: pass",
    "yield x",
    "del x",
    "while True: pass",
    "while True: x = x + 1",
    "x = [0] * 1990\n    for n in range(99): x == n",
    "x = [0] * 1990\n    for n in range(99): n in x",
    "return f(x)",
    "return f(f(x))",
    "return 10 ** 10 ** 10",
    "return 2 ** 100000",
    "return 2 ** -100000",
    "x = 9\n    while True: x = x * x",
    "return 'a' * 10 ** 9",
    "return 10 ** 9 * [0]",
    "return (0,) * 10 ** 9",
    "return list(range(10 ** 8))",
    "return round(x, -10 ** 9)",
    "return round(5, 10 ** 9)",
    "x = [1]\n    while True: x.extend(x)",
    "x = [1]\n    x.append(x)\n    return x",
    "x = [[]] * 9\n    return x",
    "x = (1,)\n    while True: x = (x, x)",
    "x = 'a'\n    while True: x = x + x",
    "x = 'aaaaaaaaaa' * 100\n    return x.replace('a', x)",
    "x = 'a' * 1000\n    return x.join([x, x, x, x])",
    "x = []\n    for i in range(1999): x.append('a' * 1000)",
    "x = {}\n    while True: x[len(x)] = 1",
    "x = [1]\n    for n in x: x.append(n)\n    while x: pass",
    "return [a for a in range(999) for b in range(999) for c in range(999)]",
    "return str([1] * 1000)",
    "return x.zfill(10 ** 9)",
    "return ''.center(10 ** 9)",
    "return 'a'.ljust(10 ** 9)",
    "return bytearray(10 ** 9)",
    "return sorted(x, key=len)",
    "return print.__self__",
    "return [*range(9)]",
    "return f(*[1])",
    "return f(**{'x': 1})",
    "return max(1, 2, key=abs)",
    "return 1 << 10 ** 9",
    "return b'a'",
    "return 1j",
    "return (-8) ** 0.5",
    "return (y := 5)",
    "return -" + "1+" * 1900 + "1",
)


@pytest.mark.parametrize("body", HOSTILE)
def test_what_could_harm_is_not_run(body: str) -> None:
    with pytest.raises(Refused):
        Interpreter(functions_in(f"def f(x):\n    {body}")).call("f", [3])


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    return " + "(" * 2000 + "x" + ")" * 2000,
        "def f(x):\n    return " + "[" * 60 + "]" * 60,
        "def f(x):\n    return " + "-" * 3000 + "x",
        "def f(x):\n    return " + "not " * 900 + "x",
        "def f(x):\n    return " + "lambda: " * 400 + "x",
        "def f(x):\n" + "    x = 1\n" * 2000,
        "def f(x):\n    return x\n" + "(" * 41,
        "Certainly! Here is the function.",
        "def",
        "",
    ],
)
def test_what_no_parser_should_see_is_not_parsed(code: str) -> None:
    with pytest.raises(Refused):
        functions_in(code)


@pytest.mark.parametrize("sign", ["**", "if x else", "and", ","])
def test_long_chains_end(sign: str) -> None:
    """However deep the tree: a value, or a refusal."""
    try:
        functions = functions_in("def f(x):\n    return " + f"x {sign} " * 300 + "x")
        Interpreter(functions).call("f", [1])
    except Refused:
        pass


def test_decorators_and_unusual_parameters_are_not_run() -> None:
    for head in ("@print\ndef f(x)", "def f(*x)", "def f(**x)", "def f(*, x=1)"):
        with pytest.raises(Refused):
            Interpreter(functions_in(f"```\n{head}:\n    return x\n```")).call("f", [1])


@pytest.mark.parametrize(
    "answer",
    [
        "def f(x):\n    return x",
        "Here it is:\n\n```python\ndef f(x):\n    return x\n```\nIt gives x back.",
        "def f(x):\n    return x\n\nThis function gives x back.\nIt's simple.",
        "```\ndef f(x):\n    return x",
        "Sure.\ndef f(x):\n    return x\nprint(f(1))\nimport os\nos.remove('/')",
    ],
)
def test_the_function_is_found_in_an_answer(answer: str) -> None:
    functions = functions_in(answer)
    assert list(functions) == ["f"]
    assert isinstance(functions["f"], ast.FunctionDef)
    assert Interpreter(functions).call("f", [5]) == 5


def test_sets_have_one_order() -> None:
    code = "def f(x):\n    return list(set(x)) + [c for c in set(x)]"
    assert Interpreter(functions_in(code)).call("f", ["hello"]) == list("ehlo") * 2


ATOMS = ("x", "0", "1", "7", "2.5", "'ab'", "''", "True", "None", "[]", "{}", "f", "f'{x}'")
SHAPES = (
    *(f"(A {sign} B)" for sign in ("+", "-", "*", "/", "//", "%", "**", "|", "==", "<", "in", "is", "and", "or")),
    *(
        f"{name}(A)"
        for name in ("len", "str", "int", "list", "set", "sum", "max", "sorted", "range", "f", "zip", "abs")
    ),
    *(f"(A).{name}(B)" for name in ("append", "split", "join", "pop", "get", "index", "extend", "count")),
    *("(A)[B]", "(A)[B:]", "(A)[::B]", "[A, B]", "(A, B)", "{A: B}", "[A for x in B if x]", "(not A)", "(-A)"),
    *("(A if x else B)", "sorted(A, reverse=B)", "round(A, B)"),
)
LINES = ("x = A", "x += A", "x[0] = A", "a, b = A", "for x in A: pass", "while A: x = x + 1", "if A: return x", "A")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    shape = draw(st.sampled_from(SHAPES if depth else ATOMS))
    filled = (draw(expressions(depth - 1)) if letter in "AB" else letter for letter in shape)
    return "".join(filled)


@st.composite
def programs(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.sampled_from(LINES), max_size=4))
    body = "".join(f"    {line.replace('A', draw(expressions(2)))}\n" for line in lines)
    return f"def f(x):\n{body}    return {draw(expressions())}\n"


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(deadline=None, max_examples=200)
@given(programs())
def test_any_program_ends_in_a_value_or_a_reason(code: str) -> None:
    """And in Python's own value, where there is one."""
    compile(code, "program", "exec")
    try:
        found = Interpreter(functions_in(code)).call("f", [3])
    except (Refused, Failed):
        return
    python: dict[str, Any] = {}
    exec(code, python)  # ours, and known to end
    wanted = python["f"](3)
    if not any(lazy in code for lazy in ("range", "zip")):  # they are lists here
        assert repr(found) == repr(wanted)
