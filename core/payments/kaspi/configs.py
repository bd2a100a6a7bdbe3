"""Configs: the organization (BIN) and the device at the bank of each shop. Device tokens are sealed at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core import audit
from core.database import queries
from core.errors import Refusal
from core.payments.kaspi.words import SURFACE, shop_of
from core.payments.states import State
from core.providers.kaspi_words import BIN, TOKEN
from core.vault import RESEALED, Resealed, SealedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from core.database import Connection, Database, Row
    from core.payments.payments import Payment
    from core.vault import Vault

_sql = queries(__name__)

# A list of all shops; no operator has so many.
MAX_LISTED: Final = 10_000
# The contract writes the name of the number in Cyrillic letters.
BIN_LABEL: Final = "БИН"
_BEFORE_ALL: Final = -(2**31)


class Config(NamedTuple):
    """The config of a shop, its token in the clear; `provider` is a label of the operator's."""

    id: int
    shop_id: int
    organization_bin: str
    device_token: str | None
    is_active: bool
    provider: str
    created_at: datetime
    updated_at: datetime

    def __repr__(self) -> str:
        """Name the shop alone: a traceback shows no token."""
        return f"Config({self.shop_id})"


class Configs:
    """The configs of all shops."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def all(self) -> list[Config]:
        """Return the configs of all shops, the lowest shop first."""
        return [self._config(row) for row in await self._database.fetch(_sql.list_configs, MAX_LISTED)]

    async def of(self, shop_id: int) -> Config:
        """Return the config of a shop, active or not. Raises Refusal `kaspi_config_missing`."""
        config = await self.find(shop_id)
        if config is None:
            raise _missing(shop_id)
        return config

    async def find(self, shop_id: int) -> Config | None:
        """Return the config of a shop, active or not, or None."""
        row = await self._database.fetchrow(_sql.find_config, shop_id)
        return None if row is None else self._config(row)

    async def to_pay(self, shop_id: int) -> Config:
        """Return the config of a shop that may be paid. Raises Refusal `kaspi_shop_unknown`, `kaspi_shop_inactive`."""
        config = await self.find(shop_id)
        if config is None:
            raise Refusal(
                "kaspi_shop_unknown",
                f"Payment config not found for shop_id={shop_id}. Please configure payment settings in admin panel.",
            )
        if not config.is_active:
            raise Refusal("kaspi_shop_inactive", f"Payment config for shop_id={shop_id} is inactive")
        return config

    async def by_bin(self, organization_bin: str) -> Config:
        """Return the config of a BIN: of several shops the lowest that is active.

        Raises Refusal `kaspi_config_missing`, and `kaspi_config_inactive` where none is active.
        """
        row = await self._database.fetchrow(_sql.config_by_bin, organization_bin)
        if row is None:
            raise Refusal("kaspi_config_missing", f"Config not found for {BIN_LABEL}={organization_bin}")
        if not row["is_active"]:
            raise Refusal("kaspi_config_inactive", f"Config for {BIN_LABEL}={organization_bin} is inactive")
        return self._config(row)

    async def add(
        self,
        shop_id: int,
        organization_bin: str,
        device_token: str | None,
        *,
        is_active: bool,
        provider: str,
        actor: str,
    ) -> Config:
        """Add the config of a shop. Raises Refusal `kaspi_config_exists`."""
        async with self._database.transaction() as connection:
            sealed = self._sealed(shop_id, device_token)
            row = await connection.fetchrow(
                _sql.add_config, shop_id, organization_bin, sealed, is_active, provider
            )
            if row is None:
                raise Refusal("kaspi_config_exists", f"Config already exists for shop_id={shop_id}")
            await _audit(connection, "kaspi.config.add", row, actor)
        return self._config(row)

    async def change(self, shop_id: int, changes: Mapping[str, Any], actor: str) -> Config:
        """Change the named values of a config; a `device_token` of None takes it away.

        Raises Refusal `kaspi_config_missing`.
        """
        token = self._sealed(shop_id, changes.get("device_token"))
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                _sql.change_config,
                shop_id,
                changes.get("organization_bin"),
                "device_token" in changes,
                token,
                changes.get("is_active"),
                changes.get("provider"),
            )
            if row is None:
                raise _missing(shop_id)
            await _audit(connection, "kaspi.config.change", row, actor)
        return self._config(row)

    async def reseal(self) -> Resealed:
        """Seal all tokens anew under the first key of the vault."""
        done = lost = 0
        after = _BEFORE_ALL
        while rows := await self._database.fetch(_sql.configs_to_reseal, after, RESEALED):
            for row in rows:
                after, before = row["shop_id"], row["device_token"]
                try:
                    sealed = self._vault.reseal(before, owner_of(after))
                except SealedError:
                    lost += 1
                    continue
                done += await self._database.execute(_sql.reseal_config, after, before, sealed)
        return Resealed(done, lost)

    def _sealed(self, shop_id: int, token: str | None) -> str | None:
        return self._vault.seal(token, owner_of(shop_id)) if token else None

    def _config(self, row: Row) -> Config:
        values = dict(row)
        if values["device_token"] is not None:
            values["device_token"] = self._vault.open(values["device_token"], owner_of(values["shop_id"]))
        return Config(**values)


def owner_of(shop_id: int) -> str:
    """Return the name that a shop's token is sealed for."""
    return f"kaspi:{shop_id}"


async def terms(database: Database, vault: Vault, payment: Payment) -> Mapping[str, str]:
    """Return the BIN and the token of a payment of this surface: for `core.payments.terms`.

    The BIN is the one that the payment was ordered for, since a refund comes from the organization that was paid. The
    token belongs to the BIN of the config, so it goes along only where both are the same. A shop that is not active
    orders nothing; its older payments are still asked about and given back, because their money has moved.
    """
    if payment.surface != SURFACE:
        return {}  # another surface has no shops, whatever its callers are called
    shop = shop_of(payment)
    config = await Configs(database, vault).of(shop)
    if not config.is_active and payment.state is State.CREATED:
        raise Refusal("kaspi_shop_inactive", f"Payment config for shop_id={shop} is inactive")
    organization_bin = payment.details.metadata.get(BIN, config.organization_bin)
    own = config.device_token if organization_bin == config.organization_bin else None
    return {BIN: organization_bin, **({TOKEN: own} if own else {})}


def _missing(shop_id: int) -> Refusal:
    return Refusal("kaspi_config_missing", f"Config not found for shop_id={shop_id}")


async def _audit(connection: Connection, kind: str, row: Row, actor: str) -> None:
    """Leave a record of a change. It says whether there is a token, and not which."""
    data = {
        "organization_bin": row["organization_bin"],
        "has_device_token": row["device_token"] is not None,
        "is_active": row["is_active"],
        "provider": row["provider"],
    }
    await audit.record(connection, audit.audited(kind, actor, data, object_id=f"shop:{row['shop_id']}"))
