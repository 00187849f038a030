"""What can be told of a host from its name or address alone. Resolves nothing."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach what listens at a name or an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
