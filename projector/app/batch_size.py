"""How many messages a batch may have: more of them while the daemon is far behind, if that saves work.

Postgres writes an endpoint once per batch, however many events name it.
So a large batch costs less per event if the same endpoints come again and again, and only takes memory if they do not.
"""

from projector.app.projection import Outcome

_BATCHES_LEFT = 8
"""A batch has at most the lag divided by this, so that batches are small again when the lag is."""
_REPEATED = 1.1
"""How often a batch must name each endpoint, on average, for a larger one to be worth its memory."""
_MOST_COMMIT_S = 2.0
"""A stop waits for the commit, and Postgres ends a statement after a minute."""
_MOST_REGISTERS = 250_000
"""About 50 MB; two batches have loaded their endpoints at the same time."""


class BatchSize:
    """The size of the next batch, which follows the lag and what the latest batch cost."""

    def __init__(self, *, least: int, most: int) -> None:
        """Begin with small batches; `least` is the size of a delivery, and `most` that of the largest batch."""
        self._least = least
        self._most = max(least, most)
        self._worthwhile = least

    def limit(self, lag: int) -> int:
        """Return how many messages joined deliveries may have together; 0 if deliveries are not to be joined."""
        size = min(self._worthwhile, lag // _BATCHES_LEFT)
        return size if size > self._least else 0

    def adapt(self, outcome: Outcome) -> None:
        """Adapt the size to what a committed batch was like; it at most doubles."""
        if outcome.refolded:
            # Finding a message that Postgres rejects costs several times as much as the batch.
            self._worthwhile = self._least
        elif outcome.messages:
            repeats = outcome.named > _REPEATED * outcome.endpoints
            limits = [self._most, self._worthwhile * 2 if repeats else self._worthwhile // 2]
            for cost, most in ((outcome.seconds["commit"], _MOST_COMMIT_S), (outcome.registers, _MOST_REGISTERS)):
                if cost:
                    limits.append(int(most * outcome.messages / cost))
            self._worthwhile = max(self._least, min(limits))
