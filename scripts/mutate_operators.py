"""Every way to break one line of a Python source: pure, over ``ast``, with exact positions.

A mutant replaces one span of the source text, so comments and layout stay and the difference is a
line that a reader knows.  ``ast`` says where a node starts and ends but not where its operator
stands; operators are found among the tokens between the two operands.

Left alone, because no test can or should notice them: annotations and type aliases, docstrings and
texts, statements that log, ``assert``, ``__repr__``, ``__all__``, ``__slots__``, decorators,
``if TYPE_CHECKING``, ``if __name__``, and f-strings (Python 3.11 gives wrong positions in them).
"""

import ast
import bisect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "+"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
    ast.BitXor: ("^", "|"),
}
LOGS = {"log", "_log", "logger", "_logger"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# Arguments of attrs and msgspec that change how a class is printed or stored, not what it does.
SHAPES = {"repr", "kw_only", "slots", "frozen", "eq", "order", "hash", "weakref_slot", "gc"}
TYPING = {"Literal", "Annotated", "Callable", "Awaitable", "TypeVar", "NewType", "cast"}


@dataclass(frozen=True)
class Mutant:
    """One broken line.

    ``start`` and ``end`` are character offsets of the replaced span, ``line`` its first line (1 is
    the first), ``lines`` first and last line of the statement (the header of a compound one),
    ``scope`` those of the innermost function or None at import time.
    """

    file: str
    line: int
    column: int
    operator: str
    start: int
    end: int
    text: str
    lines: tuple[int, int]
    scope: tuple[int, int] | None

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def change(self, source: str) -> tuple[str, str]:
        """The line before and after, stripped; of a longer span only its first line."""
        before = source.split("\n")[self.line - 1].strip()
        after = self.apply(source).split("\n")[self.line - 1].strip()
        return before, after


def mutants_of(source: str, file: str) -> list[Mutant]:
    """All mutants of a module in the order of the text; each of them compiles.

    Raises ``SyntaxError`` where ``source`` does not parse.
    """
    found: dict[tuple[int, int, str], Mutant] = {}
    for mutant in _Finder(source, file).module():
        found.setdefault((mutant.start, mutant.end, mutant.text), mutant)
    return sorted(
        (mutant for mutant in found.values() if _may_be(mutant, source)),
        key=lambda mutant: (mutant.start, mutant.end, mutant.operator, mutant.text),
    )


def _may_be(mutant: Mutant, source: str) -> bool:
    """A pattern may be ``-1`` and not ``+1``; everything else is made so that it compiles."""
    if mutant.operator != "sign":
        return True
    try:
        ast.parse(mutant.apply(source))
    except SyntaxError:
        return False
    return True


class _Finder:
    def __init__(self, source: str, file: str) -> None:
        self.file = file
        self.source = source
        self.lines = io.StringIO(source).readlines()
        self.offsets = [0]
        for line in self.lines:
            self.offsets.append(self.offsets[-1] + len(line))
        self.tokens = [
            (self.offsets[token.start[0] - 1] + token.start[1], token.string)
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type in (tokenize.OP, tokenize.NAME)
        ]
        self.statement: tuple[int, int] = (1, 1)
        self.scope: tuple[int, int] | None = None

    def at(self, line: int, column: int) -> int:
        """``ast`` counts columns in bytes of UTF-8."""
        text = self.lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode())
        return self.offsets[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end = self.at(node.end_lineno or node.lineno, node.end_col_offset or 0)
        return self.at(node.lineno, node.col_offset), end

    def mutant(self, operator: str, start: int, end: int, text: str) -> Mutant:
        line = bisect.bisect_right(self.offsets, start)
        column = start - self.offsets[line - 1]
        place = (self.statement, self.scope)
        return Mutant(self.file, line, column, operator, start, end, text, *place)

    def module(self) -> Iterator[Mutant]:
        yield from self.block(ast.parse(self.source).body)

    def block(self, body: list[ast.stmt]) -> Iterator[Mutant]:
        for statement in body:
            if not _is_left_alone(statement):
                yield from self.of_statement(statement)

    def of_statement(self, node: ast.stmt) -> Iterator[Mutant]:
        last = node.end_lineno or node.lineno
        inner = getattr(node, "body", None) or getattr(node, "cases", None)
        if inner:
            first = inner[0].pattern if isinstance(inner[0], ast.match_case) else inner[0]
            last = max(node.lineno, first.lineno - 1)
        outer = (self.statement, self.scope)
        self.statement = (node.lineno, last)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = (*node.args.defaults, *(d for d in node.args.kw_defaults if d))
            self.scope = (node.body[0].lineno, node.end_lineno or node.lineno)
            for default in defaults:
                yield from self.expression(default)
            yield from self.block(node.body)
        elif isinstance(node, ast.ClassDef):
            yield from self.block(node.body)
        else:
            yield from self.dropped(node)
            yield from self.parts(node)
        self.statement, self.scope = outer

    def parts(self, node: ast.AST) -> Iterator[Mutant]:
        """Expressions and blocks below a statement, without its annotations."""
        for name, value in ast.iter_fields(node):
            if name == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    if not _is_left_alone(child):
                        yield from self.of_statement(child)
                elif isinstance(child, ast.expr):
                    yield from self.expression(child)
                elif isinstance(child, ast.ExceptHandler):
                    yield from self.block(child.body)
                elif isinstance(child, ast.AST):
                    yield from self.parts(child)

    def dropped(self, node: ast.stmt) -> Iterator[Mutant]:
        start, end = self.span(node)
        match node:
            case ast.Return(value=ast.expr() as value) if not _is_constant(value, None):
                yield self.mutant("return-none", *self.span(value), "None")
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
                yield self.mutant("drop", start, end, "pass")
            case ast.Continue() | ast.Break():
                yield self.mutant("drop", start, end, "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                yield self.mutant("drop", start, end, "pass")
            case ast.AugAssign():
                yield self.mutant("drop", start, end, "pass")
                if type(node.op) in (ast.Add, ast.Sub):
                    sign, other = ARITHMETIC[type(node.op)]
                    yield from self.between(
                        "arithmetic", self.span(node.target)[1], node.value, f"{sign}=", f"{other}="
                    )
            case ast.If() | ast.While():
                if not isinstance(node.test, ast.Constant):
                    yield self.negated(node.test)
            case _:
                pass

    def negated(self, test: ast.expr) -> Mutant:
        start, end = self.span(test)
        return self.mutant("negate", start, end, f"(not ({self.source[start:end]}))")

    def between(
        self, operator: str, start: int, right: ast.expr, before: str, after: str
    ) -> Iterator[Mutant]:
        """The token (or two: ``not in``) between an offset and the right operand."""
        words, stop = before.split(), self.span(right)[0]
        first = bisect.bisect_left(self.tokens, (start, ""))
        near = self.tokens[first : bisect.bisect_left(self.tokens, (stop, ""))]
        for index, (offset, _) in enumerate(near):
            run = near[index : index + len(words)]
            if [text for _, text in run] == words:
                end = run[-1][0] + len(words[-1])
                yield self.mutant(operator, offset, end, after)
                return

    def expression(self, node: ast.expr) -> Iterator[Mutant]:
        match node:
            case ast.JoinedStr():
                return
            case ast.Call() if _name(node.func) in TYPING:
                return
            case ast.Subscript() if _name(node.value) in TYPING:
                return
            case ast.Compare():
                for op, left, right in zip(
                    node.ops, [node.left, *node.comparators], node.comparators, strict=False
                ):
                    yield from self.between(
                        "compare", self.span(left)[1], right, *COMPARE[type(op)]
                    )
                for side in (node.left, *node.comparators):
                    yield from self.key(side)
            case ast.BinOp() if type(node.op) in ARITHMETIC and self.is_number(node):
                yield from self.between(
                    "arithmetic", self.span(node.left)[1], node.right, *ARITHMETIC[type(node.op)]
                )
            case ast.BoolOp():
                words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield from self.between("boolean", self.span(left)[1], right, *words)
            case ast.UnaryOp(op=ast.Not()):
                start, end = self.span(node)
                operand = self.source[slice(*self.span(node.operand))]
                yield self.mutant("not", start, end, f"({operand})")
            case ast.UnaryOp(op=ast.USub()):
                start, _ = self.span(node)
                yield self.mutant("sign", start, start + 1, "+")
            case ast.IfExp():
                yield self.negated(node.test)
            case ast.Constant():
                yield from self.constant(node)
            case ast.Call(func=ast.Name(id="min" | "max" as name)):
                start, end = self.span(node.func)
                yield self.mutant("min-max", start, end, "max" if name == "min" else "min")
            case ast.Call(func=ast.Attribute(attr="get" | "pop"), args=[first, *_]):
                yield from self.key(first)
            case ast.Subscript(slice=ast.Slice() as bounds):
                for bound in (bounds.lower, bounds.upper):
                    if bound is not None and not isinstance(bound, ast.Constant):
                        yield self.mutant("slice", *self.span(bound), "")
            case ast.Subscript():
                yield from self.key(node.slice)
            case ast.Dict():
                for key in node.keys:
                    if key is not None:
                        yield from self.key(key)
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from self.expression(child)
            elif isinstance(child, ast.keyword):
                if child.arg not in SHAPES:
                    yield from self.expression(child.value)
            elif isinstance(child, ast.comprehension):
                for condition in child.ifs:
                    yield self.negated(condition)
                yield from self.parts(child)
            elif isinstance(child, ast.arguments):  # of a lambda
                yield from self.parts(child)

    def is_number(self, node: ast.BinOp) -> bool:
        """Texts and lists joined with + would only raise, ``A | B`` at import time is a type."""
        texts = (ast.JoinedStr, ast.List, ast.Tuple)
        for side in (node.left, node.right):
            if isinstance(side, texts):
                return False
            if isinstance(side, ast.Constant) and isinstance(side.value, str | bytes | None):
                return False
        return not (isinstance(node.op, ast.BitOr) and self.scope is None)

    def constant(self, node: ast.Constant) -> Iterator[Mutant]:
        start, end = self.span(node)
        value = node.value
        if isinstance(value, bool):
            yield self.mutant("constant", start, end, str(not value))
        elif isinstance(value, int | float):
            yield self.mutant("constant", start, end, repr(value + 1))

    def key(self, node: ast.expr) -> Iterator[Mutant]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield self.mutant("key", *self.span(node), repr(node.value + "_"))


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_left_alone(node: ast.stmt) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal():
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring, or ...
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=level, value=owner))):
            return level in LEVELS and _name(owner) in LOGS
        case ast.FunctionDef(name="__repr__"):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__" | "__match_args__")]):
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.If(test=test):
            return _name(test) == "TYPE_CHECKING"
        case _:
            return False
