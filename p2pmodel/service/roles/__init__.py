"""Long-running roles: daemon, seeder, hub endpoint, web seed."""
