"""Which versions of what matters are installed here. Processes of one cluster should agree on them."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("baton", "torch", "ray", "grpcio", "protobuf", "nixl")
"""What decides whether two processes understand each other, and compute the same."""


@cache
def installed_versions() -> Mapping[str, str]:
    """Versions by package; those not installed are left out. Imports none of them; looked up once."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
