"""What a process learns of the others from its launcher."""

import pytest

from djepa.errors import RecipeError, UsageError
from djepa.recipe import TrainSpec
from djepa.train.distributed.meeting import Place, _first_node, place
from djepa.train.engine import micro_batch_size

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "2", "SLURM_NTASKS": "6"}


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, None), (TORCHRUN, Place(3, 8, 1)), (SRUN, Place(5, 6, 2)), ({**SRUN, **TORCHRUN}, Place(3, 8, 1)),
    ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, None),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, None),  # a batch script, which srun did not start
])
def test_its_place(environment, expected):
    assert place(environment) == expected


@pytest.mark.parametrize(("nodes", "first"), [
    ("node7", "node7"), ("node[07-09,12],other", "node07"), ("a,b", "a"), ("rack1-node[3]", "rack1-node3"), ("n[3,5]", "n3"),
])
def test_the_first_of_slurms_nodes(nodes, first):
    assert _first_node(nodes) == first


@pytest.mark.parametrize(("batch", "micro", "processes", "expected"), [
    (64, None, 1, 64), (64, None, 4, 16), (64, 8, 4, 8), (6, 2, 3, 2),
])
def test_samples_of_a_forward_pass(batch, micro, processes, expected):
    assert micro_batch_size(TrainSpec(batch_size=batch, micro_batch_size=micro), processes) == expected


@pytest.mark.parametrize(("batch", "micro", "processes", "told"), [
    (64, None, 3, r"batch_size=63 or 66 can, or 2 or 4 processes"), (2, None, 3, r"batch_size=3 can, or 2 processes"),
    (64, 32, 4, r"micro_batch_size=16 does"), (24, 8, 2, r"micro_batch_size=6 or 12 does"),
])
def test_batches_that_do_not_come_out_even(batch, micro, processes, told):
    with pytest.raises(UsageError, match=told):
        micro_batch_size(TrainSpec(batch_size=batch, micro_batch_size=micro), processes)


def test_micro_batches_that_do_not_divide_the_batch(make_recipe):
    with pytest.raises(RecipeError, match="micro_batch_size=3 must divide batch_size=8; 2 or 4 would"):
        make_recipe("train.micro_batch_size=3")
