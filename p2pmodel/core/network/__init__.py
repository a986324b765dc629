"""Addresses, URLs and the rules which of them may be contacted."""
