"""A whole host for one run of the tests: a booted systemd with the package installed, thrown away afterwards.

``rootfs`` makes and caches the root filesystem, ``machine`` boots a copy of it with plain ``unshare`` (about a
second), ``cgroups`` gives it a place in the machine's cgroups, ``__main__`` is the command:

    cd tests/host && /usr/bin/python3 -m testhost run [--deb FILE] [pytest's arguments]
    cd tests/host && /usr/bin/python3 -m testhost shell [--deb FILE]

It needs root and mmdebstrap, and works with or without systemd on the machine, on cgroups v1, v2 and both mixed.
Whatever happens to the command, nothing stays: the host dies with it, and the next run sweeps up what a SIGKILL
kept it from removing.  Only the standard library is used, and none of the product's code.
"""
