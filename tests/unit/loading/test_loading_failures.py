import errno

import pytest
import torch
from safetensors import SafetensorError

from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, NoSpace, P2PModelError, Unavailable
from p2pmodel.loading.failures import translated


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), LocalResource, "loading x: the GPU has not enough memory"),
        (MemoryError(), LocalResource, "loading x: this machine has not enough memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
            LocalResource,
            "loading x: this machine has not enough memory",
        ),
        (SafetensorError("header too large"), IntegrityError, "loading x: header too large; a weight file is damaged"),
        (OSError("no file named y\nsee z"), IntegrityError, "loading x: no file named y"),
        (OSError(errno.ENOSPC, "No space left"), NoSpace, "no space left on the disk"),
        (ImportError("\nX requires the Torchvision library\nmore"), LocalResource, "loading x: X requires the Torch"),
        (RuntimeError("shape '[2]' is invalid"), P2PModelError, "loading x: shape '[2]' is invalid"),
        (ValueError("bad\x1b[31m"), InvalidInput, "loading x: bad\N{REPLACEMENT CHARACTER}[31m"),
        (Exception("data did not match any variant"), InvalidInput, "loading x: data did not match"),
        (KeyError(), InvalidInput, "loading x: KeyError"),
    ],
)
def test_each_library_error_is_one_line(error: Exception, kind: type[P2PModelError], says: str) -> None:
    with pytest.raises(kind) as caught, translated("loading x"):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [Unavailable("asked"), BrokenPipeError(), KeyboardInterrupt()])
def test_other_exceptions_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, translated("loading x"):
        raise error
    assert caught.value is error
