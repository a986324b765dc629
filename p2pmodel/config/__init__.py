"""Settings models and the sources they are read from."""
