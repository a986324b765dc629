"""Translation of what torch, transformers, safetensors and pillow raise into the error tree."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from p2pmodel.domain.names import printable
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, P2PModelError
from p2pmodel.os_errors import translate

_NO_HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run the body of `with`; what its libraries raise comes out as one line starting with `doing`."""
    try:
        yield
    except (P2PModelError, BrokenPipeError):  # a reader of our output that went away is nobody's failure here
        raise
    except torch.OutOfMemoryError:
        raise _no_memory(doing, "the GPU", "use a smaller model, a larger GPU, or --device cpu") from None
    except MemoryError:
        raise _no_memory(doing, "this machine", "use a smaller model or a larger machine") from None
    except SafetensorError as error:
        raise IntegrityError(
            f"{doing}: a weight file is damaged: {_line(error)}", hint="check it with 'p2pmodel verify'"
        ) from None
    except OSError as error:
        # With errno it is the operating system's; without, a library's way to say what it did not find.
        raise translate(error) if error.errno else IntegrityError(f"{doing}: {_line(error)}") from None
    except RuntimeError as error:
        if any(sign in str(error) for sign in _NO_HOST_MEMORY):
            raise _no_memory(doing, "this machine", "use a smaller model or a larger machine") from None
        raise P2PModelError(f"{doing}: {_line(error)}") from None
    except ImportError as error:
        raise LocalResource(f"{doing}: {_line(error)}", hint="pip install what is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InvalidInput(f"{doing}: {_line(error)}") from None


def _no_memory(doing: str, where: str, hint: str) -> LocalResource:
    return LocalResource(f"{doing}: {where} has not enough memory", hint=hint)


def _line(error: BaseException) -> str:
    """The first line of a library's message that says anything."""
    lines = (line.strip() for line in str(error).splitlines())
    return printable(next((line for line in lines if line), type(error).__name__), limit=240)
