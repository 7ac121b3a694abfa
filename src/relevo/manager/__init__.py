"""Who runs what: a snapshot of the cluster in, a plan out (`plan`), and an executor that carries out this node's steps.

It must never know how liveness, permissions or a resource's operations come about: they arrive as facts, `Permission`s
and `agents`. Open `model.py` first, then `planner.py`.
"""
