"""Run by a Python that has the package xllamacpp: llama.cpp's own logits and tokens of a GGUF file.

Reads JSON from stdin: {"file": …, "texts": [ids …], "strings": [text …], "out": …}. Writes the logits of all texts, one
after the other, to `out` (.npy), and JSON to stdout: {"tokens": [ids …], "ends": [ids that end an answer]}.
The package's module carries llama.cpp's whole C interface (llama.h), which is called here by ctypes.
"""

import ctypes
import json
import sys
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int8, c_int32, c_ubyte, c_void_p
from pathlib import Path

import numpy as np
import xllamacpp


class Settings(Structure):
    """llama_model_params or llama_context_params: as large as either, passed on as llama.cpp's defaults."""

    _fields_ = [("bytes", c_ubyte * 512)]


class Batch(Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


FUNCTIONS = {
    "llama_model_default_params": (Settings,),
    "llama_context_default_params": (Settings,),
    "llama_model_load_from_file": (c_void_p, c_char_p, Settings),
    "llama_init_from_model": (c_void_p, c_void_p, Settings),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int32),
    "llama_batch_init": (Batch, c_int32, c_int32, c_int32),
    "llama_decode": (c_int32, c_void_p, Batch),
    "llama_get_logits_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_free": (None, c_void_p),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
}


def library() -> ctypes.CDLL:
    [path] = Path(xllamacpp.__file__).parent.glob("*.so")
    found = ctypes.CDLL(str(path))
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def logits_of(llama: ctypes.CDLL, model: int, ids: list[int], rows: int) -> np.ndarray:
    context = llama.llama_init_from_model(model, llama.llama_context_default_params())
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, id in enumerate(ids):
        batch.token[place], batch.pos[place], batch.logits[place] = id, place, 1
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
    if llama.llama_decode(context, batch):
        sys.exit("llama.cpp does not decode the text")
    shape = (rows,)
    found = [np.ctypeslib.as_array(llama.llama_get_logits_ith(context, n), shape).copy() for n in range(len(ids))]
    llama.llama_free(context)
    return np.stack(found)


def tokens_of(llama: ctypes.CDLL, vocab: int, text: str) -> list[int]:
    raw = text.encode()
    place = (c_int32 * (len(raw) + 8))()
    count = llama.llama_tokenize(vocab, raw, len(raw), place, len(place), False, True)
    return list(place[:count])


def main() -> None:
    asked, llama = json.load(sys.stdin), library()
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(asked["file"].encode(), llama.llama_model_default_params())
    if not model:
        sys.exit("llama.cpp does not load the file")
    vocab = llama.llama_model_get_vocab(model)
    rows = llama.llama_vocab_n_tokens(vocab)
    np.save(asked["out"], np.concatenate([logits_of(llama, model, ids, rows) for ids in asked["texts"]]))
    tokens = [tokens_of(llama, vocab, text) for text in asked["strings"]]
    ends = [id for id in range(rows) if llama.llama_vocab_is_eog(vocab, id)]
    json.dump({"tokens": tokens, "ends": ends}, sys.stdout)


main()
