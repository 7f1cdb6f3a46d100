"""The process that stays: a fork server and the monitors that it forks, one a container.

A monitor is the container's parent.  It guarantees that the container's output reaches its log and that its
exit is written down, whether or not a daemon is running, and it never needs one: it asks nothing of the daemon
and survives the SIGKILL of every other process of ours.

Only the standard library is imported here, and of that only what is small: each monitor shares the fork server's
memory.  The daemon speaks to both through `dockerd_py.wire`; the messages are listed in
`dockerd_py.monitor.supervisor`.
"""

PROTOCOL_VERSION = 1
"""Raised when a message changes its meaning; monitors of an older daemon live on after an upgrade."""
