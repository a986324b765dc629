"""Long-running roles of a process: daemon, seeder, hub endpoint, HTTP source of pieces."""
