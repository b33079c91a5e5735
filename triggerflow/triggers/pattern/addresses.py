"""IP addresses in strings, and blocks of them.

What is an address is narrower than what other readers take: four decimal numbers without
leading zeros (which some read as octal), or the colon form of IPv6 without a zone and without
a dotted end. An IPv4 address mapped into IPv6 is that IPv4 address.
"""

from __future__ import annotations

import ipaddress
import re

from triggerflow.triggers.pattern.conditions import InNetwork
from triggerflow.triggers.pattern.scalars import OperandError

_IPV4 = re.compile(r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}")
_IPV6 = re.compile(r"[0-9a-fA-F:]{2,39}")
_BITS = re.compile(r"[0-9]{1,3}")
_WIDTH = {4: 32, 6: 128}


def read_address(text: str) -> tuple[int, int] | None:
    """(version, number), or None for a text that isn't an address."""
    try:
        if _IPV4.fullmatch(text):
            return 4, int(ipaddress.IPv4Address(text))
        if ":" in text and _IPV6.fullmatch(text):
            found = ipaddress.IPv6Address(text)
            mapped = found.ipv4_mapped
            return (6, int(found)) if mapped is None else (4, int(mapped))
    except ValueError:
        pass
    return None


def same_address(text: str) -> InNetwork | None:
    """An IPv6 address as the block of itself, since it can be written in many ways."""
    if ":" not in text or (address := read_address(text)) is None:
        return None
    version, number = address
    return InNetwork(text, version, number, number)


def read_network(text: str) -> InNetwork:
    """A block in CIDR notation; bits beyond the mask are of no account.

    Raises:
        OperandError: the text is no block.
    """
    base, slash, mask = text.partition("/")
    if not slash or "/" in mask:
        raise OperandError(
            f"{text!r:.80} is not a CIDR block: it needs one slash", 'write "10.0.0.0/8"'
        )
    address = read_address(base)
    if address is None:
        raise OperandError(
            f"{base!r:.80} is not an IP address",
            "write four decimal numbers without leading zeros, or IPv6 groups with colons",
        )
    version, number = address
    width = _WIDTH[version]
    if not _BITS.fullmatch(mask) or int(mask) >= width:
        raise OperandError(
            f"{mask!r:.80} is no mask of IPv{version}, expected 0 to {width - 1} bits",
            f"for one address, list {base!r} itself as a value",
        )
    free = (1 << (width - int(mask))) - 1
    return InNetwork(text, version, number & ~free, number | free)
