"""Media types by the names of files: the same on every machine."""

from __future__ import annotations

from mimetypes import MimeTypes
from typing import Final

__all__ = ["HTML", "MARKDOWN", "compressible", "media_type"]

HTML: Final = "text/html; charset=utf-8"
MARKDOWN: Final = "text/markdown; charset=utf-8"

# No file of the machine is read: what is served as what must not depend on what is installed.
_TYPES: Final = MimeTypes(filenames=())
for _suffix, _type in {
    ".avif": "image/avif",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".toml": "application/toml",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}.items():
    _TYPES.add_type(_type, _suffix)
_TEXT_TYPES: Final = frozenset(
    ("application/json", "application/manifest+json", "application/xml", "image/svg+xml")
)
_COMPRESSIBLE: Final = frozenset(
    (
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/manifest+json",
        "application/rtf",
        "application/toml",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/x-icon",
        "image/x-ms-bmp",
    )
)


def media_type(path: str) -> str:
    """Return the media type of a file by its name, with `charset=utf-8` where it is text."""
    found, encoding = _TYPES.guess_type(path)
    if encoding is not None:  # a.tar.gz is served as it is, not as a decoded tar
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if found is None:
        return "application/octet-stream"
    if found.startswith("text/") or found in _TEXT_TYPES:
        return f"{found}; charset=utf-8"
    return found


def compressible(media: str) -> bool:
    """Say whether content of a media type gets smaller by compressing it.

    Text and what is like it, fonts without compression of their own, WebAssembly; not images,
    sound, film, archives and fonts of the web, which are compressed already.
    """
    found = media.partition(";")[0]
    return (
        found.startswith("text/")
        or found in _COMPRESSIBLE
        or found.endswith(("+json", "+xml", "+yaml"))
    )
