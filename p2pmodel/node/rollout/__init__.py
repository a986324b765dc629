"""This node's part in roll-outs: what it reports to its coordinators, and when."""
