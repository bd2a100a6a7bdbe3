"""Settings of a service under load: every rate is counted as in production, at bounds that nobody reaches."""

from collections.abc import Mapping

#: Money that nobody moves in a run, in minor units.
CREDIT = 1_000_000_000_000

UNREACHED: Mapping[str, str] = {
    "RATE_LIMIT_ENABLED": "true",
    "RATE_LIMIT_BACKEND": "redis",
    "V1_RATE_LIMIT_PER_SECOND": "1000000",
    "V1_RATE_LIMIT_BURST": "10000000",
    "V1_RATE_LIMIT_ADDRESS_PER_SECOND": "1000000",
    "V1_RATE_LIMIT_ADDRESS_BURST": "10000000",
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "FRAUD_QR_MAX_TX_PER_HOUR": "10000000",
    "FRAUD_P2P_MAX_TX_PER_HOUR": "10000000",
    "FRAUD_P2P_MAX_SUM_PER_HOUR": str(CREDIT),
    "KYC_L1_DAILY_MAX_CENTS": str(CREDIT),
}
