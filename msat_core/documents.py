"""JSON documents that are versioned, refuse unknown fields and notice a changed byte.

Every file that msat writes for people to keep (exam, profile, zoo, scorer configuration) is one
:class:`Document`: pydantic data, a ``version``, and a SHA-256 ``digest`` over everything else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, PrivateAttr, ValidationError
from typing_extensions import Self

from msat_core.errors import MsatError
from msat_core.files import write_text
from msat_core.reading import parse_json, read_text

_TELL_THEMSELVES = ("missing", "extra_forbidden", "value_error")  # problems where the value itself says nothing

Member = TypeVar("Member", bound=str)

# A set of strings, sorted in JSON: its own order changes from process to process, and the digest would change with it.
StringSet = Annotated[frozenset[Member], PlainSerializer(sorted, return_type=list[str], when_used="json")]


class Document(BaseModel):
    """Base of the JSON artefacts.

    Subclasses set ``kind`` and ``error``, and raise ``current_version`` when the layout changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str] = "document"
    error: ClassVar[type[MsatError]] = MsatError
    current_version: ClassVar[int] = 1
    unnamed: ClassVar[frozenset[str]] = frozenset()  # fields that the digest does not cover

    _digest: str | None = PrivateAttr(default=None)

    def __init__(self, **data: Any) -> None:  # noqa: ANN401 - whatever the fields hold
        try:
            super().__init__(**data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ").rstrip(".")
            got = "" if first["type"] in _TELL_THEMSELVES else f", got {first['input']!r:.60}"
            sentence = f"Not a valid {self.kind}: {place + ': ' if place else ''}{message}{got}."
            raise type(self).error(sentence) from None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the content in canonical JSON (sorted keys, no spaces)."""
        if self._digest is not None:
            return self._digest
        digest = digest_of(self.model_dump(mode="json", exclude=set(self.unnamed)))
        if self.model_config.get("frozen"):
            self._digest = digest
        return digest

    def _read_with(self, digest: str) -> None:
        """Keep the digest of the file that this was read from."""
        self._digest = digest

    def __eq__(self, other: object) -> bool:
        """Same kind and fields; pydantic's own comparison would take in the cached digest."""
        return type(self) is type(other) and all(
            getattr(self, name) == getattr(other, name) for name in type(self).model_fields
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def changed(self, **fields: Any) -> Self:  # noqa: ANN401 - whatever the fields hold
        """A copy with some fields replaced, validated, with a digest of its own."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **fields})

    def to_json(self) -> str:
        """The document as JSON text, with its kind, version and digest."""
        head = {"kind": self.kind, "version": self.current_version, "digest": self.digest}
        return json.dumps({**head, **self.model_dump(mode="json")}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "the given text") -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            MsatError: (the subclass's own) not JSON, another kind or version, an unknown or
                missing field, or content that does not match its digest.
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise cls.error(f"{where} is not JSON ({error}): expected a {cls.kind} written by msat.") from None
        return cls._of_data(data, where)

    @classmethod
    def _of_data(cls, data: Any, where: str) -> Self:  # noqa: ANN401 - any JSON value
        if not isinstance(data, dict) or data.get("kind") != cls.kind:
            kind = data.get("kind") if isinstance(data, dict) else type(data).__name__
            raise cls.error(f"{where} holds {kind!r}, expected a JSON object of kind {cls.kind!r}.")
        version = data.get("version")
        if type(version) is not int or version != cls.current_version:
            raise cls.error(
                f"{where} is a {cls.kind} of version {version!r}; this msat reads version "
                f"{cls.current_version}: make it again, or use the msat that wrote it."
            )
        content = {key: value for key, value in data.items() if key not in ("kind", "version", "digest")}
        try:
            document = cls.model_validate(content)
        except MsatError as error:
            raise cls.error(f"{where}: {error}") from None
        named = {key: value for key, value in content.items() if key not in cls.unnamed}
        if digest_of(named) == data.get("digest"):  # nothing to write out again
            document._read_with(data["digest"])
        elif document.digest != data.get("digest"):
            raise cls.error(
                f"{where} has been changed: its content has digest {document.digest[:12]}…, "
                f"it says {str(data.get('digest'))[:12]}…. Make it again instead of editing it."
            )
        return document

    def save(self, path: str | Path) -> Path:
        """Write the document; a reader never sees half of it."""
        return write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved document. Raises the subclass's error if it is missing or damaged."""
        try:
            text = read_text(path)
        except (OSError, ValueError) as error:
            raise cls.error(f"Cannot read {path} ({error}): expected a {cls.kind} file.") from None
        return cls.from_json(text, where=str(path))


def digest_of(data: Any) -> str:  # noqa: ANN401 - any JSON value
    """SHA-256 (hex) of a JSON value in canonical form."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
