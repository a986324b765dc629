"""The content of a snapshot: names, manifest, file layout, piece hashes, bitfields."""
