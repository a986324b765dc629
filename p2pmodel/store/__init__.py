"""The Hugging Face cache on disk: staging, publish, adopt, verify, import."""
