"""Translation of what torch, transformers, safetensors and pillow raise into the error tree."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from p2pmodel.core.names import printable
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, P2PModelError
from p2pmodel.os_errors import translate

_NO_HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
_MEANINGS: tuple[tuple[type[Exception], type[P2PModelError], str], ...] = (
    (SafetensorError, IntegrityError, "a weight file is damaged: run 'p2pmodel verify'"),
    (
        OSError,
        IntegrityError,
        "",
    ),  # without errno: a library's way to say that a file is absent or not what it should be
    (ImportError, LocalResource, "pip install what is missing"),
    (RuntimeError, P2PModelError, ""),
    (Exception, InvalidInput, ""),
)
"""The first that fits counts."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run the body of `with`; what its libraries raise comes out as one line starting with `doing`.

    Broad on purpose: tokenizers raises Exception itself, and transformers lets through the classes of jinja2, of the
    hub's strict dataclasses and of whatever a model's processor is made of.
    """
    try:
        yield
    except (P2PModelError, BrokenPipeError):  # a reader of our output that went away is nobody's failure here
        raise
    except Exception as error:
        raise _meaning(doing, error) from error


def _meaning(doing: str, error: Exception) -> P2PModelError:
    if isinstance(error, torch.OutOfMemoryError):
        return _no_memory(doing, "the GPU", "a smaller model, a larger GPU, or --device cpu")
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_HOST_MEMORY):
        return _no_memory(doing, "this machine", "a smaller model or a larger machine")
    if isinstance(error, OSError) and error.errno:
        return translate(error)
    meaning, hint = next((meaning, hint) for kind, meaning, hint in _MEANINGS if isinstance(error, kind))
    return meaning(f"{doing}: {_line(error)}", hint=hint)


def _no_memory(doing: str, where: str, instead: str) -> LocalResource:
    return LocalResource(f"{doing}: {where} has not enough memory", hint=f"use {instead}")


def _line(error: BaseException) -> str:
    """The first line of a library's message that says anything."""
    lines = (line.strip() for line in str(error).splitlines())
    return printable(next((line for line in lines if line), type(error).__name__), limit=240)
