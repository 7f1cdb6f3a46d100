"""What the OCI runtime is given for one start: the bundle's config.json and the three files of its own."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from dockerd_py.confined import mkdirs_in_root
from dockerd_py.engine import mounts
from dockerd_py.engine.confine import Confinement
from dockerd_py.engine.isolation import Namespaces
from dockerd_py.engine.netfiles import Texts
from dockerd_py.engine.record import Paths, Record
from dockerd_py.engine.securityopt import UNCONFINED
from dockerd_py.errors import BadParameter
from dockerd_py.runtime import crun, files, rlimits, seccomp, spec, users

log = logging.getLogger(__name__)


class Planner:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.hidden_mount = crun.mount_to_hide()
        self._profiles = seccomp.Profiles()
        self._warned = ""

    async def write_bundle(
        self,
        record: Record,
        root: Path,
        confined: Confinement,
        *,
        joined: Mapping[str, str],
        shm: str,
        texts: Texts,
        network: str = "",
        cgroups_path: str = "",
    ) -> None:
        """Write config.json for a container whose root filesystem is mounted at ``root``.

        joined: kinds of namespaces and the files by which they are joined; shm: see `spec.SpecInput`; network: the
        file of a network namespace that was made for it.
        Raises BadParameter for a user or group that the image does not know, a seccomp profile that is none, and for a
        working directory or a source of a bind that cannot be made.
        """
        await asyncio.to_thread(self._write, record, root, confined, joined, shm, texts, network, cgroups_path)

    def _write(
        self,
        record: Record,
        root: Path,
        confined: Confinement,
        joined: Mapping[str, str],
        shm: str,
        texts: Texts,
        network: str,
        cgroups_path: str,
    ) -> None:
        config, host = record.config, record.host
        security, tuning = host.security, host.tuning
        own_network = host.network_mode != "host"
        own_uts = host.namespaces.uts != spec.HOST
        hostname = (config.hostname or os.uname().nodename) if own_uts else os.uname().nodename
        user = users.resolve(os.fspath(root), config.user)
        _make_working_directory(root, config.working_dir)
        binds, tmpfs, root_propagation = mounts.for_runtime(record.mounts, host.tmpfs, root, self._paths.root)
        more_groups = users.group_ids(os.fspath(root), security.group_add)
        settings = spec.SpecInput(
            id=record.id,
            root=os.fspath(root),
            args=(record.path, *record.args),
            environment=spec.default_environment(
                (*texts.environment, *config.env), hostname=hostname, terminal=config.tty, home=user.home
            ),
            cwd=config.working_dir or "/",
            uid=user.uid,
            gid=user.gid,
            groups=tuple(dict.fromkeys((*user.groups, *more_groups))),
            terminal=config.tty,
            hostname=hostname,
            domainname=config.domainname,
            network=spec.PRIVATE if own_network else spec.HOST,
            host_namespaces=_host_namespaces(host.namespaces),
            joined_namespaces=joined,
            network_path=network,
            shm=shm,
            binds=binds,
            tmpfs=tmpfs,
            shm_size=host.shm_size,
            root_propagation=root_propagation,
            capabilities=confined.capabilities,
            seccomp=self._seccomp(confined, privileged=security.privileged),
            masked_paths=confined.masked_paths,
            readonly_paths=confined.readonly_paths,
            oom_score_adj=tuning.oom_score_adj,
            rlimits=rlimits.effective((limit.name, limit.soft, limit.hard) for limit in tuning.ulimits),
            annotations=host.annotations,
            sysctls=tuning.sysctls,
            devices=confined.nodes,
            no_new_privileges=confined.options.no_new_privileges,
            apparmor=confined.apparmor,
            read_only_root=security.read_only_root,
            writable_sys=security.privileged,
            writable_cgroups=security.privileged or confined.options.writable_cgroups,
            init=confined.init,
            cgroups_path=cgroups_path,
            device_rules=confined.rules,
            hostname_path=self._file(record, texts, "hostname", files.hostname(hostname)),
            hosts_path=self._file(record, texts, "hosts", texts.hosts),
            resolv_conf_path=self._file(record, texts, "resolv.conf", texts.resolv_conf),
        )
        path = self._paths.run_directory(record.id) / "config.json"
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(spec.build_spec(settings), file)

    def _file(self, record: Record, texts: Texts, name: str, text: str) -> str:
        """Its own, or that of the container whose network it has."""
        if texts.owner:
            return str(self._paths.directory(texts.owner) / name)
        return files.write(self._paths.directory(record.id), name, text)

    def _seccomp(self, confined: Confinement, *, privileged: bool) -> seccomp.Profile:
        asked = confined.options.seccomp
        if asked == UNCONFINED or (privileged and not asked):
            return seccomp.Profile(None)
        if asked:
            return self._profiles.given(asked, confined.capabilities)
        profile = self._profiles.get(confined.capabilities)
        if profile.warning and profile.warning != self._warned:
            self._warned = profile.warning
            log.warning("%s", profile.warning)
        return profile


def _host_namespaces(given: Namespaces) -> frozenset[str]:
    modes = {"pid": given.pid, "ipc": given.ipc, "uts": given.uts, "cgroup": given.cgroup}
    return frozenset(kind for kind, mode in modes.items() if mode == spec.HOST)


def _make_working_directory(root: Path, name: str) -> None:
    """As Docker does; not every crun makes it itself."""
    try:
        mkdirs_in_root(root, name)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise BadParameter(f"the working directory {name} cannot be made: {error.strerror}") from error
