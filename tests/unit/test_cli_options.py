"""What `run` and `create` make of their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.cli.mounts import parse_volume
from dockerd_py.cli.options import RUN_FLAGS, Settings, settings
from dockerd_py.flags import FlagError, parse


def made_of(*argv: str) -> Settings:
    given = parse(RUN_FLAGS, argv)
    return settings(given, detach=given.boolean("detach"))


def field(made: Settings, path: str) -> Any:
    value: Any = made.body
    for name in path.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        (["bb"], "Image", "bb"),
        (["bb"], "Cmd", None),
        (["bb", "-v", "x"], "Cmd", ["-v", "x"]),
        (["-m", "64m", "bb"], "HostConfig.Memory", 64 << 20),
        (["--memory-swap", "-1", "bb"], "HostConfig.MemorySwap", -1),
        (["--memory-swap=1g", "bb"], "HostConfig.MemorySwap", 1 << 30),
        (["-c", "512", "bb"], "HostConfig.CpuShares", 512),
        (["--cpus", "1.5", "bb"], "HostConfig.NanoCpus", 1_500_000_000),
        (["--cpus", "0.1", "bb"], "HostConfig.NanoCpus", 100_000_000),
        (["--pids-limit", "20", "bb"], "HostConfig.PidsLimit", 20),
        (["bb"], "HostConfig.NetworkMode", "default"),
        (["--net=host", "bb"], "HostConfig.NetworkMode", "host"),
        (["--network", "none", "bb"], "HostConfig.NetworkMode", "none"),
        (["-n=false", "bb"], "HostConfig.NetworkMode", "none"),
        (["--networking=false", "--net=none", "bb"], "HostConfig.NetworkMode", "none"),
        (["--rm", "bb"], "HostConfig.AutoRemove", True),
        (["-v", "/a:/b", "-v", "/c:/d:ro", "bb"], "HostConfig.Binds", ["/a:/b", "/c:/d:ro"]),
        (["-v", "/data", "bb"], "Volumes", {"/data": {}}),
        (["-v", "data:/x:ro,nocopy", "bb"], "HostConfig.Binds", ["data:/x:ro,nocopy"]),
        (["--tmpfs", "/a:size=1m,exec", "--tmpfs=/b", "bb"], "HostConfig.Tmpfs", {"/a": "size=1m,exec", "/b": ""}),
        (["--shm-size", "1g", "bb"], "HostConfig.ShmSize", 1 << 30),
        (["--volumes-from", "a:ro", "--volumes-from", "b", "bb"], "HostConfig.VolumesFrom", ["a:ro", "b"]),
        (["--volume-driver", "local", "bb"], "HostConfig.VolumeDriver", "local"),
        (["--mount", "src=data,dst=/x,readonly", "bb"], "HostConfig.Mounts",
         [{"Type": "volume", "Source": "data", "Target": "/x", "ReadOnly": True}]),
        (["--mount", "type=bind,source=/a,target=/b,ro=false,bind-propagation=rslave,bind-nonrecursive", "bb"],
         "HostConfig.Mounts",
         [{"Type": "bind", "Source": "/a", "Target": "/b",
           "BindOptions": {"Propagation": "rslave", "NonRecursive": True}}]),
        (["--mount", 'dst=/b,volume-nocopy,volume-label=a=b,volume-driver=local,"volume-opt=o=size=1m,mode=700"', "bb"],
         "HostConfig.Mounts",
         [{"Type": "volume", "Target": "/b", "VolumeOptions": {
             "NoCopy": True, "Labels": {"a": "b"},
             "DriverConfig": {"Name": "local", "Options": {"o": "size=1m,mode=700"}}}}]),
        (["--mount", "type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=1770", "bb"], "HostConfig.Mounts",
         [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o1770}}]),
        (["--log-driver", "journald", "--log-opt", "tag=a=b", "bb"], "HostConfig.LogConfig",
         {"Type": "journald", "Config": {"tag": "a=b"}}),
        (["-p", "80", "bb"], "HostConfig.PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        (["-p", "127.0.0.1:8080:80/udp", "bb"], "HostConfig.PortBindings",
         {"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        (["-p", "80", "--expose", "53/udp", "bb"], "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        (["-P", "bb"], "HostConfig.PublishAllPorts", True),
        (["-h", "web.example.org", "bb"], "Hostname", "web"),
        (["-h", "web.example.org", "bb"], "Domainname", "example.org"),
        (["-w", "/srv", "bb"], "WorkingDir", "/srv"),
        (["-u", "1000:100", "bb"], "User", "1000:100"),
        (["-l", "a=1", "--label", "b", "bb"], "Labels", {"a": "1", "b": ""}),
        (["bb"], "Entrypoint", None),
        (["--entrypoint", "/bin/sh", "bb"], "Entrypoint", ["/bin/sh"]),
        (["--entrypoint", "", "bb"], "Entrypoint", [""]),
        (["--stop-signal", "INT", "bb"], "StopSignal", "INT"),
        (["--stop-timeout", "0", "bb"], "StopTimeout", 0),
        (["-it", "bb"], "Tty", True),
        (["-i", "bb"], "StdinOnce", True),
        (["-id", "bb"], "OpenStdin", True),
        (["-id", "bb"], "StdinOnce", False),
        (["-d", "bb"], "AttachStdout", False),
    ],
)  # fmt: skip
def test_a_flag_becomes_a_setting(argv: list[str], path: str, value: object) -> None:
    assert field(made_of(*argv), path) == value


@pytest.mark.parametrize(
    ("argv", "attached"),
    [
        (["bb"], {"stdout", "stderr"}),
        (["-i", "bb"], {"stdin", "stdout", "stderr"}),
        (["-d", "bb"], set()),
        (["-a", "stderr", "bb"], {"stderr"}),
        (["-i", "-a", "stdin", "-a=stdout", "bb"], {"stdin", "stdout"}),
    ],
)
def test_what_is_attached_follows_from_the_flags(argv: list[str], attached: set[str]) -> None:
    assert made_of(*argv).attached == attached


def test_no_stop_timeout_is_sent_that_was_not_given() -> None:
    assert "StopTimeout" not in made_of("bb").body


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-a", "stdin", "-d", "bb"], "Conflicting options: -a and -d"),
        (["-n=false", "--net=host", "bb"], "Conflicting options: --networking=false and --network=host"),
        ([""], "the image's name is empty"),
    ],
)
def test_what_contradicts_itself_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made_of(*argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-v", "da/ta:/data"], 'invalid value "da/ta:/data" for flag -v: "da/ta" is neither an absolute path'),
        (["--mount", "type=glob,dst=/x"], '"glob" is no type'),
        (["--mount", "type=bind,dst=/x"], "a bind needs a source"),
        (["--mount", "src=a"], "a target is missing"),
        (["--mount", "dst=/x,foo=bar"], '"foo" is no key'),
        (["--mount", "dst=/x,foo"], '"foo" must be key=value'),
        (["--mount", "type=bind,src=/a,dst=/x,volume-nocopy"], '"volume-nocopy" does not belong to'),
        (["--mount", "type=tmpfs,dst=/x,volume-opt=a=b"], '"volume-opt" does not belong to'),
        (["--mount", "type=bind,src=/a,dst=/x,bind-propagation=up"], '"up" is no propagation'),
        (["--mount", "type=tmpfs,dst=/x,tmpfs-mode=9"], '"9" are no permissions'),
        (["--mount", "dst=/x,ro=maybe"], '"maybe" is no value of readonly'),
        (["--tmpfs", "x"], '"x" is no absolute path in the container'),
        (["-v", "/a:b"], '"b" is no absolute path in the container'),
        (["-v", "/a:/b:rx"], '"rx" is no mode: it must be ro, rw'),
        (["-v", "/a:/b:ro:z"], "it must be HOST:CONTAINER[:MODE]"),
        (["-v", ":/b"], "the part before the colon is empty"),
        (["-v", ""], '"" is no absolute path in the container'),
        (["-v", "/a:/"], "on the container's root itself"),
        (["-v", "/a:/x/.."], "the container's root itself"),
        (["-w", "srv"], "it must be an absolute path"),
        (["-e", "=1"], "it must be NAME=value"),
        (["-e", ""], "it must be NAME=value"),
        (["-l", "=1"], "it must be KEY=value"),
        (["-a", "stdwhat"], "it must be one of stdin, stdout, stderr"),
        (["-m", "lots"], "it must be a number of bytes"),
        (["--memory-swap", "-2"], "it must be a number of bytes"),
        (["-p", "80a"], '"80a" is no port'),
        (["-p", "0"], '"0" is no port'),
        (["-p", "65536:80"], '"65536" is no port'),
        (["-p", "8000-8001:80-82"], "8000-8001 are 2 ports of the host's for the container's 3"),
        (["-p", "81-80"], '"81-80" is no range'),
        (["-p", "80-"], '"" is no port'),
        (["-p", "published=80"], "(target=) is missing"),
        (["-p", "mode=host,target=80"], '"mode=host" is none of published='),
        (["-p", "80/icmp"], '"icmp" is no protocol'),
        (["-p", "1.2.3:80:80"], '"1.2.3" is no IP address'),
        (["-p", "::1:80:80"], "with an IPv6 address in brackets"),
        (["-p", "[::1]80"], "an IPv6 address must be followed by"),
        (["-p", "[::1]:80"], "a colon is missing"),
        (["--expose", "80:80"], "without ':'"),
        (["--detach-keys", "ctrl-"], '"ctrl-" is no key'),
    ],
)
def test_a_slip_in_a_value_is_named(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        made_of(*argv, "bb")
    assert message in str(caught.value)


def test_a_volume_keeps_its_parts() -> None:
    assert parse_volume("/a b:/c:rw") == ("/a b", "/c", "rw")
    assert parse_volume("./d:/c") == (f"{Path.cwd()}/d", "/c", "")
    assert parse_volume("data:/c:nocopy,z") == ("data", "/c", "nocopy,z")


def test_variables_come_from_flags_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "x=y")
    monkeypatch.delenv("NOT_HERE", raising=False)
    file = tmp_path / "env"
    file.write_text("\ufeffA=1\n# a comment\n\n  B=two words \nFROM_HERE\nNOT_HERE\nEMPTY=\n")
    made = made_of("--env-file", str(file), "-e", "C=3", "-e", "NOT_HERE", "bb")
    assert made.body["Env"] == ["A=1", "B=two words ", "FROM_HERE=x=y", "EMPTY=", "C=3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("A=1\nB C=2\n", 'line 2: "B C" is no name'), ("=1\n", 'line 1: "" is no name'), ("A" * (2 << 20), "more than")],
)
def test_a_file_of_variables_that_is_wrong_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "env"
    file.write_text(content)
    with pytest.raises(CliError, match=message):
        made_of("--env-file", str(file), "bb")


def test_a_file_of_variables_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="nothing: No such file or directory"):
        made_of("--env-file", str(tmp_path / "nothing"), "bb")
