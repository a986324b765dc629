"""Mirror benchmarks and monitoring."""
