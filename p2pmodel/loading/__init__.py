"""Loading of snapshots onto a device with transformers. The only package that imports torch or transformers."""
