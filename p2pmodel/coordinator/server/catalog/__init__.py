"""The catalog of a coordinator: torrents and signatures by repository and revision, on disk and over HTTP."""
