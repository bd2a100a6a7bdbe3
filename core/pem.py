"""RSA private keys in PEM, as settings hold them."""

from __future__ import annotations

import re
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
# RFC 7518, section 3.3, asks for so many bits or more.
LEAST_RSA_BITS: Final = 2048


def blocks_of(pem: str) -> list[str]:
    """Return the texts of the keys in a PEM text, each as it is written there; a text of one key is that text."""
    return [block[0] for block in _PEM.finditer(pem)]


def private_keys(pem: str) -> list[rsa.RSAPrivateKey]:
    r"""Return the RSA keys in a PEM text, whose line ends may be written as `\n`. Raises ValueError."""
    found = []
    for block in _PEM.finditer(pem.replace("\\n", "\n")):
        key = serialization.load_pem_private_key(block[0].encode(), None)
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < LEAST_RSA_BITS:
            raise ValueError(f"RS256 wants RSA keys of {LEAST_RSA_BITS} bits or more")
        found.append(key)
    if pem.strip() and not found:
        raise ValueError("the text holds no private key in PEM")
    return found
