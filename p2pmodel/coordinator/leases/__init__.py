"""Which peer pulls which piece from the origin, and within which budget."""
