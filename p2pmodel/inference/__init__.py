"""Inference engines: the command lines with which they serve a snapshot, and weights that stream into vLLM."""
