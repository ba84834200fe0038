"""What the members of an example stand for: streams and conditions, by the extensions of their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djepa.errors import MediaError, UsageError, suggest
from djepa.plugins import host
from djepa.shards.index import CLASS, Group

CONDITIONS = {"label": CLASS, "text": "txt"}  # where conditions are looked for, if nobody says
JSON = "json"


@dataclass(frozen=True)
class Layout:
    """What is taken from an example.

    Attributes:
        streams: modalities by stream.
        conditions: by name, the extension each is found under, or "json:" and a path in a JSON member.
        members: extensions of the members that are read, one of which has to be there, by "stream NAME" or "condition NAME".
    """

    streams: Mapping[str, str]
    conditions: Mapping[str, str]
    members: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, first: Group, streams: Mapping[str, str] | None, conditions: Mapping[str, str] | None,
           extensions: Mapping[str, Sequence[str]]) -> Layout:
        """What a recipe asks for, with what the first example says where it leaves that open.

        Raises:
            UsageError: nothing in the first example can be a stream, or it is ambiguous what; or extensions are of no stream.
        """
        streams = dict(streams) if streams is not None else _streams_of(first)
        for name in extensions:
            if name not in streams:
                raise UsageError(f"extensions: there is no stream {name!r}. {suggest(name, streams)}")
        if conditions is None:
            conditions = {name: extension for name, extension in CONDITIONS.items() if extension in first.members}
        conditions = {name: place if _in_json(place) else _plain(place) for name, place in conditions.items()}
        own = {name: host().get("modality", modality)().extensions for name, modality in streams.items()}
        members = {stream(name): [_plain(one) for one in extensions.get(name, own[name])] for name in streams}
        members |= {condition(name): [JSON if _in_json(place) else place] for name, place in conditions.items()}
        return cls(streams, conditions, members)

    def found(self, group: Group) -> dict[str, tuple[int, int, int]] | str:
        """Offset, size and number of the extension of each member that is read; or the name of one that is not there."""
        places = {}
        for name, extensions in self.members.items():
            number = next((number for number, one in enumerate(extensions) if one in group.members), None)
            if number is None:
                return name
            places[name] = (*group.members[extensions[number]], number)
        return places

    def lacks(self, shard: Path, group: Group, name: str) -> MediaError:
        """The error about an example without a member."""
        wanted = " or ".join(f"'.{one}'" for one in self.members[name])
        return MediaError(f"{str(shard)!r}: the example {group.key!r} has no member {wanted} ({name}); it has "
                          f"{', '.join(sorted(group.members))}. The members of an example have to lie side by side in the "
                          f"shard (tar --sort=name); with missing=skip it is left out.")


def stream(name: str) -> str:
    """What a stream is called among members."""
    return f"stream {name}"


def condition(name: str) -> str:
    """What a condition is called among members."""
    return f"condition {name}"


def inside(text: str, path: str) -> Any:
    """The value at a dotted path of a JSON text.

    Raises:
        MediaError: there is none.
    """
    try:
        value: Any = json.loads(text)
        for key in path.split("."):
            value = value[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MediaError(f"it has no value at {path!r} ({type(error).__name__}: {error})") from error
    return value


def class_names(classes: Sequence[str] | str | None, labels: Sequence[str]) -> list[str]:
    """The names of all classes: a list, the lines of a file, or what the labels say."""
    if isinstance(classes, str):
        return _lines(classes)
    if classes is not None:
        return [str(name) for name in classes]
    found = set(labels)
    numbered = all(one.isdecimal() for one in found)
    return [str(number) for number in range(max(map(int, found)) + 1)] if numbered else sorted(found)


def _in_json(place: str) -> bool:
    return place.startswith(f"{JSON}:")


def _plain(extension: str) -> str:
    return extension.lower().lstrip(".")


def _streams_of(group: Group) -> dict[str, str]:
    """The modalities that know a member of an example."""
    known = {name: set(host().get("modality", name)().extensions) & set(group.members) for name in host().names("modality")}
    found = {name: extensions for name, extensions in known.items() if extensions}
    clash = [extension for extension in group.members if sum(extension in each for each in found.values()) > 1]
    if clash:
        names = [name for name, each in found.items() if clash[0] in each]
        raise UsageError(f"streams: members .{clash[0]} may be {' or '.join(names)}; say which, as in streams={{{names[0]}: "
                         f"{names[0]}}}.")
    if not found:
        raise UsageError(f"streams: no modality knows a member of the first example, {group.key!r}, which has: "
                         f"{', '.join(sorted(group.members))}. Say with `streams` and `extensions` what they are.")
    return {name: name for name in found}


def _lines(path: str) -> list[str]:
    try:
        names = [line.strip() for line in Path(path).expanduser().read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"classes: {path!r} is no text file with the name of a class on each line ({error}).") from error
    return [name for name in names if name]
