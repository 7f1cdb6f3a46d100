"""What all commands that inspect things have in common."""

from __future__ import annotations

import sys

from dockerd_py.cli.command import complain
from dockerd_py.cli.errors import CliError
from dockerd_py.cli.template import Template, to_json
from dockerd_py.cli.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def inspect_each(refs: Iterable[str], look_up: Callable[[str], Any], format_: str) -> int:
    """Print what is found, then what is not, on standard error.  The exit code: 0 or 1."""
    # Raw, so that a script gets what is there; a terminal gets nothing that it would obey.
    clean = (lambda text: printable(text, keep="\n\t")) if sys.stdout.isatty() else str
    template = Template(format_, clean) if format_ not in ("", "json") else None
    found: list[Any] = []
    failures: list[str] = []
    for ref in refs:
        try:
            found.append(look_up(ref))
        except CliError as error:
            failures.append(str(error))
    if template is not None:
        for value in found:
            print(template.render(value))
    elif format_ == "json":
        for value in found:
            print(to_json(value))
    else:
        print(to_json(found, indent=4))
    for failure in failures:
        complain(failure)
    return 1 if failures else 0
