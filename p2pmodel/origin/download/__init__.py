"""Downloads of whole files and ranges from several mirrors, checked against the hub's hashes."""
