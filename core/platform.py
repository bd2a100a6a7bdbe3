"""The parts of one process that wallets and payables use, over those of the service."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from core import metrics
from core.errors import Refusal
from core.payables.limits import unreachable
from core.payables.payables import Payables
from core.wallets.config import Config
from core.wallets.users import Users
from core.work import wakeup
from core.work.wakeup import Waker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.database import Database
    from core.ledger.ledger import Ledger
    from core.service import Service
    from core.settings import Settings
    from core.wallets.users import User

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Platform:
    """The parts that the operations of wallets and payables use; `open_platform` makes them."""

    service: Service
    users: Users
    payables: Payables
    config: Config
    waker: Waker
    _fee_wallets: dict[str, User] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.service.settings

    @property
    def database(self) -> Database:
        """The database."""
        return self.service.database

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.service.ledger

    @property
    def currency(self) -> str:
        """The currency of new wallets."""
        return self.service.settings.default_currency

    def require_currency(self, currency: str) -> None:
        """Raise Refusal `currency_mismatch` for a currency that no wallet has, in which nobody could ever pay."""
        if currency != self.currency:
            raise Refusal("currency_mismatch", f"Wallets are in {self.currency} here, not in {currency}.")

    async def fee_account(self) -> str:
        """Return the account of fees: the wallet of FEE_WALLET_PHONE, which is made when it is needed."""
        phone = self.config.current.fee_wallet_phone
        user = self._fee_wallets.get(phone)
        if user is None:
            user = self._fee_wallets[phone] = await self.users.ensure(phone, name="System Fees")
        return user.account

    async def check_fee_wallet(self, phone: str) -> None:
        """Raise Refusal `invalid_request` for the phone of a user who signs in, who would get the fees."""
        user = await self.users.by_phone(phone)
        if user is not None and user.username is not None:
            raise Refusal("invalid_request", "Somebody signs in under this phone.", field="fee_wallet_phone")

    def wake(self, told: bool = True) -> None:  # noqa: FBT001, FBT002 - the answer of `write`, passed on
        """Wake the workers, after the commit, if there are events to deliver (`told`)."""
        if told:
            self.waker.wake(wakeup.OUTBOX)


@asynccontextmanager
async def open_platform(service: Service) -> AsyncIterator[Platform]:
    """Open the parts over a service, and close them before it."""
    users = Users(service.database, service.ledger, service.settings)
    payables = Payables(service.database)
    config = Config(service.database, service.settings)
    if hidden := unreachable(service.settings):
        _log.warning("platform.limits_unreachable", limits=hidden)
    waker = Waker(service.redis, service.epoch)
    metrics.begin_currency(service.settings.default_currency)
    await config.open()
    try:
        yield Platform(service, users, payables, config, waker)
    finally:
        await config.close()
        await users.close()
        await payables.close()
        await waker.close()
