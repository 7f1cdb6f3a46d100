"""The confinement of containers' processes and the machine's service manager.

Guarantees one interface (`base.Units`) over systemd's transient scopes and over plain control groups, reads the
journal, and speaks the service manager's small protocols (readiness, watchdog, socket activation).  Never starts a
program for one container, never guesses a control group's place from its name, and knows nothing of images,
networks or the OCI runtime.
"""
