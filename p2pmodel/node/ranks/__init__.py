"""The part of a snapshot's weights that one rank of a parallel engine needs."""
