"""The distribution's seccomp profile as the OCI runtime wants it, and compiled; `seccomp_policy` makes it Docker's.

The profile file has Docker's format: rules that hold for some architectures, capabilities or kernels only.
`Profiles.get` picks those that hold here, once for each set of capabilities and version of the file.

To turn the profile into a BPF program takes the runtime 15 ms a container, more than all else that it does.  So
the program is made here, once, by the same libseccomp(3) in the same way, and handed to crun ready-made
(annotation ``run.oci.seccomp_bpf_data``).  The profile is handed over too: a runtime that does not know the
annotation uses that, so there is no runtime that uses neither.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockerd_py.errors import BadParameter
from dockerd_py.runtime.seccomp_policy import tighten

DEFAULT_PATH = Path("/usr/share/containers/seccomp.json")

GIVEN_KEPT = 16

Section = dict[str, Any]  # the OCI specification's linux.seccomp

GO_ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "amd64",
    "i386": "x86",
    "i686": "x86",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "mips": "mips",
    "mips64": "mips64",
    "ppc64": "ppc64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "loongarch64": "loong64",
}
"""What uname(2) says of a machine → the name that profiles use in ``includes.arches``."""

_NATIVE: Mapping[str, str] = {
    "amd64": "SCMP_ARCH_X86_64",
    "x86": "SCMP_ARCH_X86",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "mips": "SCMP_ARCH_MIPS",
    "mips64": "SCMP_ARCH_MIPS64",
    "mips64n32": "SCMP_ARCH_MIPS64N32",
    "mipsel": "SCMP_ARCH_MIPSEL",
    "mipsel64": "SCMP_ARCH_MIPSEL64",
    "mipsel64n32": "SCMP_ARCH_MIPSEL64N32",
    "ppc64": "SCMP_ARCH_PPC64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390": "SCMP_ARCH_S390",
    "s390x": "SCMP_ARCH_S390X",
    "loong64": "SCMP_ARCH_LOONGARCH64",
}


@dataclass(frozen=True)
class Profile:
    """``section`` is None, and ``warning`` says why, where containers must run unfiltered; ``program`` is None
    where libseccomp cannot be used, and then the runtime compiles the section itself."""

    section: Section | None
    program: bytes | None = None  # an array of struct sock_filter
    warning: str = ""


class Profiles:
    """The profile of one file for each set of capabilities.  Safe to use from several threads."""

    def __init__(self, path: Path = DEFAULT_PATH) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._made: dict[frozenset[str], Profile] = {}
        self._given: OrderedDict[tuple[str, frozenset[str]], Profile] = OrderedDict()

    def get(self, capabilities: Collection[str]) -> Profile:
        """The profile for a container with these capabilities; read again when the file has changed.

        Takes some 20 ms for each new set, microseconds afterwards.  Never raises for the state of the file: a
        missing or broken one is a `Profile` with a warning.
        """
        key = frozenset(capabilities)
        with self._lock:
            try:
                info = os.stat(self.path)
            except OSError as error:
                return _without(self.path, error.strerror or str(error))
            version = (info.st_mtime_ns, info.st_ino, info.st_size)
            if version != self._version:
                self._made.clear()
                self._version = version
            if key not in self._made:
                self._made[key] = self._make(key)
            return self._made[key]

    def given(self, text: str, capabilities: Collection[str]) -> Profile:
        """The profile that a user wrote: JSON in Docker's format.  The last few are kept.

        Raises BadParameter where it is none, or where libseccomp refuses it.
        """
        key = text, frozenset(capabilities)
        with self._lock:
            if key not in self._given:
                self._given[key] = _given(text, key[1])
                while len(self._given) > GIVEN_KEPT:
                    self._given.popitem(last=False)
            return self._given[key]

    def _make(self, capabilities: frozenset[str]) -> Profile:
        try:
            document = tighten(json.loads(self.path.read_bytes()))
            section = translate(document, capabilities, go_architecture(), kernel_version())
        except OSError as error:
            return _without(self.path, error.strerror or str(error))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _without(self.path, f"not a seccomp profile ({type(error).__name__}: {error})")
        try:
            return Profile(section, compile_section(section))
        except OSError as error:
            return Profile(section, None, f"the seccomp profile is compiled anew at each start: {error}")


def _given(text: str, capabilities: frozenset[str]) -> Profile:
    try:
        section = translate(json.loads(text), capabilities, go_architecture(), kernel_version())
        if section.get("flags"):
            return Profile(section)  # they are the runtime's to set, so it compiles the rest, too
        return Profile(section, compile_section(section))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadParameter(f"decoding the seccomp profile failed: not a seccomp profile ({what})") from error
    except OSError as error:
        raise BadParameter(f"the seccomp profile cannot be used: {error.filename or ''} {error.strerror}") from error


def translate(
    document: Mapping[str, Any],
    capabilities: Collection[str],
    architecture: str,
    kernel: tuple[int, int],
) -> Section:
    """Docker's profile format → the OCI specification's ``linux.seccomp``.

    ``architecture`` is a Go name ("amd64"), ``kernel`` (major, minor).  Raises KeyError, TypeError, ValueError
    or AttributeError where the document is none.
    """
    section: Section = {"defaultAction": document["defaultAction"]}
    default_errno = _errno(document, "defaultErrno", "defaultErrnoRet")
    if default_errno is not None:
        section["defaultErrnoRet"] = default_errno
    architectures = list(document.get("architectures") or _architectures(document, architecture))
    if architectures:
        section["architectures"] = architectures
    if document.get("flags"):
        section["flags"] = list(document["flags"])
    section["syscalls"] = [
        _rule(entry)
        for entry in document.get("syscalls") or ()
        if _holds(entry, frozenset(capabilities), architecture, kernel)
    ]
    return section


def go_architecture(machine: str = "") -> str:
    machine = machine or platform.machine()
    return GO_ARCHITECTURES.get(machine, machine)


def kernel_version(release: str = "") -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release or platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _without(path: Path, why: str) -> Profile:
    return Profile(None, None, f"containers run without a seccomp filter: {path}: {why}")


def _architectures(document: Mapping[str, Any], architecture: str) -> list[str]:
    """The native one and those whose programs it runs too.  Empty (= native) for one that is not named."""
    native = _NATIVE.get(architecture)
    for entry in document.get("archMap") or ():
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _holds(entry: Mapping[str, Any], capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bool:
    includes = entry.get("includes") or {}
    excludes = entry.get("excludes") or {}
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if includes.get("minKernel") and kernel < kernel_version(includes["minKernel"]):
        return False
    if not capabilities.isdisjoint(excludes.get("caps") or ()):
        return False
    if architecture in (excludes.get("arches") or ()):
        return False
    return not (excludes.get("minKernel") and kernel >= kernel_version(excludes["minKernel"]))


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "names": list(entry.get("names") or [entry["name"]]),
        "action": entry["action"],
    }
    errno_ret = _errno(entry, "errno", "errnoRet")
    if errno_ret is not None:
        rule["errnoRet"] = errno_ret
    if entry.get("args"):
        rule["args"] = [
            {
                "index": int(one["index"]),
                "value": int(one["value"]),
                "valueTwo": int(one.get("valueTwo") or 0),
                "op": one["op"],
            }
            for one in entry["args"]
        ]
    return rule


def _errno(entry: Mapping[str, Any], name_key: str, number_key: str) -> int | None:
    """The name counts, where there is one: the numbers differ between architectures."""
    name = entry.get(name_key)
    if name:
        return int(getattr(errno, name))
    number = entry.get(number_key)
    return None if number is None else int(number)


# libseccomp(3) by ctypes

_ACTIONS: Mapping[str, int] = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")

_OPERATORS: Mapping[str, int] = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

_NO_SUCH_SYSCALL = -1  # __NR_SCMP_ERROR


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def compile_section(section: Section) -> bytes:
    """The BPF program of a ``linux.seccomp`` section: what the runtime itself would load.

    Names of system calls that this libseccomp does not know are passed over, as the runtime passes over them.
    Raises OSError when libseccomp is missing or refuses.
    """
    if section.get("flags"):
        raise OSError(errno.EOPNOTSUPP, "the profile has flags, which are the runtime's to set")
    library = _library()
    default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise OSError(errno.EINVAL, "seccomp_init refused the default action")
    try:
        for name in section.get("architectures", ()):
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            _check(library.seccomp_arch_add(context, token) if token else -errno.EINVAL, name, -errno.EEXIST)
        for rule in section["syscalls"]:
            action = _action(rule["action"], rule.get("errnoRet"))
            if action == default:
                continue
            for name in rule["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number == _NO_SUCH_SYSCALL:
                    continue
                for comparisons in _conjunctions(rule.get("args", ())):
                    array = (_Comparison * len(comparisons))(*comparisons)
                    _check(library.seccomp_rule_add_array(context, action, number, len(array), array), name)
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _check(library.seccomp_export_bpf(context, fd), "export")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
    finally:
        library.seccomp_release(context)


def _conjunctions(arguments: Sequence[Mapping[str, Any]]) -> list[list[_Comparison]]:
    """libseccomp takes one comparison an argument: where one argument is compared twice, each is a rule."""
    comparisons = [
        _Comparison(one["index"], _operator(one["op"]), one["value"], one.get("valueTwo", 0)) for one in arguments
    ]
    if len({one.arg for one in comparisons}) < len(comparisons):
        return [[one] for one in comparisons]
    return [comparisons]


def _action(name: str, errno_ret: int | None) -> int:
    if name not in _ACTIONS:
        raise OSError(errno.EINVAL, f"unknown seccomp action {name}")
    if name in _WITH_ERRNO:
        return _ACTIONS[name] | ((errno.EPERM if errno_ret is None else errno_ret) & 0xFFFF)
    return _ACTIONS[name]


def _operator(name: str) -> int:
    if name not in _OPERATORS:
        raise OSError(errno.EINVAL, f"unknown seccomp operator {name}")
    return _OPERATORS[name]


def _check(result: int, what: str, *accepted: int) -> None:
    if result < 0 and result not in accepted:
        raise OSError(-result, f"libseccomp: {os.strerror(-result)}", what)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.restype = None
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library
