import pytest
import torch
from torch.utils.data import Dataset

from util.distributed.world import World
from util.training.loader import ITEM, STEP, eval_loader, names_of_steps, seed_all, seed_of, start_epoch, train_loader


class Numbers(Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, index):
        return torch.tensor(index), torch.rand(())


def loader(rank=0, size=1, batch_size=4, workers=0):
    world = World(rank, size, torch.device("cpu"))
    return train_loader(Numbers(), batch_size=batch_size, world=world, seed=3, num_workers=workers, pin_memory=False)


def batches(loader, epoch):
    start_epoch(loader, epoch)
    return [(index.tolist(), noise.tolist()) for index, noise in loader]


def test_epochs_differ_and_repeat_exactly():
    train = loader()
    first, second = batches(train, 0), batches(train, 1)
    assert first != second  # a single process reshuffles too
    assert batches(loader(), 1) == second  # a resumed process draws the same


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    alone = [set(index) for index, _ in batches(loader(batch_size=4), 0)]
    pair = [batches(loader(rank, 2, batch_size=2), 0) for rank in range(2)]
    assert [set(a) | set(b) for (a, _), (b, _) in zip(*pair, strict=True)] == alone


def test_the_rest_of_an_epoch_is_the_same_with_any_number_of_workers():
    whole = batches(loader(batch_size=2), 1)
    for workers in (0, 2):
        rest = loader(batch_size=2, workers=workers)
        for first in (3, 1):  # persistent workers hear of the new place
            start_epoch(rest, 1, first)
            assert [(index.tolist(), noise.tolist()) for index, noise in rest] == whole[first:]


def test_seeds_and_epochs_share_no_draws():
    train = loader()
    drawn = [value for epoch in range(3) for _, values in batches(train, epoch) for value in values]
    assert len(set(drawn)) == len(drawn)
    assert seed_of(1, 0, 3, ITEM) != seed_of(1, 0, 3, 0, STEP)


def test_items_of_steps_are_named_for_all_ranks():
    pair = [loader(rank, 2, batch_size=2) for rank in range(2)]
    for train in pair:
        start_epoch(train, 5)
    seen = [[index.tolist() for index, _ in train] for train in pair]
    assert names_of_steps(pair[1], range(1, 2)) == sorted(str(index) for rank in seen for index in rank[1])


def test_workers_draw_different_augmentation():
    noise = [value for _, values in batches(loader(workers=2), 0) for value in values]
    assert len(set(noise)) == len(noise)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"--batch_size 6 on 2 rank\(s\) needs 12 subjects, the training data has 11"):
        loader(0, 2, batch_size=6)


def test_evaluation_shows_every_item_once_in_order():
    assert [i for index, _ in eval_loader(Numbers(), batch_size=4, num_workers=0) for i in index.tolist()] == list(
        range(11)
    )


def test_seed_all_repeats():
    draws = []
    for entropy in ((1, 2), (1, 2), (1, 3)):
        seed_all(*entropy)
        draws.append(float(torch.rand(())))
    assert draws[0] == draws[1] != draws[2]
