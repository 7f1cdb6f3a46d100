"""The D-Bus front door: ``org.pydockerd1`` on the system bus.

It translates method calls into engine calls and the engine's events into signals, and decides with polkit who may
do what.  It holds no state of containers or images, never blocks the daemon for a slow or hostile caller, and the
daemon goes on without it when there is no bus.
"""
