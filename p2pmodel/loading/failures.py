"""Translation of the exceptions of torch, transformers, safetensors and pillow into the error tree."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from p2pmodel.core.content.names import printable
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, P2PModelError
from p2pmodel.os_errors import translate

_NO_HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
_MEANINGS: tuple[tuple[type[Exception], type[P2PModelError], str], ...] = (
    (SafetensorError, IntegrityError, "a weight file is damaged: run 'p2pmodel verify'"),
    (
        OSError,
        IntegrityError,
        "",
    ),  # without errno: libraries raise it for a missing or malformed file
    (ImportError, LocalResource, "install the missing package with pip"),
    (RuntimeError, P2PModelError, ""),
    (Exception, InvalidInput, ""),
)
"""Exception class, error class and hint; the first match applies."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise exceptions of the body as errors of the error tree, with a one-line message that starts with `doing`.

    Catches Exception on purpose: tokenizers raises plain Exception, and transformers passes on the exceptions of
    jinja2, of huggingface_hub's strict dataclasses and of the libraries of a model's processor.
    """
    try:
        yield
    except (P2PModelError, BrokenPipeError):  # a closed stdout is not a failure of the libraries
        raise
    except Exception as error:  # the exception classes of the libraries are not documented (see above)
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
    """The first non-empty line of a library's message."""
    lines = (line.strip() for line in str(error).splitlines())
    return printable(next((line for line in lines if line), type(error).__name__), limit=240)
