"""The test host's root filesystem: a small system of this machine's own release, made once and cached.

It holds systemd, what the tests need, and the packages that ours depends on, as the built package states them: a
dependency that the package forgets is missing in the host too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "dbus",
    "iproute2",
    "nftables",
    "procps",
    "python3",
    "python3-docker",
    "python3-pytest",
    "python3-pytest-timeout",
    "systemd",
    "systemd-sysv",
)
"""What the tests need, beside the dependencies of the package."""

MASKED = (
    # These write settings of the kernel that the machine outside shares.
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    # There is no terminal and no network, and nothing to be done once a day.
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
)

DOCKER_CLIENT = (
    "cd /tmp && apt-get download docker.io"
    " && dpkg-deb --fsys-tarfile docker.io_*.deb | tar --extract --directory=/ ./usr/bin/docker"
    " && rm docker.io_*.deb"
)
"""Brings the client alone: the package would bring a daemon too."""

UNUSED_FOR = 7 * 24 * 3600
"""Seconds after which a cached root filesystem that nobody uses any more goes."""


class RootfsFailed(Exception):
    """The root filesystem could not be made; the text says what to look at."""


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "pydockerd-testhost"


def ensure(deb: Path, others: Sequence[Path] = ()) -> Path:
    """The root filesystem for tests of ``deb``, made first where it is not cached.  Not to be written to.

    others: packages that it depends on and the distribution lacks.
    Raises RootfsFailed.
    """
    depends, recommends = (_field(deb, name) for name in ("Depends", "Recommends"))
    # Ubuntu 22.04 lacks one of the recommended ones.
    recommends = ", ".join(one for one in recommends.split(", ") if _is_installable(one))
    sources = _apt_sources()
    recipe = json.dumps([depends, recommends, sources, Path(__file__).read_text()]).encode()
    for other in others:
        recipe += other.read_bytes()
    root = cache_directory() / hashlib.sha256(recipe).hexdigest()[:16]
    with _locked(root.with_suffix(".lock")):
        if not root.is_dir():
            _forget_unused()
            _make(root, sources, ", ".join(filter(None, (depends, recommends))), others)
        os.utime(root)
    return root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_unused() -> None:
    for root in cache_directory().glob("[0-9a-f]" * 16):
        if time.time() - root.stat().st_mtime > UNUSED_FOR:
            shutil.rmtree(root)
            root.with_suffix(".lock").unlink()


def _is_installable(dependency: str) -> bool:
    """Whether this machine's distribution, which the test host gets too, has what satisfies ``dependency``."""
    argv = ["apt-get", "-qq", "--simulate", "--no-install-recommends", "satisfy", dependency]
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _field(deb: Path, name: str) -> str:
    return _output("dpkg-deb", "--field", str(deb), name).strip()


def _apt_sources() -> list[str]:
    """sources.list lines for the distribution's own archive, from wherever this machine gets its packages."""
    template = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    lines = _output("apt-get", "indextargets", "--format", template, "Created-By: Packages").splitlines()
    found: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        origin, uri, release, component = line.split("|")
        if origin in ("Debian", "Ubuntu"):
            found.setdefault((uri, release), set()).add(component)
    if not found:
        raise RootfsFailed("apt knows no archive of Debian or Ubuntu here: run apt-get update, then try again")
    return [f"deb {uri} {release} {' '.join(sorted(parts))}" for (uri, release), parts in sorted(found.items())]


def _release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise RootfsFailed("/etc/os-release has no VERSION_CODENAME: test hosts are made on Debian and Ubuntu only")


def _make(root: Path, sources: list[str], dependencies: str, others: Sequence[Path]) -> None:
    print(f"test host: making the root filesystem {root} (once; about a minute)", flush=True)
    unfinished = Path(tempfile.mkdtemp(prefix="making-", dir=root.parent))
    log = root.with_suffix(".log")
    bring_others = [f"--customize-hook=copy-in {other} /tmp" for other in others]
    if others:
        bring_others.append('--customize-hook=chroot "$1" sh -c "apt-get --yes install /tmp/*.deb && rm /tmp/*.deb"')
    try:
        with log.open("w") as out:
            build = subprocess.run(
                [
                    "mmdebstrap",
                    "--mode=root",
                    "--variant=apt",
                    f"--include={','.join(PACKAGES)}",
                    '--aptopt=APT::Install-Recommends "false"',
                    *bring_others,
                    '--customize-hook=chroot "$1" apt-get --yes satisfy "$DEPENDENCIES"',
                    f'--customize-hook=chroot "$1" sh -c "{DOCKER_CLIENT}"',
                    _release(),
                    os.fspath(unfinished),
                    "-",
                ],
                input="\n".join(sources),
                env={**os.environ, "DEPENDENCIES": dependencies},
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if build.returncode != 0:
            raise RootfsFailed(f"mmdebstrap failed, see {log}; its end:\n" + log.read_text()[-2000:])
        units = unfinished / "etc/systemd/system"
        for unit in MASKED:
            (units / unit).symlink_to("/dev/null")
        (unfinished / "etc/hostname").write_text("testhost\n")
        (unfinished / "etc/resolv.conf").write_text("")
        (unfinished / "etc/machine-id").write_text("")
        unfinished.chmod(0o755)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RootfsFailed(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout
