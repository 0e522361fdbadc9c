"""Ranks agree on a request, such as "save" or "stop", without waiting for each other."""

import torch
import torch.distributed as dist

from util.distributed.world import World


class Consensus:
    """The largest request of any rank. Call it once per update on every rank: all ranks get the same answer.

    On one process the answer is the request itself. On several it is the largest request of the previous call, because
    the reduction runs asynchronously during the update in between. It uses gloo, so the device does not wait for it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: tuple[torch.Tensor, dist.Work] | None = None

    def __call__(self, request: int) -> int:
        if self.world.size == 1:
            return request
        agreed = 0
        if self.pending is not None:
            number, work = self.pending
            work.wait()
            agreed = int(number)
        number = torch.tensor(request)
        work = dist.all_reduce(number, dist.ReduceOp.MAX, group=self.world.control, async_op=True)
        assert work is not None
        self.pending = number, work
        return agreed
