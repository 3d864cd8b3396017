"""The parameters of a new PostgreSQL cluster into which a dump loads.

This module is pure.
"""

from collections.abc import Mapping

CHECKSUMS, LOCALE = "data_checksums", "template1_locale"
"""Names, among the settings of a backup, of what only the creation of a cluster decides."""


def initdb_arguments(settings: Mapping[str, str]) -> str:
    """Return the arguments of initdb for a cluster like the recorded one.

    The names of roles are stored in the encoding of the database in which they were made, most
    often that of the cluster: in a cluster of another encoding no dump would find them. The locale
    C goes with any encoding, and every image has it; databases of a dump have their own.
    """
    encoding = settings.get(LOCALE, "UTF8").partition(" ")[0]
    known = encoding.isascii() and encoding.replace("_", "").isalnum()
    return " ".join(
        [
            *(["--data-checksums"] if settings.get(CHECKSUMS) == "on" else []),
            *([f"--encoding={encoding}", "--locale=C"] if known and encoding != "UTF8" else []),
        ]
    )
