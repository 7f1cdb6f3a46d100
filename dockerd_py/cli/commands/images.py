"""`pydocker images`, `rmi` and `tag`: the images and their names."""

from __future__ import annotations

import sys
import time

from dockerd_py.cli import filters, text
from dockerd_py.cli.client import Client, image_path
from dockerd_py.cli.command import Command, complain
from dockerd_py.cli.errors import CliError, DaemonError
from dockerd_py.cli.listing import render
from dockerd_py.cli.reference import split_reference
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
}
NONE = "<none>"
GRAPH_API = "1.10"
"""A version of the API in which each layer is an image: only then do they make a tree."""


def images(client: Client, given: Parsed) -> int:
    if given.boolean("tree") or given.boolean("viz"):
        return _drawn(client, given)
    wanted = list(given.strings("filter"))
    if given.args:
        wanted.append(f"reference={given.args[0]}")
    query = {
        "all": given.boolean("all") or None,
        "filters": filters.encoded(wanted),
        "digests": given.boolean("digests") or None,
    }
    items: list[dict[str, Any]] = client.get("/images/json", query)
    full = given.boolean("no-trunc")
    format_ = given.string("format")
    if given.boolean("quiet") and not format_:
        ids = [item["Id"] if full else text.short_id(item["Id"]) for item in items]
        sys.stdout.write("".join(f"{id_}\n" for id_ in dict.fromkeys(ids)))
        return 0
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if given.boolean("digests"):
        columns.insert(2, "Digest")
    now = time.time()
    rows = [row for item in items for row in _rows(item, full, now)]
    sys.stdout.write(render(rows, HEADINGS, columns, format_))
    return 0


def _drawn(client: Client, given: Parsed) -> int:
    from dockerd_py.cli import imagetree

    try:
        items: list[dict[str, Any]] = Client(client.host, client.debug, GRAPH_API).get("/images/json", {"all": True})
    except DaemonError as error:
        if error.status != 400:
            raise
        items = client.get("/images/json", {"all": True})  # a daemon that does not know the layers as images
    first = imagetree.start(items, given.args[0]) if given.args else None
    if given.args and first is None:
        raise CliError(f"No such image: {given.args[0]}")
    if given.boolean("viz"):
        sys.stdout.write(imagetree.graph(items, first))
    else:
        sys.stdout.write(imagetree.tree(items, first, given.boolean("no-trunc")))
    return 0


def rmi(client: Client, given: Parsed) -> int:
    query = {
        "force": given.boolean("force") or None,
        "noprune": given.boolean("no-prune") or None,
    }
    code = 0
    for ref in given.args:
        try:
            changes = client.delete(image_path(ref), query) or ()
        except CliError as error:
            complain(str(error))
            code = 1
            continue
        for change in changes:
            for verb in ("Untagged", "Deleted"):
                if change.get(verb):
                    print(f"{verb}: {text.printable(change[verb])}")
        sys.stdout.flush()
    return code


def tag(client: Client, given: Parsed) -> int:
    source, target = given.args
    repo, name = split_reference(target)
    query = {"repo": repo, "tag": name or "latest", "force": given.boolean("force") or None}
    client.post(image_path(source, "/tag"), query)
    return 0


def _rows(item: dict[str, Any], full: bool, now: float) -> Iterator[dict[str, str]]:
    digests = dict(digest.rsplit("@", 1) for digest in item.get("RepoDigests") or () if "@" in digest)
    names = [split_reference(name) for name in item.get("RepoTags") or ()]
    for repo, name in names or [(repo, NONE) for repo in digests] or [(NONE, NONE)]:
        yield {
            "Repository": repo,
            "Tag": name or NONE,
            "Digest": digests.get(repo, NONE),
            "ID": item["Id"] if full else text.short_id(item["Id"]),
            "CreatedSince": text.age(item["Created"], now) if item["Created"] > 0 else "N/A",
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(item["Created"])),
            "Size": text.size(item["Size"]),
            "Containers": str(item.get("Containers", -1)) if item.get("Containers", -1) >= 0 else "N/A",
        }


COMMANDS = {
    "images": Command(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List the images, the newest first; only those whose name matches, if one is given (it may hold * and ?).",
        images,
        (
            Flag(("-a", "--all"), "bool", help="Those that others are built on, too"),
            Flag("--digests", "bool", help="Digests, too"),
            filters.FLAG,
            Flag("--format", help='"table", "json", or a template such as {{.ID}} {{.Tag}}', metavar="TEMPLATE"),
            Flag("--no-trunc", "bool", help="Cut nothing short"),
            Flag(("-q", "--quiet"), "bool", help="Ids only"),
            Flag(("-t", "--tree"), "bool", help="As a tree of all images and the layers below them"),
            Flag(("-v", "--viz"), "bool", help="The tree as a graph for graphviz"),
        ),
        most=1,
    ),
    "rmi": Command(
        "rmi",
        "[OPTIONS] IMAGE...",
        "Take names away from images, and remove the images that have none left.",
        rmi,
        (
            Flag(("-f", "--force"), "bool", help="Also when the image has several names"),
            Flag("--no-prune", "bool", help="Keep parents that have no name"),
        ),
        least=1,
    ),
    "tag": Command(
        "tag",
        "[OPTIONS] IMAGE REPOSITORY[:TAG]",
        'Give an image another name; the tag is "latest" if none is given.',
        tag,
        (Flag(("-f", "--force"), "bool", help="Accepted for old scripts: a name is moved in any case"),),
        least=2,
        most=2,
    ),
}
