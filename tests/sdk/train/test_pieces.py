"""Tensors that several processes wrote in pieces, and that any number of them reads."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.distributed.checkpoint import HuggingFaceStorageReader

from djepa.errors import CheckpointError
from djepa.train.pieces import OFFSETS, Piece, StoredPieces, write_pieces


def shares(tensors, size):
    """What each of `size` processes holds: rows as torch.chunk deals them out, and the first one all that has no rows."""
    held = [{} for _ in range(size)]
    for name, tensor in tensors.items():
        rows = -(-tensor.shape[0] // size) if tensor.ndim else 0
        for rank in range(size if tensor.ndim else 1):
            row = min(rank * rows, tensor.shape[0]) if tensor.ndim else 0
            part = tensor[row : row + rows].clone() if tensor.ndim else tensor.clone()
            held[rank][name] = Piece(part, row, tuple(tensor.shape))
    return held


def made(shapes):
    generator = torch.Generator().manual_seed(0)
    return {f"t{index}": torch.randn(shape, generator=generator) for index, shape in enumerate(shapes)}


@given(shapes=st.lists(st.lists(st.integers(1, 7), max_size=3), min_size=1, max_size=4), writers=st.integers(1, 4),
       readers=st.integers(1, 5))
def test_any_number_reads_what_any_number_wrote(tmp_path_factory, shapes, writers, readers):
    folder, tensors = tmp_path_factory.mktemp("pieces"), made(shapes)
    for rank, held in enumerate(shares(tensors, writers)):
        write_pieces(folder, "training", held, rank, writers)
    stored = StoredPieces(folder, "training")
    assert stored.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for held, blank in zip(shares(tensors, readers), shares({n: torch.zeros_like(t) for n, t in tensors.items()}, readers),
                           strict=True):
        stored.fill(blank)
        assert all(torch.equal(blank[name].data, piece.data) for name, piece in held.items())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in stored.read(tensors).items())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("size", [1, 3])
def test_torchs_own_checkpoint_reader_understands_the_files(tmp_path, size):
    import torch.distributed.checkpoint as dcp

    tensors = made([(5, 2), (2, 3, 2), (1,), ()])
    for rank, held in enumerate(shares(tensors, size)):
        write_pieces(tmp_path, "training", held, rank, size)
    read = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    dcp.load(read, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("lost", ["training-00001-of-00003.safetensors", "training-00003-of-00003.safetensors"])
def test_a_lost_part_is_missed(tmp_path, lost):
    for rank, held in enumerate(shares(made([(6, 2)]), 3)):
        write_pieces(tmp_path, "training", held, rank, 3)
    (tmp_path / lost).unlink()
    with pytest.raises(CheckpointError, match=r"not all parts.*2 of 3"):
        StoredPieces(tmp_path, "training")


def test_what_does_not_fit_is_named(tmp_path):
    write_pieces(tmp_path, "training", {"a": Piece.whole(torch.ones(2, 3))}, 0, 1)
    stored = StoredPieces(tmp_path, "training")
    with pytest.raises(CheckpointError, match=r"missing 'b'.*'a' has shape \[2, 3\] instead of \[2, 4\]"):
        stored.fill({"a": Piece.whole(torch.ones(2, 4)), "b": Piece.whole(torch.ones(1))})


@pytest.mark.parametrize("header", ["{", "[1]", json.dumps({"a": {}}), json.dumps({"a": {"saved_offsets": ["x"]}})])
def test_a_header_that_says_nothing_sensible_is_refused(tmp_path, header):
    save_file({"a": torch.ones(2)}, tmp_path / "training.safetensors", {OFFSETS: header})
    with pytest.raises(CheckpointError, match="where its pieces belong"):
        StoredPieces(tmp_path, "training")
