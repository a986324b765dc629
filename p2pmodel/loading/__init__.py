"""Snapshots onto the device with transformers. The only room that imports torch or transformers."""
