"""Follow lists: snapshots that a node downloads by itself, in their windows, and keeps up to date."""
