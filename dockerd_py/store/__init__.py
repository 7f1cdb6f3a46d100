"""What pydockerd keeps: the database, the images, and the layers' bytes under the daemon's root.

Every directory and mount is written down in the database before it is made and is gone before its row is, so that
after any crash ``Store.recover`` finds what was half done.  A layer is ready only once its bytes are on the disk.
Nothing here knows HTTP, D-Bus, systemd, networks or the container runtime; what unpacks foreign bytes runs in a
process that the kernel confines to the directory it fills.
"""
