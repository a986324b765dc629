"""This node in private swarms."""
