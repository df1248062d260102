"""What Prometheus reads at /metrics. A registry for each service, so that several can be in one process."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PEOPLE = (0, 1, 2, 4, 8, 16, 32)


class Metrics:
    """Requests by route and status, their time, people and batches; the queue and the jobs as they are now."""

    def __init__(self, waiting: Callable[[], float], jobs: Callable[[], float]) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter(
            "dpmesh_requests_total", "Answered requests.", ["method", "route", "status"], registry=own
        )
        self.seconds = Histogram(
            "dpmesh_request_seconds", "From the headers to the end of the answer.", ["route"],
            registry=own, buckets=_SECONDS,
        )  # fmt: skip
        self.people = Counter("dpmesh_people_total", "People in predicted images.", registry=own)
        self.images = Counter("dpmesh_images_total", "Predicted images.", registry=own)
        self.batch = Histogram(
            "dpmesh_batch_people",
            "People that went through the model together.",
            registry=own,
            buckets=_PEOPLE,
        )
        self.gone = Counter("dpmesh_clients_gone_total", "Requests whose client left early.", registry=own)
        Gauge("dpmesh_queue", "Images that are worked on or wait.", registry=own).set_function(waiting)
        Gauge("dpmesh_jobs", "Videos that are worked on or wait.", registry=own).set_function(jobs)

    def batch_done(self, people: int, images: int) -> None:
        """Called by the model's thread."""
        self.batch.observe(people)
        self.people.inc(people)
        self.images.inc(images)

    def request_done(self, method: str, route: str, status: int, seconds: float) -> None:
        """route: its template, so that clients cannot make new labels."""
        known = method if method in ("GET", "POST", "DELETE", "HEAD") else "other"
        self.requests.labels(known, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
