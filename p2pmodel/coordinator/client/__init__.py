"""The coordinator as its peers call it."""
