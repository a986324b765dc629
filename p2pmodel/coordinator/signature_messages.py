"""The path of signed statements at a coordinator, which its clients and its server share."""

SIGNATURES = "/signatures"
