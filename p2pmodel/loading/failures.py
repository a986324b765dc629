"""Translation of what torch, transformers, safetensors and pillow raise into the error tree."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from p2pmodel.domain.names import printable
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, P2PModelError
from p2pmodel.os_errors import translate

_NO_HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
_LIBRARY_ERRORS = (
    *(MemoryError, SafetensorError, OSError, RuntimeError, ImportError),
    *(ValueError, TypeError, LookupError, AttributeError),
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run the body of `with`; what its libraries raise comes out as one line starting with `doing`."""
    try:
        yield
    except (P2PModelError, BrokenPipeError):  # a reader of our output that went away is nobody's failure here
        raise
    except _LIBRARY_ERRORS as error:
        raise _meaning(doing, error) from None


def _meaning(doing: str, error: BaseException) -> P2PModelError:
    what = f"{doing}: {_line(error)}"
    match error:
        case torch.OutOfMemoryError():
            return _no_memory(doing, "the GPU", "a smaller model, a larger GPU, or --device cpu")
        case MemoryError():
            return _no_memory(doing, "this machine", "a smaller model or a larger machine")
        case RuntimeError() if any(sign in str(error) for sign in _NO_HOST_MEMORY):
            return _no_memory(doing, "this machine", "a smaller model or a larger machine")
        case SafetensorError():
            return IntegrityError(f"{doing}: a weight file is damaged: {_line(error)}", hint="run 'p2pmodel verify'")
        case OSError():
            # With errno it is the operating system's; without, a library's way to say what it did not find.
            return translate(error) if error.errno else IntegrityError(what)
        case ImportError():
            return LocalResource(what, hint="pip install what is missing")
        case RuntimeError():
            return P2PModelError(what)
        case _:
            return InvalidInput(what)


def _no_memory(doing: str, where: str, instead: str) -> LocalResource:
    return LocalResource(f"{doing}: {where} has not enough memory", hint=f"use {instead}")


def _line(error: BaseException) -> str:
    """The first line of a library's message that says anything."""
    lines = (line.strip() for line in str(error).splitlines())
    return printable(next((line for line in lines if line), type(error).__name__), limit=240)
