"""The firewall: what containers reach, and who reaches them.

`open_firewall` chooses a backend; `Firewall.apply` takes the whole of what is to hold (`model.Rules`). What that means
is said once (`rules`), and expressed by python-iptables (`iptables`, legacy tables) or libnftables (`nftables`). Rules
of others are never touched.
"""

from dockerd_py.nat.firewall.base import Firewall
from dockerd_py.nat.firewall.choose import open_firewall

__all__ = ["Firewall", "open_firewall"]
