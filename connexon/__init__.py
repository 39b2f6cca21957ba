"""Connexon: one question, every stem-cell center, one answer.

import connexon

network = connexon.connect()
study = network.study(purpose="health")
answer = study.dataset("cell_lines").where("disease_term under 'Parkinson disease'").count(by=["type"])
print(answer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connexon.client.connecting import Network, connect
    from connexon.client.training.model import load_model
    from connexon.conditions.expression import col, descends_from, has

__version__ = "0.2.0"
__all__ = ["Network", "__version__", "col", "connect", "descends_from", "has", "load_model"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Loaded when first used, so that importing a part of the library does not load gRPC and the rest.
    if name in ("Network", "connect"):
        from connexon.client import connecting

        return getattr(connecting, name)
    if name in ("col", "descends_from", "has"):
        from connexon.conditions import expression

        return getattr(expression, name)
    if name == "load_model":
        from connexon.client.training import model

        return model.load_model
    raise AttributeError(f"module 'connexon' has no attribute {name!r}")
