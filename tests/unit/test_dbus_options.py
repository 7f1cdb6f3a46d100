from __future__ import annotations

import math

import pytest
from dbus_next.signature import Variant

from dockerd_py.dbus import options
from dockerd_py.engine.mount_model import Bind
from dockerd_py.engine.network_model import EndpointRequest, PortBinding
from dockerd_py.errors import BadParameter


def test_every_option_of_create_reaches_the_settings() -> None:
    name, config, host = options.container_settings(
        "busybox",
        ["echo", "hi"],
        {
            "Name": Variant("s", "web"),
            "Env": Variant("as", ["A=1"]),
            "WorkingDir": Variant("s", "/srv"),
            "User": Variant("s", "nobody"),
            "Hostname": Variant("s", "h"),
            "Domainname": Variant("s", "d"),
            "Entrypoint": Variant("as", ["/bin/sh"]),
            "Tty": Variant("b", True),
            "OpenStdin": Variant("b", True),
            "Labels": Variant("a{ss}", {"k": "v"}),
            "StopSignal": Variant("s", "SIGINT"),
            "StopTimeout": Variant("u", 3),
            "Binds": Variant("as", ["/a:/b", "/c:/d:ro"]),
            "ExposedPorts": Variant("as", ["80", "53/udp"]),
            "PortBindings": Variant("a(qssqq)", [[80, "", "127.0.0.1", 8080, 0], [53, "udp", "", 0, 0]]),
            "PublishAllPorts": Variant("b", True),
            "Memory": Variant("t", 1 << 30),
            "MemorySwap": Variant("x", -1),
            "PidsLimit": Variant("x", 50),
            "CpuShares": Variant("t", 512),
            "Cpus": Variant("d", 1.5),
            "NetworkMode": Variant("s", "front"),
            "NetworkAliases": Variant("as", ["db"]),
            "IPv4Address": Variant("s", "10.9.0.7"),
            "IPv6Address": Variant("s", "FD00::7"),
            "MacAddress": Variant("s", "02-42-AC-11-00-02"),
            "AutoRemove": Variant("b", True),
            "LogDriver": Variant("s", "json-file"),
            "LogOptions": Variant("a{ss}", {"tag": "t"}),
        },
    )
    assert name == "web"
    assert (config.image, config.cmd, config.env) == ("busybox", ("echo", "hi"), ("A=1",))
    assert (config.working_dir, config.user, config.hostname, config.domainname) == ("/srv", "nobody", "h", "d")
    assert (config.entrypoint, config.tty, config.open_stdin, config.labels) == (("/bin/sh",), True, True, {"k": "v"})
    assert (config.stop_signal, config.stop_timeout) == ("SIGINT", 3)
    assert config.exposed_ports == ("80/tcp", "53/udp")
    assert host.port_bindings == (PortBinding(80, "tcp", "127.0.0.1", 8080, 8080), PortBinding(53, "udp"))
    assert host.publish_all
    assert host.binds == (Bind("/a", "/b"), Bind("/c", "/d", read_only=True))
    assert (host.memory, host.memory_swap, host.pids_limit, host.cpu_shares) == (1 << 30, -1, 50, 512)
    assert (host.nano_cpus, host.network_mode, host.auto_remove) == (1_500_000_000, "front", True)
    assert host.networks == (EndpointRequest("front", aliases=("db",), ipv4="10.9.0.7", ipv6="fd00::7"),)
    assert config.mac_address == "02:42:ac:11:00:02"
    assert (host.log_driver, host.log_options) == ("json-file", {"tag": "t"})


def test_without_options_the_image_and_the_daemon_decide() -> None:
    name, config, host = options.container_settings("busybox", [], {})
    assert name == ""
    assert config.entrypoint is None
    assert config.stop_timeout is None
    assert (host.network_mode, host.networks) == ("default", ())


def test_what_does_not_go_with_a_network_mode_is_refused_as_it_is_over_http() -> None:
    given = {"NetworkMode": Variant("s", "container:x"), "Hostname": Variant("s", "h")}
    with pytest.raises(BadParameter, match="conflicting options: hostname and the network mode"):
        options.container_settings("busybox", [], given)
    with pytest.raises(BadParameter, match="user specified IP address is supported on user defined networks only"):
        options.container_settings("busybox", [], {"IPv4Address": Variant("s", "1.2.3.4")})
    with pytest.raises(BadParameter, match="invalid IPv4 address: fd00::1"):
        options.container_settings("busybox", [], {"IPv4Address": Variant("s", "fd00::1")})


def test_an_unknown_option_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadParameter, match=r"'Colour'; there are: AutoRemove, .*WorkingDir$"):
        options.container_settings("busybox", [], {"Colour": Variant("s", "red")})


def test_a_wrong_type_is_named_with_the_right_one() -> None:
    with pytest.raises(BadParameter, match="Memory is of type 't', not 's'"):
        options.container_settings("busybox", [], {"Memory": Variant("s", "1g")})


@pytest.mark.parametrize("text", ["/only", ":/b", "/a:", "/a:/b:rx", "/a:/b:ro:z"])
def test_a_malformed_bind_is_quoted(text: str) -> None:
    with pytest.raises(BadParameter, match="bind"):
        options.container_settings("busybox", [], {"Binds": Variant("as", [text])})


@pytest.mark.parametrize("cpus", [math.nan, math.inf, -1.0, 1e30])
def test_a_number_of_processors_that_is_none_is_refused(cpus: float) -> None:
    with pytest.raises(BadParameter, match="Cpus"):
        options.container_settings("busybox", [], {"Cpus": Variant("d", cpus)})


def test_a_size_beyond_what_the_kernel_counts_is_refused() -> None:
    with pytest.raises(BadParameter, match="Memory is too large"):
        options.container_settings("busybox", [], {"Memory": Variant("t", 1 << 63)})


def test_a_log_without_any_stream_is_refused() -> None:
    with pytest.raises(BadParameter, match="at least one stream"):
        options.log_options({"Stdout": Variant("b", False), "Stderr": Variant("b", False)})


def test_times_of_a_log_are_microseconds() -> None:
    wanted, timestamps = options.log_options(
        {"Since": Variant("t", 5), "Until": Variant("t", 7), "Tail": Variant("u", 3), "Timestamps": Variant("b", True)}
    )
    assert (wanted.since, wanted.until, wanted.tail, timestamps) == (5000, 7000, 3, True)
