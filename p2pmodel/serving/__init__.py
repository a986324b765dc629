"""A model that is fetched, loaded and served: an OpenAI-compatible endpoint with a chat page."""
