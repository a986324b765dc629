"""`p2pmodel mirrors`: show, probe, benchmark and watch the mirrors."""
