"""What clients send becomes settings, or is refused by name; nothing is ignored in silence."""

from __future__ import annotations

from typing import Any

import pytest
from docker.types import ContainerConfig as PyContainerConfig
from docker.types import EndpointConfig, LogConfig, NetworkingConfig
from docker.types import HostConfig as PyHostConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from dockerd_py.api.decode import decode_create
from dockerd_py.engine.isolation import Device, Namespaces, Resolver, Security, Tuning, Ulimit
from dockerd_py.engine.model import ContainerConfig, HostConfig, RestartPolicy
from dockerd_py.engine.mount_model import Bind, MountRequest
from dockerd_py.engine.network_model import Link
from dockerd_py.errors import BadParameter, NotSupported

# The body of `docker run busybox true`, as the 28.2 client sends it.
CLI_BODY: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": True, "AttachStderr": True,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": ["true"], "Image": "busybox",
    "Volumes": {}, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
        "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [24, 80], "CapAdd": None, "CapDrop": None,
        "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None,
        "IpcMode": "", "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
        "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
        "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
        "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0,
        "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0,
        "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {
        "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": None,
    }}},
}  # fmt: skip


def host(**settings_: Any) -> HostConfig:
    return decode_create({"HostConfig": settings_}).host


def test_the_body_of_docker_run_is_accepted_as_it_is() -> None:
    request = decode_create(CLI_BODY)
    assert request.config == ContainerConfig(image="busybox", cmd=("true",), attach_stdout=True, attach_stderr=True)
    assert request.host == HostConfig(restart=RestartPolicy("no"), console_size=(24, 80))


def test_every_setting_that_is_supported_arrives() -> None:
    request = decode_create(
        {
            "Image": "i", "Cmd": ["a"], "Entrypoint": ["e"], "Env": ["A=b", "C"], "WorkingDir": "/w", "User": "u",
            "Hostname": "h", "Domainname": "d", "Tty": True, "OpenStdin": True, "StdinOnce": True,
            "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Labels": {"k": "v"},
            "ExposedPorts": {"80/tcp": {}, "53/UDP": {}, "9": {}}, "StopSignal": "SIGINT", "StopTimeout": 3,
            "NetworkDisabled": True, "OnBuild": ["RUN x"],
            "HostConfig": {
                "Binds": ["/s:/t:ro"], "Memory": 7 << 20, "MemorySwap": -1, "CpuShares": 2, "NanoCpus": 5,
                "CpuQuota": 6, "CpuPeriod": 7, "PidsLimit": 8, "NetworkMode": "none", "AutoRemove": True,
                "LogConfig": {"Type": "journald", "Config": {"tag": "t"}}, "ContainerIDFile": "/f",
            },
        }
    )  # fmt: skip
    assert request.config == ContainerConfig(
        image="i", cmd=("a",), entrypoint=("e",), env=("A=b", "C"), working_dir="/w", user="u", hostname="h",
        domainname="d", tty=True, open_stdin=True, stdin_once=True, attach_stdin=True, attach_stdout=True,
        attach_stderr=True, labels={"k": "v"}, exposed_ports=("80/tcp", "53/udp", "9/tcp"), stop_signal="SIGINT",
        stop_timeout=3, network_disabled=True, on_build=("RUN x",),
    )  # fmt: skip
    assert request.host == HostConfig(
        binds=(Bind("/s", "/t", True, "ro"),), memory=7 << 20, memory_swap=-1, cpu_shares=2, nano_cpus=5, cpu_quota=6,
        cpu_period=7, pids_limit=8, network_mode="none", auto_remove=True, log_driver="journald",
        log_options={"tag": "t"}, container_id_file="/f",
    )  # fmt: skip


def test_what_docker_py_sends_by_default_is_accepted() -> None:
    config = PyContainerConfig(
        "1.43", "busybox", ["true"], host_config=PyHostConfig("1.43", network_mode="none", log_config=LogConfig()),
        networking_config=NetworkingConfig({"none": EndpointConfig("1.43")}),
    )  # fmt: skip
    assert decode_create(dict(config)).host.network_mode == "none"


