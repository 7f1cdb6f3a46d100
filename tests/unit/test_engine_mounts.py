"""What a container has mounted follows from what was asked for, by Docker's rules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockerd_py.engine import forms, mounts
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.engine.mount_model import Bind, Mount, MountRequest
from dockerd_py.errors import BadParameter

ROOT = Path("/var/lib/x")


def plan(
    config: ContainerConfig | None = None, others: dict[str, tuple[Mount, ...]] | None = None, **host: object
) -> dict[str, Mount]:
    found = mounts.plan(
        config or ContainerConfig(),
        HostConfig(**host),  # type: ignore[arg-type]
        mounts_of=(others or {}).__getitem__,
        data=lambda name: ROOT / "volumes" / name / "_data",
        root=ROOT,
    )
    return {mount.target: mount for mount in found}


def test_a_volume_of_the_image_is_anonymous_and_gives_way_to_whatever_is_mounted_there() -> None:
    config = ContainerConfig(volumes=("/a", "/b/", "/c", "d"))
    found = plan(config, binds=(Bind("/h", "/a"),), tmpfs={"/b": ""})
    assert set(found) == {"/a", "/c", "/d"}
    assert (found["/a"].type, found["/c"].anonymous, found["/c"].copy) == ("bind", True, True)
    assert found["/c"].source == f"{ROOT}/volumes/{found['/c'].name}/_data"


def test_what_comes_from_another_container_yields_to_binds_and_is_never_filled() -> None:
    other = {
        "one": (
            Mount("volume", "/v", "/a", name="aa", copy=True, anonymous=True, mode="z"),
            Mount("bind", "/h", "/b", read_only=True, propagation="rslave"),
        )
    }
    found = plan(others=other, volumes_from=("one",), binds=(Bind("bb", "/b"),))
    assert (found["/a"].name, found["/a"].copy, found["/a"].anonymous, found["/a"].mode) == ("aa", False, True, "")
    assert found["/b"].name == "bb"
    found = plan(others=other, volumes_from=("one:ro,z",))
    assert (found["/a"].read_only, found["/b"].read_only, found["/b"].propagation) == (True, True, "rslave")


def test_what_holds_the_daemons_own_mounts_is_a_slave_unless_somebody_says_otherwise() -> None:
    binds = (Bind("/", "/a"), Bind("/var/lib/x", "/b"), Bind("/var/lib/xy", "/c"))
    said = Bind("/var", "/d", propagation="shared")
    found = plan(binds=(*binds, said))
    assert [mount.propagation for mount in found.values()] == ["rslave", "rslave", "rprivate", "shared"]


def test_the_options_of_a_tmpfs_are_joined_with_the_defaults() -> None:
    assert mounts.tmpfs_options("/x", "") == ("noexec", "nosuid", "nodev")
    assert mounts.tmpfs_options("/x", "exec,size=10%,dev") == ("nosuid", "exec", "size=10%", "dev")
    found = plan(mounts=(MountRequest("tmpfs", "/x", read_only=True, size=4096, mode=0o700),))
    assert found["/x"].options == ("noexec", "nosuid", "nodev", "size=4096", "mode=700", "ro")


@pytest.mark.parametrize("option", ["foo", "bind", "remount", "shared", "size", "size=", "size=1 m", "huge=yes", "=1"])
def test_an_option_that_a_tmpfs_does_not_have_is_named(option: str) -> None:
    with pytest.raises(BadParameter) as caught:
        mounts.tmpfs_options("/x", f"ro,{option}")
    assert f'["{option}"]' in str(caught.value)


def test_links_of_the_image_decide_where_things_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/deep/er")
    (tmp_path / "out").symlink_to("../../../../../..")
    os.chmod(tmp_path / "deep/er", 0o711)
    wanted = (Mount("bind", "/", "/link/x"), Mount("bind", "/", "/out/etc"))
    binds, tmpfs, propagation = mounts.for_runtime(wanted, {"/link": "size=1m"}, tmp_path, ROOT)
    assert [bind.target for bind in binds] == ["/deep/er/x", "/etc"]
    assert (tmpfs[0].target, tmpfs[0].options[-1]) == ("/deep/er", "mode=711")
    assert propagation == ""


def test_mounts_outlive_their_way_through_the_database() -> None:
    mounted = (
        Mount("bind", "/a", "/b", True, mode="ro", propagation="rslave", recursive=False, create_source=False),
        Mount("volume", "/v", "/c", name="v", driver="local", anonymous=True, copy=True),
        Mount("tmpfs", "", "/d", options=("size=1m",)),
    )
    host = HostConfig(
        mounts=(MountRequest("volume", "/x", labels={"a": "b"}, driver_options={"type": "tmpfs"}),),
        volumes_from=("a:ro",), tmpfs={"/t": "ro"}, shm_size=5,
    )  # fmt: skip
    text = forms.dump_settings(ContainerConfig(), host, mounted, runtime="crun")
    assert forms.load_settings(text) == (ContainerConfig(), host, mounted, {"runtime": "crun"})


def test_a_row_from_before_mounts_were_recorded_has_its_binds() -> None:
    text = '{"config": {}, "host": {"binds": [{"source": "/a", "target": "/b", "read_only": true}]}}'
    _, host, mounted, _ = forms.load_settings(text)
    assert mounted is None
    assert mounts.of_binds(host.binds) == (Mount("bind", "/a", "/b", True, mode="ro", propagation="rprivate"),)
