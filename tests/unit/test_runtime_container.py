"""What a process sees in a container that the real runtime made from our configuration."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import make_rootfs
from oci_host import OciHost, reap, subreaper

from dockerd_py.runtime import capabilities, files, rlimits, users
from dockerd_py.runtime.seccomp import Profile, compile_section
from dockerd_py.runtime.spec import HOST, Bind, Rlimit, SpecInput, default_environment


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciHost]:
    directory = tmp_path_factory.mktemp("oci")
    with subreaper():
        yield OciHost(directory, make_rootfs(directory / "root"))


def test_it_is_process_one_in_namespaces_of_its_own(host: OciHost) -> None:
    script = "echo $$; for n in pid ipc uts mnt cgroup net; do ls -l /proc/self/ns/$n; done"
    lines = host.sh(script).splitlines()
    assert lines[0] == "1"
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "ipc", "uts", "mnt", "cgroup", "net")}
    theirs = [line.rpartition("-> ")[2] for line in lines[1:]]
    assert len(theirs) == 6
    assert not set(ours.values()) & set(theirs)


def test_it_sees_itself_at_the_root_of_every_control_group(host: OciHost) -> None:
    paths = {line.rpartition(":")[2] for line in host.sh("cat /proc/self/cgroup").splitlines()}
    assert paths == {"/"}


def test_its_control_groups_are_mounted_read_only(host: OciHost) -> None:
    mounts = [line.split() for line in host.sh("cat /proc/mounts").splitlines()]
    groups = [fields for fields in mounts if fields[2] in ("cgroup", "cgroup2")]
    assert groups
    assert all("ro" in fields[3].split(",") for fields in groups)


def test_the_kernels_tables_are_masked(host: OciHost) -> None:
    assert host.sh("cat /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware /proc/acpi") == (
        "/proc/acpi:\n\n/sys/firmware:\n"
    )


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/domainname", "/proc/irq/default_smp_affinity", "/sys/kernel/profiling"]
)
def test_the_kernels_settings_are_read_only(host: OciHost, path: str) -> None:
    outcome = host.run("tee", path)
    assert outcome.stderr == f"tee: {path}: Read-only file system\n"


def test_dev_has_dockers_devices_and_nothing_of_the_host(host: OciHost) -> None:
    names = set(host.sh("ls /dev").split())
    assert names == {
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    }  # fmt: skip
    assert "size=65536k" in host.sh("grep /dev/shm /proc/mounts")


def test_root_has_the_default_capabilities_and_the_filter_is_in_force(host: OciHost) -> None:
    status = dict(
        line.split(":\t") for line in host.sh("grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status").splitlines()
    )
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "00000000a80425fb"
    assert status["CapInh"] == status["CapAmb"] == "0000000000000000"
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"


def test_another_user_has_no_capabilities_and_its_own_groups_and_home(host: OciHost) -> None:
    ann = users.resolve(host.root, "ann")
    environment = default_environment((), hostname="box", terminal=False, home=ann.home)
    out = host.sh(
        "id; echo $HOME; grep CapEff /proc/self/status",
        uid=ann.uid, gid=ann.gid, groups=ann.groups, environment=environment,
    )  # fmt: skip
    assert out.splitlines() == [
        "uid=1000(ann) gid=1000(ann) groups=29(audio),44(video),1000(ann)",
        "/home/ann",
        "CapEff:\t0000000000000000",
    ]


def test_the_widest_set_of_capabilities_that_this_machine_can_give_works(host: OciHost) -> None:
    available = capabilities.available()
    out = host.sh("grep CapEff /proc/self/status", capabilities=available, seccomp=host.profiles.get(available))
    assert int(out.split()[1], 16) == sum(1 << capabilities.ALL.index(name) for name in available)


@pytest.mark.parametrize("default", [errno.ENOSYS, None])
def test_the_program_that_we_compile_is_the_one_that_the_runtime_makes(host: OciHost, default: int | None) -> None:
    profile = host.profiles.get(capabilities.DEFAULT)
    assert profile.section is not None
    section = dict(profile.section)
    if default is None:
        del section["defaultErrnoRet"]
    elif " 0." in host.call([host.crun.binary, "--version"]).stdout:
        pytest.skip("this crun does not know defaultErrnoRet")
    outcome = host.create("compare", host.settings("true", seccomp=Profile(section)))
    assert outcome.created == 0, outcome.log
    assert (host.directory / "state/compare/seccomp.bpf").read_bytes() == compile_section(section)
    host.call(host.crun.delete("compare", force=True))
    reap(outcome.pid)


def test_the_compiled_filter_is_loaded_in_the_same_way_as_the_profile(host: OciHost) -> None:
    profile = host.profiles.get(capabilities.DEFAULT)
    script = "grep -E 'Seccomp|Speculation' /proc/self/status; mount -t tmpfs x /tmp; chroot / true"
    assert host.sh(script) == host.sh(script, seccomp=replace(profile, program=None))


def test_without_a_profile_there_is_no_filter(host: OciHost) -> None:
    assert host.sh("grep Seccomp: /proc/self/status", seccomp=Profile(None)) == "Seccomp:\t0\n"


def test_a_filter_is_what_the_compiled_program_says(host: OciHost) -> None:
    deny_mkdir = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    out = host.sh("mkdir /tmp/denied", seccomp=Profile(deny_mkdir, compile_section(deny_mkdir)))
    assert "Not supported" in out or "not supported" in out


def test_the_environment_is_exactly_the_given_one(host: OciHost) -> None:
    given = ("PATH=/bin", "A=with spaces=and signs", "EMPTY=", "HOME=/h", "BYTES=\udcff")
    outcome = host.run("cat", "/proc/self/environ", environment=given)
    assert outcome.stdout.encode("utf-8", "replace").split(b"\0")[:4] == [one.encode() for one in given[:4]]
    assert len(outcome.stdout.split("\0")) == 6


def test_name_domain_umask_and_limits_are_set(host: OciHost) -> None:
    out = host.sh(
        "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; umask; grep 'open files' /proc/self/limits",
        domainname="example.org", umask=0o027, rlimits=(Rlimit("RLIMIT_NOFILE", 100, 200),),
    )  # fmt: skip
    assert out.split() == ["box", "example.org", "0027", "Max", "open", "files", "100", "200", "files"]


def test_the_default_limit_can_be_given_on_this_machine(host: OciHost) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    out = host.sh("ulimit -n", rlimits=rlimits.effective(()))
    assert int(out) == min(hard, 1048576)


def test_signals_are_as_at_birth_whatever_ours_are(host: OciHost) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        outcome = host.run("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    finally:
        signal.signal(signal.SIGUSR2, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    kept_by_libc = 0b11 << 31  # signals 32 and 33, which no program can change
    masks = [int(line.split()[1], 16) & ~kept_by_libc for line in outcome.stdout.splitlines()]
    assert masks == [0, 0]


def test_descriptors_of_ours_do_not_reach_it(host: OciHost) -> None:
    with open("/etc/hostname", "rb") as file:
        os.set_inheritable(file.fileno(), True)
        out = host.sh("ls /proc/self/fd")
    assert [int(word) for word in out.split() if word.isdigit()] == [0, 1, 2, 3]  # 3 is ls's own


def test_in_a_private_network_loopback_works_and_low_ports_are_open_to_all(host: OciHost) -> None:
    out = host.sh(
        "cat /sys/class/net/lo/flags; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start;"
        "nc -l -p 80 -e echo heard & sleep 0.3; nc 127.0.0.1 80 </dev/null",
        uid=1000,
    )
    flags, *rest = out.split()
    assert int(flags, 16) & 1, "lo is down"
    assert rest[-2:] == ["0", "heard"]


def test_with_the_hosts_network_it_has_the_hosts_interfaces(host: OciHost) -> None:
    out = host.sh("ls -l /proc/self/ns/net; ls /sys/class/net", network=HOST)
    assert os.readlink("/proc/self/ns/net") in out
    assert set(os.listdir("/sys/class/net")) <= set(out.split())


def test_binds_are_there_and_read_only_ones_cannot_be_written(host: OciHost, tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro/file").write_text("content\n")
    out = host.sh(
        "cat /mnt/ro/file; touch /mnt/ro/new; touch /mnt/rw/new; ls /mnt",
        binds=(Bind(str(tmp_path / "ro"), "/mnt/ro", True), Bind(str(tmp_path / "rw"), "/mnt/rw")),
    )
    assert out.splitlines() == ["content", "ro", "rw", "touch: /mnt/ro/new: Read-only file system"]
    assert os.listdir(tmp_path / "rw") == ["new"]


def test_what_is_mounted_in_it_does_not_reach_the_host(host: OciHost, tmp_path: Path) -> None:
    wide = [*capabilities.DEFAULT, "CAP_SYS_ADMIN"]
    out = host.sh(
        "mount -t tmpfs inside /mnt && touch /mnt/x && ls /mnt",
        binds=(Bind(str(tmp_path), "/mnt"),), capabilities=tuple(wide), seccomp=host.profiles.get(wide),
    )  # fmt: skip
    assert out == "x\n"
    assert os.listdir(tmp_path) == []


def test_the_target_of_a_bind_stays_in_the_root_whatever_links_say(host: OciHost, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = host.root / "escape"
    link.symlink_to(f"../../../../../../../../..{outside}")
    try:
        host.run("true", binds=(Bind("/etc", "/escape/etc"),))
        assert os.listdir(outside) == []
    finally:
        link.unlink()


def with_files(host: OciHost, directory: Path, **fields: object) -> SpecInput:
    directory.mkdir()
    return host.settings(
        "cat", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
        hostname_path=files.write(directory, "hostname", files.hostname("box")),
        hosts_path=files.write(directory, "hosts", files.hosts()),
        resolv_conf_path=files.write(directory, "resolv.conf", "nameserver 192.0.2.1\n"),
        **fields,
    )  # fmt: skip


@pytest.mark.parametrize("target", [None, "/run/systemd/resolve/stub-resolv.conf", "../run/resolv.conf"])
def test_the_made_files_lie_over_the_images_own_also_over_links(
    host: OciHost, tmp_path: Path, target: str | None
) -> None:
    link = host.root / "etc/resolv.conf"
    link.unlink(missing_ok=True)
    if target is not None:
        link.symlink_to(target)
    made = with_files(host, tmp_path / "files")
    fields = {name: getattr(made, name) for name in ("args", "hostname_path", "hosts_path", "resolv_conf_path")}
    args = fields.pop("args")
    outcome = host.run(*args, **fields)
    assert outcome.created == 0, outcome.log
    assert outcome.stdout == "box\n" + files.hosts() + "nameserver 192.0.2.1\n"


def test_a_terminal_comes_over_the_console_socket_with_its_size(host: OciHost, tmp_path: Path) -> None:
    script = "tty; stty size; echo ok >/dev/console; echo err >&2"
    settings = host.settings("sh", "-c", script, terminal=True, console_size=(33, 99), uid=1000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "console"))
        server.listen(1)
        outcome = host.create("tty", settings, console_socket=str(tmp_path / "console"))
        assert outcome.created == 0, outcome.log
        connection, _ = server.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 4096, 1)
    try:
        assert struct.unpack("HH", fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8)[:4]) == (33, 99)
        assert host.call(host.crun.start("tty")).returncode == 0
        text = b""
        while True:
            try:
                text += os.read(master, 4096)
            except OSError:  # EIO: the other side is closed
                break
    finally:
        os.close(master)
    assert reap(outcome.pid)[0] == 0
    assert host.call(host.crun.delete("tty")).returncode == 0
    assert text.decode().split("\r\n") == ["/dev/pts/0", "33 99", "ok", "err", ""]
    assert (host.directory / "tty/stdout").read_bytes() == b""
    assert (host.directory / "tty/stderr").read_bytes() == b""
