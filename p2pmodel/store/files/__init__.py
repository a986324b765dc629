"""Files on disk: atomic writes, partial files, hashing, free space."""
