"""What differs between the API versions, each difference in one function.

The names say what is asked; the tables and comparisons say since when.  Sources: the version history of Docker's API
reference, and for 1.0 to 1.10 the reference of that time.
"""

from __future__ import annotations

from dataclasses import replace

from dockerd_py.api.call import dump
from dockerd_py.api.routing import ApiVersion
from dockerd_py.engine.model import HostConfig
from dockerd_py.errors import AmbiguousId, PydockerdError

FIRST_YEAR = (1, 10)
"""The last version of the first year; what follows up to 1.23 is answered as its nearest neighbour."""

MEBIBYTE = 1 << 20


def is_first_year(version: ApiVersion) -> bool:
    return version <= FIRST_YEAR


def error_status(version: ApiVersion, error: PydockerdError) -> int:
    """An ambiguous id was an unknown one before 1.24."""
    return 404 if version < (1, 24) and isinstance(error, AmbiguousId) else error.status


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


def reports_unchanged_state(version: ApiVersion) -> bool:
    """Whether starting what runs, or stopping what does not, is a 304 rather than an error or a success."""
    return version >= (1, 13)


def lists_volumes_by_target(version: ApiVersion) -> bool:
    """Whether inspect tells of volumes as ``Volumes`` and ``VolumesRW``."""
    return version < (1, 20)


def has_volumes(version: ApiVersion) -> bool:
    """Whether volumes are objects with names."""
    return version >= (1, 21)


def prunes_anonymous_volumes_only(version: ApiVersion) -> bool:
    """Whether cleaning up volumes spares those with names unless it is told otherwise (``all``)."""
    return version >= (1, 42)


def settle_restart_policy(version: ApiVersion, host: HostConfig) -> HostConfig:
    """Clients have a word in what is started again since 1.15: saying nothing means no."""
    if version < (1, 15) or host.restart.name:
        return host
    return replace(host, restart=replace(host.restart, name="no"))


def exit_status(version: ApiVersion, code: int, ago: str) -> str:
    return f"Exit {code}" if is_first_year(version) else f"Exited ({code}) {ago} ago"


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
