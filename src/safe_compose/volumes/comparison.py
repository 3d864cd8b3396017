"""An archive compared with the list of what a volume held."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from safe_compose.volumes.tar import BadTar, Member


def compare(tar: Callable[[], Iterable[Member]], entries: Callable[[], Iterable[Member]]) -> int:
    """Compare an archive with a list and return the number of members.

    Both are read once, and once more to name the differences. The order may differ, so the entries
    are added up: equal sums of 256-bit hashes and equal counts mean equal sets. Only hard links are
    kept in memory. Sockets, which no tar can hold, are left out.

    Raises:
        BadTar: They differ; the message names some differences.
    """
    count = total = 0
    links: dict[bytes, Member] = {}
    for member in tar():
        count += 1
        if member.type == "h":
            links[member.path] = member
        else:
            total += _hash(member)
    targets: dict[bytes, Member | None] = {member.link: None for member in links.values()}
    linked: list[Member] = []
    rest = count
    for entry in entries():
        if entry.type == "s":
            continue
        rest -= 1
        if entry.path in targets:
            targets[entry.path] = entry
        if entry.path in links:
            linked.append(entry)
        else:
            total -= _hash(entry)
    if (
        rest == 0
        and total == 0
        and len(linked) == len(links)
        and all(_is_same(e, links[e.path], targets) for e in linked)
    ):
        return count
    raise BadTar("; ".join(_differences(tar, entries)) or "hard links differ from the list")


def _is_same(entry: Member, member: Member, targets: dict[bytes, Member | None]) -> bool:
    target = targets[member.link]
    if target is None:
        return False
    return (entry.type, entry.size, entry.mode, entry.uid, entry.gid) == (
        target.type,
        target.size,
        target.mode,
        target.uid,
        target.gid,
    )


def _hash(member: Member) -> int:
    return int.from_bytes(blake2b(member.record(), digest_size=32).digest(), "big")


def _differences(
    tar: Callable[[], Iterable[Member]], entries: Callable[[], Iterable[Member]]
) -> Iterator[str]:
    """Yield at most three differences of each side, in words.

    It only runs if something is wrong, because it keeps a small number per entry.
    """
    links = {m.path for m in tar() if m.type == "h"}
    sides = (
        (tar, entries, "is in the archive, but not so in the list"),
        (entries, tar, "is in the list, but not so in the archive"),
    )
    for left, right, what in sides:
        known = {hash(m.record()) for m in right()}
        shown = 0
        for member in left():
            if (
                member.type != "s"
                and member.path not in links
                and hash(member.record()) not in known
            ):
                yield (
                    f"{member.path.decode('utf-8', 'backslashreplace') or 'the root'}"
                    f" ({member.type}) {what}"
                )
                shown += 1
                if shown == 3:
                    break
