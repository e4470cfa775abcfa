"""The table of benchmarks/gateway.py: medians of the rounds, ratios to baton, and what makes a figure doubtful."""

import statistics
from dataclasses import dataclass, field

from load.fleet import MIN_READS_PER_EVENT, STALL_MS, Counted
from load.routers import Router

MAX_FOREIGN_CORES = 0.25
"""Others' work above which a run is noise: it shares our caches and our cores."""


@dataclass
class Row:
    """What was measured of one router."""

    router: Router
    short: list[Counted] = field(default_factory=list)
    long: list[Counted] = field(default_factory=list)
    paced: list[Counted] = field(default_factory=list)
    ttft: list[Counted] = field(default_factory=list)
    legs: list[float] = field(default_factory=list)
    """Requests to prefill engines and to the others, a request."""
    memory_mib: tuple[float, float] = (0.0, 0.0)
    num_prompts: int = 0

    @property
    def fed(self) -> list[Counted]:
        """Paced rounds in which the router was not kept from its core."""
        return [counted for counted in self.paced if counted.reads_per_event >= MIN_READS_PER_EVENT]

    @property
    def short_ms(self) -> float:
        return _median([counted.ms_per_answer for counted in self.short])

    @property
    def long_ms(self) -> float:
        return _median([counted.ms_per_answer for counted in self.long])

    @property
    def paced_ms(self) -> float:
        return _median([counted.ms_per_1000_events for counted in self.fed or self.paced])

    @property
    def foreign_cores(self) -> list[float]:
        return [c.foreign_cores for c in [*self.short, *self.long, *self.paced, *self.ttft]]

    @property
    def ttft_ms(self) -> list[float]:
        return sorted(ms for counted in self.ttft for ms in counted.ttft_ms)

    def spread(self) -> str:
        """Lowest and highest round of each figure: the share that is noise."""
        figures = {
            "short": [c.ms_per_answer for c in self.short],
            "4k": [c.ms_per_answer for c in self.long],
            "paced": [c.ms_per_1000_events for c in self.fed or self.paced],
        }
        texts = [f"{name} {min(values):.3f}-{max(values):.3f}" for name, values in figures.items() if values]
        return f"{', '.join(texts)}; paced rounds kept {len(self.fed)} of {len(self.paced)}"


def markdown(rows: list[Row]) -> str:
    """One line a router, cheapest events first, after them those that did not run."""
    baton = next((row for row in rows if row.router.name == "baton" and row.paced), None)
    head = (
        "| router | ms CPU per short request | ms CPU per 4,096-token request | ms CPU per 1,000 paced events "
        "| reads/event | added TTFT p50 / p90 / p99, ms | stalls > 35 ms | RSS / HWM, MiB | legs/request |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    ran = sorted((row for row in rows if not row.router.reason), key=lambda row: row.paced_ms)
    lines = [_line(row, baton) for row in ran]
    lines += [f"| {r.router.label} | did not run: {_cell(r.router.reason)} |||||||||" for r in rows if r.router.reason]
    return "\n".join([head, *lines])


def is_noisy(rows: list[Row]) -> bool:
    """Whether others worked so much that no figure may be quoted."""
    shares = [share for row in rows for share in row.foreign_cores]
    return bool(shares) and statistics.median(shares) > MAX_FOREIGN_CORES


def _line(row: Row, baton: Row | None) -> str:
    star = "" if row.fed else "*"
    reads = _median([counted.reads_per_event for counted in row.fed or row.paced])
    ms = row.ttft_ms
    stalls = f"{sum(value > STALL_MS for value in ms)} of {len(ms)}"
    ttft = " / ".join(f"{quantile(ms, share):.2f}" for share in (0.5, 0.9, 0.99)) if ms else "-"
    memory = f"{row.memory_mib[0]:.0f} / {row.memory_mib[1]:.0f}" if row.num_prompts else "-"
    memory += f" (after {row.num_prompts:,})" if row.num_prompts and row.router.memory_share < 1 else ""
    legs = " + ".join(f"{legs:.2f}" for legs in row.legs) if row.router.is_comparable and row.legs else "-"
    cells = [
        row.router.label,
        _with_ratio(row.short_ms, baton and baton.short_ms, 3),
        _with_ratio(row.long_ms, baton and baton.long_ms, 3),
        _with_ratio(row.paced_ms, baton and baton.paced_ms, 2, star),
        f"{reads:.2f}",
        ttft,
        stalls,
        memory,
        legs,
    ]
    return f"| {' | '.join(cells)} |"


def quantile(ordered: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[round(share * (len(ordered) - 1))]


def _with_ratio(value: float, reference: float | None, digits: int, star: str = "") -> str:
    ratio = f" ({value / reference:.2f}x)" if reference else ""
    return f"{value:.{digits}f}{star}{ratio}"


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
