"""How layers become a container's root filesystem: one module a method, one interface for all (``base.Driver``).

A driver keeps all of its bytes in one directory under the daemon's root and touches nothing else.  It holds no
state of its own: which layers there are, and in what order they lie on each other, is the database's to know.
"""
