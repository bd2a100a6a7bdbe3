"""The surface of the ledger: accounts, transfers, holds and the feed under /v1."""

from handlers.http.dispatch import ApiSurface
from handlers.ledger import accounts, closing, feed, holds, transfers

LEDGER = ApiSurface(
    "ledger", (*accounts.ROUTES, *transfers.ROUTES, *holds.ROUTES, *feed.ROUTES, *closing.ROUTES)
)
