"""Roll-outs at the coordinator: the registry, its folder, its routes and its metrics."""
