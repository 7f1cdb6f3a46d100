"""Images and what they were made from, as a tree of lines or as a graph for graphviz."""

from __future__ import annotations

from dockerd_py.cli.text import printable, short_id, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Item = dict[str, Any]


def start(items: list[Item], name: str) -> Item | None:
    """The image that ``name`` means: its id, the beginning of it, or one of its names."""
    tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    for item in items:
        if tag in (item.get("RepoTags") or ()):
            return item
    return next((item for item in items if name and item["Id"].rpartition(":")[2].startswith(name)), None)


def tree(items: list[Item], first: Item | None, full: bool) -> str:
    """A line an image, its children indented below it; all roots, or one image's branch."""
    known = {item["Id"] for item in items}
    children: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item["Created"], item["Id"])):
        parent = item.get("ParentId") or ""
        children.setdefault(parent if parent in known else "", []).append(item)
    lines: list[str] = []

    def draw(item: Item, prefix: str, last: bool) -> None:
        tags = [printable(tag) for tag in item.get("RepoTags") or () if tag != "<none>:<none>"]
        shown = item["Id"] if full else short_id(item["Id"])
        line = f"{prefix}{'└' if last else '├'}─{shown} Virtual Size: {size(item['VirtualSize'])}"
        lines.append(line + (f" Tags: {', '.join(tags)}" if tags else ""))
        below = children.get(item["Id"], [])
        for each in below:
            draw(each, prefix + ("  " if last else "│ "), each is below[-1])

    roots = [first] if first else children.get("", [])
    for item in roots:
        draw(item, "", item is roots[-1])
    return "".join(line + "\n" for line in lines)


def graph(items: list[Item], first: Item | None) -> str:
    """A digraph in graphviz's language, from a node "base"; all of it, or one image's branch."""
    by_id = {item["Id"]: item for item in items}
    chosen = items if first is None else [item for item in items if _descends(item, first, by_id)]
    lines = ["digraph docker {"]
    for item in chosen:
        shown = short_id(item["Id"])
        parent = item.get("ParentId") or ""
        if parent in by_id and item is not first:
            lines.append(f' "{short_id(parent)}" -> "{shown}"')
        else:
            lines.append(f' base -> "{shown}" [style=invis]')
        tags = [tag for tag in item.get("RepoTags") or () if tag != "<none>:<none>"]
        if tags:
            label = "\\n".join(printable(text).replace('"', '\\"') for text in (shown, *tags))
            lines.append(f' "{shown}" [label="{label}",shape=box,fillcolor="paleturquoise",style="filled,rounded"];')
    return "\n".join([*lines, " base [style=invisible]", "}"]) + "\n"


def _descends(item: Item, first: Item, by_id: dict[str, Item]) -> bool:
    at: Item | None = item
    while at is not None and at is not first:
        at = by_id.get(at.get("ParentId") or "")
    return at is first
