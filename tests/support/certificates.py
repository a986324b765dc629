"""Certificates for tests, made by openssl: an authority of our own, and a server on 127.0.0.1 that it vouches for."""

import ssl
import subprocess
from pathlib import Path


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1 (PEM, its own authority), and a server context that presents it."""
    certificate, key = folder / "ca.pem", folder / "key.pem"
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subject += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"]  # Python 3.13 requires it
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command = [*made, "-keyout", str(key), "-out", str(certificate), *subject]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def issued(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that the `authority` of the folder signed, for `name`, and its key."""
    certificate, key, asked = folder / f"{name}.pem", folder / f"{name}-key.pem", folder / f"{name}.csr"
    extensions = folder / f"{name}.ext"
    extensions.write_text(
        "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\nkeyUsage=critical,digitalSignature\n"
    )
    made = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
    sign = [
        "openssl",
        "x509",
        "-req",
        "-in",
        str(asked),
        "-CA",
        str(folder / "ca.pem"),
        "-CAkey",
        str(folder / "key.pem"),
    ]
    for command in (
        [*made, "-keyout", str(key), "-out", str(asked)],
        [*sign, "-set_serial", "2", "-days", "2", "-extfile", str(extensions), "-out", str(certificate)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return certificate, key
