"""Hub requests forwarded to the mirrors, and their answers."""