@pytest.mark.parametrize(
    ("settings_", "name"),
    [
        ({"storage_opt": {"size": "1g"}}, "StorageOpt"),
        ({"isolation": "hyperv"}, "Isolation"),
    ],
)
def test_a_setting_without_effect_is_refused_by_its_name(settings_: dict[str, Any], name: str) -> None:
    with pytest.raises(NotSupported, match=rf"^HostConfig\.{name} is not supported by this version"):
        decode_create({"HostConfig": dict(PyHostConfig("1.43", **settings_))})


def test_links_are_read_as_docker_py_sends_and_inspect_shows_them() -> None:
    sent = {"HostConfig": dict(PyHostConfig("1.43", links={"db": "store", "queue": "queue"}))}
    assert decode_create(sent).host.links == (Link("db", "store"), Link("queue", "queue"))
    shown = {"HostConfig": {"Links": ["/db:/web/store"]}}
    assert decode_create(shown).host.links == (Link("db", "store"),)
    with pytest.raises(BadParameter, match="bad format for links: a:b:c"):
        decode_create({"NetworkingConfig": {"EndpointsConfig": {"front": {"Links": ["a:b:c"]}}}})


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"HostConfig": {"isolation": "hyperv"}}, "HostConfig.Isolation"),
        ({"hostconfig": {"ISOLATION": "hyperv"}}, "HostConfig.Isolation"),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"front": {"GwPriority": 1}}}},
            "NetworkingConfig.EndpointsConfig.front.GwPriority",
        ),
    ],
)
def test_the_name_is_the_whole_path_of_the_attribute(body: dict[str, Any], name: str) -> None:
    with pytest.raises(NotSupported, match=f"^{name.replace('.', '[.]')} is not supported"):
        decode_create(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"HostConfig": {"Memory": "8m"}}, "Bad parameter: HostConfig.Memory must be a number"),
        ({"HostConfig": {"Memory": True}}, "Bad parameter: HostConfig.Memory must be a number"),
        ({"HostConfig": {"Memory": 1.5}}, "Bad parameter: HostConfig.Memory must be a number"),
        ({"HostConfig": {"Memory": float("nan")}}, "Bad parameter: HostConfig.Memory must be a number"),
        ({"HostConfig": {"Memory": 1 << 70}}, "Bad parameter: HostConfig.Memory is out of range"),
        ({"HostConfig": []}, "Bad parameter: HostConfig must be an object"),
        ({"Tty": "yes"}, "Bad parameter: Tty must be true or false"),
        ({"Image": 5}, "Bad parameter: Image must be a string"),
        ({"Image": "a\0b"}, "Bad parameter: Image must not contain a NUL character"),
        ({"Env": ["a", 1]}, "Bad parameter: Env must be a list of strings"),
        ({"Env": ["\ud800"]}, "Bad parameter: Env must be valid Unicode"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"Labels": ["a"]}, "Bad parameter: Labels must be an object of strings"),
        ({"WorkingDir": "x"}, "the working directory 'x' is invalid, it needs to be an absolute path"),
        ({"ExposedPorts": {"x/tcp": {}}}, 'invalid port specification: "x"'),
        ({"ExposedPorts": {"0": {}}}, 'invalid port specification: "0"'),
        ({"ExposedPorts": {"80/ipx": {}}}, 'invalid protocol: "ipx" in'),
        ({"HostConfig": {"PortBindings": {"70000/tcp": []}}}, 'invalid port specification: "70000"'),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}, 'invalid port specification: "x"'),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "9-8"}]}}}, 'invalid port specification: "9-8"'),
        ({"HostConfig": {"Binds": ["/a:/b:/c:ro"]}}, "invalid volume specification: '/a:/b:/c:ro'"),
        ({"HostConfig": {"Binds": ["/a:"]}}, "invalid volume specification: '/a:'"),
        ({"HostConfig": {"Binds": ["/a:/b:xx"]}}, "invalid mode: xx"),
        ({"HostConfig": {"Binds": ["/a:/b:ro,rw"]}}, "invalid mode: ro,rw"),
        ({"HostConfig": {"Binds": ["/a:b"]}}, "invalid volume specification: '/a:b': invalid mount config"),
        ({"HostConfig": {"Binds": ["/a:/x/.."]}}, "invalid volume specification: '/a:/x/..': invalid mount config"),
        ({"HostConfig": {"Mounts": [{"Type": "x"}]}}, 'invalid mount config: mount type unknown: "x"'),
        ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/a"}]}}, 'invalid mount config for type "bind": f'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameter) as caught:
        decode_create(body)
    assert not isinstance(caught.value, NotSupported)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("settings_", "phrase"),
    [
        ({"Mounts": [{"Type": "npipe", "Source": "a", "Target": "/x"}]}, 'HostConfig.Mounts[0].Type "npipe"'),
        (
            {"Mounts": [{"Type": "volume", "Target": "/b", "VolumeOptions": {"Subpath": "x"}}]},
            "HostConfig.Mounts[0].VolumeOptions.Subpath",
        ),
    ],
)
def test_a_value_without_effect_is_named_too(settings_: dict[str, Any], phrase: str) -> None:
    with pytest.raises(NotSupported) as caught:
        host(**settings_)
    assert str(caught.value).startswith(phrase)


