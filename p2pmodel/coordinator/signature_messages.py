"""The path of signed statements at a coordinator, which its clients and its server share."""

SIGNATURES = "/signatures"
MAX_OWNER = 4
"""Statements of one publisher over one snapshot that a coordinator keeps."""
