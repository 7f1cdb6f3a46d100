"""From a container's settings to a running OCI process.

Guarantees that what the runtime is given equals what Docker gives it: namespaces, mounts, capabilities, seccomp
filter, masked paths, environment.  Everything here is a function of its arguments and of the container's root
filesystem, read through `dockerd_py.confined`; resource limits are never part of it (the container's scope has
them).  It starts the runtime by the verbs create, start, kill, delete, exec and state alone.
"""
