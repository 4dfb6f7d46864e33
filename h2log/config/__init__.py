"""Settings: typed, validated, from files, the environment and flags into one tree.

`build` makes the tree of nested values, `load` from every source; everything else in the package
is handed the part of it that it needs. A wrong value raises `UsageError` that names the source and
the key.
"""

from __future__ import annotations

from h2log.config.check import Check, all_keys
from h2log.config.loading import DEFAULT, Loaded, Value, build, file_problems, load
from h2log.config.settings import (
    AccessOutput,
    AdminSettings,
    AppOutput,
    AppRotation,
    AppSettings,
    BudgetSettings,
    Limits,
    LogSettings,
    Output,
    RedactSettings,
    Rotation,
    ServerSettings,
    SessionOutput,
    Settings,
    TlsSettings,
    WebSocketSettings,
)
from h2log.config.sources import FILE_VARIABLE, FILES, Layer, find_file

__all__ = [
    "DEFAULT",
    "FILES",
    "FILE_VARIABLE",
    "AccessOutput",
    "AdminSettings",
    "AppOutput",
    "AppRotation",
    "AppSettings",
    "BudgetSettings",
    "Check",
    "Layer",
    "Limits",
    "Loaded",
    "LogSettings",
    "Output",
    "RedactSettings",
    "Rotation",
    "ServerSettings",
    "SessionOutput",
    "Settings",
    "TlsSettings",
    "Value",
    "WebSocketSettings",
    "all_keys",
    "build",
    "file_problems",
    "find_file",
    "load",
]
