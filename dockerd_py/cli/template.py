"""The part of Go's templates that --format needs.

Understood: text; ``{{.}}``, ``{{.A.B}}``, ``{{$}}``, ``{{$.A}}``; strings, whole numbers, true and false; functions
and pipelines, ``{{json .State | upper}}``, with parentheses; ``{{if P}} {{else if P}} {{else}} {{end}}``,
``{{range P}} {{else}} {{end}}``, ``{{with P}} {{else}} {{end}}``; comments; the blank-eating ``{{-`` and ``-}}``.
Whatever else (variables, printf, define) is an error that names it: nothing is printed as it stands.

A field that an object has not is an error too, so that a misspelt name is never an empty line.
"""

from __future__ import annotations

import json
import re

from dockerd_py.cli.errors import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Node = Callable[["_Scope"], None]
    Operand = Callable[["_Scope"], Any]

_ACTION = re.compile(
    r"""\{\{(?:-(?=\s))?((?:"(?:\\.|[^"\\])*"|`[^`]*`|/\*.*?\*/|[^"`}]|\}(?!\}))*?)(?:(?<=\s)-)?\}\}""", re.DOTALL
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?![\w.]))|(?P<variable>\$\w+)"""
    r"""|(?P<field>\$?(?:\.\w+)+|\$|\.(?!\w))|(?P<word>[A-Za-z_]\w*)|(?P<mark>[()|]))"""
)


class Template:
    """A parsed template.  Raises TemplateError where it cannot be understood."""

    def __init__(self, text: str, clean: Callable[[str], str] = str) -> None:
        """clean: applied to the text of every value."""
        self._clean = clean
        self._pieces = _split(text)
        self._at = 0
        self._nodes, end = self._block()
        if end:
            raise TemplateError(f"template parsing error: {{{{{end}}}}} without an opening if, range or with")

    def render(self, value: Any) -> str:
        """Raises TemplateError for a field that ``value`` has not, or a function that cannot take what it gets."""
        scope = _Scope(value, value, [], self._clean)
        for node in self._nodes:
            node(scope)
        return "".join(scope.out)

    def _block(self) -> tuple[list[Node], str]:
        """The nodes up to an ``else`` or ``end`` of this level, and that action's text ("": the template's end)."""
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            is_action, text = self._pieces[self._at]
            self._at += 1
            if not is_action:
                nodes.append(_literal(text))
                continue
            word, _, rest = text.partition(" ")
            if word in ("else", "end"):
                return nodes, text
            if word in ("if", "range", "with"):
                nodes.append(self._control(word, rest))
            else:
                nodes.append(_printed(_pipeline(text)))
        return nodes, ""

    def _control(self, word: str, condition: str) -> Node:
        test = _pipeline(condition)
        body, end = self._block()
        otherwise: list[Node] = []
        if end == "else":
            otherwise, end = self._block()
        elif end.startswith("else if ") and word == "if":
            otherwise, end = [self._control("if", end.removeprefix("else if "))], "end"
        if end != "end":
            found = f"{{{{{end}}}}}" if end else "nothing"
            raise TemplateError(f"template parsing error: {{{{{word}}}}} needs an {{{{end}}}}, found {found}")
        return _CONTROLS[word](test, body, otherwise)


class _Scope:
    """What ``.`` and ``$`` are while a template is rendered, and where its output goes."""

    def __init__(self, dot: Any, root: Any, out: list[str], clean: Callable[[str], str]) -> None:
        self.dot = dot
        self.root = root
        self.out = out
        self.clean = clean

    def with_dot(self, dot: Any) -> _Scope:
        return _Scope(dot, self.root, self.out, self.clean)

    def run(self, nodes: list[Node]) -> None:
        for node in nodes:
            node(self)


def _split(text: str) -> list[tuple[bool, str]]:
    """Literal texts (False) and actions (True), blanks eaten where the marks say so."""
    pieces: list[tuple[bool, str]] = []
    at = 0
    eat = False
    for match in _ACTION.finditer(text):
        literal = text[at : match.start()]
        if eat:
            literal = literal.lstrip()
        if match[0].startswith("{{-") and match[0][3:4].isspace():
            literal = literal.rstrip()
        eat = match[0].endswith("-}}") and match[0][-4:-3].isspace()
        _add_literal(pieces, literal)
        action = " ".join(match[1].split()) if '"' not in match[1] and "`" not in match[1] else match[1].strip()
        if not (action.startswith("/*") and action.endswith("*/")):
            pieces.append((True, action))
        at = match.end()
    rest = text[at:]
    _add_literal(pieces, rest.lstrip() if eat else rest)
    return pieces


def _add_literal(pieces: list[tuple[bool, str]], text: str) -> None:
    if "{{" in text:
        raise TemplateError(f"template parsing error: an action is not closed: {text[text.index('{{'):][:40]}")
    if text:
        pieces.append((False, text))


def _literal(text: str) -> Node:
    return lambda scope: scope.out.append(text)


def _printed(operand: Operand) -> Node:
    return lambda scope: scope.out.append(scope.clean(_text(operand(scope))))


def _if(test: Operand, body: list[Node], otherwise: list[Node]) -> Node:
    return lambda scope: scope.run(body if test(scope) else otherwise)


def _with(test: Operand, body: list[Node], otherwise: list[Node]) -> Node:
    def node(scope: _Scope) -> None:
        value = test(scope)
        if value:
            scope.with_dot(value).run(body)
        else:
            scope.run(otherwise)

    return node


def _range(test: Operand, body: list[Node], otherwise: list[Node]) -> Node:
    def node(scope: _Scope) -> None:
        value = test(scope)
        if value is not None and not isinstance(value, (list, dict)):
            raise TemplateError(f"template parsing error: range cannot go over {_text(value)[:40]}")
        items = [value[key] for key in sorted(value)] if isinstance(value, dict) else value or []
        for item in items:
            scope.with_dot(item).run(body)
        if not items:
            scope.run(otherwise)

    return node


_CONTROLS: dict[str, Callable[[Operand, list[Node], list[Node]], Node]] = {"if": _if, "range": _range, "with": _with}


def _pipeline(text: str) -> Operand:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise TemplateError(f"template parsing error: not understood: {text[at:].strip()[:40]}")
        kind = match.lastgroup or ""
        if kind == "variable":
            raise TemplateError(f"template parsing error: variables are not understood: {match[kind]}")
        tokens.append((kind, match[kind]))
        at = match.end()
    operand, rest = _piped(tokens, text)
    if rest:
        raise TemplateError(f"template parsing error: unexpected {rest[0][1]!r} in {{{{{text}}}}}")
    return operand


def _piped(tokens: list[tuple[str, str]], text: str) -> tuple[Operand, list[tuple[str, str]]]:
    operand, tokens = _command(tokens, None, text)
    while tokens and tokens[0] == ("mark", "|"):
        operand, tokens = _command(tokens[1:], operand, text)
    return operand, tokens


def _command(
    tokens: list[tuple[str, str]], piped: Operand | None, text: str
) -> tuple[Operand, list[tuple[str, str]]]:
    if not tokens or tokens[0] in (("mark", "|"), ("mark", ")")):
        raise TemplateError(f"template parsing error: something is missing in {{{{{text}}}}}")
    kind, token = tokens[0]
    if kind == "word" and token not in ("true", "false", "nil"):
        function = _FUNCTIONS.get(token)
        if function is None:
            known = ", ".join(sorted(_FUNCTIONS))
            raise TemplateError(f'template parsing error: "{token}" is not understood (functions: {known})')
        tokens = tokens[1:]
        arguments: list[Operand] = []
        while tokens and tokens[0] not in (("mark", "|"), ("mark", ")")):
            argument, tokens = _operand(tokens, text)
            arguments.append(argument)
        if piped is not None:
            arguments.append(piped)
        return _call(token, function, arguments), tokens
    if piped is not None:
        raise TemplateError(f"template parsing error: {token!r} behind | is no function in {{{{{text}}}}}")
    return _operand(tokens, text)


def _operand(tokens: list[tuple[str, str]], text: str) -> tuple[Operand, list[tuple[str, str]]]:
    (kind, token), rest = tokens[0], tokens[1:]
    if kind == "string":
        value = token[1:-1] if token[0] == "`" else _unquoted(token)
        return (lambda _: value), rest
    if kind == "number":
        number = int(token)
        return (lambda _: number), rest
    if kind == "word" and token in ("true", "false", "nil"):
        constant = {"true": True, "false": False, "nil": None}[token]
        return (lambda _: constant), rest
    if kind == "field":
        names = [name for name in token.removeprefix("$").split(".") if name]
        if token.startswith("$"):
            return (lambda scope: _descend(scope.root, names)), rest
        return (lambda scope: _descend(scope.dot, names)), rest
    if (kind, token) == ("mark", "("):
        inner, rest = _piped(rest, text)
        if not rest or rest[0] != ("mark", ")"):
            raise TemplateError(f"template parsing error: a parenthesis is not closed in {{{{{text}}}}}")
        rest = rest[1:]
        if rest and rest[0][0] == "field" and rest[0][1].startswith(".") and len(rest[0][1]) > 1:
            fields = rest[0][1][1:].split(".")
            return (lambda scope: _descend(inner(scope), fields)), rest[1:]
        return inner, rest
    raise TemplateError(f"template parsing error: unexpected {token!r} in {{{{{text}}}}}")


def _unquoted(token: str) -> str:
    try:
        value = json.loads(token)
    except ValueError:
        raise TemplateError(f"template parsing error: a string is not understood: {token}") from None
    assert isinstance(value, str)
    return value


def _descend(value: Any, names: list[str]) -> Any:
    for index, name in enumerate(names):
        if isinstance(value, dict) and name in value:
            value = value[name]
            continue
        path = "." + ".".join(names[: index + 1])
        if isinstance(value, dict):
            fields = ", ".join(sorted(value)) or "none"
            raise TemplateError(f"template parsing error: there is no {path} (fields there: {fields})")
        raise TemplateError(f"template parsing error: there is no {path}: what it is looked up in has no fields")
    return value


def _call(name: str, function: Callable[..., Any], arguments: list[Operand]) -> Operand:
    def operand(scope: _Scope) -> Any:
        values = [argument(scope) for argument in arguments]
        try:
            return function(*values)
        except (TypeError, ValueError, LookupError, AttributeError):
            given = " ".join(json.dumps(value)[:60] for value in values) or "nothing"
            raise TemplateError(f"template parsing error: {name} cannot be applied to {given}") from None

    return operand


def _text(value: Any) -> str:
    """As Go prints it: ``true``, ``[a b]``, ``map[k:v]``, ``<no value>``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Compact unless indented; readable letters as they are, what a terminal might obey as escapes."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    if text.replace("\n", "").isprintable():
        return text
    return json.dumps(value, indent=indent, separators=separators).replace("\x7f", "\\u007f")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool) and key >= 0:
            value = value[key]
        else:
            raise TypeError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _len(value: Any) -> int:
    if value is None:
        return 0
    return len(value)


def _join(value: Any, separator: str) -> str:
    return _string(separator).join(map(_text, value or []))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "index": _index,
    "len": _len,
    "join": _join,
    "split": lambda value, separator: _string(value).split(_string(separator)),
    "upper": lambda value: _string(value).upper(),
    "lower": lambda value: _string(value).lower(),
    "print": lambda *values: "".join(map(_text, values)),
    "println": lambda *values: " ".join(map(_text, values)) + "\n",
    "not": lambda value: not value,
    "and": lambda first, *rest: next((value for value in (first, *rest) if not value), (first, *rest)[-1]),
    "or": lambda first, *rest: next((value for value in (first, *rest) if value), (first, *rest)[-1]),
    "eq": lambda first, second, *rest: first in (second, *rest),
    "ne": lambda first, second: first != second,
}
