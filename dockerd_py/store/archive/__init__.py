"""From a tar stream to a layer's directory, in a process confined to that directory.

A foreign archive is never read by the daemon itself: ``client`` starts a helper that changes its root to the
target and unpacks there.  Either all of the archive arrives, or an error names what was wrong with it.
"""
