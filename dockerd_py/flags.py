"""Command line flags in the manner of the first year's program, for `pydockerd` and `pydocker` alike.

argparse cannot read this grammar:

- ``-x v``, ``-x=v``, ``-xv``; ``--long v``, ``--long=v``; long names with one dash too (``-name=web``), as
  the first year spelt them;
- a boolean takes a value only behind "=" (``-d``, ``--rm=false``); short booleans may be grouped (``-it``),
  and the last of a group may take a value (``-itp 80``, ``-itp80``);
- ``--`` ends the flags, and so does the first argument that is none, unless ``interspersed`` is set;
- what is not known is an error that names it: ``flag provided but not defined: -x``.

Nothing here prints or exits.  Nothing is imported, because every start of `pydocker` pays for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    Kind = Literal["string", "bool", "int", "float", "size", "duration", "list"]
    Value = str | bool | int | float | list[str]


class FlagError(Exception):
    """The command line cannot be understood; the text says which part of it."""


class HelpRequested(Exception):
    """``-h``, ``-help`` or ``--help``, where these are not flags of the program's own."""


class Flag:
    """One flag and all that it is known by.

    names: as typed, e.g. ("-H", "--host").  The last one is what `Parsed` knows it by, without its dashes.
    kind: "list" gathers strings in the order given; "size" is a number of bytes, 1024-based, with an
        optional unit b, k, m, g or t ("64m"); "duration" is nanoseconds, written as "1m30s" or "500ms"; of the
        other kinds the last one given counts.
    default: the value when the flag is not given; None: the kind's empty value.
    help: one line for the usage text; a flag with none is not listed there.
    choices: the only values that are accepted, when there are any.
    check: called with each text; raises ValueError, whose text ends the message.
    """

    __slots__ = ("check", "choices", "default", "help", "kind", "metavar", "names")

    def __init__(
        self,
        names: Sequence[str] | str,
        kind: Kind = "string",
        default: Value | None = None,
        help: str = "",  # noqa: A002
        *,
        choices: Sequence[str] = (),
        check: Callable[[str], object] | None = None,
        metavar: str = "",
    ) -> None:
        self.names = (names,) if isinstance(names, str) else tuple(names)
        self.kind = kind
        self.default: Value = _empty(kind) if default is None else default
        self.help = help
        self.choices = tuple(choices)
        self.check = check
        self.metavar = metavar

    @property
    def key(self) -> str:
        return self.names[-1].lstrip("-")


class Parsed:
    """What a command line said: every flag's value, which flags were given, and the other arguments."""

    __slots__ = ("_given", "_values", "args")

    def __init__(self, values: dict[str, Value], given: set[str], args: list[str]) -> None:
        self._values = values
        self._given = given
        self.args = args

    def has(self, key: str) -> bool:
        """Whether the flag was given, be it with its default's value."""
        assert key in self._values, key
        return key in self._given

    def string(self, key: str) -> str:
        value = self._values[key]
        assert isinstance(value, str), key
        return value

    def boolean(self, key: str) -> bool:
        value = self._values[key]
        assert isinstance(value, bool), key
        return value

    def integer(self, key: str) -> int:
        """The value of an "int", a "size" or a "duration" flag."""
        value = self._values[key]
        assert isinstance(value, int), key
        return value

    def number(self, key: str) -> float:
        value = self._values[key]
        assert isinstance(value, (int, float)), key
        return float(value)

    def strings(self, key: str) -> list[str]:
        value = self._values[key]
        assert isinstance(value, list), key
        return value


def parse(flags: Iterable[Flag], argv: Sequence[str], *, interspersed: bool = False) -> Parsed:
    """Read ``argv`` (without the program's name).

    interspersed: flags may follow other arguments, up to "--".
    Raises FlagError and HelpRequested.
    """
    return _Reader(list(flags), argv).read(interspersed)


def parse_size(text: str) -> int:
    """Bytes in "1073741824", "64m", "1g", "1GB", "0.5GiB": 1024-based, case ignored.  Raises ValueError."""
    number = text.strip().lower()
    for ending in ("ib", "b"):
        if number.endswith(ending) and len(number) > len(ending) and number[-len(ending) - 1] in "kmgt":
            number = number[: -len(ending)]
            break
    factor = 1
    if number and number[-1] in "bkmgt":
        factor = 1024 ** "bkmgt".index(number[-1])
        number = number[:-1].rstrip()
    if not number.replace(".", "", 1).isdigit() or not number.isascii():
        raise ValueError("it must be a number of bytes with an optional unit b, k, m or g")
    return int(float(number) * factor) if "." in number else int(number) * factor


def parse_duration(text: str) -> int:
    """Nanoseconds in "30s", "1m30s", "1.5h", "200ms" or "0", as Go writes durations.  Raises ValueError."""
    complaint = ValueError("it must be a duration such as 30s, 1m30s or 500ms")
    rest = text.strip().removeprefix("+")
    if rest == "0":
        return 0
    if not rest or not rest.isascii():
        raise complaint
    total = 0.0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        letters = len(rest) - digits - len(rest[digits:].lstrip("hmsun"))
        number, unit, rest = rest[:digits], rest[digits : digits + letters], rest[digits + letters :]
        if not number.replace(".", "", 1).isdigit() or unit not in _NANOSECONDS:
            raise complaint
        total += float(number) * _NANOSECONDS[unit]
    return round(total)


