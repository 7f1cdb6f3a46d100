"""What differs between the API versions, each difference in one function.

The names say what is asked; the tables and comparisons say since when.  Sources: the version history of Docker's API
reference, and for 1.0 to 1.10 the reference of that time.
"""

from __future__ import annotations

import re
from dataclasses import replace

from dockerd_py.api.call import dump
from dockerd_py.api.routing import ApiVersion, OtherVersion, spell
from dockerd_py.engine.model import HostConfig
from dockerd_py.errors import (
    AlreadyInState,
    AmbiguousId,
    BadParameter,
    LinkedToNothing,
    NameTaken,
    NoSuchImage,
    NotFound,
    NotRunning,
    PydockerdError,
    StillRunning,
)
from dockerd_py.version import API_VERSION, FIRST_YEAR

MEBIBYTE = 1 << 20


def is_first_year(version: ApiVersion) -> bool:
    return version <= FIRST_YEAR


# First-year statuses follow from the message: the first of these that it holds, else 500.
_STATUS_OF_WORDS = (
    ("No such", 404),
    ("Bad parameter", 400),
    ("Conflict", 409),
    ("Impossible", 406),
    ("Wrong login/password", 401),
    ("hasn't been activated", 403),
)


def error_status(version: ApiVersion, error: PydockerdError) -> int:
    """An ambiguous id was an unknown one before 1.24; the first year knew few statuses."""
    if version < (1, 24) and isinstance(error, AmbiguousId):
        return 404
    if not is_first_year(version):
        return error.status
    message = error_message(version, error)
    for words, status in _STATUS_OF_WORDS:
        if words in message:
            return status
    # What is not found, or stands in the way, is told by its class, too: our sentences are not those of that time.
    return error.status if error.status in (404, 409) and not isinstance(error, NotRunning) else 500


def error_message(version: ApiVersion, error: PydockerdError) -> str:
    if is_first_year(version):
        if isinstance(error, NameTaken):
            return (
                f"Conflict, The name {error.name} is already assigned to {error.holder[:12]}. You have to delete "
                f"(or rename) that container to be able to assign {error.name} to a container again."
            )
        if isinstance(error, StillRunning):
            hint = " or use -f" if has_force_for_containers(version) else ""
            return f"Impossible to remove a running container, please stop it first{hint}"
        if isinstance(error, LinkedToNothing):
            return f"Could not get container for {error.name}"
    return str(error)


def start_failure(version: ApiVersion, ref: str, error: PydockerdError, identity: str) -> PydockerdError:
    """What a start that failed is answered with."""
    if isinstance(error, AlreadyInState) and not reports_unchanged_state(version):
        return PydockerdError(f"Cannot start container {ref}: The container {identity} is already running.")
    if isinstance(error, LinkedToNothing):
        return error
    if is_first_year(version):
        return PydockerdError(f"Cannot start container {ref}: {error}")
    return error


def create_failure(version: ApiVersion, error: NotFound) -> PydockerdError:
    """What a create is answered with where something is not there: clients take a 404 for the image, and pull it."""
    if isinstance(error, NoSuchImage) or is_first_year(version):
        return error
    return BadParameter(str(error))


_FIRST_YEAR_CLIENT = re.compile(r"Docker-Client/0\.")


def version_of_client(user_agent: str, error: OtherVersion) -> ApiVersion:
    """In whose form a client learns that its version is not spoken here: the first year's own command line, and
    whatever is older, as they knew it; everybody else as today."""
    is_old = error.version < (1, 0) or _FIRST_YEAR_CLIENT.match(user_agent)
    return FIRST_YEAR if is_old else API_VERSION


def version_failure(version: ApiVersion, error: OtherVersion) -> tuple[int, str]:
    """Status and message for a client of another version; ``version``: in whose form it is told."""
    if is_first_year(version):
        ours, theirs = spell(API_VERSION), spell(error.version)
        return 404, f"client and server don't have same version (client : {theirs}, server: {ours})"
    return error.status, str(error)


def error_body(version: ApiVersion, message: str) -> tuple[bytes, str]:
    """The body of an error reply and its content type."""
    if version < (1, 24):
        return message.encode("utf-8", "replace") + b"\n", "text/plain"
    return dump({"message": message}), "application/json"


def minimum_memory(version: ApiVersion) -> int:
    """The smallest memory limit in bytes that create accepts."""
    return 512 << 10 if is_first_year(version) else 6 * MEBIBYTE


def layers_are_images(version: ApiVersion) -> bool:
    """Whether each layer is an image with an id and a parent, which ended with 1.22."""
    return version < (1, 22)


def image_id(version: ApiVersion, identity: str) -> str:
    """The digest's algorithm is part of an image's id since 1.22."""
    if not identity:
        return ""
    return identity if layers_are_images(version) else f"sha256:{identity}"


