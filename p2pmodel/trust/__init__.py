"""Trust: signatures of snapshots, and certificates of servers and nodes."""
