"""Models as environments and sources of imagined experience."""
