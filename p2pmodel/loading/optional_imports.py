"""The optional libraries of this package: imported on demand, without log output, with one-line errors."""

import importlib
import importlib.util
import re
from types import ModuleType

from p2pmodel.core.content.names import printable
from p2pmodel.core.extras import EXTRAS, check_extra, install_hint
from p2pmodel.errors import InvalidInput, LocalResource

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


def check_installed() -> None:
    """Raise LocalResource unless the libraries are installed. Imports none of them."""
    check_extra("load", "loading")


def check_device_name(device: str) -> None:
    """Raise InvalidInput unless `device` is a valid device name, whether or not this machine has it."""
    if _DEVICE.fullmatch(device) is None:
        raise InvalidInput(f"'{printable(device)}' is not a device name", hint="use cpu, cuda or cuda:N")


def require() -> None:
    """Import the libraries; call it before importing any other module of this package.

    Raises LocalResource if a library is missing or fails to import. torchvision is not needed, but an installed one
    that does not match torch breaks transformers, so its import is tried too.
    """
    for name in EXTRAS["load"]:
        _import(name, hint=install_hint("load"))
    if importlib.util.find_spec("torchvision"):
        _import("torchvision", hint="install the torchvision that fits this torch, or uninstall it")
    _silence(importlib.import_module("transformers.utils.logging"))


def _import(name: str, *, hint: str) -> None:
    try:
        importlib.import_module(name)
    except (
        ImportError,
        OSError,
        RuntimeError,
    ) as error:  # a shared library gone: OSError; mismatched ops: RuntimeError
        raise LocalResource(f"cannot import {name}: {str(error).partition(chr(10))[0]}", hint=hint) from None


def _silence(logging: ModuleType) -> None:
    """Turn off the log output of transformers: stderr carries our own progress and errors only."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
