"""The images as an API version sees them: those of today, or the first year's graph, in which each layer is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from dockerd_py.api import eras
from dockerd_py.api.call import COMMON_HEADERS, Call
from dockerd_py.api.routing import PageNotFound, Route

if TYPE_CHECKING:
    from dockerd_py.engine.graph import Graph
    from dockerd_py.engine.images import Images

_SHORT_ID = 12


def images_of(call: Call) -> Graph | Images:
    return call.engine.graph if eras.layers_are_images(call.version) else call.engine.images


def image_of(call: Call, ref: str) -> str:
    """What a client calls an image, so that it means the same to all of the engine.  Raises AmbiguousId."""
    return call.engine.graph.exact(ref) if eras.layers_are_images(call.version) else ref


async def draw(call: Call) -> web.StreamResponse:
    """The graph in graphviz's language: an edge from each parent, and a box for each image with names."""
    if not eras.has_image_graph(call.version):
        raise PageNotFound
    lines = ["digraph docker {"]
    images = call.engine.graph.list()
    for image in images:
        child = image.id[:_SHORT_ID]
        parent = image.parent_id[:_SHORT_ID]
        lines.append(f' "{parent}" -> "{child}"' if parent else f' base -> "{child}" [style=invis]')
    for image in images:
        if image.tags:
            shown = image.id[:_SHORT_ID]
            label = "\\n".join((shown, *image.tags))
            lines.append(f' "{shown}" [label="{label}",shape=box,fillcolor="paleturquoise",style="filled,rounded"];')
    lines += [" base [style=invisible]", "}"]
    text = "".join(line + "\n" for line in lines)
    return web.Response(text=text, headers=COMMON_HEADERS, content_type="text/plain")


ROUTES = (Route("GET", "/images/viz", draw),)
