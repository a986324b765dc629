"""Settings of the alarms of mirrors."""

import re

from pydantic import Field, SecretStr, field_validator

from p2pmodel.config.checks import check_url
from p2pmodel.config.sections.section import Section
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput


class WatchSettings(Section):
    """Alarms of `p2pmodel mirrors watch`."""

    interval: float = Field(default=30.0, ge=0.1)
    """Seconds between two probes of a mirror."""
    max_latency_ms: float = Field(default=100.0, gt=0)
    """Connect time above which a mirror is slow, milliseconds."""
    min_mbps: float = Field(default=50.0, ge=0)
    """Speed below which a mirror is slow, MB/s."""
    min_samples: int = Field(default=5, ge=1, le=1000)
    """Number of probes of which an alarm evaluates the median; no alarm before that many."""
    webhook: SecretStr | None = Field(default=None, repr=False)
    """URL to which each alarm and each recovery is posted. It may contain a secret, and is not shown."""
    metrics: str | None = None
    """Address of the Prometheus metrics, ADDRESS:PORT; port 0 takes a free one."""

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            # Path, query and fragment may hold a secret, so the message has none of them.
            base = re.match(r"(\w+://)?[^/?#]*", value.get_secret_value())
            check_url(base[0] if base else "", instead="a secret may be in its path or query")
        return value

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(ListenAddress.parse(value))
        except InvalidInput as error:
            raise ValueError(str(error)) from None
