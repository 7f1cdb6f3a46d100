"""The product's version and the versions of the Remote API that it speaks.  Each stands here once."""

VERSION = "0.1.0"

API_VERSION = (1, 43)
"""The newest Remote API: what a path without a version prefix means."""

MIN_API_VERSION = (1, 0)

FIRST_YEAR = (1, 10)
"""The last Remote API of the first year; what follows up to 1.23 is answered as its nearest neighbour."""
