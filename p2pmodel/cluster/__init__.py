"""Roll-outs to many hosts: launchers that reach them, the preflight, and the bootstrap of a cluster."""
