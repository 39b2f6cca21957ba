"""Trees of all centers put together: each center adds its own to those there were."""

from __future__ import annotations

from collections.abc import Iterable

import numpy
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedXgbBagging

from connexon.learning import forest
from connexon.learning.models import TREES


class Bagging(FedXgbBagging):
    """FedXgbBagging that takes all trees of a center: Flower's own takes one, whatever a center adds in a round."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The trees that were sent, and every center's after them in the order of the replies."""
        contents = [reply.content for reply in replies if not reply.has_error()]
        if not contents:
            return None, None
        whole = self.current_bst or b""
        for content in contents:
            whole = forest.joined(whole, content.array_records[self.arrayrecord_key][TREES].numpy().tobytes())
        arrays = ArrayRecord([numpy.frombuffer(whole, dtype=numpy.uint8)])
        return arrays, self.train_metrics_aggr_fn(contents, self.weighted_by_key)
