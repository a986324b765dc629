"""A cold cluster makes a torrent together: rounds, messages, partial torrents."""
