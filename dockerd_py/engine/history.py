"""The steps of an image's making, as its configuration tells them."""

from __future__ import annotations

from typing import Any

from dockerd_py.engine.model import HistoryEntry
from dockerd_py.store.image_config import parse_time
from dockerd_py.store.image_index import StoredImage

Step = dict[str, Any]
History = list[HistoryEntry]


def padded_steps(image: StoredImage) -> list[Step]:
    """The steps of an image's history, the first one first; one for each layer where it says less than that."""
    steps = list(image.raw.get("history") or ())
    with_layers = sum(1 for step in steps if not step.get("empty_layer"))
    return [{}] * max(0, len(image.diff_ids) - with_layers) + steps


def entry(step: Step, image: StoredImage | None, sizes: list[int], tags: tuple[str, ...]) -> HistoryEntry:
    """A step as it is shown; one that has a layer takes the first of ``sizes``."""
    return HistoryEntry(
        id=image.id if image else "",
        created=parse_time(step.get("created") or ""),
        created_by=step.get("created_by") or "",
        comment=step.get("comment") or "",
        tags=tags,
        size=0 if step.get("empty_layer") or not sizes else sizes.pop(0),
    )
