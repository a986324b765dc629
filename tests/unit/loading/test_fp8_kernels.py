"""Whether the kernel of FP8 weights can be had, before the weights are loaded."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pmodel.errors import LocalResource
from p2pmodel.loading.model import check_fp8_kernel

FP8 = SimpleNamespace(quantization_config={"quant_method": "fp8"})


def there(_name: str) -> object:
    return object()


def absent(_name: str) -> object:
    return None


def test_other_models_need_no_kernel() -> None:
    for quantization in (None, {}, {"quant_method": "awq"}, {"quant_method": "fp8", "dequantize": True}):
        check_fp8_kernel(SimpleNamespace(quantization_config=quantization), {}, installed=absent)
    check_fp8_kernel(SimpleNamespace(), {}, installed=absent)


def test_the_package_is_needed() -> None:
    with pytest.raises(LocalResource, match=r"need the package 'kernels'; pip install kernels; or serve it with vLLM"):
        check_fp8_kernel(FP8, {}, installed=absent)


def test_online_the_first_forward_fetches_it() -> None:
    check_fp8_kernel(FP8, {"HF_HUB_OFFLINE": "0"}, installed=there)


@pytest.mark.parametrize("place", ["HF_HUB_CACHE", "KERNELS_CACHE"])
@pytest.mark.parametrize("kind", ["kernels", "models"])
def test_offline_it_must_be_in_the_cache(tmp_path: Path, place: str, kind: str) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "empty"), place: str(tmp_path)}
    with pytest.raises(LocalResource, match=r"kernels-community/finegrained-fp8, which is not in the cache"):
        check_fp8_kernel(FP8, environment, installed=there)
    (tmp_path / f"{kind}--kernels-community--finegrained-fp8/snapshots/abc").mkdir(parents=True)
    check_fp8_kernel(FP8, environment, installed=there)