def test_binds_take_docker_s_modes_and_are_normalised() -> None:
    given_ = ["/a:/b", "/a:/c:ro", "/a:/d:rw,z", "/a//x/:/e/./f/:Z,ro", "/a:/g:delegated", "/a:/h:rprivate"]
    assert [(b.source, b.target, b.read_only) for b in host(Binds=given_).binds] == [
        ("/a", "/b", False),
        ("/a", "/c", True),
        ("/a", "/d", False),
        ("/a/x", "/e/f", True),
        ("/a", "/g", False),
        ("/a", "/h", False),
    ]


def test_binds_name_paths_volumes_or_nothing() -> None:
    given_ = ["/x:/1:rslave,ro", "data:/2:nocopy", "/3"]
    assert host(Binds=given_).binds == (
        Bind("/x", "/1", True, "rslave,ro", "rslave"),
        Bind("data", "/2", mode="nocopy", no_copy=True),
        Bind("", "/3"),
    )


def test_mounts_carry_the_options_of_their_type() -> None:
    mounts = [
        {
            "Type": "bind", "Source": "/y", "Target": "/2", "ReadOnly": True, "Consistency": "cached",
            "BindOptions": {"Propagation": "rshared", "NonRecursive": True, "CreateMountpoint": True},
        },
        {
            "Type": "volume", "Source": "v1", "Target": "/3/",
            "VolumeOptions": {
                "NoCopy": True, "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}},
            },
        },
        {"Type": "tmpfs", "Target": "/4", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 448}},
    ]  # fmt: skip
    assert host(Mounts=mounts).mounts == (
        MountRequest(
            "bind", "/2", "/y", True, "cached", propagation="rshared", non_recursive=True, create_source=True
        ),
        MountRequest(
            "volume", "/3", "v1", no_copy=True, labels={"a": "b"}, driver="local", driver_options={"type": "tmpfs"}
        ),
        MountRequest("tmpfs", "/4", size=65536, mode=0o700),
    )


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (
            {"Binds": ["data:/x:shared"]},
            (
                "invalid volume specification: 'data:/x:shared': invalid mount config for type \"volume\": "
                "field BindOptions must not be specified"
            ),
        ),
        (
            {"Binds": ["/d:/x:nocopy"]},
            (
                "invalid volume specification: '/d:/x:nocopy': invalid mount config for type \"bind\": "
                "field VolumeOptions must not be specified"
            ),
        ),
        ({"Binds": ["/d:/x:shared,slave"]}, "invalid mode: shared,slave"),
        ({"Mounts": [{"Type": "glob", "Target": "/x"}]}, 'invalid mount config: mount type unknown: "glob"'),
        ({"Mounts": [{"Type": "volume", "Target": "/x", "BindOptions": {}}]},
         'invalid mount config for type "volume": field BindOptions must not be specified'),
        ({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x", "VolumeOptions": {}}]},
         'invalid mount config for type "bind": field VolumeOptions must not be specified'),
        ({"Mounts": [{"Type": "tmpfs", "Source": "k", "Target": "/x"}]},
         'invalid mount config for type "tmpfs": field Source must not be specified'),
        ({"Mounts": [{"Type": "volume", "Target": "/x", "ReadOnly": True}]},
         'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes'),
        ({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x", "BindOptions": {"Propagation": "foo"}}]},
         'invalid mount config for type "bind": invalid propagation mode: foo'),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": -1}}]},
         'invalid mount config for type "tmpfs": HostConfig.Mounts[0].TmpfsOptions.SizeBytes must not be negative'),
    ],
)  # fmt: skip
def test_what_does_not_belong_to_a_mount_is_refused_in_docker_s_words(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameter) as caught:
        host(**settings_)
    assert str(caught.value) == message


