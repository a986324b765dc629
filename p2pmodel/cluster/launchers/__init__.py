"""Implementations of the launcher: ssh, Slurm, and a twin in memory."""
