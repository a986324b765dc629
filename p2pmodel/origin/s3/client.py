"""Clients of S3-compatible stores. Only this package imports boto3, and only where a store is used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.extras import check_extra
from p2pmodel.core.files.home import expanded
from p2pmodel.errors import InvalidInput

DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS, READ_SECONDS = 10, 60


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A bucket with a prefix of its keys ("" or without slashes at its ends), and how its store is reached."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """URL of the store; None: Amazon's."""
    region: str | None = None
    profile: str | None = None
    credentials_file: Path | None = None
    path_style: bool = False
    """Whether the bucket is in the path of URLs, and not in their host name."""
    ca_file: Path | None = None

    @classmethod
    def of(cls, settings: MirrorSettings) -> Self:
        """The place of a mirror with an endpoint `s3://BUCKET/PREFIX`."""
        parts = urlsplit(settings.endpoint)
        return cls(
            parts.netloc,
            parts.path.strip("/"),
            settings.s3_endpoint,
            settings.s3_region,
            settings.s3_profile,
            settings.s3_credentials_file,
            settings.s3_endpoint is not None if settings.s3_path_style is None else settings.s3_path_style,
            settings.ca_file,
        )

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def base(self) -> str:
        """The URL of its store, as requests have it: scheme, host and port."""
        if self.endpoint is None:
            region = self.region or DEFAULT_REGION
            return (
                f"https://s3.{region}.amazonaws.com" if self.path_style else f"https://{self.bucket}.s3.amazonaws.com"
            )
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc if self.path_style else f'{self.bucket}.{parts.netloc}'}"

    def key(self, name: str) -> str:
        """The key of the object `name` below the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name


def client_of(place: BucketPlace) -> Any:
    """A client, which threads may share, with the credentials that AWS programs find: the environment, the profile, the
    file, those of the machine; anonymous without any. Blocks. Raises InvalidInput, and LocalResource without boto3."""
    check_extra("s3", "s3://")
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        session = _session(place)
        known = session.get_credentials() is not None
        return session.client(
            "s3",
            endpoint_url=place.endpoint,
            region_name=place.region or session.region_name or DEFAULT_REGION,
            verify=str(place.ca_file) if place.ca_file else None,
            config=Config(
                signature_version="s3v4" if known else UNSIGNED,
                s3={"addressing_style": "path" if place.path_style else "virtual"},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": 5},
                # Stores other than Amazon's refuse the newer checksums; uploads carry an MD5 of each part.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(f"{place}: {error}", hint="see docs/mirrors.md") from None


def credentials_of(place: BucketPlace) -> dict[str, str]:
    """The credentials that `client_of` would use, under the names that files of AWS programs have; empty without any.
    Blocks. Raises as `client_of`."""
    check_extra("s3", "s3://")
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        found = _session(place).get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(f"{place}: {error}", hint="see docs/mirrors.md") from None
    if frozen is None:
        return {}
    named = {
        "aws_access_key_id": frozen.access_key,
        "aws_secret_access_key": frozen.secret_key,
        "aws_session_token": frozen.token,
    }
    return {name: value for name, value in named.items() if value}


def _session(place: BucketPlace) -> Any:
    """A session of boto3 with the profile and the file of `place`. Raises BotoCoreError."""
    import boto3  # noqa: PLC0415 - an extra, and slow to import
    from botocore.session import Session  # noqa: PLC0415

    core = Session(profile=place.profile)
    if place.credentials_file is not None:
        core.set_config_variable("credentials_file", str(expanded(place.credentials_file)))
    return boto3.session.Session(botocore_session=core)
