"""The ids of ontology terms."""

from __future__ import annotations

import re

CURIE = re.compile(r"[A-Za-z][A-Za-z0-9_.]*:[A-Za-z0-9_.-]{1,64}\Z")
"""A term as MONDO:0005180 (W3C Compact URI)."""
