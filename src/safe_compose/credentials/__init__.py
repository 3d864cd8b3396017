"""The places that hold a database's password, found in a project and its files and rewritten there.

The model (`docker compose config`) shows what services really get; the raw files show where it is
written. No part of a password reaches a message: places are named by file, line and key.
"""

from safe_compose.credentials.account import (
    VARIABLES,
    Account,
    UnsupportedAccount,
    account,
    environment,
    find_kind,
    list_declared,
    list_mounted_files,
    serves,
)
from safe_compose.credentials.rewrite import CredentialFile, FileEdit
from safe_compose.credentials.search import (
    collect_secrets,
    find_holders,
    find_other_logins,
    find_unencoded,
    is_stale,
)
from safe_compose.credentials.survey import Choices, Survey, find_differences, own_names, survey

__all__ = [
    "VARIABLES",
    "Account",
    "Choices",
    "CredentialFile",
    "FileEdit",
    "Survey",
    "UnsupportedAccount",
    "account",
    "collect_secrets",
    "environment",
    "find_differences",
    "find_holders",
    "find_kind",
    "find_other_logins",
    "find_unencoded",
    "is_stale",
    "list_declared",
    "list_mounted_files",
    "own_names",
    "serves",
    "survey",
]
