"""The ``filters`` query parameter: what a list or an event stream shall leave out.

Two spellings are in use: ``{"status": ["running"]}`` and ``{"status": {"running": true}}``.  Values of one filter
are alternatives; different filters must all match; several labels must all match.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dockerd_py.api.fields import parse_object
from dockerd_py.api.times import parse_moment
from dockerd_py.engine.health_model import HealthStatus
from dockerd_py.engine.model import Container, Event, Image, Status
from dockerd_py.engine.mount_model import Volume
from dockerd_py.engine.network_model import Network
from dockerd_py.errors import BadParameter, NotSupported, PydockerdError

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

SHORT_ID = 12

Filters = dict[str, tuple[str, ...]]

_CONTAINER = frozenset((
    "id", "name", "status", "exited", "label", "ancestor", "before", "since", "volume", "network", "expose", "publish",
    "health", "is-task",
))  # fmt: skip
_CONTAINER_LATER = frozenset(("isolation",))  # of Windows
_NO_HEALTH = "none"
_NAMED = ("container", "volume", "network", "daemon")  # kinds of events that are told apart by name
_IMAGE = frozenset(("dangling", "label", "reference", "before", "since", "until"))
_PRUNE_CONTAINERS = frozenset(("label", "label!", "until"))
_VOLUME = frozenset(("dangling", "name", "label", "driver"))
_NETWORK = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_KINDS_OF_NETWORKS = ("builtin", "custom")
_PRUNE_VOLUMES = frozenset(("label", "label!", "all"))
_PRUNE_IMAGES = _PRUNE_CONTAINERS | {"dangling"}
_NO_LATER: frozenset[str] = frozenset()
_EVENT = frozenset(("type", "event", "container", "image", "volume", "network", "label", "daemon", "scope"))
_EVENT_LATER = frozenset(("plugin", "service", "node", "secret", "config"))


def parse_filters(text: str, allowed: frozenset[str], later: frozenset[str]) -> Filters:
    """The filters in ``text``.  BadParameter for what is none, NotSupported for one of ``later``."""
    filters: Filters = {}
    for name, value in parse_object(text.encode("utf-8", "surrogatepass"), "filters").items():
        if name in later:
            raise NotSupported(f"the filter '{name}' is not supported by this version")
        if name not in allowed:
            raise BadParameter(f"invalid filter '{name}'")
        if isinstance(value, dict):
            value = [key for key, wanted in value.items() if wanted]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadParameter(f"invalid filter '{name}': its values must be a list of strings")
        filters[name] = tuple(value)
    return filters


def container_filter(text: str, engine: Engine) -> tuple[Callable[[Container], bool], bool]:
    """Whether a container passes ``text``, and whether the filters ask for containers in any state."""
    filters = parse_filters(text, _CONTAINER, _CONTAINER_LATER)
    for status in filters.get("status", ()):
        if status not in {known.value for known in Status}:
            raise BadParameter(f"invalid filter 'status={status}'")
    for health in filters.get("health", ()):
        if health not in {_NO_HEALTH, *(known.value for known in HealthStatus)}:
            raise BadParameter(f"invalid filter 'health={health}'")
    exposed = _ports(filters, "expose")
    published = _ports(filters, "publish")
    of_tasks = {_boolean("is-task", value) for value in filters.get("is-task", ())}
    exited = [_integer("exited", code) for code in filters.get("exited", ())]
    names = [_expression("name", name) for name in filters.get("name", ())]
    before = [engine.containers.get(ref).created for ref in filters.get("before", ())]
    since = [engine.containers.get(ref).created for ref in filters.get("since", ())]
    ancestors = {_ancestor(engine, ref) for ref in filters.get("ancestor", ())}
    identities = [_expression("id", ref) for ref in filters.get("id", ())]

    def passes(container: Container) -> bool:
        state = container.state
        mounted = [(mount.name, mount.source, mount.target) for mount in container.mounts]
        return (
            (not identities or any(identity.search(container.id) for identity in identities))
            and _any(filters, "status", lambda status: status == state.status.value)
            and (not exited or (state.status is Status.EXITED and state.exit_code in exited))
            and _any(filters, "health", lambda health: health == (state.health.status if state.health else _NO_HEALTH))
            and (not filters.get("expose") or not exposed.isdisjoint(_inner_ports(container)))
            and (not filters.get("publish") or not published.isdisjoint(_outer_ports(container)))
            and (not of_tasks or False in of_tasks)
            and (not names or any(name.search(text) for name in names for text in _names_of(container)))
            and all(_has_label(container.config.labels, label) for label in filters.get("label", ()))
            and (not filters.get("ancestor") or bool(ancestors.intersection(_lineage(engine, container.image_id))))
            and all(container.created < limit for limit in before)
            and all(container.created > limit for limit in since)
            and _any(filters, "volume", lambda v: any(v in mount for mount in mounted))
            and _any(filters, "network", lambda network: _is_on(container, network))
        )

    return passes, bool(filters.get("status"))


def _names_of(container: Container) -> list[str]:
    return [text for name in (container.name, *container.link_names) for text in (name, "/" + name)]


def image_filter(text: str, engine: Engine) -> Callable[[Image], bool]:
    filters = parse_filters(text, _IMAGE, _NO_LATER)
    until = _until(filters)
    dangling = {_boolean("dangling", value) for value in filters.get("dangling", ())}
    before = [engine.images.get(ref).created for ref in filters.get("before", ())]
    since = [engine.images.get(ref).created for ref in filters.get("since", ())]

    def passes(image: Image) -> bool:
        return (
            (not dangling or (not image.tags) in dangling)
            and all(_has_label(image.config.labels, label) for label in filters.get("label", ()))
            and _any(filters, "reference", lambda pattern: any(matches_reference(tag, pattern) for tag in image.tags))
            and all(image.created < limit for limit in before)
            and all(image.created > limit for limit in since)
            and image.created < until
        )

    return passes


def volume_filter(text: str) -> Callable[[Volume], bool]:
    filters = parse_filters(text, _VOLUME, _NO_LATER)
    dangling = {_boolean("dangling", value) for value in filters.get("dangling", ())}
    names = [_expression("name", name) for name in filters.get("name", ())]

    def passes(volume: Volume) -> bool:
        return (
            (not dangling or (not volume.users) in dangling)
            and (not names or any(name.search(volume.name) for name in names))
            and all(_has_label(volume.labels, label) for label in filters.get("label", ()))
            and _any(filters, "driver", lambda driver: driver == volume.driver)
        )

    return passes


def prune_volumes_filter(text: str, *, anonymous_only: bool) -> Callable[[Volume], bool]:
    """Whether a volume may go.  ``anonymous_only``: unless the filter ``all`` says otherwise."""
    filters = parse_filters(text, _PRUNE_VOLUMES, _NO_LATER)
    if "all" in filters and not anonymous_only:
        raise BadParameter("invalid filter 'all': API versions before 1.42 do not have it")
    every = not anonymous_only or any(_boolean("all", value) for value in filters.get("all", ()))
    passes = _prune(filters)
    return lambda volume: (every or volume.anonymous) and passes(volume.created, volume.labels)


def network_filter(text: str, in_use: Callable[[Network], bool]) -> Callable[[Network], bool]:
    """``in_use``: whether a container that runs is on a network."""
    filters = parse_filters(text, _NETWORK, _NO_LATER)
    dangling = {_boolean("dangling", value) for value in filters.get("dangling", ())}
    names = [(name, _expression("name", name)) for name in filters.get("name", ())]
    identities = [_expression("id", ref) for ref in filters.get("id", ())]
    for kind in filters.get("type", ()):
        if kind not in _KINDS_OF_NETWORKS:
            raise BadParameter(f"invalid filter 'type={kind}'")

    def passes(network: Network) -> bool:
        return (
            (not dangling or (not network.predefined and not in_use(network)) in dangling)
            and _any(filters, "driver", lambda driver: driver == network.driver)
            and (not identities or any(identity.search(network.id) for identity in identities))
            and all(_has_label(network.labels, label) for label in filters.get("label", ()))
            and (not names or any(text in network.name or name.search(network.name) for text, name in names))
            and _any(filters, "scope", lambda scope: scope == "local")
            and _any(filters, "type", lambda kind: (kind == "builtin") == network.predefined)
        )

    return passes


def prune_networks_filter(text: str) -> Callable[[Network], bool]:
    passes = _prune(parse_filters(text, _PRUNE_CONTAINERS, _NO_LATER))
    return lambda network: passes(network.created, network.labels)


def prune_containers_filter(text: str) -> Callable[[Container], bool]:
    passes = _prune(parse_filters(text, _PRUNE_CONTAINERS, _NO_LATER))
    return lambda container: passes(container.created, container.config.labels)


def prune_images_filter(text: str) -> tuple[Callable[[Image], bool], bool]:
    """Whether an image may go, and whether only those without a name may (they alone by default)."""
    filters = parse_filters(text, _PRUNE_IMAGES, _NO_LATER)
    passes = _prune(filters)
    dangling = {_boolean("dangling", value) for value in filters.get("dangling", ())}
    return (lambda image: passes(image.created, image.config.labels)), False not in dangling


def _prune(filters: Filters) -> Callable[[int, dict[str, str]], bool]:
    until = _until(filters)
    wanted, unwanted = filters.get("label", ()), filters.get("label!", ())

    def passes(created: int, labels: dict[str, str]) -> bool:
        return (
            created < until
            and all(_has_label(labels, label) for label in wanted)
            and not any(_has_label(labels, label) for label in unwanted)
        )

    return passes


def _until(filters: Filters) -> float:
    """Nanoseconds since the epoch; infinite where no filter says otherwise."""
    return min((parse_moment(value, "until") for value in filters.get("until", ())), default=float("inf"))


def event_filter(text: str) -> Callable[[Event], bool]:
    filters = parse_filters(text, _EVENT, _EVENT_LATER)

    def passes(event: Event) -> bool:
        attributes = event.attributes
        return (
            _any(filters, "type", lambda kind: kind == event.type)
            and _any(filters, "event", lambda action: action in (event.action, event.action.partition(":")[0]))
            and all(_is_meant(event, kind, filters.get(kind)) for kind in _NAMED)
            and _any(filters, "image", lambda ref: _is_of_image(event, ref))
            and all(_has_label(attributes, label) for label in filters.get("label", ()))
            and _any(filters, "scope", lambda scope: scope == "local")
        )

    return passes


def matches_reference(tag: str, pattern: str) -> bool:
    """Whether "repo:tag" matches a glob for the repository, its last part, or the whole."""
    repository = tag.rpartition(":")[0]
    candidates = (tag, repository, tag.rpartition("/")[2], repository.rpartition("/")[2])
    return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates)


def matches_repository(tag: str, pattern: str) -> bool:
    """Whether the repository of "repo:tag" matches a glob, whose ``*`` leaves no part of the path out."""
    parts, globs = tag.rpartition(":")[0].split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(map(fnmatch.fnmatchcase, parts, globs))


def _is_on(container: Container, network: str) -> bool:
    """Whether a container is on the network of that name or id, of which the first twelve digits do."""
    return any(
        network == one.network or (len(network) >= SHORT_ID and one.network_id.startswith(network))
        for one in container.attachments
    )


def _is_meant(event: Event, kind: str, refs: tuple[str, ...] | None) -> bool:
    """Whether an event is of a thing that is meant: one whose name or id begins so, as in Docker."""
    if not refs:
        return True
    name = event.attributes.get("name", "")
    return event.type == kind and any(event.id.startswith(ref) or name.startswith(ref.lstrip("/")) for ref in refs)


def _is_of_image(event: Event, ref: str) -> bool:
    if event.type == "image" and event.id.removeprefix("sha256:").startswith(ref.removeprefix("sha256:")):
        return True
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    bare = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    return ref in (name, bare)


def _any(filters: Filters, name: str, test: Callable[[str], bool]) -> bool:
    values = filters.get(name)
    return not values or any(test(value) for value in values)


def _has_label(labels: dict[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in labels and (not separator or labels[key] == value)


def _ancestor(engine: Engine, ref: str) -> str:
    try:
        return engine.images.get(ref).id
    except PydockerdError:
        return ""  # an image that is not there has no containers


def _lineage(engine: Engine, image_id: str) -> Iterator[str]:
    """An image and those that it was made from, as far as they are here."""
    while image_id:
        yield image_id
        try:
            image_id = engine.images.get(image_id).parent_id
        except PydockerdError:
            return


def _ports(filters: Filters, name: str) -> set[str]:
    """The ports ("80/tcp") that the values of a filter name: ``80``, ``80/udp``, ``80-90/tcp``."""
    found: set[str] = set()
    for value in filters.get(name, ()):
        numbers, _, protocol = value.partition("/")
        first, _, last = numbers.partition("-")
        ends = [text for text in (first, last or first) if text.isascii() and text.isdigit() and len(text) < 6]
        if len(ends) != 2 or protocol not in ("", "tcp", "udp", "sctp") or not int(ends[0]) <= int(ends[1]) < 65536:
            raise BadParameter(f"invalid filter '{name}={value}'")
        found.update(f"{port}/{protocol or 'tcp'}" for port in range(int(ends[0]), int(ends[1]) + 1))
    return found


def _inner_ports(container: Container) -> set[str]:
    return {*container.config.exposed_ports, *(f"{one.port}/{one.protocol}" for one in container.host.port_bindings)}


def _outer_ports(container: Container) -> set[str]:
    return {f"{one.host_port}/{one.protocol}" for one in container.state.ports}


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise BadParameter(f"invalid filter '{name}={value}'") from None


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise BadParameter(f"invalid filter '{name}={value}'")


def _expression(name: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise BadParameter(f"invalid filter '{name}={value}': {error}") from None
