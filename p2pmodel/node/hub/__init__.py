"""What the hub endpoint and the pull-through mirror stand on."""
