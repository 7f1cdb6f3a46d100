"""The distribution's seccomp profile becomes the filter of this machine, this kernel and these capabilities."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dockerd_py.errors import BadParameter
from dockerd_py.runtime import capabilities, seccomp, seccomp_policy

KERNEL = (6, 1)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(seccomp.DEFAULT_PATH.read_text())
    return loaded


def actions(section: seccomp.Section, syscall: str) -> list[tuple[str, int | None]]:
    return [(rule["action"], rule.get("errnoRet")) for rule in section["syscalls"] if syscall in rule["names"]]


def profile(*rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **fields}


def allow(name: str, **fields: Any) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", **fields}


ARCH_MAP_OF_THE_GO_NAMES = [
    ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ("mips64", ["SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64N32"]),
    ("mips64n32", ["SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64"]),
    ("mipsel64", ["SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64N32"]),
    ("mipsel64n32", ["SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64"]),
    ("s390x", ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]),
]


@pytest.mark.parametrize(("architecture", "expected"), ARCH_MAP_OF_THE_GO_NAMES)
def test_each_architecture_of_the_profile_brings_the_ones_whose_programs_it_runs(
    document: dict[str, Any], architecture: str, expected: list[str]
) -> None:
    section = seccomp.translate(document, capabilities.DEFAULT, architecture, KERNEL)
    assert section["architectures"] == expected


def test_the_table_above_has_every_architecture_that_the_profile_maps(document: dict[str, Any]) -> None:
    table = {names[0]: set(names[1:]) for _, names in ARCH_MAP_OF_THE_GO_NAMES}
    mapped = {entry["architecture"]: set(entry["subArchitectures"]) for entry in document["archMap"]}
    assert mapped.items() <= table.items()


@pytest.mark.parametrize("architecture", [name for name, _ in ARCH_MAP_OF_THE_GO_NAMES])
def test_the_profile_compiles_for_each_architecture(document: dict[str, Any], architecture: str) -> None:
    section = seccomp.translate(document, capabilities.DEFAULT, architecture, KERNEL)
    if architecture.startswith("mips64") or architecture == "s390x":
        section["architectures"] = section["architectures"][:1]  # libseccomp mixes no byte orders with this machine's
        with pytest.raises(OSError, match="libseccomp"):
            seccomp.compile_section(section)
    else:
        program = seccomp.compile_section(section)
        assert len(program) > 1000
        assert len(program) % 8 == 0


@pytest.mark.parametrize("architecture", ["riscv64", "ppc64le", "loong64", "somethingelse"])
def test_an_architecture_that_is_not_mapped_gets_its_own_system_calls_only(
    document: dict[str, Any], architecture: str
) -> None:
    assert "architectures" not in seccomp.translate(document, capabilities.DEFAULT, architecture, KERNEL)


@pytest.mark.parametrize(
    ("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("vax", "vax")]
)
def test_machines_have_the_names_that_profiles_use(machine: str, name: str) -> None:
    assert seccomp.go_architecture(machine) == name


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-18-amd64", (6, 1)), ("5.15.0", (5, 15)), ("4.8", (4, 8)), ("odd", (0, 0))]
)
def test_kernel_releases_are_read(release: str, version: tuple[int, int]) -> None:
    assert seccomp.kernel_version(release) == version


def test_rules_for_an_architecture_hold_on_it_alone(document: dict[str, Any]) -> None:
    for architecture, expected in (("amd64", True), ("arm64", False)):
        section = seccomp.translate(document, (), architecture, KERNEL)
        assert bool(actions(section, "arch_prctl")) is expected
        assert bool(actions(section, "arm_fadvise64_64")) is not expected


def test_rules_for_a_capability_hold_with_it_and_their_opposites_without(document: dict[str, Any]) -> None:
    without = seccomp.translate(document, capabilities.DEFAULT, "amd64", KERNEL)
    assert actions(without, "bpf") == [("SCMP_ACT_ERRNO", errno.EPERM)]
    with_it = seccomp.translate(document, [*capabilities.DEFAULT, "CAP_SYS_ADMIN"], "amd64", KERNEL)
    assert actions(with_it, "bpf") == [("SCMP_ACT_ALLOW", None)]


def test_a_rule_for_several_capabilities_needs_them_all() -> None:
    document = profile(allow("x", includes={"caps": ["CAP_A", "CAP_B"]}))
    assert not actions(seccomp.translate(document, ["CAP_A"], "amd64", KERNEL), "x")
    assert actions(seccomp.translate(document, ["CAP_A", "CAP_B"], "amd64", KERNEL), "x")


def test_one_excluded_capability_or_architecture_is_enough() -> None:
    document = profile(allow("x", excludes={"caps": ["CAP_A", "CAP_B"], "arches": ["arm64"]}))
    assert actions(seccomp.translate(document, (), "amd64", KERNEL), "x")
    assert not actions(seccomp.translate(document, ["CAP_B"], "amd64", KERNEL), "x")
    assert not actions(seccomp.translate(document, (), "arm64", KERNEL), "x")


@pytest.mark.parametrize(("kernel", "holds"), [((4, 7), False), ((4, 8), True), ((5, 0), True)])
def test_a_rule_from_a_kernel_on(kernel: tuple[int, int], holds: bool) -> None:
    document = profile(allow("new", includes={"minKernel": "4.8"}), allow("old", excludes={"minKernel": "4.8"}))
    section = seccomp.translate(document, (), "amd64", kernel)
    assert bool(actions(section, "new")) is holds
    assert bool(actions(section, "old")) is not holds


def test_error_numbers_go_by_their_names_where_the_profile_has_them() -> None:
    document = profile(
        allow("x") | {"action": "SCMP_ACT_ERRNO", "errno": "ENOTSUP", "errnoRet": 1}, defaultErrno="ENOSYS"
    )
    section = seccomp.translate(document, (), "amd64", KERNEL)
    assert section["defaultErrnoRet"] == errno.ENOSYS
    assert actions(section, "x") == [("SCMP_ACT_ERRNO", errno.ENOTSUP)]


def test_the_older_spelling_with_one_name_a_rule_is_understood() -> None:
    document = profile({"name": "read", "action": "SCMP_ACT_ALLOW"}, architectures=["SCMP_ARCH_X86"])
    section = seccomp.translate(document, (), "amd64", KERNEL)
    assert section["syscalls"] == [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]
    assert section["architectures"] == ["SCMP_ARCH_X86"]


def test_system_calls_that_the_profile_does_not_know_are_enosys_so_that_libraries_fall_back(
    document: dict[str, Any],
) -> None:
    section = seccomp.translate(document, capabilities.DEFAULT, "amd64", KERNEL)
    assert section["defaultErrnoRet"] == errno.ENOSYS
    denied = {
        name
        for rule in section["syscalls"]
        if rule["action"] == "SCMP_ACT_ERRNO" and rule["errnoRet"] == errno.EPERM
        for name in rule["names"]
    }
    # what glibc tries first, and falls back from only after ENOSYS
    tried = {"clone3", "faccessat2", "fchmodat2", "close_range", "openat2", "statx", "rseq",
             "epoll_pwait2", "pidfd_open", "getrandom", "clock_nanosleep_time64"}  # fmt: skip
    assert not tried & denied


def test_the_profile_is_made_once_for_each_set_of_capabilities(tmp_path: Path) -> None:
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(profile(allow("read"))))
    profiles = seccomp.Profiles(path)
    first = profiles.get(["CAP_A", "CAP_B"])
    assert profiles.get(("CAP_B", "CAP_A")) is first
    assert profiles.get(["CAP_A"]) is not first


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(profile(allow("read"))))
    profiles = seccomp.Profiles(path)
    profiles.get(())
    path.write_text(json.dumps(profile(allow("write"))))
    os.utime(path, ns=(1, 1))
    section = profiles.get(()).section
    assert section is not None
    assert section["syscalls"][0]["names"] == ["write"]


def test_a_missing_profile_is_a_warning_that_names_it(tmp_path: Path) -> None:
    made = seccomp.Profiles(tmp_path / "none.json").get(())
    assert (made.section, made.program) == (None, None)
    assert made.warning == (f"containers run without a seccomp filter: {tmp_path}/none.json: No such file or directory")


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"defaultAction": 1}', '{"syscalls": []}', "\ud800",
                                  '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["x"]}]}'])  # fmt: skip
def test_a_file_that_is_no_profile_is_a_warning(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seccomp.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    made = seccomp.Profiles(path).get(())
    assert made.section is None
    assert "not a seccomp profile" in made.warning


@pytest.mark.parametrize(
    "rule",
    [
        allow("read") | {"action": "SCMP_ACT_WHATEVER"},
        allow("read", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_ODD"}]),
    ],
)
def test_what_cannot_be_compiled_here_is_left_to_the_runtime(tmp_path: Path, rule: dict[str, Any]) -> None:
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(profile(rule)))
    made = seccomp.Profiles(path).get(())
    assert made.section is not None
    assert made.program is None
    assert "compiled anew at each start" in made.warning


def test_profiles_may_be_used_from_several_threads() -> None:
    profiles = seccomp.Profiles()
    made: list[seccomp.Profile] = []
    threads = [threading.Thread(target=lambda: made.append(profiles.get(capabilities.DEFAULT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in made}) == 1


# What makes the profile Docker's

ADMIN = (*capabilities.DEFAULT, "CAP_SYS_ADMIN")


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "s390x"])
def test_what_takes_a_capability_is_refused_without_it_and_allowed_with_it(
    document: dict[str, Any], architecture: str
) -> None:
    tight = seccomp_policy.tighten(document)
    without = seccomp.translate(tight, capabilities.DEFAULT, architecture, KERNEL)
    for capability, names in seccomp_policy.GUARDED.items():
        having = seccomp.translate(tight, (*capabilities.DEFAULT, capability), architecture, KERNEL)
        for name in names:
            assert actions(without, name) == [("SCMP_ACT_ERRNO", errno.EPERM)]
            assert actions(having, name) == [("SCMP_ACT_ALLOW", None)]
    for name in seccomp_policy.FORBIDDEN:
        assert actions(seccomp.translate(tight, ADMIN, architecture, KERNEL), name) == [("SCMP_ACT_ERRNO", errno.EPERM)]


@pytest.mark.parametrize(("architecture", "index"), [("amd64", 0), ("arm64", 0), ("s390", 1), ("s390x", 1)])
def test_clone_may_make_processes_and_no_namespaces(document: dict[str, Any], architecture: str, index: int) -> None:
    section = seccomp.translate(seccomp_policy.tighten(document), capabilities.DEFAULT, architecture, KERNEL)
    rules = [rule for rule in section["syscalls"] if "clone" in rule["names"]]
    assert {one["index"] for rule in rules for one in rule["args"]} == {index}
    flags = {rule["args"][0]["value"] for rule in rules if rule["action"] == "SCMP_ACT_ERRNO"}
    (allowed,) = (rule["args"][0] for rule in rules if rule["action"] == "SCMP_ACT_ALLOW")
    assert (len(flags), allowed["value"], allowed["valueTwo"]) == (7, sum(flags), 0)
    assert actions(section, "clone3") == [("SCMP_ACT_ERRNO", errno.ENOSYS)]
    free = seccomp.translate(seccomp_policy.tighten(document), ADMIN, architecture, KERNEL)
    assert actions(free, "clone") == actions(free, "clone3") == [("SCMP_ACT_ALLOW", None)]


def test_what_is_not_guarded_stays_as_the_profile_says(document: dict[str, Any]) -> None:
    before = seccomp.translate(document, capabilities.DEFAULT, "amd64", KERNEL)
    after = seccomp.translate(seccomp_policy.tighten(document), capabilities.DEFAULT, "amd64", KERNEL)
    for name in ("read", "execve", "ptrace", "personality", "socket", "bpf", "chroot"):
        assert actions(before, name) == actions(after, name)
        assert actions(after, name)


def test_tightening_twice_is_tightening_once(document: dict[str, Any]) -> None:
    once = seccomp_policy.tighten(document)
    assert seccomp_policy.tighten(once)["syscalls"] == once["syscalls"]


# A user's own


def test_a_users_profile_is_compiled_once_for_each_set_of_capabilities() -> None:
    profiles = seccomp.Profiles()
    text = json.dumps(profile(allow("chmod", includes={"caps": ["CAP_SYS_ADMIN"]}), allow("read")))
    plain = profiles.given(text, capabilities.DEFAULT)
    assert plain.section is not None
    assert plain.program
    assert [rule["names"] for rule in plain.section["syscalls"]] == [["read"]]
    assert profiles.given(text, capabilities.DEFAULT) is plain
    assert profiles.given(text, ADMIN) is not plain


def test_a_users_profile_that_is_none_is_refused_with_the_reason() -> None:
    for text in ("{", '{"defaultAction": 5}', json.dumps(profile({"names": ["read"], "action": "SCMP_ACT_NOPE"}))):
        with pytest.raises(BadParameter, match="seccomp profile"):
            seccomp.Profiles().given(text, capabilities.DEFAULT)


def test_of_users_profiles_only_the_last_few_are_kept() -> None:
    profiles = seccomp.Profiles()
    first = profiles.given(json.dumps(profile(allow("read"))), capabilities.DEFAULT)
    for number in range(seccomp.GIVEN_KEPT):
        profiles.given(json.dumps(profile(allow("read"), comment=number)), capabilities.DEFAULT)
    assert profiles.given(json.dumps(profile(allow("read"))), capabilities.DEFAULT) is not first
