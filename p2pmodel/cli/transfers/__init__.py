"""Verbs about the transfers of the daemon: status, why, limits, pause, resume, cancel, ready."""
