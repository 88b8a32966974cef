"""Images, sound and other bytes in a result: read if they are text, withheld if they cannot be searched."""

from typing import Any, Final

from exeat.gateway.redaction.texts import Coded, Opaque, decoded, read, text_like

_DATA: Final = "data"
_BLOB: Final = "blob"


def opened(value: Any, *, structured: bool = False) -> Any:
    """The tree with each such thing replaced by what can be searched, or by what says that it cannot.
    In structured content it stays a member of its object, as a schema may want."""
    kind = type(value)
    if kind is list:
        return [opened(each, structured=structured) for each in value]
    if kind is not dict:
        return value
    media = _media(value)
    if media is None:
        return {key: opened(each, structured=structured) for key, each in value.items()}
    name, stated = media
    inner = decoded(value[name]) if text_like(stated) or name == _BLOB else None
    if inner is not None:
        rest = {key: opened(each, structured=structured) for key, each in value.items()}
        rest[name] = Coded(value[name], read(inner, 1))
        return rest
    if structured:
        rest = {key: opened(each, structured=True) for key, each in value.items()}
        rest[name] = Opaque(stated)
        return rest
    if name == _DATA:
        return {"type": "text", "text": Opaque(stated)}
    kept = {key: each for key, each in value.items() if key in ("uri", "_meta")}
    return {**kept, "mimeType": "text/plain", "text": Opaque(stated)}


def _media(value: dict[str, Any]) -> tuple[str, str] | None:
    """Which member holds bytes, and of what type it says they are."""
    stated = value.get("mimeType")
    named = stated[:80] if type(stated) is str else "data"
    if type(value.get(_BLOB)) is str and "uri" in value:
        return _BLOB, named
    if value.get("type") in ("image", "audio", "video") and type(value.get(_DATA)) is str:
        return _DATA, named
    return None
