"""Conversations with a loaded model: prompts, drawn tokens, and the text of the answers."""
