"""One verified copy of a model across the slow link, then line rate inside the cluster."""

__version__ = "0.1.0"
