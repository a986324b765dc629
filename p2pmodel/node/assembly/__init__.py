"""A cold cluster assembles a torrent together: each node downloads a slice from the mirrors."""
