"""Files' own pages as memory, in any order; and weights that are such memory."""

import os
import sys
from itertools import accumulate
from mmap import PAGESIZE
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.errors import InputError
from roslin.model import Decoder, load_decoder
from roslin.model.pages import Piece, map_piece, map_stacked, reading_ahead
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama
from weight_folders import rewrite

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="puts pages together on Linux only")
WIDE = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    for number in range(2):
        (folder / str(number)).write_bytes(os.urandom(20 * PAGESIZE + 77))
    return [folder / str(number) for number in range(2)]


def content(piece: Piece) -> bytes:
    return piece.path.read_bytes()[piece.start : piece.start + piece.size]


@ON_LINUX
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_pieces_of_files_in_any_order_are_one_memory(files: list[Path], data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(PAGESIZE, 3 * PAGESIZE), min_size=1, max_size=6))
    begin = data.draw(st.integers(0, PAGESIZE - 1))
    pieces = []
    for size, at in zip(sizes, accumulate(sizes, initial=begin), strict=False):
        path = data.draw(st.sampled_from(files))
        page = data.draw(st.integers(0, 15))
        pieces.append(Piece(path, page * PAGESIZE + at % PAGESIZE, size))
    found = map_stacked(pieces)
    assert found is not None
    memory, start = found
    assert memory[start : start + sum(sizes)] == b"".join(map(content, pieces))
    before = [path.read_bytes() for path in files]
    memory[start : start + sum(sizes)] = bytes(sum(sizes))
    assert [path.read_bytes() for path in files] == before, "what is written stays in memory"
    assert memory[start : start + sum(sizes)] == bytes(sum(sizes))


def test_pieces_whose_pages_do_not_meet(files: list[Path]) -> None:
    one, other = Piece(files[0], 5, PAGESIZE), Piece(files[1], 6, PAGESIZE)
    assert map_stacked([one, other]) is None
    assert map_stacked([Piece(files[0], 0, PAGESIZE + 1), Piece(files[0], PAGESIZE, PAGESIZE)]) is None
    assert map_stacked([Piece(files[0], 0, 100), Piece(files[1], 100, 2 * PAGESIZE)]) is None, "less than a page"


@pytest.mark.parametrize("start", [0, 1, PAGESIZE, 3 * PAGESIZE + 9])
def test_one_piece(files: list[Path], start: int) -> None:
    memory, at = map_piece(Piece(files[0], start, PAGESIZE + 3))
    assert memory[at : at + PAGESIZE + 3] == content(Piece(files[0], start, PAGESIZE + 3))


def test_a_file_that_has_become_shorter_is_told(files: list[Path]) -> None:
    beyond = Piece(files[0], 20 * PAGESIZE, PAGESIZE)
    with pytest.raises(InputError, match="0 was cut short while it was being loaded"):
        map_piece(beyond)
    with pytest.raises(InputError, match="0 was cut short while it was being loaded"):
        map_stacked([Piece(files[0], 0, PAGESIZE), beyond])


@ON_LINUX
def test_memory_goes_back_when_it_is_done_with(files: list[Path]) -> None:
    found = map_stacked([Piece(files[0], 5 * PAGESIZE + 8, PAGESIZE), Piece(files[1], 8, PAGESIZE)])
    assert files[0].as_posix() in Path("/proc/self/maps").read_text()
    del found
    assert files[0].as_posix() not in Path("/proc/self/maps").read_text()


def test_reading_ahead_leaves_errors_alone(files: list[Path], tmp_path: Path) -> None:
    with reading_ahead([*files, tmp_path / "none", tmp_path]):
        pass
    with pytest.raises(KeyError), reading_ahead(files):
        raise KeyError


def copied(decoder: Decoder, folder: Path) -> list[str]:
    """The parameters whose memory is not that of the folder's files."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(folder) in line:
            begin, end = line.split()[0].split("-")
            spans.append(range(int(begin, 16), int(end, 16)))
    return [n for n, p in decoder.named_parameters() if not any(p.data_ptr() in span for span in spans)]


@ON_LINUX
def test_weights_are_in_the_files_own_pages(tmp_path: Path) -> None:
    """Stacked ones too; what is smaller than a page and cut up is copied: the biases of GPT-NeoX's heads."""
    tiny_gpt_neox(tmp_path / "neox", **WIDE)
    biases = [f"blocks.{layer}.qkv.bias" for layer in range(3)]
    assert copied(load_decoder(tmp_path / "neox"), tmp_path / "neox") == biases
    tiny_gptj(tmp_path / "gptj", n_embd=256)
    assert copied(load_decoder(tmp_path / "gptj"), tmp_path / "gptj") == []
    tiny_llama(tmp_path / "llama", **{**WIDE, "head_dim": 64})
    assert copied(load_decoder(tmp_path / "llama"), tmp_path / "llama") == []
    assert len(copied(load_decoder(tmp_path / "llama", dtype=torch.bfloat16), tmp_path / "llama")) == 21


@pytest.mark.parametrize("header", range(0, 4096, 776))
def test_stacked_weights_are_right_wherever_the_header_ends(tmp_path: Path, header: int) -> None:
    """Where the numbers begin decides which pages are shared and must be copied."""
    for kind, maker in (("neox", tiny_gpt_neox), ("llama", tiny_llama)):
        oracle = maker(tmp_path / kind, **WIDE)
        rewrite(tmp_path / kind, dict, note="x" * header)
        decoder = load_decoder(tmp_path / kind)
        state = oracle.state_dict()
        for layer, block in enumerate(decoder.blocks):
            if kind == "neox":
                theirs = state[f"gpt_neox.layers.{layer}.attention.query_key_value.weight"]
                theirs = theirs.view(4, 3, 64, 256).transpose(0, 1).reshape(768, 256)
            else:
                theirs = torch.cat([state[f"model.layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv"])
            assert torch.equal(block.qkv.weight, theirs)


def test_numbers_that_begin_at_an_odd_byte(tmp_path: Path) -> None:
    """safetensors pads its header; files by others need not."""
    oracle = tiny_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    path.write_bytes((size + 1).to_bytes(8, "little") + content[8 : 8 + size] + b" " + content[8 + size :])
    decoder = load_decoder(tmp_path)
    assert torch.equal(decoder.embedding.weight, oracle.state_dict()["model.embed_tokens.weight"])
    assert all(parameter.data_ptr() % 4 == 0 for parameter in decoder.parameters())
