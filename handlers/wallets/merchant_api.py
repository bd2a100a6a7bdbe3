"""Merchants' API keys and what they sign."""

from __future__ import annotations

from handlers.api import Route

ROUTES: tuple[Route, ...] = ()
