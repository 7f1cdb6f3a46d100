"""pydockerd: the container engine of a systemd host.

Deliberately empty of imports: the monitor, which must stay small, imports this package too.
"""
