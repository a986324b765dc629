"""How far a transfer is: counts, rates, views for users, and what limits it."""