def test_the_first_year_wrote_volumes_from_into_the_configuration() -> None:
    assert decode_create({"VolumesFrom": "a:ro,b", "HostConfig": {}}).host.volumes_from == ("a:ro", "b")
    assert decode_create({"VolumesFrom": "a", "HostConfig": {"VolumesFrom": ["c"]}}).host.volumes_from == ("c",)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), ([], ()), ([""], ()), ("a", ("a",)), (["a", "b"], ("a", "b"))]
)
def test_an_entrypoint_is_the_image_s_none_or_given(value: Any, expected: Any) -> None:
    assert decode_create({"Entrypoint": value}).config.entrypoint == expected


def test_bare_strings_are_lists_of_one_and_no_limit_is_zero() -> None:
    config = decode_create({"Cmd": "true", "Env": "A=1"}).config
    assert (config.cmd, config.env) == (("true",), ("A=1",))
    assert host(PidsLimit=-1, CpuQuota=-1, MemorySwap=None, Memory=8388608.0) == HostConfig(
        memory=8 << 20, pids_limit=-1, cpu_quota=-1
    )


def test_what_docker_py_sends_for_the_confinement_arrives() -> None:
    sent = PyHostConfig(
        "1.43", privileged=True, cap_add=["A"], cap_drop=["B"], devices=["/dev/a:/dev/b:r"], dns=["1.1.1.1"],
        dns_search=["d"], dns_opt=["o"], extra_hosts={"h": "1.2.3.4"}, group_add=["audio", 7], init=True,
        ipc_mode="host", pid_mode="host", uts_mode="host", userns_mode="host", cgroupns="host",
        cgroup_parent="x.slice", oom_kill_disable=True, oom_score_adj=5, read_only=True, runtime="crun",
        security_opt=["a=b"], sysctls={"k": "v"}, device_cgroup_rules=["c 1:3 r"],
        ulimits=[{"name": "core", "soft": 1, "hard": 2}], lxc_conf={"lxc.a": "b"},
    )  # fmt: skip
    assert decode_create({"HostConfig": dict(sent)}).host == HostConfig(
        security=Security(
            privileged=True, cap_add=("A",), cap_drop=("B",), security_opt=("a=b",), read_only_root=True,
            devices=(Device("/dev/a", "/dev/b", "r"),), device_cgroup_rules=("c 1:3 r",), group_add=("audio", "7"),
        ),
        namespaces=Namespaces(pid="host", ipc="host", uts="host", cgroup="host", user="host"),
        tuning=Tuning(
            init=True, sysctls={"k": "v"}, ulimits=(Ulimit("core", 1, 2),), oom_score_adj=5, oom_kill_disable=True
        ),
        resolver=Resolver(extra_hosts=("h:1.2.3.4",), dns=("1.1.1.1",), search=("d",), options=("o",)),
        runtime="crun",
        cgroup_parent="x.slice",
        network_mode="default",
        lxc_conf=(("lxc.a", "b"),),
    )  # fmt: skip


def test_paths_that_are_not_given_are_not_the_same_as_none() -> None:
    assert host(MaskedPaths=None).security.masked_paths is None
    assert host(MaskedPaths=[], ReadonlyPaths=["/a"]).security == Security(masked_paths=(), readonly_paths=("/a",))


def test_keys_unknown_to_docker_are_ignored() -> None:
    assert decode_create({"Image": "i", "Nonsense": 1, "HostConfig": {"More": 2}}).config.image == "i"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*CLI_BODY, "MacAddress", "ExposedPorts", "StopTimeout", "Healthcheck", "Memory", "VolumesFrom"]
HOST_KEYS = [*CLI_BODY["HostConfig"], "Mounts", "Init", "Tmpfs", "Sysctls", "Annotations", "LxcConf"]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
    st.none() | st.dictionaries(st.sampled_from(HOST_KEYS), JSON, max_size=4),
)
def test_any_json_is_either_settings_or_a_bad_request(body: dict[str, Any], host_part: dict[str, Any] | None) -> None:
    if host_part is not None:
        body["HostConfig"] = host_part
    try:
        decode_create(body)
    except BadParameter:
        pass
