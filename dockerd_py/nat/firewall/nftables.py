"""The firewall on libnftables: a table of our own a family, and a jump at the head of the host's FORWARD chain.

An accept in our table does not beat a drop in another one. So where the host's own filter table (`ip filter`, which
iptables-nft calls its own) drops what is forwarded, our bridges have to be let through there: by a jump to a chain of
ours, in words that iptables-nft can read back. Where that table is missing it is made as iptables-nft makes it, so
that whoever sets a policy there later finds the jump.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import nftables

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.firewall import nfttext
from dockerd_py.nat.firewall.rules import Plan, Plans

_ATTEMPTS = 5  # somebody else may have changed the host's chain between our look and our transaction

# What rules of ours need of the kernel: the module, a type of chain, a rule.
_NAT, _FILTER = "type nat hook postrouting priority 100", "type filter hook input priority 0"
_INGREDIENTS = (
    ("nf_tables", _FILTER, "drop"),
    ("nft_chain_nat", _NAT, "drop"),
    ("nft_ct", _FILTER, "ct status dnat drop"),
    ("nft_fib_ipv{family}", _FILTER, "fib daddr type local drop"),
    ("nft_masq", _NAT, "masquerade"),
    ("nft_nat", "type nat hook output priority -100", "dnat to {address}"),
)
_FAMILIES = ("ip", "ip6")
_ADDRESS = {4: "192.0.2.1", 6: "2001:db8::1"}


class NftablesBackend:
    name = "nftables"

    def __init__(self, instance: str) -> None:
        """Raises NetworkFailed if the library or the kernel does not work."""
        self._table = "pydockerd" + (f"-{instance}" if instance else "")
        self._chain = self._table.upper()
        try:
            self._nft = nftables.Nftables()
        except OSError as missing:
            raise NetworkFailed(f"libnftables cannot be loaded: {missing}") from None
        self._nft.set_json_output(True)
        self._nft.set_handle_output(True)
        self._nft.set_stateless_output(True)
        if error := self._try("list tables")[1]:
            raise NetworkFailed(f"nftables does not work: {error}")

    def replace(self, plans: Plans) -> None:
        def text() -> list[str]:
            lines: list[str] = []
            for plan in plans:
                at = f"{nfttext.family_of(plan)} {self._table}"
                lines += (f"add table {at}", f"delete table {at}")
                lines += nfttext.declare(self._table, plan)
                lines += nfttext.fill(self._table, plan)
                lines += nfttext.elements("add", self._table, plan.family, plan.ports, plan.links, plan.relayed)
                lines += self._passage(plan)
            return lines

        try:
            self._repeat(text)
        except NetworkFailed as error:
            if missing := self._missing(plans):
                raise NetworkFailed(f"nftables: {missing}") from None
            raise error from None

    def change(self, old: Plans, new: Plans) -> None:
        text: list[str] = []
        for before, after in zip(old, new, strict=True):
            if (before.forward, before.local, before.leaving) != (after.forward, after.local, after.leaving):
                text += nfttext.fill(self._table, after)
            if before.bridges != after.bridges:
                text += nfttext.passage(self._chain, after)
            for verb, one, other in (("delete", before, after), ("add", after, before)):
                ports, links, relayed = one.ports - other.ports, one.links - other.links, one.relayed - other.relayed
                text += nfttext.elements(verb, self._table, after.family, ports, links, relayed)
        if text and (error := self._try("\n".join(text))[1]):
            raise NetworkFailed(f"nftables refused the change: {error}")

    def clear(self) -> None:
        self._repeat(lambda: [*self._no_table(), *self._no_passage()])

    def forget_rules(self) -> None:
        self._repeat(self._no_table)

    def let_through(self, plans: Plans) -> None:
        """For rules that are elsewhere: of ours there is the passage alone, and only through tables that there are."""
        there = self._filters()
        self._repeat(
            lambda: [line for plan in plans if nfttext.family_of(plan) in there for line in self._passage(plan)]
        )

    def stop_letting_through(self) -> None:
        self._repeat(self._no_passage)

    def close(self) -> None:
        del self._nft

    def _passage(self, plan: Plan) -> list[str]:
        family = nfttext.family_of(plan)
        text: list[str] = []
        if family not in self._filters():
            # As iptables-nft makes them; the policy is for somebody else to set.
            text += (
                f"add table {family} filter",
                f"add chain {family} filter FORWARD {{ type filter hook forward priority 0; }}",
            )
        text += nfttext.passage(self._chain, plan)
        text += self._unlink(family)
        text.append(f"insert rule {family} filter FORWARD counter jump {self._chain}")
        return text

    def _no_table(self) -> list[str]:
        return [
            f"delete table {table['family']} {table['name']}"
            for table in self._objects("list tables", "table")
            if table["family"] in _FAMILIES and table["name"] == self._table
        ]

    def _no_passage(self) -> list[str]:
        text = []
        for family in _FAMILIES:
            at = f"{family} filter {self._chain}"
            text += self._unlink(family)
            if self._objects(f"list chain {at}", "chain"):
                text += (f"flush chain {at}", f"delete chain {at}")
        return text

    def _filters(self) -> set[str]:
        """Families whose table "filter" has a FORWARD chain."""
        return {family for family in _FAMILIES if self._objects(f"list chain {family} filter FORWARD", "chain")}

    def _repeat(self, text: Callable[[], list[str]]) -> None:
        """One transaction, worked out anew where somebody else has changed in between what it goes by."""
        for attempt in range(_ATTEMPTS):
            lines = text()
            error = self._try("\n".join(lines))[1] if lines else ""
            if not error:
                return
            if attempt == _ATTEMPTS - 1 or "No such file or directory" not in error:
                raise NetworkFailed(f"nftables refused the rules: {error}")

    def _unlink(self, family: str) -> list[str]:
        """The jumps to our chain that the host's FORWARD chain has."""
        rules = self._objects(f"list chain {family} filter FORWARD", "rule")
        return [
            f"delete rule {family} filter FORWARD handle {rule['handle']}"
            for rule in rules
            if {"jump": {"target": self._chain}} in rule.get("expr", [])
        ]

    def _objects(self, command: str, kind: str) -> list[dict[str, Any]]:
        """What a command lists; nothing if there is no such thing."""
        output, error = self._try(command)
        if error:
            return []
        return [entry[kind] for entry in json.loads(output)["nftables"] if kind in entry]

    def _try(self, text: str) -> tuple[str, str]:
        """The output, and what went wrong: "" is success."""
        code, output, error = self._nft.cmd(text)
        if code == 0:
            return output, ""
        return output, _first(error) or f"code {code}"

    def _missing(self, plans: Plans) -> str:
        """Which module is missing, if that is what is wrong: each is tried by itself, and leaves nothing."""
        for plan in plans:
            at = f"{nfttext.family_of(plan)} {self._table}-probe"
            for module, chain, rule in _INGREDIENTS:
                rule = rule.format(address=_ADDRESS[plan.family])
                error = self._try(
                    f"add table {at}\nadd chain {at} c {{ {chain}; }}\nadd rule {at} c {rule}\ndelete table {at}"
                )[1]
                if error:
                    return f"the kernel's module {module.format(family=plan.family)} is missing ({error})"
        return ""


def _first(error: str) -> str:
    """The first message of nft's, without its place in a text that nobody sees."""
    for line in error.splitlines():
        if match := re.search(r"(?:Error|error): (.*)", line):
            return match[1]
    return error.strip()
