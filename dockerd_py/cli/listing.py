"""Lists of objects for people: as a table, by a template, as JSON, or as ids only."""

from __future__ import annotations

from dockerd_py.cli.text import printable, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = dict[str, str]


def render(rows: Sequence[Row], headings: dict[str, str], columns: Sequence[str], format_: str = "") -> str:
    """The text to print.

    rows: every field of each object, as text.
    headings: each field's heading in a table.
    columns: the fields that the plain table shows.
    format_: "" or "table": that table; "json": an object a line; "table TEMPLATE": a table of the template's
        columns, which tabs separate; else a template, one line an object.
    Raises TemplateError.
    """
    if format_ in ("", "table"):
        lines = [[headings[name] for name in columns]]
        lines += [[printable(row[name]) for name in columns] for row in rows]
        return table(lines)
    from dockerd_py.cli.template import Template, to_json

    if format_ == "json":
        return "".join(to_json(row) + "\n" for row in rows)
    with_headings = format_.startswith("table ")
    text = format_.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    template = Template(text, printable)
    heading = template.render(headings)  # always, so that a misspelt field is found where there are no rows, too
    rendered = [template.render(row) for row in rows]
    if not with_headings:
        return "".join(line + "\n" for line in rendered)
    return table([line.split("\t") for line in (heading, *rendered)])
