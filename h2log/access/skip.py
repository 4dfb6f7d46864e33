"""The `skip` of an output: an expression over a request's record, compiled to a function.

    status < 400
    path == "/healthz" or path.startswith("/static/")
    outcome == "COMPLETE" and not (200 <= status < 300) and "bot" in user_agent.lower()

It is Python's syntax, read by `ast`, of which nothing is taken but what stands below: names of the
record, numbers and texts, comparisons, `in`, `and`, `or`, `not`, and three methods of texts. Kinds
are checked when it is compiled, so that it cannot fail on a request.

What is compared is what was sent: an expression sees also what a line masks, for it writes nothing.

A request without a response has the status 0, and no order: neither `status < 400` nor
`status >= 400` holds for it, so that what failed is not skipped by accident. Nor has a `stream`
that is not known, which is -1.
"""

from __future__ import annotations

import ast
import difflib
import math
import warnings
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn, TypeGuard

from h2log.access.record import UNKNOWN, AccessRecord, Outcome

__all__ = ["NAMES", "Skip", "SkipError", "compile_skip"]

Skip = Callable[[AccessRecord], bool]
"""Returns whether the record is left out."""

MAX_LENGTH: Final = 2000
"""Characters of an expression: far beyond what a person writes, far below the parser's limits."""

_NUMBER, _TEXT, _TRUTH = "a number", "text", "a condition"


class SkipError(ValueError):
    """An expression that cannot be used; the message has the column, from 1."""


class _Name(NamedTuple):
    kind: str
    code: str
    """Its value, as Python, of the record `r`."""
    choices: tuple[str, ...] = ()
    """What it is compared with; anything else is a mistake."""


NAMES: Final[dict[str, _Name]] = {
    "status": _Name(_NUMBER, "r.status"),
    "method": _Name(_TEXT, "r.facts.method"),
    "url": _Name(_TEXT, "r.facts.path"),
    "path": _Name(_TEXT, "r.facts.path.partition('?')[0]"),
    "query": _Name(_TEXT, "r.facts.path.partition('?')[2]"),
    "scheme": _Name(_TEXT, "r.facts.scheme"),
    "authority": _Name(_TEXT, "r.facts.authority"),
    "user_agent": _Name(_TEXT, "field(r, b'user-agent')"),
    "referrer": _Name(_TEXT, "field(r, b'referer')"),
    "outcome": _Name(_TEXT, "outcome(r)", tuple(outcome.value for outcome in Outcome)),
    "protocol": _Name(_TEXT, "r.protocol", ("h3", "h2", "1.1", "1.0")),
    "bytes": _Name(_NUMBER, "r.sent"),
    "received": _Name(_NUMBER, "r.received"),
    "ms": _Name(_NUMBER, "r.milliseconds"),
    "client": _Name(_TEXT, "r.client[0]"),
    "session": _Name(_TEXT, "r.session.id"),
    "id": _Name(_TEXT, "r.id"),
    "stream": _Name(_NUMBER, "r.stream_id"),
    "nth": _Name(_NUMBER, "r.nth"),
    "cache": _Name(_TEXT, "r.cache"),
}
"""What an expression may name."""

_GUARDS: Final = {"status": "r.status != 0", "stream": f"r.stream_id != {UNKNOWN}"}
"""What has to hold before the value of a name has an order."""

