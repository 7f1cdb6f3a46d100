"""The firewall on libnftables: a table of our own a family, and a jump at the head of the host's FORWARD chain.

An accept in our table does not beat a drop in another one. So where the host's own filter table (`ip filter`, which
iptables-nft calls its own) drops what is forwarded, our bridges have to be let through there: by a jump to a chain of
ours, in words that iptables-nft can read back. Where that table is missing it is made as iptables-nft makes it, so
that whoever sets a policy there later finds the jump.
"""

from __future__ import annotations

import json
import re
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
        for attempt in range(_ATTEMPTS):
            text: list[str] = []
            for plan in plans:
                at = f"{nfttext.family_of(plan)} {self._table}"
                text += (f"add table {at}", f"delete table {at}")
                text += nfttext.declare(self._table, plan)
                text += nfttext.fill(self._table, plan)
                text += nfttext.elements("add", self._table, plan.family, plan.ports, plan.links)
                text += self._passage(plan)
            error = self._try("\n".join(text))[1]
            if not error:
                return
            if attempt == _ATTEMPTS - 1 or "No such file or directory" not in error:
                break
        raise NetworkFailed(f"nftables refused the rules: {self._missing(plans) or error}")

    def change(self, old: Plans, new: Plans) -> None:
        text: list[str] = []
        for before, after in zip(old, new, strict=True):
            if (before.forward, before.local, before.leaving) != (after.forward, after.local, after.leaving):
                text += nfttext.fill(self._table, after)
            if before.bridges != after.bridges:
                text += nfttext.passage(self._chain, after)
            ports, links = (before.ports, after.ports), (before.links, after.links)
            text += nfttext.elements("delete", self._table, after.family, ports[0] - ports[1], links[0] - links[1])
            text += nfttext.elements("add", self._table, after.family, ports[1] - ports[0], links[1] - links[0])
        if text and (error := self._try("\n".join(text))[1]):
            raise NetworkFailed(f"nftables refused the change: {error}")

    def clear(self) -> None:
        for attempt in range(_ATTEMPTS):
            text: list[str] = []
            for table in self._objects("list tables", "table"):
                at = f"{table['family']} {table['name']}"
                if table["family"] in ("ip", "ip6") and table["name"] == self._table:
                    text.append(f"delete table {at}")
                if at in ("ip filter", "ip6 filter"):
                    text += self._unlink(table["family"])
                    if self._objects(f"list chain {at} {self._chain}", "chain"):
                        text += (f"flush chain {at} {self._chain}", f"delete chain {at} {self._chain}")
            error = self._try("\n".join(text))[1] if text else ""
            if not error:
                return
            if attempt == _ATTEMPTS - 1:
                raise NetworkFailed(f"nftables refused to remove our rules: {error}")

    def close(self) -> None:
        del self._nft

    def _passage(self, plan: Plan) -> list[str]:
        at = f"{nfttext.family_of(plan)} filter"
        text = [
            f"add table {at}",
            # Without a policy: that is the host's to say.
            f"add chain {at} FORWARD {{ type filter hook forward priority 0; }}",
        ]
        text += nfttext.passage(self._chain, plan)
        text += self._unlink(nfttext.family_of(plan))
        text.append(f"insert rule {at} FORWARD counter jump {self._chain}")
        return text

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
