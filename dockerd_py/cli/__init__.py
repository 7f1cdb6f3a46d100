"""`pydocker`, the command line: a client of the daemon's HTTP interface like any other.

It imports nothing of the daemon (only the flag parser and the version), and everything as late as it can, because a
command line is judged by how soon it answers.  It never touches containers, images or the journal by itself.
"""
