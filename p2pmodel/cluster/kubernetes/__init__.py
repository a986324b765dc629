"""Kubernetes: the manifests of a cluster, printed for kubectl."""
