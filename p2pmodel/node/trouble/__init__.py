"""Why a node gets nothing, in words for its user: failed announces, peers that it does not reach."""
