"""The options of a folder: their defaults, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from h2log.app.files.options import Choices, StaticOptions, choices
from h2log.app.static import StaticFolder
from h2log.errors import UsageError


def test_every_option_has_a_default() -> None:
    """What is documented is what there is."""
    assert set(StaticOptions.__annotations__) == set(Choices._fields)
    assert choices({}) == Choices()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"compres": True}, "no option 'compres'; there are precompressed, compress, "),
        ({"compress": 1}, "option compress must be True or False, got 1"),
        ({"listing": "yes"}, "option listing must be True or False, got 'yes'"),
        ({"clean_urls": "redirects"}, "clean_urls must be True, False or 'redirect'"),
        ({"spa": True}, "spa must be the name of a file, such as 'index.html', got True"),
        ({"spa": "../index.html"}, "spa: '../index.html' is no file inside it"),
        ({"spa": "/index.html"}, "spa: '/index.html' is no file inside it"),
        ({"spa": "sub/"}, "spa: 'sub/' is no file inside it"),
        ({"cache_control": "no-cache"}, "cache_control must be a mapping of patterns to texts"),
        ({"cache_control": {"*": 5}}, "cache_control must be a mapping of patterns to texts"),
        ({"security": "on"}, "security must be True, False, or header fields as a mapping"),
        ({"security": {"x-a": None}}, "security must be True, False, or header fields"),
    ],
)
def test_a_wrong_option_is_refused_at_start(
    tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    """With its name, what it may be, and what it was."""
    with pytest.raises(UsageError) as raised:
        StaticFolder(tmp_path, "/", 0, **option)
    assert message in str(raised.value)