_METHODS: Final = {"startswith": _TRUTH, "endswith": _TRUTH, "lower": _TEXT}
_ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def compile_skip(expression: str) -> Skip:
    """Return the function that says whether a record is skipped.

    Raises SkipError that names the column and what is wrong there.
    """
    if len(expression) > MAX_LENGTH:
        raise SkipError(f"column {MAX_LENGTH + 1}: longer than {MAX_LENGTH} characters")
    # One line, and its first column the parser's first: an indent would be an error of its own.
    text = expression.replace("\r", " ").replace("\n", " ")
    margin = len(text) - len(text.lstrip())
    text = text.strip()
    if not text:
        raise SkipError("column 1: expected a condition, such as status < 400")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd escape in a text
            tree = ast.parse(text, mode="eval")
        code = _Reader(text, margin).condition(tree.body)
        # Every piece of the code was written by the reader; a person's words are only in literals.
        found = eval(  # noqa: S307 - see above
            compile(f"lambda r: {code}", "<skip>", "eval"),
            {"__builtins__": {}, "field": _field, "outcome": _outcome},
        )
    except SyntaxError as error:
        # The parser tells no column, or 0, where something is missing at the end.
        column = min(error.offset or len(text) + 1, len(text) + 1) + margin
        raise SkipError(f"column {column}: {_said(error.msg)}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, SkipError):
            raise
        raise SkipError(f"column 1: {_said(str(error)) or 'nested too deeply'}") from None
    skip: Skip = found
    return skip


def _said(message: str) -> str:
    """Return the parser's complaint, without what is only true of a program."""
    message = message.removesuffix(" (detected at line 1)")
    if message == "invalid syntax":
        return "invalid syntax; there are == != < <= > >= in, and, or, not"
    return message.removeprefix("invalid syntax. ")


def _field(record: AccessRecord, name: bytes) -> str:
    for key, value in record.facts.fields:
        if key == name:
            return value.decode("latin-1")
    return ""


def _outcome(record: AccessRecord) -> str:
    return "" if record.outcome is None else record.outcome.value


class _Reader:
    """Turns nodes into code of the same meaning, and refuses every node that is not listed."""

    def __init__(self, text: str, margin: int) -> None:
        self._text = text.encode()
        self._margin = margin

    def _refuse(self, node: ast.AST, complaint: str) -> NoReturn:
        before = self._text[: getattr(node, "col_offset", 0)].decode("utf-8", "replace")
        raise SkipError(f"column {self._margin + len(before) + 1}: {complaint}")

    def condition(self, node: ast.expr) -> str:
        """Return the code of something that holds or does not."""
        kind, code = self._read(node)
        if kind is not _TRUTH:
            self._refuse(node, f"expected a condition, such as status < 400; this is {kind}")
        return code

    def _read(self, node: ast.expr) -> tuple[str, str]:
        match node:
            case ast.BoolOp(op=op, values=values):
                word = " and " if isinstance(op, ast.And) else " or "
                return _TRUTH, f"({word.join(map(self.condition, values))})"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _TRUTH, f"(not {self.condition(operand)})"
            case ast.Compare():
                return _TRUTH, self._comparison(node)
            case ast.Call():
                return self._call(node)
            case _:
                return self._value(node)

    def _value(self, node: ast.expr) -> tuple[str, str]:
        match node:
            case ast.Name(id=name):
                if name in NAMES:
                    return NAMES[name].kind, NAMES[name].code
                self._refuse(node, f"unknown name {name}{_hint(name, list(NAMES))}")
            case ast.Constant(value=bool() as value):
                return _TRUTH, repr(value)
            case ast.Constant(value=int() | float() as value):
                if value == math.inf:  # 1e999
                    self._refuse(node, "this number is too large")
                return _NUMBER, repr(value)
            case ast.Constant(value=str() as value):
                return _TEXT, repr(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
                return _NUMBER, f"(-{self._expect(operand, _NUMBER)})"
            case ast.Call():
                return self._call(node)
        self._refuse(node, "only names, numbers, texts, comparisons, in, and, or, not are known")

    def _call(self, node: ast.Call) -> tuple[str, str]:
        known = ", ".join(f"{name}()" for name in _METHODS)
        match node.func:
            case ast.Attribute(value=owner, attr=method) if method in _METHODS:
                kind, code = self._value(owner)
                if kind is not _TEXT:
                    self._refuse(owner, f"{method}() needs text; this is {kind}")
            case _:
                self._refuse(node, f"only the methods {known} of a text can be called")
        wanted = 0 if method == "lower" else 1
        if len(node.args) != wanted or node.keywords:
            self._refuse(node, f"{method}() takes {'one text' if wanted else 'nothing'}")
        arguments = [self._expect(argument, _TEXT) for argument in node.args]
        return _METHODS[method], f"{code}.{method}({''.join(arguments)})"

    def _expect(self, node: ast.expr, wanted: str) -> str:
        kind, code = self._value(node)
        if kind is not wanted:
            self._refuse(node, f"expected {wanted}; this is {kind}")
        return code

    def _comparison(self, node: ast.Compare) -> str:
        left, pieces = node.left, []
        kind, code = self._value(left)
        guards: list[str] = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            if kind is _TRUTH:
                self._refuse(left, "a condition is not compared; use it as it is, or not")
            if isinstance(op, ast.In | ast.NotIn):
                word = "in" if isinstance(op, ast.In) else "not in"
                right_code = self._collection(left, kind, right)
                pieces.append(f"{code} {word} {right_code}")
                if right is not node.comparators[-1]:
                    self._refuse(right, "nothing can be compared after in")
                continue
            right_kind, right_code = self._value(right)
            if right_kind is not kind:
                self._refuse(right, f"{kind} is compared with {right_kind}")
            if isinstance(op, ast.Eq | ast.NotEq):
                word = "==" if isinstance(op, ast.Eq) else "!="
                self._choice(left, right)
                self._choice(right, left)
            elif isinstance(op, _ORDERS):
                word = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}[type(op)]
                guards += [_GUARDS[name.id] for name in (left, right) if _is_guarded(name)]
            else:
                self._refuse(right, "is compares identities; use == or !=")
            pieces.append(f"{code} {word} {right_code}")
            left, kind, code = right, right_kind, right_code
        return f"({' and '.join((*guards, *pieces))})"

    def _collection(self, left: ast.expr, kind: str, node: ast.expr) -> str:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            for element in node.elts:
                self._choice(left, element)
            codes = [self._expect(element, kind) for element in node.elts]
            return f"({''.join(f'{code}, ' for code in codes)})"
        if kind is not _TEXT:
            self._refuse(node, "expected a list such as (404, 410)")
        return self._expect(node, _TEXT)

    def _choice(self, name: ast.expr, value: ast.expr) -> None:
        """Refuse to compare a name with a text that it never is."""
        if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
            choices = NAMES[name.id].choices if name.id in NAMES else ()
            if choices and isinstance(value.value, str) and value.value not in choices:
                hint = _hint(value.value.upper(), list(choices))
                self._refuse(value, f"{name.id} is never {value.value!r}{hint}")


def _is_guarded(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id in _GUARDS


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
