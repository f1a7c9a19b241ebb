"""The server of the profile sync: one profile a user, kept in SQLite or PostgreSQL, spoken to over HTTP.

The rules are `xrec_sdk.sync_server`; this package gives them a disk, a door and a clock. docs/server.md is the manual.
"""

from __future__ import annotations
