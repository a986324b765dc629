"""Loading of a model while its files arrive."""
