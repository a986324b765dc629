"""Stores with the API of S3: signed addresses to read from, and uploads."""
