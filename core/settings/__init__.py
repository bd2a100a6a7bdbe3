"""One frozen settings object, read once at start. `python -m core.settings` prints `.env.example`."""

from core.settings.kinds import Dsn, Secret, mask_url
from core.settings.load import Settings, SettingsError, load_settings

__all__ = ["Dsn", "Secret", "Settings", "SettingsError", "load_settings", "mask_url"]