def spells_images_in_lower_case(version: ApiVersion) -> bool:
    """Whether the keys of an image's inspect are those of the first year; 1.12 renamed them."""
    return version < (1, 12)


def lists_images_by_tag(version: ApiVersion) -> bool:
    """Whether the list of images has an entry a name, with Repository and Tag, instead of RepoTags."""
    return version < (1, 7)


def has_image_graph(version: ApiVersion) -> bool:
    """Whether there is ``/images/viz``."""
    return version < (1, 7)


def tells_what_was_removed(version: ApiVersion) -> bool:
    """Whether the answer to the removal of an image lists what went; it is empty before."""
    return version >= (1, 2)


def names_untagged(version: ApiVersion) -> bool:
    """Whether the removal of a name tells that name; before it tells the image's id."""
    return version >= (1, 10)


def has_force_for_images(version: ApiVersion) -> bool:
    return version >= (1, 10)


def streams_json(version: ApiVersion) -> bool:
    """Whether long operations tell their progress in JSON, or in plain text."""
    return version >= (1, 1)


def has_progress_detail(version: ApiVersion) -> bool:
    """Whether progress comes as numbers; before, as text."""
    return version >= (1, 8)


def has_force_for_containers(version: ApiVersion) -> bool:
    return version >= (1, 10)


def spells_containers_as_first_year(version: ApiVersion) -> bool:
    """Whether inspect and list have the first year's keys, ``ID`` among them; 1.12 renamed that."""
    return version < (1, 12)


def shows_host_config(version: ApiVersion) -> bool:
    """Whether inspect shows the HostConfig."""
    return version >= (1, 8)


def names_exec_driver(version: ApiVersion) -> bool:
    return version >= (1, 10)


def lists_ports(version: ApiVersion) -> bool:
    """Whether the list shows ports as a list; before, as one text, and inspect as PortMapping."""
    return version >= (1, 5)


def has_image_in_events(version: ApiVersion) -> bool:
    return version >= (1, 4)


def reads_on_build(version: ApiVersion) -> bool:
    """Whether create takes OnBuild."""
    return version >= (1, 10)


def message_separator(version: ApiVersion, *, is_progress: bool) -> bytes:
    """What stands between the JSON messages of a long operation: nothing until 1.9; in 1.10 not after progress."""
    if version < FIRST_YEAR or (is_first_year(version) and is_progress):
        return b""
    return b"\r\n"


def multiplexes(version: ApiVersion) -> bool:
    """Whether streams of a container without a terminal come in frames."""
    return version >= (1, 6)


def attaches_after_start(version: ApiVersion) -> bool:
    """Whether ``run`` starts a container and attaches to it then, with its log: it may have ended by then."""
    return version < (1, 7)


def stream_type(version: ApiVersion, multiplexed: bool) -> str:
    """The content type of attach and logs."""
    if multiplexed and version >= (1, 42):
        return "application/vnd.docker.multiplexed-stream"
    return "application/vnd.docker.raw-stream"


def answers_load_with_messages(version: ApiVersion) -> bool:
    """Whether load tells what it loaded; before 1.23 its answer is empty."""
    return version >= (1, 23)


def has_settings_in_start(version: ApiVersion) -> bool:
    """Whether start's body may hold a HostConfig (until 1.23), or must be empty."""
    return version < (1, 24)


def ignores_body_of_start(version: ApiVersion, content_type: str) -> bool:
    """The first year's server read the body of start only if it was called JSON."""
    return is_first_year(version) and content_type != "application/json"


_HOST_CONFIG_SINCE = {
    "Binds": (1, 0),
    "ContainerIDFile": (1, 0),
    "LxcConf": (1, 0),
    "Privileged": (1, 0),
    "PortBindings": (1, 0),
    "PublishAllPorts": (1, 0),
    "Links": (1, 0),
    "Dns": (1, 11),
    "DnsSearch": (1, 11),
    "VolumesFrom": (1, 11),
    "NetworkMode": (1, 11),
    "CapAdd": (1, 14),
    "CapDrop": (1, 14),
    "Devices": (1, 14),
    "RestartPolicy": (1, 14),
    "ExtraHosts": (1, 15),
    "SecurityOpt": (1, 15),
    "IpcMode": (1, 16),
    "PidMode": (1, 17),
    "ReadonlyRootfs": (1, 17),
}


def host_config_of_start(version: ApiVersion) -> frozenset[str]:
    """The keys of HostConfig that a start's body sets back by leaving them out.  Limits are not among them: where the
    body of start counts, create took them beside the HostConfig, or still does for clients of before."""
    return frozenset(key for key, since in _HOST_CONFIG_SINCE.items() if version >= since)


