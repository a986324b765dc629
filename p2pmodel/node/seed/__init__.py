"""The seed use case: mirror a snapshot, build its torrents, serve them."""
