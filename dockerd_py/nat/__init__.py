"""Bridges, addresses, published ports, the firewall, and names: what containers reach and are reached by.

Knows nothing of containers' settings, of the database or of systemd; `engine.networking` puts it to use.
"""
