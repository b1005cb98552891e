"""Job slots of a Ray that was joined: whether there are any, or may come to be."""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray._private.state import state

from cluster.coordinator import COORDINATOR_CPUS
from dubbing.errors import ClusterError

RESOURCE = "job_slot"


def lacking(address: str) -> str:
    """`verdict` on the Ray that this process has joined."""
    return verdict(address, ray.cluster_resources(), state.get_max_resources_from_cluster_config())


def verdict(address: str, here: Mapping[str, float], most: Mapping[str, float] | None) -> str:
    """A sentence for the user when no node has a job slot; empty when one has.

    `here`: resources of the nodes there are; `most`: of all the nodes that the cluster's description of itself allows,
    None when it has given none. Nodes may come by hand, or from an autoscaler that begins with none. Raises ClusterError
    when none of those that can come has a slot.
    """
    if here.get(RESOURCE):
        return ""
    if most is not None and not most.get(RESOURCE):
        raise ClusterError(detail=f"no type of node that the Ray at {address} can have offers the resource {RESOURCE}")
    return f"No node of the Ray at {address} offers the resource {RESOURCE} yet: jobs wait until one does."


def ask_for_one() -> ray.ObjectRef:
    """Have the autoscaler see that a slot is wanted; what comes back ends when there is one, or when it is cancelled."""
    return _nothing.remote()


@ray.remote(num_cpus=COORDINATOR_CPUS, resources={RESOURCE: 1}, max_retries=0)  # type: ignore[untyped-decorator]
def _nothing() -> None:
    """Done as soon as it begins."""
