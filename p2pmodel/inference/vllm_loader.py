"""The weight loader of `--load-format p2pmodel` in vLLM. Nothing else imports vLLM.

It asks the daemon's hub endpoint for the weights: that of `--model-loader-extra-config '{"endpoint": URL}'`, else
HF_ENDPOINT, else the default address. The daemon downloads what it lacks. Where no daemon answers, and for a model in a
folder, vLLM's own loader does the work.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from p2pmodel.config.checks import check_url
from p2pmodel.core.sizes import human
from p2pmodel.errors import EntryNotFound, InvalidInput, P2PModelError, Unavailable
from p2pmodel.inference.weight_stream.endpoint import PATIENCE, HubEndpoint
from p2pmodel.inference.weight_stream.stream import CONNECTIONS, WeightStream

DEFAULT_ENDPOINT = "http://127.0.0.1:8092"
_log = logging.getLogger("vllm.p2pmodel")
"""Below vLLM's own logger: its handlers and format apply."""


@dataclasses.dataclass(frozen=True, slots=True)
class StreamOptions:
    """What `--model-loader-extra-config` may say."""

    endpoint: str = ""
    connections: int = CONNECTIONS
    patience: float = PATIENCE

    @classmethod
    def parse(cls, given: Any, environment: Mapping[str, str]) -> "StreamOptions":
        """From the JSON object of the option. Raises InvalidInput."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(given, dict) or set(given) - set(names):
            raise InvalidInput("--model-loader-extra-config is wrong", hint=f"it takes {', '.join(names)}")
        url = str(given.get("endpoint") or environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
        try:
            url = check_url(url)
        except ValueError as error:
            raise InvalidInput(f"the endpoint of the daemon: {error}", hint="use what 'p2pmodel env' prints") from None
        connections, patience = given.get("connections", CONNECTIONS), given.get("patience", PATIENCE)
        if type(connections) is not int or not 1 <= connections <= 64:
            raise InvalidInput("--model-loader-extra-config: connections must be 1 to 64")
        if type(patience) not in (int, float) or not patience > 0:
            raise InvalidInput("--model-loader-extra-config: patience must be a number of seconds")
        return cls(url, connections, float(patience))


class StreamedModelLoader(BaseModelLoader):  # type: ignore[misc]  # vLLM has no types here
    """Loads the weights of a repository from the daemon's hub endpoint."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)
        self._options = StreamOptions.parse(load_config.model_loader_extra_config or {}, os.environ)

    def download_model(self, model_config: Any) -> None:
        """Nothing, if a daemon downloads it; otherwise as vLLM does."""
        if self._stream(model_config) is None:
            self._own_loader.download_model(model_config)

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load the weights into `model`. Raises RuntimeError, with one line, if they do not arrive or are wrong."""
        stream = None if _has_more_sources(model) else self._stream(model_config)
        if stream is None:
            self._own_loader.load_weights(model, model_config)
            return
        began = time.monotonic()
        try:
            loaded = model.load_weights(stream.tensors())
        except P2PModelError as error:
            raise RuntimeError(f"p2pmodel: {error}") from None
        if loaded is not None and model_config.quantization is None:
            self._own_loader.track_weights_loading(model, loaded)  # raises for parameters that no file has
        seconds = time.monotonic() - began
        size = human(stream.bytes)
        _log.info("p2pmodel: %d tensors, %s, in %.2f s from the daemon", stream.tensors_read, size, seconds)

    @property
    def _own_loader(self) -> Any:
        own = dataclasses.replace(self.load_config, load_format="auto", model_loader_extra_config={})
        return DefaultModelLoader(own)

    def _stream(self, model_config: Any) -> WeightStream | None:
        """The stream of the weights; None, with a line that says why, if vLLM has to load them itself."""
        name, url = str(model_config.model), self._options.endpoint
        if Path(name).is_dir():
            _log.info("p2pmodel: %s is a folder: vLLM reads its files", name)
            return None
        token = os.environ.get("HF_TOKEN") if url != DEFAULT_ENDPOINT else None
        endpoint = HubEndpoint(url, name, model_config.revision, token=token, patience=self._options.patience)
        stream = WeightStream(endpoint, self._options.connections)
        try:
            endpoint.check()
            stream.files()
        except (Unavailable, EntryNotFound) as error:
            _log.warning("p2pmodel: no weights from %s (%s): vLLM loads %s itself", url, error, name)
            return None
        except P2PModelError as error:
            raise RuntimeError(f"p2pmodel: {error}") from None
        return stream


def _has_more_sources(model: Any) -> bool:
    """Whether the model takes weights of other repositories, or files of other names."""
    more = getattr(model, "secondary_weights", ()) or getattr(model, "allow_patterns_overrides", None)
    if more:
        _log.warning("p2pmodel: this model has weights of several sources: vLLM loads them itself")
    return bool(more)
