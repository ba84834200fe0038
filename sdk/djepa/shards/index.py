"""The members of a shard by example: found once, kept beside the shard, and found anew when the shard has changed.

    .djepa/NAME.tar.json    in the shard's folder; where that cannot be written, in the user's cache

A member `dir/name.seg.png` belongs to the example `dir/name` and has the extension `seg.png`. Members of one example lie side
by side. What begins with a dot or with two underscores is passed over, and so is what has no extension.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from djepa.errors import MediaError, StorageError
from djepa.files import atomic_file
from djepa.remembered import cache_folder
from djepa.shards.tar import Member, members

FORMAT = 1
CLASS = "cls"     # extension of members that say which class an example is of
MAX_CLASS = 1024  # bytes of one

_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


@dataclass(frozen=True)
class Group:
    """The members of one example.

    Attributes:
        key: what their names have in common.
        members: (offset, size) by extension, in lower case.
        label: the content of the member with the extension `CLASS`; "" if there is none.
    """

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class ShardIndex:
    """The examples of a shard.

    Attributes:
        size, mtime_ns: of the file they were found in.
        groups: in their order.
    """

    size: int
    mtime_ns: int
    groups: list[Group]

    @classmethod
    def of(cls, shard: Path) -> ShardIndex:
        """The index that is kept, if it is of the shard as it is now; else a new one, which is kept if that can be done.

        Raises:
            MediaError: the shard cannot be read; the message names it and the member.
        """
        try:
            stat = shard.stat()
        except OSError as error:
            raise MediaError(f"Cannot read the shard {str(shard)!r}: {error.strerror}.") from error
        places = _places(shard)
        for place in places:
            if (kept := _kept(place)) and (kept.size, kept.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
                return kept
        found = cls(stat.st_size, stat.st_mtime_ns, _groups(shard))
        for place in places:
            with suppress(StorageError):
                found._keep(place)
                break
        return found

    def _keep(self, place: Path) -> None:
        extensions = sorted({extension for group in self.groups for extension in group.members})
        number = {extension: one for one, extension in enumerate(extensions)}
        groups = [[group.key, group.label, [[number[extension], *place] for extension, place in group.members.items()]]
                  for group in self.groups]
        document = {"format": FORMAT, "size": self.size, "mtime_ns": self.mtime_ns, "extensions": extensions, "groups": groups}
        with atomic_file(place) as temporary:
            temporary.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")


def _places(shard: Path) -> list[Path]:
    """Where the index of a shard may be kept, the first choice first."""
    known_as = hashlib.sha256(str(shard.resolve()).encode()).hexdigest()
    return [shard.parent / ".djepa" / f"{shard.name}.json", cache_folder() / "shards" / f"{known_as}.json"]


def _kept(place: Path) -> ShardIndex | None:
    try:
        document: Any = json.loads(place.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            return None
        names = document["extensions"]
        groups = [Group(str(key), {names[one]: (int(offset), int(size)) for one, offset, size in places}, str(label))
                  for key, label, places in document["groups"]]
        return ShardIndex(int(document["size"]), int(document["mtime_ns"]), groups)
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):  # none, or no longer what it was
        return None


def _groups(shard: Path) -> list[Group]:
    found: list[Group] = []
    with shard.open("rb") as file:
        for member in members(shard):
            match = _NAME.fullmatch(member.name)
            if match is None or match[1].rsplit("/", 1)[-1].startswith((".", "__")):
                continue
            key, extension = match[1], match[2].lower()
            if not found or found[-1].key != key:
                found.append(Group(key))
            if extension in found[-1].members:
                raise MediaError(f"{str(shard)!r} has its member {member.name!r} twice, side by side.")
            found[-1].members[extension] = (member.offset, member.size)
            if extension == CLASS:
                found[-1] = Group(key, found[-1].members, _label(shard, file, member))
    return found


def _label(shard: Path, file: Any, member: Member) -> str:
    if member.size > MAX_CLASS:
        raise MediaError(f"{str(shard)!r}: its member {member.name!r} should be the name or number of a class, and has "
                         f"{member.size:,} bytes.")
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise MediaError(f"{str(shard)!r}: its member {member.name!r} should be the name or number of a class, and is no text "
                         f"in UTF-8.") from error
