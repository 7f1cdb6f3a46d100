"""The firewall on python-iptables: chains of our own in the legacy tables, and jumps to them.

- mangle: ``…-FWD`` and ``…-IN`` judge what is passed on and what comes to the host, before anybody's filter;
  ``…-LINKS`` is where icc is off, ``…-RELAY`` what internal networks do not reach. They drop, or return to whoever
  comes next.
- filter: a jump at the head of FORWARD to a chain that lets our bridges through.
- nat: ``…-DNAT`` for published ports, ``…-POST`` for what leaves.

A table is read, changed and written back as a whole: that is the kernel's interface. The lock that iptables itself
takes is held meanwhile. A table that somebody has changed in between all the same is read again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.firewall.beside import tables_in_use
from dockerd_py.nat.firewall.loading import load_iptc
from dockerd_py.nat.firewall.rules import (
    DROP,
    KNOWN,
    LINKS,
    MASQUERADE,
    NEVER_REDIRECTED,
    PASS,
    REDIRECTED,
    Link,
    Plan,
    Plans,
    Port,
    Rule,
)
from dockerd_py.nat.firewall.xtentry import DNAT, RELATED_ESTABLISHED, Entry, encode, extensions

_LOCK = "/run/xtables.lock"
_LOCK_PATIENCE = 10.0  # seconds
_ATTEMPTS = 10

_TARGETS = {PASS: "RETURN", DROP: "DROP", MASQUERADE: "MASQUERADE"}
_STATES = {KNOWN: RELATED_ESTABLISHED, REDIRECTED: DNAT, "": 0}
_JUDGED = ("forward", "local", "links", "relayed")  # what is in table mangle
_NEIGHBOURS = (135, 136)  # ICMPv6: neighbour solicitation and advertisement (RFC 4861)


class IptablesBackend:
    name = "iptables"

    def __init__(self, instance: str) -> None:
        """Raises ImportError, and NetworkFailed if the kernel has no legacy tables."""
        self._iptc: Any = load_iptc()
        base = "PYDOCKERD" + (f"-{instance.upper()}" if instance else "")
        self._passage = base
        self._forward, self._local, self._links = f"{base}-FWD", f"{base}-IN", f"{base}-LINKS"
        self._relayed = f"{base}-RELAY"
        self._ports, self._leaving = f"{base}-DNAT", f"{base}-POST"
        for table in ("filter", "mangle", "nat"):
            with _Table(self._iptc, 4, table):
                pass

    def replace(self, plans: Plans) -> None:
        for plan in plans:
            self._write(plan.family, "mangle", self._judge, plan)
            self._write(plan.family, "filter", self._let_through, plan)
            if plan.ports or plan.leaving:
                self._write(plan.family, "nat", self._redirect, plan)
            else:
                self._forget(plan.family, "nat", self._forget_nat)

    def change(self, old: Plans, new: Plans) -> None:
        for before, after in zip(old, new, strict=True):
            family = after.family
            if any(getattr(before, name) != getattr(after, name) for name in _JUDGED):
                self._write(family, "mangle", self._judge, after)
            if before.bridges != after.bridges:
                self._write(family, "filter", self._let_through, after)
            if before.leaving != after.leaving or bool(before.ports) != bool(after.ports):
                if after.ports or after.leaving:
                    self._write(family, "nat", self._redirect, after)
                else:
                    self._forget(family, "nat", self._forget_nat)
            elif before.ports != after.ports:
                gone, come = before.ports - after.ports, after.ports - before.ports
                self._write(family, "nat", self._change_ports, gone, come)

    def clear(self) -> None:
        self.forget_rules()
        self.stop_letting_through()

    def forget_rules(self) -> None:
        for family in (4, 6):
            self._forget(family, "nat", self._forget_nat)
            self._forget(family, "mangle", self._forget_judge)

    def let_through(self, plans: Plans) -> None:
        """For rules that are elsewhere: of ours there is the passage alone."""
        for plan in plans:
            self._write(plan.family, "filter", self._let_through, plan)

    def stop_letting_through(self) -> None:
        for family in (4, 6):
            self._forget(family, "filter", self._forget_passage)

    def close(self) -> None:
        """Nothing is held between changes."""

    # --- what is in each table ---

    def _judge(self, table: _Table, plan: Plan) -> None:
        for chain in (self._links, self._relayed, self._forward, self._local):
            table.empty(chain)
        for one in sorted(plan.relayed):
            table.append(self._relayed, Entry("DROP", protocol=one.protocol, port=one.port))
        for link in sorted(plan.links):
            table.append(self._links, _link(link))
        table.append(self._links, Entry("DROP"))
        for chain, rules in ((self._forward, plan.forward), (self._local, plan.local)):
            for rule in rules:
                for entry in self._entries(rule):
                    table.append(chain, entry)
        table.jump_first("FORWARD", Entry(self._forward))
        table.jump_first("INPUT", Entry(self._local))

    def _let_through(self, table: _Table, plan: Plan) -> None:
        table.empty(self._passage)
        for bridge in plan.bridges:
            table.append(self._passage, Entry("ACCEPT", came_by=bridge))
            table.append(self._passage, Entry("ACCEPT", leaves_by=bridge))
        table.jump_first("FORWARD", Entry(self._passage))

    def _redirect(self, table: _Table, plan: Plan) -> None:
        table.empty(self._ports)
        table.empty(self._leaving)
        for network in NEVER_REDIRECTED[plan.family]:
            table.append(self._ports, Entry("RETURN", destination=network))
        for port in sorted(plan.ports):
            table.append(self._ports, _port(port))
        for rule in plan.leaving:
            for entry in self._entries(rule):
                table.append(self._leaving, entry)
        for chain in ("PREROUTING", "OUTPUT"):
            table.jump_first(chain, Entry(self._ports, local=True))
        table.jump_first("POSTROUTING", Entry(self._leaving))

    def _change_ports(self, table: _Table, gone: Iterable[Port], come: Iterable[Port]) -> None:
        # One address of the host and all of them never have the same port: their order does not matter.
        for port in gone:
            table.delete(self._ports, _port(port))
        for port in come:
            table.append(self._ports, _port(port))

    def _forget_nat(self, table: _Table) -> None:
        for chain in ("PREROUTING", "OUTPUT"):
            table.unlink(chain, Entry(self._ports, local=True))
        table.unlink("POSTROUTING", Entry(self._leaving))
        table.remove(self._ports, self._leaving)

    def _forget_passage(self, table: _Table) -> None:
        table.unlink("FORWARD", Entry(self._passage))
        table.remove(self._passage)

    def _forget_judge(self, table: _Table) -> None:
        table.unlink("FORWARD", Entry(self._forward))
        table.unlink("INPUT", Entry(self._local))
        table.remove(self._forward, self._local, self._links, self._relayed)

    def _entries(self, rule: Rule) -> Iterator[Entry]:
        entry = Entry(
            # What returns from the chain of the links has been let through: it is not to come back.
            self._links if rule.action == LINKS else self._relayed if rule.relayed else _TARGETS[rule.action],
            goto=rule.action == LINKS,
            came_by=rule.came_by or rule.not_by,
            not_came_by=bool(rule.not_by),
            leaves_by=rule.leaves_by or rule.not_leaving_by,
            not_leaves_by=bool(rule.not_leaving_by),
            source=rule.source,
            destination=rule.destination,
            state=_STATES[rule.state],
        )
        if rule.neighbours:
            yield from (replace(entry, neighbour=kind) for kind in _NEIGHBOURS)
        else:
            yield entry

    def _forget(self, family: int, name: str, change: Callable[..., None]) -> None:
        """A table that is not in use has nothing of ours, and is not loaded for it."""
        if name in tables_in_use(family):
            self._write(family, name, change)

    def _write(self, family: int, name: str, change: Callable[..., None], *wanted: Any) -> None:
        for _ in range(_ATTEMPTS):
            with _xtables_lock(), _Table(self._iptc, family, name) as table:
                try:
                    change(table, *wanted)
                    table.commit()
                except self._iptc.IPTCError as error:
                    if os.strerror(errno.EAGAIN) in str(error):
                        continue
                    text = table.missing() or str(error)
                    raise NetworkFailed(f"iptables refused the rules of table {name}: {text}") from None
                return
        raise NetworkFailed(f"iptables: others change table {name} all the time")


class _Table:
    """One table as it was when it was opened; what is changed takes effect with commit()."""

    def __init__(self, iptc: Any, family: int, name: str) -> None:
        """Raises NetworkFailed if the kernel does not have it."""
        self._family = family
        self._used: set[tuple[str, str]] = set()
        self._error = iptc.IPTCError
        try:
            self._table = (iptc.Table if family == 4 else iptc.Table6)(name, autocommit=False)
            self._table.refresh()
        except iptc.IPTCError as error:
            program = "iptables" if family == 4 else "ip6tables"
            if os.strerror(errno.EACCES) in str(error) or os.strerror(errno.EPERM) in str(error):
                raise NetworkFailed(f"{program} does not work: {os.strerror(errno.EPERM)}") from None
            module = f"{program[:-1]}_{name}"
            raise NetworkFailed(f"{program}: the kernel's module {module} is missing ({error})") from None

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def commit(self) -> None:
        self._table.commit()

    def empty(self, chain: str) -> None:
        """The chain, without a rule; made if need be."""
        if self._table.is_chain(chain):
            self._table.flush_entries(chain)
        else:
            self._table.create_chain(chain)

    def remove(self, *chains: str) -> None:
        """Chains that nothing outside them jumps to any more; fine when gone."""
        there = [chain for chain in chains if self._table.is_chain(chain)]
        for chain in there:
            self._table.flush_entries(chain)
        for chain in there:
            self._table.delete_chain(chain)

    def missing(self) -> str:
        """Which module is missing, if that is what is wrong: the kernel lists those it has been asked for."""
        for kind, name in sorted(self._used):
            with contextlib.suppress(OSError), open(f"/proc/net/ip{'6' * (self._family == 6)}_tables_{kind}") as listed:
                if name not in listed.read().split():
                    return f"the kernel's module xt_{name} is missing"
        return ""

    def append(self, chain: str, entry: Entry) -> None:
        self._used |= extensions(entry)
        self._table.append_entry(chain, self._buffer(entry))

    def delete(self, chain: str, entry: Entry) -> None:
        """The first rule that is just this one. Raises IPTCError if there is none."""
        buffer = self._buffer(entry)
        everything = (ctypes.c_ubyte * len(buffer)).from_buffer_copy(b"\xff" * len(buffer))
        self._table.delete_entry(chain, buffer, everything)

    def jump_first(self, chain: str, entry: Entry) -> None:
        """A jump at the head of a chain that is not ours, and nowhere else in it."""
        self.unlink(chain, entry)
        self._table.insert_entry(chain, self._buffer(entry), 0)

    def unlink(self, chain: str, entry: Entry) -> None:
        if not self._table.is_chain(entry.target):
            return
        with contextlib.suppress(self._error):
            while True:
                self.delete(chain, entry)

    def _buffer(self, entry: Entry) -> Any:
        raw = encode(self._family, entry)
        return (ctypes.c_ubyte * len(raw)).from_buffer_copy(raw)


def _port(port: Port) -> Entry:
    return Entry(
        "DNAT",
        destination=port.host_ip,
        protocol=port.protocol,
        port=port.host_port,
        to=(port.address, port.port),
    )


def _link(link: Link) -> Entry:
    return Entry("RETURN", source=link.source, destination=link.target, protocol=link.protocol, port=link.port)


@contextmanager
def _xtables_lock() -> Iterator[None]:
    """The lock of iptables(8). Raises NetworkFailed if somebody sits on it."""
    fd = os.open(os.environ.get("XTABLES_LOCKFILE", _LOCK), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NetworkFailed(f"another program holds {_LOCK}, the lock of iptables") from None
                time.sleep(0.001)
        yield
    finally:
        os.close(fd)
