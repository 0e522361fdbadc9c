"""Ranks agree on a wish, such as "save" or "stop", without waiting for each other in the step where one has it."""

import torch
import torch.distributed as dist

from util.distributed.world import World


class Agreement:
    """Call it once per update on every rank: the largest wish of any rank, the same on all ranks at the same call.

    On one process that is the wish itself. On several it is that of the previous call: the numbers travel, over gloo
    and so without the device, while the update in between is computed.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.on_its_way: tuple[torch.Tensor, dist.Work] | None = None

    def __call__(self, wish: int) -> int:
        if self.world.size == 1:
            return wish
        agreed = 0
        if self.on_its_way is not None:
            number, work = self.on_its_way
            work.wait()
            agreed = int(number)
        number = torch.tensor(wish)
        work = dist.all_reduce(number, dist.ReduceOp.MAX, group=self.world.control, async_op=True)
        assert work is not None
        self.on_its_way = number, work
        return agreed
