"""Keys of backups."""

from pydantic import BaseModel

from core.settings.kinds import key


class Backups(BaseModel):
    """Backups."""

    backup_to: str = key(
        "",
        "Place of backups, a folder or s3://bucket/folder (with AWS_ACCESS_KEY_ID and the like); unset: `backups` in"
        " the state directory",
    )
