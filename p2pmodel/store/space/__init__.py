"""The space that the snapshots of a cache take, and which of them may go."""
