"""HTTP mirrors: hub metadata and ranged pulls. The only room that imports huggingface_hub."""
