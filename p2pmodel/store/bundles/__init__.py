"""Bundles: a snapshot in one archive, for machines that no network joins."""
