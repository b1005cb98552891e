"""Job slots of a Ray that was joined: whether there are any, or may come to be."""

from __future__ import annotations

import ray
from ray._private.state import state

from cluster.coordinator import COORDINATOR_CPUS
from dubbing.errors import ClusterError

RESOURCE = "job_slot"


def lacking(address: str) -> str:
    """A sentence for the user when no node has a job slot; empty when one has.

    Nodes may come: by hand, or from an autoscaler that starts with none. Only where the cluster has told Ray which nodes
    it can ever have, and none of them has a slot, is it certain that no job will run: then raises ClusterError.
    """
    if ray.cluster_resources().get(RESOURCE):
        return ""
    most = state.get_max_resources_from_cluster_config()
    if most is not None and not most.get(RESOURCE):
        raise ClusterError(detail=f"no type of node that the Ray at {address} can have offers the resource {RESOURCE}")
    return f"No node of the Ray at {address} offers the resource {RESOURCE} yet: jobs wait until one does."


def ask_for_one() -> ray.ObjectRef:
    """Have the autoscaler see that a slot is wanted; what comes back ends when there is one, or when it is cancelled."""
    return _nothing.remote()


@ray.remote(num_cpus=COORDINATOR_CPUS, resources={RESOURCE: 1}, max_retries=0)  # type: ignore[untyped-decorator]
def _nothing() -> None:
    """Done as soon as it begins."""
