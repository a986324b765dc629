"""Which requests reach an application: the client's address and user, its credentials, and its rights."""
