import sys

import pytest
import transformers

from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.loading import optional_imports


@pytest.mark.parametrize("library", ["torch", "transformers", "accelerate", "PIL"])
def test_a_missing_library_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LocalResource, match=rf"cannot import {library}: .*; pip install 'p2pmodel\[load\]'"):
        optional_imports.require()


def test_a_missing_library_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    optional_imports.check_installed()
    monkeypatch.setattr(
        optional_imports.importlib.util, "find_spec", lambda name: None if name == "accelerate" else object()
    )
    with pytest.raises(LocalResource, match=r"accelerate, which is not installed; pip install 'p2pmodel\[load\]'"):
        optional_imports.check_installed()


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:15"])
def test_devices_by_name(device: str) -> None:
    optional_imports.check_device_name(device)


@pytest.mark.parametrize("device", ["", "tpu", "cuda:", "cuda:-1", "cpu:0:0", "meta", "cuda:0\n"])
def test_no_devices(device: str) -> None:
    with pytest.raises(InvalidInput, match="is not a device name; use cpu, cuda or cuda:N"):
        optional_imports.check_device_name(device)


def test_a_torchvision_that_does_not_fit_its_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    importer = optional_imports.importlib.import_module

    def broken(name: str) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return importer(name)

    monkeypatch.setattr(optional_imports.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(optional_imports.importlib, "import_module", broken)
    with pytest.raises(LocalResource, match="nms does not exist; install the torchvision that fits"):
        optional_imports.require()


def test_transformers_logs_no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    try:
        optional_imports.require()
        assert logging.get_verbosity() == logging.ERROR
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
