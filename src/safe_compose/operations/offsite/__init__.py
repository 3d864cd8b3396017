"""Off-site copies of backups: sent, read back, listed, and fetched into the store."""

from safe_compose.operations.offsite.check import verify
from safe_compose.operations.offsite.copies import list_all
from safe_compose.operations.offsite.destinations import choose_destinations, open_signer
from safe_compose.operations.offsite.fetch import pull
from safe_compose.operations.offsite.result import CopyOutcome
from safe_compose.operations.offsite.send import push, require_reachable, send_required

__all__ = [
    "CopyOutcome",
    "choose_destinations",
    "list_all",
    "open_signer",
    "pull",
    "push",
    "require_reachable",
    "send_required",
    "verify",
]
