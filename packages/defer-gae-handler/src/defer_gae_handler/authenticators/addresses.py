"""The address of a peer, as servers write it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address; return None for anything else (a Unix socket).

    A socket for both IP versions writes 127.0.0.1 as ::ffff:127.0.0.1.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address
