"""Which client got what, when and by which right: a log that is only appended to, with chained hashes."""
