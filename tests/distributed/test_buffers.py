"""Two gloo ranks exchange gradients in a training step, and buffers only when the model is wrapped."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from benchmarks.bench_ddp import broadcast_bytes
from models import create_model, list_models
from util.distributed.world import World

TINY = {"img_size": 16, "embed_dim": 24, "depth": 2, "decoder_embed_dim": 24, "decoder_depth": 1, "drop_path_rate": 0.5}


def run_rank(rank, port, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(rank)  # ranks start with different weights: wrapping must synchronise them
    model = create_model("mae_3d_vim_tiny_patch8", **TINY)
    with torch.no_grad():
        model.pos_embed += rank
    wrapped = World(rank, 2, torch.device("cpu")).wrap(model)
    volume = torch.randn(1, 4, 16, 16, 16)

    def step(wrapped):
        return lambda: wrapped(volume, 0.5).loss.backward()

    step(wrapped)()
    sent = broadcast_bytes(step(wrapped))
    by_default = broadcast_bytes(step(DistributedDataParallel(model)))
    state = torch.cat([x.detach().flatten().float() for x in [*model.parameters(), *model.buffers()]])
    gradient = torch.cat([x.grad.flatten() for x in model.parameters() if x.grad is not None])
    if rank == 1:
        dist.send(torch.cat([state, gradient]), 0)
    else:
        other = torch.empty(len(state) + len(gradient))
        dist.recv(other, 1)
        results.put((sent, by_default, torch.equal(other, torch.cat([state, gradient])), model.pos_embed.numel()))
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_are_synchronised_at_the_start_and_buffers_are_not_sent_again():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(run_rank, args=(port, results), nprocs=2)
    sent, by_default, agree, positions = results.get()
    assert sent == 0
    assert by_default >= 4 * positions
    assert agree


@pytest.mark.parametrize("name", [name for name in list_models() if name.endswith("_tiny_patch8")])
def test_no_buffer_changes_while_training(name):
    """Buffers are not synchronised again, so they must not change."""
    torch.manual_seed(0)
    model = create_model(name, img_size=16).train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    model(torch.randn(2, 4, 16, 16, 16))
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())
