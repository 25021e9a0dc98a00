"""What facts are called when people read them."""

from __future__ import annotations

from modelpack.documents.config import Remark

REMARKS = {
    Remark.CHAT_TEMPLATE: "The GGUF has a chat template and the model gets none of its own: Ollama from 0.30 "
    "on uses the GGUF's; older ones send the bare prompt and answer poorly.",
    Remark.NO_ARCHITECTURE: "The GGUF does not say its architecture: Ollama cannot run it.",
    Remark.NO_TENSORS: "The GGUF holds no tensors (a vocabulary?): there is nothing to run.",
    Remark.SCATTERED: "The GGUF's tensors do not follow one another: llama.cpp refuses such a file.",
    Remark.SERVER_QUANTIZES: "The GGUF was converted from FP8: a load by create makes Q8_0 of it.",
    Remark.UNKNOWN_TENSORS: "The GGUF has tensors of types that modelpack does not know: whether the file is "
    "whole was not checked.",
}
"""Warnings on pack, by remark; the others are said elsewhere, or are no warning."""

SAME = {
    ("bytes", True): "the same bytes, the same ID",
    ("bytes", False): "the same ID; not all of its bytes were looked at",
    ("blobs", True): "the same blobs; manifest and ID are this old server's own",
    ("blobs", False): "the same blobs by name; manifest and ID are this old server's own",
    ("meaning", True): "the same meaning; the server made it, with an ID of its own",
    ("meaning", False): "the same meaning; the server made it, with an ID of its own",
}
"""What a receipt's `same` means, by whether every byte was seen; with a way before it, no wider than 80."""
