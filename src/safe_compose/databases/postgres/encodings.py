"""Texts of a PostgreSQL server and of its dumps, in any of its encodings."""

UTF8 = "utf-8"
_CODECS = {
    **{f"LATIN{n}": f"iso8859-{n}" for n in (1, 2, 3, 4)},
    "LATIN5": "iso8859-9", "LATIN6": "iso8859-10", "LATIN7": "iso8859-13", "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15", "LATIN10": "iso8859-16",
    **{f"ISO_8859_{n}": f"iso8859-{n}" for n in (5, 6, 7, 8)},
    **{f"WIN{n}": f"cp{n}" for n in (866, 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257,
      1258)},
    "KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_JP": "euc-jp", "EUC_JIS_2004": "euc-jis-2004",
    "EUC_CN": "gb2312", "EUC_KR": "euc-kr", "EUC_TW": "ascii", "MULE_INTERNAL": "ascii",
}  # fmt: skip
"""PostgreSQL's encodings of databases (documentation, 24.3) but UTF8 and SQL_ASCII, mapped to
Python's names; `ascii` for two that Python does not know.
"""


IDENTIFIER = rb'(?:"(?:[^"]|"")*+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+)'
"""An identifier of SQL, quoted or not, as a part of a pattern; `decode_name` reads it."""


def find_codec(encoding: str) -> str:
    """Return Python's name of a PostgreSQL encoding.

    SQL_ASCII says nothing about its bytes: they are mostly UTF-8.
    """
    return _CODECS.get(encoding, UTF8)


def decode_name(identifier: bytes, codec: str = UTF8) -> str:
    """Return the name of an identifier, quoted or not."""
    if identifier.startswith(b'"'):
        identifier = identifier[1:-1].replace(b'""', b'"')
    return text(identifier, codec)


def text(raw: bytes, codec: str = UTF8) -> str:
    r"""Decode bytes into text that can be stored.

    Undecodable bytes are written out (`\xf6`), so the same bytes always give the same text.
    """
    return raw.decode(codec, "backslashreplace")


def decode_answer(raw: bytes, codec: str = UTF8) -> str:
    """Decode a server's answer into text that still holds undecodable bytes.

    `encode_text` writes these out, once the answer has been parsed.
    """
    return raw.decode(codec, "surrogateescape")


def encode_text(part: str) -> str:
    """Return a part of a text from `decode_answer` as `text` returns it.

    Raises:
        ValueError: It holds a half of a character.
    """
    return text(part.encode("utf-8", "surrogateescape"))
