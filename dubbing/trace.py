"""Where the time of a job went: spans, their union per stage, and a Chrome trace (chrome://tracing, Perfetto)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work."""

    stage: str
    name: str
    start_s: float
    """Since the trace began."""
    end_s: float


@dataclass
class Trace:
    """The spans of one job."""

    spans: list[Span] = field(default_factory=list)
    _zero: float = field(default_factory=time.monotonic)

    @contextmanager
    def span(self, stage: str, name: str) -> Iterator[None]:
        """Record the time the body takes, also when it fails."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spans.append(Span(stage, name, start - self._zero, time.monotonic() - self._zero))

    def elapsed_s(self) -> float:
        """Seconds since the trace began."""
        return time.monotonic() - self._zero

    def busy_s(self, stage: str | None = None) -> float:
        """Seconds in which at least one span of the stage (of any stage when None) was open."""
        total, reached = 0.0, float("-inf")
        for span in sorted((s for s in self.spans if stage in (None, s.stage)), key=lambda s: s.start_s):
            total += max(0.0, span.end_s - max(span.start_s, reached))
            reached = max(reached, span.end_s)
        return total

    def window_s(self, stage: str) -> float:
        """Seconds from the stage's first start to its last end: busy time plus waiting for other stages."""
        spans = [s for s in self.spans if s.stage == stage]
        return max(s.end_s for s in spans) - min(s.start_s for s in spans) if spans else 0.0

    def chrome(self) -> str:
        """The Chrome trace event format, one thread per stage and lane of overlapping spans."""
        events: list[dict[str, object]] = []
        lanes: dict[tuple[str, int], float] = {}
        for span in sorted(self.spans, key=lambda s: s.start_s):
            lane = 0
            while lanes.get((span.stage, lane), -1.0) > span.start_s:
                lane += 1
            lanes[span.stage, lane] = span.end_s
            events.append(
                {
                    "name": span.name,
                    "cat": span.stage,
                    "ph": "X",
                    "pid": 1,
                    "tid": f"{span.stage} {lane}" if lane else span.stage,
                    "ts": round(span.start_s * 1e6),
                    "dur": round((span.end_s - span.start_s) * 1e6),
                }
            )
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, ensure_ascii=False, indent=0)
