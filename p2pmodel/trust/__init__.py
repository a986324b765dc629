"""Trust: signatures, certificates of servers and nodes, rights of clients, the audit log, the policy on contents."""
