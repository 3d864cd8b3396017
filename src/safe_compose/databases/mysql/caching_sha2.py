"""Hashes of `caching_sha2_password`, the default of MySQL since 8.0, made without the server.

`$A$005$`, twenty bytes of salt, and 43 characters of the SHA-crypt of the password with 5000 rounds
(MySQL's sha2_password_common.cc and crypt_genhash_impl.cc; "Unix crypt using SHA-256" by Drepper).
"""

import hashlib
import hmac
import re
import secrets

PLUGIN = "caching_sha2_password"
_FORM = re.compile(r"\$A\$([0-9A-F]{3})\$(.{20})([./0-9A-Za-z]{43})", re.DOTALL)
_THOUSAND = 1000
_ROUNDS = 5
"""The server's default, in thousands (`caching_sha2_password_digest_rounds`)."""
_MOST_ROUNDS = 100
"""More would run for minutes here."""
_SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ORDER = (
    (0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14), (15, 25, 5), (6, 16, 26),
    (27, 7, 17), (18, 28, 8), (9, 19, 29),
)  # fmt: skip
"""Bytes of the digest that four characters of the result stand for."""


def make_hash(password: str) -> str:
    """Return the hash of a password with a fresh salt."""
    salt = "".join(secrets.choice(_SALT) for _ in range(20))
    return f"$A${_ROUNDS:03X}${salt}{_crypt(password.encode(), salt.encode(), _ROUNDS)}"


def is_hash(stored: str) -> bool:
    """Return whether a text has the form of a hash."""
    return _FORM.fullmatch(stored) is not None


def fits(stored: str, password: str) -> bool | None:
    """Return whether a hash is that of a password; None if it cannot be decided here."""
    found = _FORM.fullmatch(stored)
    if found is None or int(found[1], 16) > _MOST_ROUNDS:
        return None
    made = _crypt(password.encode(), found[2].encode("latin-1"), int(found[1], 16))
    return hmac.compare_digest(made, found[3])


def _crypt(key: bytes, salt: bytes, thousands: int) -> str:
    alternate = hashlib.sha256(key + salt + key).digest()
    start = key + salt + _fill(alternate, len(key))
    bits = len(key)
    while bits:
        start += alternate if bits & 1 else key
        bits >>= 1
    digest = hashlib.sha256(start).digest()
    keys = _fill(hashlib.sha256(key * len(key)).digest(), len(key))
    salts = _fill(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(thousands * _THOUSAND):
        block = keys if number & 1 else digest
        block += salts if number % 3 else b""
        block += keys if number % 7 else b""
        block += digest if number & 1 else keys
        digest = hashlib.sha256(block).digest()
    words = [(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _ORDER]
    words.append((digest[31] << 8 | digest[30], 3))
    return "".join(_SALT[value >> 6 * n & 63] for value, count in words for n in range(count))


def _fill(pattern: bytes, length: int) -> bytes:
    return (pattern * (length // len(pattern) + 1))[:length]
