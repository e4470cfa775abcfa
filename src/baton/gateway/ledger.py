"""Where the time of one request went: parts that add up to the total, to the last microsecond."""

from __future__ import annotations

PARTS = (
    "queue",
    "failed_tries",
    "route",
    "prefill",
    "handover",
    "transfer_and_first_decode",
    "transfer_and_decode",
    "decode",
)
"""Every part a ledger can have, in the order in which they happen; the last three exclude each other."""

_TWO_LEGS = (
    "queue;dur=%.3f, route;dur=%.3f, prefill;dur=%.3f, handover;dur=%.3f, transfer_and_first_decode;dur=%.3f, "
    "total;dur=%.3f"
)


class Ledger:
    """The times at which one request got from stage to stage: seconds of one clock, 0 for what has not happened.

    The clock is to be `time.monotonic`, not the loop's `time()`: uvloop rounds that to milliseconds.

    arrived        the request is here, whole
    admitted       it has left the admission queue
    retried        the last try that failed was given up
    prefill_sent   the prefill leg is on its way; 0 where decode computes the prompt itself
    prefilled      the prefill leg's answer is here, whole
    decode_sent    the decode leg is on its way
    first_byte     the first byte of a stream is here; 0 where the answer is no stream
    ended          the answer is whole, or the request was given up

    Parts, of the time to a stream's first byte or to the end of an answer that is no stream:

    queue                      reading the request and waiting for admission
    failed_tries               from admission to the end of the last try that failed; absent without one
    route                      choosing ranks and writing the first leg
    prefill                    the prefill leg
    handover                   the gateway's own time between the legs
    transfer_and_first_decode  the decode leg to its first byte: its queue, the KV transfer, the first step
    transfer_and_decode        the decode leg to its end, where the answer is no stream
    decode                     the only leg, to its first byte or end, where decode computes the prompt itself

    The decode leg is not split further: vLLM says on its wire nothing of when the KV had arrived. One started with
    --enable-per-request-metrics names its queue time and its time to the first token, but only beside the usage, after
    a stream's last token, and its transfer is in neither by name.
    """

    __slots__ = (
        "admitted", "arrived", "decode_sent", "ended", "first_byte", "prefill_sent", "prefilled", "retried",
    )  # fmt: skip

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        self.admitted = self.retried = self.prefill_sent = self.prefilled = 0.0
        self.decode_sent = self.first_byte = self.ended = 0.0

    def retry(self, now: float) -> None:
        """A try has failed before its first byte and another follows: what is measured starts anew."""
        self.retried = now
        self.prefill_sent = self.prefilled = self.decode_sent = self.ended = 0.0

    def fork(self) -> Ledger:
        """A ledger of one of several generations of this request, at the same point."""
        other = Ledger(self.arrived)
        other.admitted, other.retried = self.admitted, self.retried
        other.prefill_sent, other.prefilled, other.decode_sent = self.prefill_sent, self.prefilled, self.decode_sent
        return other

    @property
    def ttft_s(self) -> float:
        """From arrival to a stream's first byte."""
        return self.first_byte - self.arrived

    @property
    def elapsed_s(self) -> float:
        """From arrival to the end."""
        return self.ended - self.arrived

    def parts_us(self) -> list[tuple[str, int]]:
        """The parts there are, in order, in whole microseconds; they sum to the total, rounded once.

        A request that ended early has the parts it came to; the last of them goes on to its end.
        """
        arrived, taken, parts = self.arrived, 0, []
        for name, until in self.spans():
            upto = round((until - arrived) * 1e6)
            parts.append((name, upto - taken))
            taken = upto
        return parts

    def spans(self) -> list[tuple[str, float]]:
        """The parts there are, each with the time at which it ended; it began when the one before it did."""
        end = self.first_byte or self.ended
        if not self.admitted:
            return [("queue", end)]
        spans = [("queue", self.admitted)]
        if self.retried:
            spans.append(("failed_tries", self.retried))
        if self.prefill_sent:
            spans.append(("route", self.prefill_sent))
            if not self.prefilled:
                spans.append(("prefill", end))
            elif not self.decode_sent:
                spans += (("prefill", self.prefilled), ("handover", end))
            else:
                last = "transfer_and_first_decode" if self.first_byte else "transfer_and_decode"
                spans += (("prefill", self.prefilled), ("handover", self.decode_sent), (last, end))
        elif self.decode_sent:
            spans += (("route", self.decode_sent), ("decode", end))
        else:
            spans.append(("route", end))
        return spans

    def server_timing(self) -> str:
        """The value of a `Server-Timing` header: milliseconds with three decimals, parts first, then their total.

        Source   W3C Server Timing, 2: `name;dur=milliseconds`
        """
        two_legs = self.admitted and self.prefill_sent and self.prefilled and self.decode_sent and self.first_byte
        if two_legs and not self.retried:  # as below, in half the time: nearly every stream is one
            arrived = self.arrived
            admitted, sent = round((self.admitted - arrived) * 1e6), round((self.prefill_sent - arrived) * 1e6)
            prefilled = round((self.prefilled - arrived) * 1e6)
            handed_over = round((self.decode_sent - arrived) * 1e6)
            total = round((self.first_byte - arrived) * 1e6)
            return _TWO_LEGS % (
                admitted / 1000, (sent - admitted) / 1000, (prefilled - sent) / 1000, (handed_over - prefilled) / 1000,
                (total - handed_over) / 1000, total / 1000,
            )  # fmt: skip
        parts = self.parts_us()
        parts.append(("total", sum([part_us for _, part_us in parts])))
        return ", ".join([f"{name};dur={part_us / 1000:.3f}" for name, part_us in parts])
