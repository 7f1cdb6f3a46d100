"""The Docker Remote API over HTTP: what a client's request means, and how the engine's answer looks.

This folder translates and holds no logic: a request is checked at the edge (`fields`, `decode`), becomes one typed
call on the engine, and the value or error that comes back is rendered as the request's API version spells it
(`encode`, `eras`).  It never reads the database, never starts a program, and touches no container's process.
"""
