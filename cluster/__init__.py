"""The road over Ray: the only code that imports ray. `dubbing` gets here by the entry point group `dubbing.cluster`.

Importing `cluster` or `cluster.road` does not import ray: Ray reads part of its environment when it is imported,
and `cluster.local` sets that environment first.
"""
