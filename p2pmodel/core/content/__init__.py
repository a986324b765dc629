"""What a snapshot consists of: names, manifest, file layout, piece hashes, bitfields."""
