"""Certificates for a test, as PEM files."""

import datetime
from pathlib import Path
from typing import NamedTuple

import trustme

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class Pair(NamedTuple):
    """The paths of a certificate and its key."""

    cert: Path
    key: Path

    def replace(self, other: "Pair") -> None:
        """Have the files hold what others do, as by a rename over each."""
        for mine, its in zip(self, other, strict=True):
            fresh = mine.with_suffix(".fresh")
            fresh.write_bytes(its.read_bytes())
            fresh.rename(mine)


class Authority:
    """Signs certificates. `path` holds its own."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._ca = trustme.CA(organization_name=name)
        self._directory = directory
        self.path = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, name: str, *identities: str, common_name: str | None = None, expired: bool = False) -> Pair:
        """A certificate for host names, addresses and URIs, in files of that name."""
        leaf = self._ca.issue_cert(*identities, common_name=common_name, not_after=LONG_AGO if expired else None)
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(pair.key)
        return pair
