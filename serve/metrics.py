"""What Prometheus may read of a replica."""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve.service import Service

ROUTES = ("/v1/actions", "/v1/explain", "/v1/ensemble", "/v1/admin/record", "/healthz", "/readyz", "/metrics")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Every series names the replica, as each one only knows itself."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, service: Service) -> None:
        self.service, self.replica = service, str(os.getpid())
        self.registry = CollectorRegistry()
        labels = ("replica", "route", "status")
        self.requests = Counter("podracer_requests", "requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "podracer_request_seconds", "until the answer", labels[:2], buckets=SECONDS, registry=self.registry
        )
        self.decisions = Gauge("podracer_decisions", "by version", ("replica", "version"), registry=self.registry)
        self.waiting = Gauge("podracer_waiting", "requests in the queue", ("replica",), registry=self.registry)
        self.trouble = Gauge(
            "podracer_trouble", "1: does not serve what it was told to", ("replica",), registry=self.registry
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        route = path if path in ROUTES else "other"
        self.requests.labels(self.replica, route, str(status)).inc()
        self.seconds.labels(self.replica, route).observe(seconds)

    def text(self) -> bytes:
        for version, count in self.service.decided.items():
            self.decisions.labels(self.replica, version).set(count)
        self.waiting.labels(self.replica).set(self.service.waiting)
        self.trouble.labels(self.replica).set(bool(self.service.trouble))
        return generate_latest(self.registry)
