"""The name service of user-defined networks: a program of its own, with sockets in each container's namespace.

A container finds it at 127.0.0.11:53.  The socket that a question comes in by tells whose it is, so a container sees
the names on the networks that it is on, and no others.  What is no such name goes to the container's upstream servers.

The daemon opens the sockets and hands them over (`sockets`), so the program needs no privilege once it runs: it gives
up all of them before it reads its first packet.  It imports nothing but the standard library.  It goes on without a
daemon, and comes back by itself, with everything: what it needs for that is in a file for each container (`state`).
"""