# Since when there is a route; what is not here has been there from the first.
_ROUTES_SINCE = (
    (r"(GET|HEAD) /_ping", (1, 11)),
    (r"GET /containers/[^/]+/logs", (1, 11)),
    (r"POST /containers/[^/]+/(un)?pause", (1, 12)),
    (r"[A-Z]+ /(containers/[^/]+/)?exec(/.*)?", (1, 15)),
    (r"GET /images/get", (1, 15)),
    (r"POST /containers/[^/]+/rename", (1, 17)),
    (r"GET /containers/[^/]+/stats", (1, 17)),
    (r"[A-Z]+ /containers/[^/]+/archive", (1, 20)),
    (r"[A-Z]+ /(volumes|networks)(/.*)?", (1, 21)),
    (r"POST /containers/[^/]+/update", (1, 22)),
    (r"POST /[a-z]+/prune", (1, 25)),
    (r"GET /system/df", (1, 25)),
    (r"POST /build/prune", (1, 31)),
)
_SINCE = tuple((re.compile(pattern), since) for pattern, since in _ROUTES_SINCE)
_LAST_ROUTES = max(since for _, since in _ROUTES_SINCE)


def has_route(version: ApiVersion, method: str, path: str) -> bool:
    """Whether ``path``, without its version, was there in ``version``, as it is now."""
    if version >= _LAST_ROUTES:
        return True
    request = f"{method} {path}"
    return all(version >= since for pattern, since in _SINCE if pattern.fullmatch(request))


def reports_unchanged_state(version: ApiVersion) -> bool:
    """Whether starting what runs, or stopping what does not, is a 304 rather than an error or a success."""
    return version >= (1, 13)


def lists_volumes_by_target(version: ApiVersion) -> bool:
    """Whether inspect tells of volumes as ``Volumes`` and ``VolumesRW``."""
    return version < (1, 20)


def has_volumes(version: ApiVersion) -> bool:
    """Whether volumes are objects with names."""
    return version >= (1, 21)


def has_networks(version: ApiVersion) -> bool:
    """Whether networks are objects with names, of which a container can have several."""
    return version >= (1, 21)


def lists_containers_of_networks(version: ApiVersion) -> bool:
    """Whether the list of networks says which containers are on each; later, a network's inspect alone does."""
    return version < (1, 28)


def has_types_in_events(version: ApiVersion) -> bool:
    """Whether events say what they are about; before, there were those of containers and images only."""
    return version >= (1, 22)


def prunes_anonymous_volumes_only(version: ApiVersion) -> bool:
    """Whether cleaning up volumes spares those with names unless it is told otherwise (``all``)."""
    return version >= (1, 42)


def settle_restart_policy(version: ApiVersion, host: HostConfig) -> HostConfig:
    """Clients have a word in what is started again since 1.15: saying nothing means no."""
    if version < (1, 15) or host.restart.name:
        return host
    return replace(host, restart=replace(host.restart, name="no"))


def knows_two_states(version: ApiVersion) -> bool:
    """Whether a container either is up or has ended, with the code 0 before its first start."""
    return is_first_year(version)


def most_layers(version: ApiVersion) -> int | None:
    """How many layers the image of a new container may have, where fewer than an image can have.  (The first year's
    server kept room for two of the container's own below its limit of 127, and said so from 1.9 on.)"""
    return 124 if (1, 9) <= version <= FIRST_YEAR else None


def names_untagged_images(version: ApiVersion) -> bool:
    """Whether an image without a name is listed as ``<none>:<none>``."""
    return version < (1, 43)


def commit_merges(version: ApiVersion) -> bool:
    """Whether the settings given to commit are laid over the container's, or are all there is."""
    return version >= (1, 10)


def commit_pauses(version: ApiVersion) -> bool:
    """Whether commit pauses a running container without being asked to."""
    return version >= (1, 13)


def lists_can_be_null(version: ApiVersion) -> bool:
    """Whether "no changes" is null, as Docker's own clients get it."""
    return version >= (1, 24)


def copy_names_what_is_missing(version: ApiVersion) -> bool:
    """Whether copying what is not there is a 404, or an empty archive."""
    return version >= (1, 10)


def always_moves_tags(version: ApiVersion) -> bool:
    """Whether a tag that another image has is moved whatever ``force`` says.  (The first year's server moved it where
    nothing was said, its reference promised the refusal; then it took ``force=1``.)"""
    return version >= (1, 24)


def has_insert(version: ApiVersion) -> bool:
    return version < (1, 12)


def has_top(version: ApiVersion) -> bool:
    return version >= (1, 3)


def has_ps_args(version: ApiVersion) -> bool:
    return version >= (1, 4)


def has_exec(version: ApiVersion) -> bool:
    return version >= (1, 15)


def exec_shows_container(version: ApiVersion) -> bool:
    """Whether an exec's inspect holds all of its container's, and not only the id."""
    return version < (1, 22)


def top_conflicts(version: ApiVersion) -> bool:
    """Whether top of a container that does not run is a 409 rather than a 500."""
    return version >= (1, 24)
