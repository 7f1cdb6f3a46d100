"""The daemon as a process: its pid file, its sockets, its signals, and the order in which its parts start and end."""
