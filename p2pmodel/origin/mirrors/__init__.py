"""The configured mirrors: state, health ranking, probes, rate limits."""
