"""The plugin of vLLM: `--load-format p2pmodel` streams the weights from this node's daemon while they arrive there.

vLLM calls `register` in each of its processes, and once or more in each. It is imported with every start of vLLM where
p2pmodel is installed, so that it must be quick and never fail; the loader is imported here for that reason alone.
"""

LOAD_FORMAT = "p2pmodel"


def register() -> None:
    """Register the loader of `--load-format p2pmodel`."""
    from vllm.model_executor import model_loader  # noqa: PLC0415 - vLLM has begun to import this package

    from p2pmodel.inference.vllm_loader import StreamedModelLoader  # noqa: PLC0415 - imports torch

    known = getattr(model_loader, "_LOAD_FORMAT_TO_MODEL_LOADER", {})
    if known.get(LOAD_FORMAT) is not StreamedModelLoader:
        model_loader.register_model_loader(LOAD_FORMAT)(StreamedModelLoader)
