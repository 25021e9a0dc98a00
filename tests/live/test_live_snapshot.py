"""A Hugging Face snapshot, with its cache's links, becomes on the server what `ollama create` makes of it."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelpack.hands.ollama import Ollama

from .test_live_modelfile import ollama_creates, shown, we_create

pytestmark = pytest.mark.live

WIDTH, FEED, VOCABULARY = 64, 128, 300


def safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A file of F32 tensors of *shapes*, of small random numbers."""
    chance, header, data = random.Random(path.name), {}, b""
    for name, shape in shapes.items():
        count = 1
        for length in shape:
            count *= length
        raw = struct.pack(f"<{count}f", *(chance.uniform(-0.05, 0.05) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (len(data), len(data) + len(raw))}
        data += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def llama(folder: Path) -> None:
    """A llama of one block as its makers would publish it; it is converted, but says nothing of sense."""
    folder.mkdir(parents=True)
    attention = {f"self_attn.{one}_proj": (WIDTH, WIDTH) for one in "qkvo"}
    feed = {"mlp.gate_proj": (FEED, WIDTH), "mlp.up_proj": (FEED, WIDTH), "mlp.down_proj": (WIDTH, FEED)}
    norms = {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
    block = {f"model.layers.0.{name}.weight": shape for name, shape in {**attention, **feed, **norms}.items()}
    vocabulary = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "lm_head.weight": (VOCABULARY, WIDTH)}
    safetensors(folder / "model.safetensors", {**vocabulary, "model.norm.weight": (WIDTH,), **block})
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": FEED,
        "vocab_size": VOCABULARY, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    words = [chr(0x100 + number) for number in range(256)]
    added = [{"id": number, "content": f"<x{number}>", "special": True} for number in range(256, VOCABULARY)]
    tokenizer = {
        "added_tokens": added,
        "model": {"type": "BPE", "vocab": {word: place for place, word in enumerate(words)}, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<x256>", "eos_token": "<x257>"}))


def test_a_snapshot_out_of_the_cache(ollama: Ollama, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    llama(plain)
    repository = tmp_path / "models--org--Tiny-1B"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(plain.iterdir())):
        (repository / "blobs" / f"{number:064}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064}")
    (plain / "Modelfile").write_text("FROM .\n")
    ollama_creates(ollama, "theirs", plain / "Modelfile")
    we_create(ollama, "ours", repository, tmp_path / "b.tar")
    assert shown(ollama, "ours") == shown(ollama, "theirs")
    assert shown(ollama, "ours")["details"]["family"] == "llama"


def test_an_adapter_as_it_is_published(ollama: Ollama, tmp_path: Path) -> None:
    """`ollama create` does not find these under their own names; the server takes them."""
    llama(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    pair = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    safetensors(
        adapter / "adapter_model.safetensors",
        {f"{pair}A.weight": (4, WIDTH), f"{pair}B.weight": (WIDTH, 4)},
    )
    (tmp_path / "Modelfile").write_text("FROM ./base\nADAPTER ./adapter\n")
    we_create(ollama, "ours", tmp_path / "Modelfile", tmp_path / "b.tar")
    assert any("ADAPTER" in line for line in shown(ollama, "ours")["modelfile"])
