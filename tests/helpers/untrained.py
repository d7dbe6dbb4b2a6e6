"""The card of a network that has learnt nothing, for tests and benchmarks that need weights in a file."""

from typing import Any

from stream.files.weights import ModelCard


def untrained_card(config: dict[str, Any]) -> ModelCard:
    """Return the card of the default network with these settings; any number of photons suits it."""
    return ModelCard(
        name="untrained",
        network="physics",
        config=config,
        recipe={},
        seed=0,
        data="none",
        probe={},
        photons_per_frame=(1.0, 1e9),
    )
