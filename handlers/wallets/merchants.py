"""Merchants: applying, QR codes, scanned customers, statements."""

from __future__ import annotations

from handlers.api import Route

ROUTES: tuple[Route, ...] = ()
