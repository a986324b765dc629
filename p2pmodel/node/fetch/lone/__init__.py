"""How a node downloads that is alone with the seeders: over HTTP, while it has no others to share with."""
