"""Commands about the rights of clients: machine tokens, and the audit log."""
