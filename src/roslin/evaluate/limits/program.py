"""The program in an answer: its functions, as syntax trees."""

import ast
import re
import warnings
from collections.abc import Mapping

from roslin.evaluate.limits.values import Refused

LONGEST = 4000
"""Characters of an answer that are read as a program."""
DEEPEST = 40
"""Brackets within each other, and signs in a row: Python's own parser is not made for any number of them."""
_FENCE = re.compile(r"^```[^\n]*\n(?P<code>.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_START = re.compile(r"^def\s", re.MULTILINE)
_SIGNS = re.compile(r"(?:(?:[-+~]|\bnot\b|\blambda\b[^:\n]{0,40}:)\s*){8}")


def functions_in(answer: str) -> Mapping[str, ast.FunctionDef]:
    """The functions that an answer defines, by name; of two of one name the last.

    Read are its fenced blocks, or else what begins with a line `def`; lines at the end that are no Python are left
    out. Nothing but definitions is looked at. Raises Refused for a text that is no program or too large to be read.
    """
    code = "\n".join(match["code"] for match in _FENCE.finditer(answer)) or _from_definition(answer)
    if len(code) > LONGEST:
        raise Refused(f"more than {LONGEST} characters")
    if _deepest(code) > DEEPEST or _SIGNS.search(code):
        raise Refused("expressions nested too deeply")
    return {node.name: node for node in _parsed(code).body if isinstance(node, ast.FunctionDef)}


def _from_definition(answer: str) -> str:
    start = _START.search(answer)
    if start is None:
        raise Refused("no function")
    return answer[start.start() :]


def _deepest(code: str) -> int:
    depth = deepest = 0
    for character in code:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _parsed(code: str) -> ast.Module:
    kept = code.splitlines()
    while kept:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in a model's texts
                return ast.parse("\n".join(kept))
        except (SyntaxError, ValueError):
            kept.pop()
        except (RecursionError, MemoryError):
            raise Refused("expressions nested too deeply") from None
    raise Refused("no Python")
