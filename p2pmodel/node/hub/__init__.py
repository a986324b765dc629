"""Content for the hub endpoint: on demand by a node's transfers, or through a pull-through mirror."""
