"""The Hugging Face hub endpoint as an aiohttp application."""
