"""The tiny models."""

from tests.support.tiny_models import dense, moe, text_only, thinking

__all__ = ["dense", "moe", "text_only", "thinking"]
