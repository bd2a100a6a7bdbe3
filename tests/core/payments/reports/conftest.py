"""Payments that providers' reports are compared with."""

from tests.core.payments.conftest import desk, owner

__all__ = ["desk", "owner"]
