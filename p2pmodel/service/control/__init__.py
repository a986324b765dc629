"""The control API of a daemon, its metrics and its dashboard."""
