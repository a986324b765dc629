"""The certificate authority of a cluster, and the certificates that it issues."""
