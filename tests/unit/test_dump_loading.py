"""Dumps by a pg_dump that is newer than the server that loads them."""

import pytest

from safe_compose.databases.postgres.dump_lexer import DumpPiece, PieceKind
from safe_compose.databases.postgres.dump_loading import Loading

NAME = b'"a LOCALE_PROVIDER = libc b"'
MADE = b"CREATE DATABASE %b WITH TEMPLATE = template0 ENCODING = 'UTF8'%b LOCALE = 'C';"
LIBC, ICU = b" LOCALE_PROVIDER = libc", b" LOCALE_PROVIDER = icu"


@pytest.mark.parametrize(
    ("major", "provider", "loaded"),
    [(14, LIBC, b""), (15, LIBC, LIBC), (0, LIBC, LIBC), (14, ICU, ICU)],
)
def test_a_server_that_has_only_libc_is_not_told_of_it(
    major: int, provider: bytes, loaded: bytes
) -> None:
    raw = MADE % (NAME, provider)
    loading = Loading(begins=b"", ends=b"", major=major)
    sent = loading.send(DumpPiece(PieceKind.STATEMENT, raw, 1, code=raw), raw)
    assert sent == MADE % (NAME, loaded)
    assert loading.adapt_creation(raw) == sent
