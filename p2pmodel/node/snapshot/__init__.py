"""One snapshot in this node's cache: resolve, inventory, copy from the mirrors, torrent, import, verify."""
