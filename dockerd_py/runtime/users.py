"""Who a container's process is: ``user[:group]`` looked up in the container's own passwd and group files.

The rules and the sentences are Docker's.  Both files are the image's, so they are read confined to its root
filesystem, and a line that makes no sense is passed over.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dockerd_py import confined
from dockerd_py.errors import BadParameter

MAX_ID = 2**31 - 1  # of a number that the user gives; what a file says may be larger
_NO_ID = 2**32 - 1  # "leave as it is" to the kernel: never an identity
_FILE_LIMIT = 16 << 20


@dataclass(frozen=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]  # the supplementary ones, ascending, ``gid`` among them
    home: str  # "/" when the passwd file knows none


def resolve(root: confined.Root, spec: str) -> User:
    """The identity that ``spec`` means below ``root``, a container's mounted root filesystem.

    ``spec`` is ``""`` (user 0), ``user``, ``user:group`` or ``:group``; each part a name or a number.  A number
    needs no entry.  Without a group, the user's own primary and supplementary ones count; with one, only that.

    Raises BadParameter for a name without an entry, or a number above 2147483647.
    """
    user_part, _, group_part = spec.partition(":")
    user_number = _number(user_part or "0")
    entry = next(
        (one for one in _passwd(root) if (one.name == user_part if user_number is None else one.uid == user_number)),
        None,
    )
    if entry is not None:
        uid, gid, home = entry.uid, entry.gid, entry.home or "/"
    elif user_number is not None:
        uid, gid, home = _checked(user_number), 0, "/"
    else:
        raise BadParameter(f"unable to find user {user_part}: no matching entries in passwd file")

    groups = set()
    if group_part:
        gid = _group(root, group_part)
    elif entry is not None:
        groups = {one.gid for one in _groups(root) if entry.name in one.members}
    return User(uid, gid, tuple(sorted(groups | {gid})), home)


def group_ids(root: confined.Root, names: Iterable[str]) -> tuple[int, ...]:
    """The numbers of groups that a container's process is to be in beside its own, each a name or a number.

    Raises BadParameter for a name without an entry, or a number above 2147483647.
    """
    return tuple(_group(root, name) for name in names)


@dataclass(frozen=True)
class _PasswdLine:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class _GroupLine:
    name: str
    gid: int
    members: tuple[str, ...]


def _group(root: confined.Root, part: str) -> int:
    number = _number(part)
    for one in _groups(root):
        if one.name == part if number is None else one.gid == number:
            return one.gid
    if number is None:
        raise BadParameter(f"unable to find group {part}: no matching entries in group file")
    return _checked(number)


def _passwd(root: confined.Root) -> Iterator[_PasswdLine]:
    for fields in _lines(root, "etc/passwd"):
        if len(fields) >= 4 and (uid := _number(fields[2])) is not None and (gid := _number(fields[3])) is not None:
            yield _PasswdLine(fields[0], uid, gid, fields[5] if len(fields) > 5 else "")


def _groups(root: confined.Root) -> Iterator[_GroupLine]:
    for fields in _lines(root, "etc/group"):
        if len(fields) >= 3 and (gid := _number(fields[2])) is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _GroupLine(fields[0], gid, tuple(filter(None, members)))


def _lines(root: confined.Root, name: str) -> Iterator[list[str]]:
    try:
        text = confined.read_in_root(root, name, _FILE_LIMIT).decode("utf-8", "surrogateescape")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise BadParameter(f"cannot read /{name} of the container: {error.strerror}") from error
    for line in text.split("\n"):
        line = line.strip()
        if line and not line.startswith("#"):
            yield line.split(":")


def _number(text: str) -> int | None:
    return number if text.isascii() and text.isdigit() and (number := int(text)) < _NO_ID else None


def _checked(number: int) -> int:
    if number > MAX_ID:
        raise BadParameter(f"uids and gids must be in range 0-{MAX_ID}")
    return number