_NANOSECONDS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}


def describe(flags: Iterable[Flag]) -> str:
    """The flags with their defaults, one below the other, as a usage text shows them."""
    rows = [(_spelling(flag), flag.help) for flag in flags if flag.help]
    width = max((len(left) for left, _ in rows), default=0)
    return "".join(f"  {left.ljust(width)}   {text}\n" for left, text in rows)


def _spelling(flag: Flag) -> str:
    names = ", ".join(flag.names)
    indent = "" if len(flag.names[0]) == 2 else "    "
    if flag.metavar:
        return f"{indent}{names} {flag.metavar}"
    default = flag.default
    if isinstance(default, bool):
        shown = "true" if default else "false"
    elif isinstance(default, list):
        shown = "[" + " ".join(default) + "]"
    elif isinstance(default, str):
        shown = f'"{default}"'
    else:
        shown = str(default)
    return f"{indent}{names}={shown}"


def _empty(kind: Kind) -> Value:
    if kind == "bool":
        return False
    if kind == "list":
        return []
    if kind == "float":
        return 0.0
    return "" if kind == "string" else 0


class _Reader:
    def __init__(self, flags: list[Flag], argv: Sequence[str]) -> None:
        self.by_name: dict[str, Flag] = {}
        self.values: dict[str, Value] = {}
        for flag in flags:
            for name in flag.names:
                assert name not in self.by_name, name
                self.by_name[name] = flag
            default = flag.default
            self.values[flag.key] = list(default) if isinstance(default, list) else default
        self.given: set[str] = set()
        self.queue = list(argv)
        self.at = 0

    def read(self, interspersed: bool) -> Parsed:
        args: list[str] = []
        while self.at < len(self.queue):
            arg = self.queue[self.at]
            if arg == "--":
                self.at += 1
                break
            if len(arg) < 2 or arg[0] != "-":
                if not interspersed:
                    break
                args.append(arg)
                self.at += 1
                continue
            self.at += 1
            self._flag(arg)
        return Parsed(self.values, self.given, args + self.queue[self.at :])

    def _flag(self, arg: str) -> None:
        name, equals, value = arg.partition("=")
        flag = self.by_name.get(name)
        if flag is None and len(name) > 2 and name[1] != "-":
            flag = self.by_name.get("-" + name)  # the first year's one dash
        if flag is not None:
            self._set(flag, name, value if equals else None)
        elif name in ("-h", "-help", "--help"):
            raise HelpRequested
        elif len(name) > 2 and name[1] != "-" and "-" + name[1] in self.by_name:
            self._group(arg)
        else:
            raise FlagError(f"flag provided but not defined: {name}")

    def _group(self, arg: str) -> None:
        for index, letter in enumerate(arg[1:], 1):
            name = "-" + letter
            flag = self.by_name.get(name)
            if flag is None:
                raise FlagError(f"flag provided but not defined: {name} (in {arg})")
            rest = arg[index + 1 :]
            if flag.kind != "bool":
                self._set(flag, name, rest.removeprefix("=") if rest else None)
                return
            if rest.startswith("="):
                self._set(flag, name, rest[1:])
                return
            self._set(flag, name, None)

    def _set(self, flag: Flag, name: str, text: str | None) -> None:
        if text is None:
            if flag.kind == "bool":
                text = "true"
            elif self.at < len(self.queue):
                text = self.queue[self.at]
                self.at += 1
            else:
                raise FlagError(f"flag needs an argument: {name}")
        try:
            value = _convert(flag, text)
        except ValueError as error:
            raise FlagError(f'invalid value "{text}" for flag {name}: {error}') from None
        if flag.kind == "list":
            gathered = self.values[flag.key]
            assert isinstance(gathered, list)
            if flag.key not in self.given:
                gathered.clear()
            gathered.append(text)
        else:
            self.values[flag.key] = value
        self.given.add(flag.key)


def _convert(flag: Flag, text: str) -> Value:
    if flag.choices and text not in flag.choices:
        raise ValueError(f"it must be one of {', '.join(flag.choices)}")
    if flag.check is not None:
        flag.check(text)
    if flag.kind == "bool":
        if text.lower() in ("1", "t", "true"):
            return True
        if text.lower() in ("0", "f", "false"):
            return False
        raise ValueError("it must be true or false")
    if flag.kind == "int":
        digits = text[1:] if text[:1] in ("+", "-") else text
        if not (digits.isdigit() and digits.isascii()):
            raise ValueError("it must be a whole number")
        return int(text)
    if flag.kind == "float":
        digits = text[1:] if text[:1] in ("+", "-") else text
        if not (digits.replace(".", "", 1).isdigit() and digits.isascii()):
            raise ValueError("it must be a number")
        return float(text)
    if flag.kind == "size":
        return parse_size(text)
    if flag.kind == "duration":
        return parse_duration(text)
    return text
