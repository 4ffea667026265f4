"""What Prometheus may read at /metrics. A registry per app, so that several can live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The server's counters; `registry` is what /metrics prints."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ffaa_requests", "Answers by route and status", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ffaa_request_seconds", "From a request's head to its answer", ["route"], buckets=SECONDS, registry=registry
        )
        self.rejected = Counter("ffaa_rejected", "Requests refused, by code", ["code"], registry=registry)
        self.queue = Gauge("ffaa_queue_depth", "Photos accepted and not answered yet", registry=registry)
        self.batch = Histogram(
            "ffaa_batch_faces", "Faces per run of the models", buckets=(1, 2, 3, 4, 5, 6, 7, 8, 16), registry=registry
        )
        self.stages = Histogram(
            "ffaa_stage_seconds", "read: a photo, with finding faces; wait: for the models; judge: a batch",
            ["stage"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.faces = Counter("ffaa_faces", "Faces judged", registry=registry)
        self.dropped = Counter("ffaa_dropped", "Photos that left the queue unjudged", ["reason"], registry=registry)
        self.job_files = Counter("ffaa_job_files", "Files of jobs that ended", ["outcome"], registry=registry)
        ProcessCollector(registry=registry)
