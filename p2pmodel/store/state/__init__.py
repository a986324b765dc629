"""Records that outlive a process: transfers, revisions, verified blobs, the sync log."""
