"""The engine: containers, images and events as typed, asynchronous calls.

It puts `store`, `units` and `runtime` together and knows no HTTP and no D-Bus.  What a call says is done has been
written to the database; a call that fails leaves nothing behind, and raises an error of `dockerd_py.errors`.
"""
