"""Signatures of snapshots: SSHSIG statements, allowed signers, revocation, and OpenSSF model signatures."""
