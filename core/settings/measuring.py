"""Keys of the metrics."""

from pydantic import BaseModel

from core.settings.kinds import key


class Measuring(BaseModel):
    """The metrics."""

    prometheus_multiproc_dir: str = key(
        "",
        "Folder in which the processes of one port share their metrics; the supervisor sets it for its children",
    )
    metrics_interval_secs: float = key(
        5.0,
        "Least time between two reads of the gauges that a process asks the database for when it is scraped",
        unit="seconds",
        ge=0,
        le=300,
    )
    worker_metrics_port: int = key(
        0,
        "Port of APP_HOST on which the worker shows its own metrics to anybody; 0: none",
        ge=0,
        le=65535,
    )
