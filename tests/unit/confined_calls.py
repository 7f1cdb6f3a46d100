"""What a container may not do, tried by a program inside it: each line of output is one attempt and what came of it.

The program is the host's own Python, whose files are bound into the container read-only.
"""

from __future__ import annotations

from typing import Any

BINDS = ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"]

_PRELUDE = """
import ctypes, errno, os, platform, stat, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
X86 = platform.machine() == "x86_64"
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
def attempt(name, action):
    try:
        action()
    except OSError as error:
        print(name, errno.errorcode[error.errno])
    else:
        print(name, "done")
def system_call(x86, generic, *arguments):
    call(libc.syscall(ctypes.c_long(x86 if X86 else generic), *map(ctypes.c_long, arguments)))
"""

ATTEMPTS = {
    "mount": 'call(libc.mount(b"x", b"/tmp", b"tmpfs", 0, None))',
    "umount": 'call(libc.umount2(b"/proc", 2))',
    "load_module": "system_call(313, 273, -1, 0, 0)",  # finit_module
    "reboot": "system_call(169, 142, 0, 0, 0)",  # with wrong magic numbers: nothing happens to whoever may
    "keyctl": "system_call(250, 219, 0, -3, 0)",  # KEYCTL_GET_KEYRING_ID of the session
    "add_key": "system_call(248, 217, 0, 0, 0, 0, -3)",
    "unshare_user": "call(libc.unshare(0x10000000))",
    "unshare_mount": "call(libc.unshare(0x20000))",
    "setns": 'call(libc.setns(os.open("/proc/self/ns/net", 0), 0x40000000))',
    "bpf": "system_call(321, 280, 0, 0, 0)",
    "settime": "system_call(164, 170, 0, 0)",  # nothing is set
    "swapon": 'call(libc.swapon(b"/nothing", 0))',
    "open_by_handle": "system_call(304, 265, -1, 0, 0)",
    "sysrq": 'os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))',
    "kcore": 'assert not os.read(os.open("/proc/kcore", os.O_RDONLY), 1)  # masked: there, and empty',
    "write_sysctl": 'os.close(os.open("/proc/sys/kernel/domainname", os.O_WRONLY))',
    "write_sysfs": 'os.close(os.open("/sys/kernel/profiling", os.O_WRONLY))',
    "make_cgroup": (
        'os.mkdir(next(w for w, d, names in os.walk("/sys/fs/cgroup") if "cgroup.procs" in names) + "/t")'
    ),
    "raw_disk": 'os.mknod("/disk", stat.S_IFBLK | 0o600, os.makedev(7, 0)); os.close(os.open("/disk", os.O_RDONLY))',
    "kernel_messages": (
        'os.mknod("/kmsg", stat.S_IFCHR | 0o600, os.makedev(1, 11)); os.close(os.open("/kmsg", os.O_RDONLY))'
    ),
    "tunnel": 'os.mknod("/tun", stat.S_IFCHR | 0o600, os.makedev(10, 200)); os.close(os.open("/tun", os.O_RDWR))',
    "physical_memory": (
        'os.mknod("/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)); os.close(os.open("/mem", os.O_RDONLY))'
    ),
    "trace_stranger": "call(libc.ptrace(16, TARGET, 0, 0))",  # PTRACE_ATTACH
    "signal_stranger": "os.kill(TARGET, 0)",
    "lower_nice": "os.nice(-5)",
    "raise_limit": (
        "import resource; s, h = resource.getrlimit(7); resource.setrlimit(7, (s, h + 1))"
    ),
    "set_hostname": 'call(libc.sethostname(b"x", 1))',
}


def command(*names: str, target: int = 0) -> list[str]:
    """Argument vector of a container that tries these."""
    lines = [f"def _{name}():\n    {ATTEMPTS[name]}\nattempt({name!r}, _{name})" for name in names]
    return ["/usr/bin/python3", "-I", "-S", "-c", _PRELUDE + f"TARGET = {target}\n" + "\n".join(lines)]


def outcomes(output: bytes) -> dict[str, Any]:
    """{"mount": "EPERM", "load_module": "EBADF", ...}"""
    return dict(line.split(" ", 1) for line in output.decode().splitlines())
