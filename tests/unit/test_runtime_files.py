"""/etc/hostname, /etc/hosts and /etc/resolv.conf of a container."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dockerd_py.runtime import files


def test_the_hostname_file_is_one_line() -> None:
    assert files.hostname("box") == "box\n"


def test_hosts_has_loopback_alone_without_an_address() -> None:
    text = files.hosts("box")
    assert text.splitlines()[:2] == ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    assert "box" not in text
    assert len(text.splitlines()) == 6


def test_hosts_names_the_container_at_each_address_with_its_domain_first() -> None:
    lines = files.hosts("box", "example.org", ("172.17.0.2", "fd00::2")).splitlines()
    assert lines[-2:] == ["172.17.0.2\tbox.example.org box", "fd00::2\tbox.example.org box"]


HOST = "# by hand\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a b\n"


def test_with_the_hosts_network_resolv_conf_is_the_hosts() -> None:
    assert files.resolv_conf(HOST, own_network=False) == HOST


def test_in_its_own_network_name_servers_on_the_hosts_loopback_are_left_out() -> None:
    assert files.resolv_conf(HOST, own_network=True) == (
        "# by hand\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a b\n"
    )


def test_odd_lines_of_resolv_conf_are_kept() -> None:
    text = "nameserver\nnameserver example\noptions ndots:1\n"
    assert files.resolv_conf(text, own_network=True) == text


def test_behind_the_stub_of_systemd_resolved_the_real_servers_are_taken(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\noptions edns0\n")
    (tmp_path / "real").write_text("nameserver 192.0.2.7\n")
    assert files.host_resolv_conf(tmp_path / "stub", tmp_path / "real") == "nameserver 192.0.2.7\n"
    assert files.host_resolv_conf(tmp_path / "stub", tmp_path / "none").startswith("nameserver 127.0.0.53")
    assert files.host_resolv_conf(tmp_path / "real", tmp_path / "stub") == "nameserver 192.0.2.7\n"
    assert files.host_resolv_conf(tmp_path / "none", tmp_path / "real") == ""


@pytest.mark.parametrize(
    ("text", "all_of_them"),
    [
        ("search x\nnameserver 127.0.0.1\nnameserver ::1\n", True),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", False),
        ("search x\n", False),
        ("", False),
    ],
)
def test_name_servers_on_the_loopback_are_known(text: str, all_of_them: bool, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(text)
    assert files.HostResolver(tmp_path / "resolv.conf").is_on_loopback() is all_of_them


def test_behind_the_stub_of_systemd_resolved_the_stub_is_asked_from_the_host(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\noptions edns0\n")
    (tmp_path / "real").write_text("nameserver 192.0.2.7\nnameserver fe80::1%eth0\n")
    host = files.HostResolver(tmp_path / "stub", tmp_path / "real")
    assert host.servers() == ("127.0.0.53",)
    assert not host.is_on_loopback()
    assert files.HostResolver(tmp_path / "real").servers() == ("192.0.2.7", "fe80::1%eth0")
    assert files.HostResolver(tmp_path / "none").servers() == ()


def test_a_file_is_put_in_place_whole_and_readable_for_all(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        path = files.write(tmp_path, "hosts", "one\n")
        files.write(tmp_path, "hosts", "two\n")
    finally:
        os.umask(before)
    assert Path(path).read_text() == "two\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.listdir(tmp_path) == ["hosts"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write(tmp_path, "hosts", "x")
    assert os.listdir(tmp_path) == ["hosts"]
