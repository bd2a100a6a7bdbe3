"""Administration."""

from __future__ import annotations

from handlers.api import Route

ROUTES: tuple[Route, ...] = ()
