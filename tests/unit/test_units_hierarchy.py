"""Control group hierarchies are found by file-system type and options, wherever they are mounted."""

from __future__ import annotations

import os
from pathlib import Path

from dockerd_py.units import hierarchy
from dockerd_py.units.hierarchy import Hierarchy, find_hierarchies, of_controller, version_of

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /groups/mem\\040ory rw,relatime - cgroup cgroup rw,memory,clone_children
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
50 31 0:40 / /proc rw - proc proc rw
"""
HYBRID_OWN = "9:name=systemd:/a.service\n4:memory:/m/x\n1:cpu,cpuacct:/\n0::/a.service\n"


def by_controller(found: list[Hierarchy]) -> dict[str, Hierarchy]:
    return {",".join(sorted(h.controllers)): h for h in found}


def test_each_hybrid_hierarchy_is_found_with_our_place_in_it() -> None:
    found = by_controller(find_hierarchies(HYBRID, HYBRID_OWN))
    assert set(found) == {"cpu,cpuacct", "memory", "name=systemd", ""}
    assert found["memory"].own == Path("/groups/mem ory/m/x")
    assert found["cpu,cpuacct"].own == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert found[""].version == 2
    assert found[""].own == Path("/sys/fs/cgroup/unified/a.service")


def test_hybrid_counts_as_version_1_and_unified_alone_as_2() -> None:
    assert version_of(find_hierarchies(HYBRID, HYBRID_OWN)) == 1
    unified = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert version_of(find_hierarchies(unified, "0::/x\n")) == 2
    named = unified + "30 23 0:27 / /mnt rw - cgroup cgroup rw,none,name=systemd\n"
    assert version_of(find_hierarchies(named, "1:name=systemd:/\n0::/x\n")) == 2


def test_a_part_of_a_hierarchy_mounted_in_a_container_is_located_relative_to_it() -> None:
    mountinfo = "32 31 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    (memory,) = find_hierarchies(mountinfo, "4:memory:/docker/abc/sub\n")
    assert memory.own == Path("/sys/fs/cgroup/memory/sub")
    assert memory.locate("/docker/abc") == Path("/sys/fs/cgroup/memory")
    assert memory.locate("/docker/abcdef") == Path("/sys/fs/cgroup/memory/docker/abcdef")
    assert memory.spell(Path("/sys/fs/cgroup/memory/sub/x")) == "/docker/abc/sub/x"
    assert memory.spell(Path("/sys/fs/cgroup/memory")) == "/docker/abc"


def test_a_group_above_our_namespace_is_taken_as_its_root() -> None:
    mountinfo = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (unified,) = find_hierarchies(mountinfo, "0::/../other\n")
    assert unified.own == Path("/sys/fs/cgroup")


def test_a_writable_mount_is_preferred_to_a_read_only_one() -> None:
    mountinfo = (
        "32 31 0:29 / /ro ro,nosuid - cgroup cgroup rw,memory\n33 31 0:29 / /rw rw,nosuid - cgroup cgroup rw,memory\n"
    )
    (memory,) = find_hierarchies(mountinfo, "4:memory:/\n")
    assert memory.mount == Path("/rw")


def test_a_hierarchy_that_is_not_mounted_is_not_found() -> None:
    assert find_hierarchies("", HYBRID_OWN) == []


def test_this_machine_has_us_in_the_group_that_it_says() -> None:
    found = hierarchy.current()
    assert found
    for place in found:
        assert os.getpid() in hierarchy.read_pids(place.own)
        assert place.locate(place.spell(place.own)) == place.own


def test_a_controller_is_looked_for_in_version_1_first_and_then_in_the_unified_tree() -> None:
    found = find_hierarchies(HYBRID, HYBRID_OWN)
    memory = of_controller(found, "memory")
    assert memory is not None
    assert memory.version == 1
    assert of_controller(found, "nonesuch") is None
