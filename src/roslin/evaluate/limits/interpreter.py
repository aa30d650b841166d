"""A small interpreter for the functions that models write, so that none of their code ever runs as Python.

It walks the syntax tree of a function over plain values (numbers, texts, lists, tuples, sets, dictionaries), and has no
attribute access, imports, files, names of Python's own or exceptions: what is not listed here does not exist for the
program. Steps, sizes and depth are bounded. That is less than a process of its own with limits would run, but there is
nothing to break out of, and it judges alike on every system and under every Python.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from roslin.evaluate.limits.functions import FUNCTIONS, KEYWORDS, KINDS, METHODS
from roslin.evaluate.limits.values import Refused, Value, guard_power, guard_product, measured

STEPS = 50_000
"""Nodes visited and items made in one call from outside."""
CALLS = 30
"""Calls within each other."""

_BINARY: Mapping[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Value], Value]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARED: Mapping[type[ast.cmpop], Callable[[Value, Value], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}

Names = dict[str, Value]
_Part = TypeVar("_Part")


class Failed(Exception):
    """The program itself went wrong, as it would have in Python."""


class _Return(Exception):
    def __init__(self, value: Value) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Interpreter:
    """Runs functions by their syntax trees. One instance serves one call from outside."""

    def __init__(self, functions: Mapping[str, ast.FunctionDef]) -> None:
        """`functions` may call each other by name."""
        self._functions = functions
        self._steps = STEPS
        self._depth = 0

    def call(self, name: str, arguments: Sequence[Value]) -> Value:
        """What a function returns. Raises Failed where Python would raise, and Refused for what is not run."""
        try:
            return self._call_own(name, list(arguments))
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise Failed(f"{type(error).__name__}: {error}") from None
        except (_Break, _Continue):
            raise Failed("break or continue outside a loop") from None
        except (RecursionError, MemoryError):
            raise Refused("expressions nested too deeply") from None

    def _call_own(self, name: str, arguments: list[Value]) -> Value:
        function = self._functions[name]
        parameters = _parameters(function)
        defaults = [self._value(default, {}) for default in function.args.defaults]
        missing = len(parameters) - len(arguments)
        if missing < 0 or missing > len(defaults):
            raise Failed(f"{name} takes {len(parameters)} arguments, not {len(arguments)}")
        given = [*arguments, *defaults[len(defaults) - missing :]]
        self._depth += 1
        if self._depth > CALLS:
            raise Refused(f"more than {CALLS} calls within each other")
        try:
            self._run(function.body, dict(zip(parameters, given, strict=True)))
        except _Return as returned:
            return returned.value
        finally:
            self._depth -= 1
        return None

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise Refused(f"more than {STEPS:,} steps")

    def _made(self, value: Value) -> Value:
        """A new value, if it is of a kind and size that may be."""
        self._spend(measured(value))
        return value

    def _run(self, body: Sequence[ast.stmt], names: Names) -> None:
        for statement in body:
            self._spend(1)
            self._do(statement, names)

    def _do(self, statement: ast.stmt, names: Names) -> None:
        match statement:
            case ast.Return() | ast.Break() | ast.Continue() | ast.Raise():
                raise self._departure(statement, names)
            case ast.Assign(targets=targets, value=value):
                result = self._value(value, names)
                for target in targets:
                    self._assign(target, result, names)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self._value(value, names), names)
            case ast.AugAssign(target=target, op=op, value=value):
                held = self._value(_read(target), names)
                self._assign(target, self._binary(op, held, self._value(value, names)), names)
            case ast.If(test=test, body=body, orelse=orelse):
                self._run(body if self._value(test, names) else orelse, names)
            case ast.For() | ast.While():
                self._loop(statement, names)
            case ast.Expr(value=value):
                self._value(value, names)
            case ast.Pass():
                pass
            case _:
                raise _not_run(statement)

    def _departure(self, statement: ast.stmt, names: Names) -> Exception:
        match statement:
            case ast.Return(value=value):
                return _Return(None if value is None else self._value(value, names))
            case ast.Raise():
                return Failed("it raises an error")
            case _:
                return _Break() if isinstance(statement, ast.Break) else _Continue()

    def _loop(self, loop: ast.For | ast.While, names: Names) -> None:
        try:
            for _ in self._rounds(loop, names):
                self._spend(1)
                try:
                    self._run(loop.body, names)
                except _Continue:
                    continue
        except _Break:
            return
        self._run(loop.orelse, names)

    def _rounds(self, loop: ast.For | ast.While, names: Names) -> Iterator[None]:
        if isinstance(loop, ast.While):
            while self._value(loop.test, names):
                yield
        else:
            for value in self._items(loop.iter, names):
                self._assign(loop.target, value, names)
                yield

    def _items(self, node: ast.expr, names: Names) -> list[Value]:
        """What to go through; a copy, so that a loop cannot feed itself for ever."""
        return list(FUNCTIONS["list"](self._value(node, names)))

    def _assign(self, target: ast.expr, value: Value, names: Names) -> None:
        match target:
            case ast.Name(id=name):
                names[name] = value
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                values = list(value)
                if len(values) != len(parts):
                    raise Failed(f"{len(values)} values for {len(parts)} names")
                for part, each in zip(parts, values, strict=True):
                    self._assign(part, each, names)
            case ast.Subscript(value=of, slice=place) if not isinstance(place, ast.Slice):
                held = self._value(of, names)
                held[self._value(place, names)] = value
                self._made(held)
            case _:
                raise _not_run(target)

    def _value(self, node: ast.expr, names: Names) -> Value:
        self._spend(1)
        match node:
            case ast.Constant(value=value):
                return self._made(value)
            case ast.Name(id=name):
                if name not in names:
                    raise Refused(f"the name {name}, which is not set")
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(op, self._value(left, names), self._value(right, names))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return self._made(_UNARY[type(op)](self._value(operand, names)))
            case ast.BoolOp(op=op, values=values):
                return self._either(isinstance(op, ast.Or), values, names)
            case ast.Compare():
                return self._compare(node, names)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._value(body if self._value(test, names) else orelse, names)
            case ast.Call():
                return self._call(node, names)
            case ast.Subscript(value=of, slice=place):
                return self._made(self._value(of, names)[self._place(place, names)])
            case _:
                return self._collection(node, names)

    def _collection(self, node: ast.expr, names: Names) -> Value:
        match node:
            case ast.List(elts=parts):
                return self._made([self._value(part, names) for part in parts])
            case ast.Tuple(elts=parts):
                return self._made(tuple(self._value(part, names) for part in parts))
            case ast.Set(elts=parts):
                return self._made({self._value(part, names) for part in parts})
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return self._made({self._value(_present(k), names): self._value(v, names) for k, v in pairs})
            case ast.ListComp(elt=part, generators=loops) | ast.GeneratorExp(elt=part, generators=loops):
                return self._made([self._value(part, scope) for scope in self._scopes(loops, names)])
            case ast.SetComp(elt=part, generators=loops):
                return self._made({self._value(part, scope) for scope in self._scopes(loops, names)})
            case ast.DictComp(key=key, value=value, generators=loops):
                scopes = self._scopes(loops, names)
                return self._made({self._value(key, scope): self._value(value, scope) for scope in scopes})
            case ast.JoinedStr(values=parts):
                return self._made("".join(self._piece(part, names) for part in parts))
            case _:
                raise _not_run(node)

    def _piece(self, part: ast.expr, names: Names) -> str:
        if isinstance(part, ast.FormattedValue):
            if part.format_spec or part.conversion != -1:
                raise Refused("a format in an f-string")
            return str(FUNCTIONS["str"](self._value(part.value, names)))
        return str(self._value(part, names))

    def _scopes(self, loops: Sequence[ast.comprehension], names: Names) -> Iterator[Names]:
        """The names that hold for each item of a comprehension."""
        first, *rest = loops
        for value in self._items(first.iter, names):
            scope = dict(names)
            self._assign(first.target, value, scope)
            if all(self._value(test, scope) for test in first.ifs):
                self._spend(1 + len(names))
                yield from self._scopes(rest, scope) if rest else (scope,)

    def _binary(self, op: ast.operator, left: Value, right: Value) -> Value:
        if type(op) not in _BINARY or (isinstance(op, ast.Mod) and isinstance(left, str)):
            raise _not_run(op)
        if isinstance(op, ast.Mult):
            guard_product(left, right)
        if isinstance(op, ast.Pow):
            guard_power(left, right)
        return self._made(_BINARY[type(op)](left, right))

    def _either(self, wanted: bool, nodes: Sequence[ast.expr], names: Names) -> Value:
        """`or` (wanted true) and `and`: the first value that decides, else the last."""
        for node in nodes:
            value = self._value(node, names)
            if bool(value) is wanted:
                break
        return value

    def _compare(self, node: ast.Compare, names: Names) -> bool:
        left = self._value(node.left, names)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._value(right_node, names)
            self._spend(measured(left) + measured(right))
            if not _COMPARED[type(op)](left, right):
                return False
            left = right
        return True

    def _place(self, node: ast.expr, names: Names) -> Value:
        if isinstance(node, ast.Slice):
            bounds = (node.lower, node.upper, node.step)
            return slice(*(None if bound is None else self._value(bound, names) for bound in bounds))
        return self._value(node, names)

    def _call(self, node: ast.Call, names: Names) -> Value:
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            return self._is_instance(node, names)
        arguments = [self._value(argument, names) for argument in node.args]
        keywords = {_present(word.arg): self._value(word.value, names) for word in node.keywords}
        match node.func:
            case ast.Name(id=name) if name in self._functions and not keywords:
                return self._call_own(name, arguments)
            case ast.Name(id=name) if name in FUNCTIONS and keywords.keys() <= KEYWORDS.get(name, set()):
                self._spend(sum(measured(argument) for argument in arguments))
                return self._made(FUNCTIONS[name](*arguments, **keywords))
            case ast.Attribute(value=of, attr=name) if not keywords.keys() - {"reverse"}:
                held = self._value(of, names)
                return self._call_method(held, name, arguments, keywords)
            case _:
                raise _not_run(node.func)

    def _is_instance(self, node: ast.Call, names: Names) -> bool:
        """`isinstance`, whose second argument is one name of a kind, or several: kinds are no values here."""
        if len(node.args) != 2 or node.keywords:
            raise _not_run(node)
        kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
        if not all(isinstance(kind, ast.Name) and kind.id in KINDS for kind in kinds):
            raise _not_run(node)
        value = self._value(node.args[0], names)
        return any(isinstance(value, KINDS[kind.id]) for kind in kinds if isinstance(kind, ast.Name))

    def _call_method(self, held: Value, name: str, arguments: list[Value], keywords: Names) -> Value:
        method = METHODS.get(type(held), {}).get(name)
        if method is None:
            raise Refused(f"the method {name} of a {type(held).__name__}")
        self._spend(measured(held))
        result = method(held, *arguments, **keywords)
        self._made(held)
        return self._made(result)


def _parameters(function: ast.FunctionDef) -> list[str]:
    taken = function.args
    if taken.vararg or taken.kwarg or taken.kwonlyargs or function.decorator_list:
        raise Refused("decorators, or parameters other than plain ones")
    return [parameter.arg for parameter in (*taken.posonlyargs, *taken.args)]


def _read(target: ast.expr) -> ast.expr:
    """The expression that reads what an assignment would set."""
    match target:
        case ast.Name(id=name):
            return ast.Name(id=name, ctx=ast.Load())
        case ast.Subscript(value=value, slice=place):
            return ast.Subscript(value=value, slice=place, ctx=ast.Load())
    raise _not_run(target)


def _present(part: _Part | None) -> _Part:
    if part is None:
        raise Refused("unpacking with **")
    return part


def _not_run(node: ast.AST) -> Refused:
    return Refused(f"{type(node).__name__} is not run")
