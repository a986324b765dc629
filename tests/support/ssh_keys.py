"""Real keys, signatures and revocation lists by ssh-keygen."""

import subprocess
from pathlib import Path

from p2pmodel.trust.signatures.statement import NAMESPACE

KINDS = {"ed25519": (), "ecdsa": ("-b", "256"), "rsa": ("-b", "2048")}


class SshKeys:
    """Keys below one folder, and what ssh-keygen does with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True, mode=0o700)

    def new(self, name: str, kind: str = "ed25519", *, phrase: str = "", bits: tuple[str, ...] | None = None) -> Path:
        """A new private key; its public key is beside it."""
        path = self.folder / name
        self.keygen("-t", kind, *(KINDS[kind] if bits is None else bits), "-N", phrase, "-C", name, "-f", str(path))
        return path

    def public(self, key: Path) -> str:
        """`KEYTYPE BASE64` of a key."""
        return " ".join(key.with_name(f"{key.name}.pub").read_text().split()[:2])

    def allow(self, *lines: str) -> Path:
        """A file of allowed signers."""
        path = self.folder / "allowed_signers"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def certify(self, key: Path, authority: Path, *options: str, principals: str = "alice") -> Path:
        """A certificate of `key` by `authority`, where `read_signing_key` finds it."""
        named = ("-I", "cert-of-alice", "-n", principals, "-z", "7", *options)
        self.keygen("-s", str(authority), *named, str(key.with_name(f"{key.name}.pub")))
        return key.with_name(f"{key.name}-cert.pub")

    def sign(self, key: Path, message: bytes, namespace: str = NAMESPACE) -> str:
        """ssh-keygen's signature."""
        return self.keygen("-Y", "sign", "-q", "-n", namespace, "-f", str(key), given=message).stdout.decode()

    def verifies(
        self,
        allowed: Path,
        message: bytes,
        signature: str,
        *options: str,
        who: str = "alice",
        namespace: str = NAMESPACE,
    ) -> bool:
        """Whether ssh-keygen accepts `signature`."""
        file = self.folder / "signature"
        file.write_text(signature)
        command = ["-Y", "verify", "-f", str(allowed), "-I", who, "-n", namespace, "-s", str(file), *options]
        return self.keygen(*command, given=message, check=False).returncode == 0

    def keygen(self, *args: str, given: bytes = b"", check: bool = True) -> "subprocess.CompletedProcess[bytes]":
        """Run ssh-keygen."""
        done = subprocess.run(["ssh-keygen", *args], input=given, capture_output=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done
