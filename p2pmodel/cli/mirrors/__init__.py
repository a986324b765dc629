"""p2pmodel mirrors: show, benchmark and watch the mirrors."""
