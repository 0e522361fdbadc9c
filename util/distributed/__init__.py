"""One process or many: ranks, collectives, and how restarted ranks meet."""

from util.distributed.world import World, choose_device, join_world

__all__ = ["World", "choose_device", "join_world"]
