"""What removing an image takes away, and when it is refused: today's rules, and the first year's."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from dockerd_py.errors import Conflict
from dockerd_py.store.image_index import Name, StoredImage


class Rules(enum.Enum):
    TODAY = enum.auto()
    LAYERS = enum.auto()
    """Today's, and the layers that go are told of as the images that they are."""
    FIRST_YEAR = enum.auto()
    """The layers as above.  An id stands for all names of the image, if they are in one repository; with the last
    name the image goes, or stays nameless where something needs it."""


@dataclass(frozen=True)
class Wanted:
    """What is to be removed: ``name`` is the one that was given, or None for an id."""

    ref: str
    image: StoredImage
    name: Name | None
    names: tuple[Name, ...]  # all that the image has
    is_recorded: bool  # not for a layer without a name
    is_layer: bool
    has_children: bool
    containers: Sequence[tuple[str, bool]]  # (id, whether it runs)
    force: bool | None  # None where it cannot be asked for


@dataclass(frozen=True)
class Plan:
    untag: tuple[Name, ...]
    delete: bool


def today(wanted: Wanted) -> Plan:
    """Raises Conflict in Docker's words."""
    image, containers = wanted.image, wanted.containers
    if wanted.name is None:
        _check_by_id(wanted)
        return Plan(wanted.names, delete=True)
    if len(wanted.names) == 1 and containers and not wanted.force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{wanted.ref}" (must force) - container '
            f"{containers[0][0][:12]} is using its referenced image {image.short_id}",
        )
    # A name that goes while the image is held elsewhere leaves the image behind, nameless.
    held = any(running for _, running in containers) or wanted.has_children
    return Plan((wanted.name,), delete=len(wanted.names) == 1 and (not held or wanted.is_layer))


def first_year(wanted: Wanted) -> Plan:
    """Raises Conflict in the words of the time."""
    image, containers = wanted.image, wanted.containers
    hint = ", use -f to force" if wanted.force is False else ""
    untag = wanted.names if wanted.name is None else (wanted.name,)
    if wanted.name is None and len({repo for repo, _ in untag}) > 1 and not wanted.force:
        raise Conflict(
            f"Conflict, cannot delete image {image.short_id} because it is tagged in multiple repositories{hint}"
        )
    last = len(untag) == len(wanted.names)
    blocking = [one for one, running in containers if running or not wanted.force]
    if wanted.name is not None and last and blocking:
        raise Conflict(
            f"Conflict, cannot delete {image.short_id} because the container {blocking[0][:12]} is using it"
        )
    free = not wanted.has_children and not blocking
    delete = last and wanted.is_recorded and (free or (wanted.is_layer and bool(untag)))
    if not untag and not delete:
        raise Conflict(f"Conflict, {wanted.ref} wasn't deleted")
    return Plan(untag, delete)


def _check_by_id(wanted: Wanted) -> None:
    image = wanted.image
    cannot = f"conflict: unable to delete {image.short_id} (cannot be forced) - image"
    for container, running in wanted.containers:
        if running:
            raise Conflict(f"{cannot} is being used by running container {container[:12]}")
    if wanted.has_children:
        raise Conflict(f"{cannot} has dependent child images")
    if not wanted.is_recorded:
        for container, _ in wanted.containers:
            raise Conflict(f"{cannot} is being used by stopped container {container[:12]}")
        raise Conflict(f"{cannot} is a layer of others")
    if wanted.force:
        return
    must = f"conflict: unable to delete {image.short_id} (must be forced) - image is"
    if len(wanted.names) > 1:
        raise Conflict(f"{must} referenced in multiple repositories")
    for container, _ in wanted.containers:
        raise Conflict(f"{must} being used by stopped container {container[:12]}")
