"""The Hugging Face cache on disk: staging, publishing, verifying, importing, hashing. Blocks: call in a thread."""
