"""Image references: ``[host[:port]/]path[:tag][@digest]``, by the grammar of the distribution project.

References are kept in their familiar form: the public registry's name and its ``library/`` are left out, so that
``docker.io/library/busybox`` and ``busybox`` are one name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dockerd_py.errors import BadParameter

DEFAULT_TAG = "latest"
MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_HEX_ID = re.compile(r"[0-9a-f]{64}")
_HEX_PREFIX = re.compile(r"[0-9a-f]{1,64}")

_PUBLIC_REGISTRIES = ("docker.io/", "index.docker.io/")


@dataclass(frozen=True)
class Reference:
    """A parsed reference in its familiar form.  ``tag`` is "" where none was given, ``digest`` likewise."""

    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def tag_or_default(self) -> str:
        return self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return self.repository + tag + digest


def parse(text: str) -> Reference:
    """Parse a reference.  Raises BadParameter with Docker's words ("invalid reference format ...")."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text)
    if digest.startswith("sha256:") and not _SHA256.fullmatch(digest):
        raise BadParameter(f'"{text}": invalid checksum digest length')
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to the host's port
        name, colon, tag = rest, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text)
    return Reference(repository(name, text), tag, digest)


def repository(name: str, shown: str | None = None) -> str:
    """Check a repository's name (no tag) and return its familiar form.  Errors speak of ``shown``."""
    shown = name if shown is None else shown
    for prefix in _PUBLIC_REGISTRIES:
        if name.startswith(prefix):
            name = name[len(prefix) :]
            break
    official = name.removeprefix("library/")
    if "/" not in official:
        name = official
    host, path = _split_host(name)
    if host and not _HOST.fullmatch(host):
        raise _invalid(shown)
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            raise BadParameter(f'"{shown}": invalid reference format: repository name must be lowercase')
        raise _invalid(shown)
    if len(name) > MAX_NAME:
        raise BadParameter(f'"{shown}": repository name must not be more than {MAX_NAME} characters')
    if _HEX_ID.fullmatch(name):
        raise BadParameter(
            f"invalid repository name ({name}), cannot specify 64-byte hexadecimal strings",
        )
    return name


def check_tag(tag: str) -> str:
    """Return ``tag``, or the default for "".  Raises BadParameter for one that breaks the grammar."""
    if not tag:
        return DEFAULT_TAG
    if not _TAG.fullmatch(tag):
        raise BadParameter(f'"{tag}": invalid tag format')
    return tag


def id_prefix(text: str) -> str | None:
    """The hex digits, if ``text`` can be a full image id or the beginning of one (``sha256:`` may stand before)."""
    digits = text.removeprefix("sha256:")
    return digits if _HEX_PREFIX.fullmatch(digits) else None


def is_full_id(text: str) -> bool:
    return _HEX_ID.fullmatch(text.removeprefix("sha256:")) is not None


def _split_host(name: str) -> tuple[str, str]:
    """A first component is a host if it has a dot or a port, is "localhost", or cannot be part of a path."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return first, rest
    return "", name


def _invalid(text: str) -> BadParameter:
    return BadParameter(f'"{text}": invalid reference format')
