"""Distributed training: ranks, collectives, and the rendezvous of restarted ranks."""

from util.distributed.world import World, choose_device, join_world

__all__ = ["World", "choose_device", "join_world"]
