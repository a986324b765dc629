"""Commands about many machines, and about one of them as a part of a cluster."""
