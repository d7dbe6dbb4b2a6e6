"""The public door for a RunEngine: bluesky plans that follow the policy.

    from launch.plans import adaptive_fly_ptycho, adaptive_ptycho

The first moves and triggers point by point, the second flies a trajectory per batch. Importing them needs
bluesky and the clients of `stream.client`, nothing of the pipeline.
"""

from launch.plans.adaptive import adaptive_fly_ptycho, adaptive_ptycho

__all__ = ["adaptive_fly_ptycho", "adaptive_ptycho"]
