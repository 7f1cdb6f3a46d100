"""What the OCI runtime is given for one start: the bundle's config.json and the three files of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

from dockerd_py.engine import mounts
from dockerd_py.engine.record import Paths, Record
from dockerd_py.runtime import capabilities, crun, files, seccomp, spec, users

log = logging.getLogger(__name__)


class Planner:
    def __init__(self, paths: Paths, runtime: crun.Crun) -> None:
        self._paths = paths
        self.runtime = runtime
        self.hidden_mount = crun.mount_to_hide()
        self._profiles = seccomp.Profiles()
        self._warned = ""

    async def write_bundle(self, record: Record, root: Path) -> None:
        """Write config.json for a container whose root filesystem is mounted at ``root``.

        Raises BadParameter for a user that the image does not know, or a bind that cannot be had.
        """
        await asyncio.to_thread(self._write, record, root)

    def _write(self, record: Record, root: Path) -> None:
        config, host = record.config, record.host
        own_network = host.network_mode != "host"
        hostname = config.hostname or os.uname().nodename
        user = users.resolve(os.fspath(root), config.user)
        directory = self._paths.directory(record.id)
        profile = self._profiles.get(capabilities.DEFAULT)
        if profile.warning and profile.warning != self._warned:
            self._warned = profile.warning
            log.warning("%s", profile.warning)
        resolv_conf = files.resolv_conf(files.host_resolv_conf(), own_network=own_network)
        hosts = files.hosts() if own_network else _host_hosts()
        binds, tmpfs, root_propagation = mounts.for_runtime(record.mounts, host.tmpfs, root, self._paths.root)
        settings = spec.SpecInput(
            id=record.id,
            root=os.fspath(root),
            args=(record.path, *record.args),
            environment=spec.default_environment(config.env, hostname=hostname, terminal=config.tty, home=user.home),
            cwd=config.working_dir or "/",
            uid=user.uid,
            gid=user.gid,
            groups=user.groups,
            terminal=config.tty,
            hostname=hostname,
            domainname=config.domainname,
            network=spec.PRIVATE if own_network else spec.HOST,
            binds=binds,
            tmpfs=tmpfs,
            shm_size=host.shm_size,
            root_propagation=root_propagation,
            hostname_path=files.write(directory, "hostname", files.hostname(hostname)),
            hosts_path=files.write(directory, "hosts", hosts),
            resolv_conf_path=files.write(directory, "resolv.conf", resolv_conf),
            capabilities=capabilities.DEFAULT,
            seccomp=profile,
            rlimits=spec.default_rlimits(),
        )
        path = self._paths.run_directory(record.id) / "config.json"
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(spec.build_spec(settings), file)


def _host_hosts() -> str:
    try:
        return Path("/etc/hosts").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return files.hosts()
