"""Architectures of GGUFs (`general.architecture`), and the Ollamas that know them.

Read in Ollama's tags v0.5.0 to v0.33.0-rc2. Up to 0.24 an architecture is known where llama.cpp's table in
the tag has it (LLM_ARCH_NAMES in llama/llama.cpp/src/llama-arch.cpp, before 0.5.13 in llama/) or Ollama's own
engine registers it (`model.Register` in model/models/). Since 0.30 llama.cpp comes by itself (the file
LLAMA_CPP_VERSION: b9452 in 0.30.0, b10488 in 0.33.0-rc2): what it has and 0.24 has not is written under
0.30.0, the earliest that can know it. What 0.5.0 knew is not written here.
"""

from __future__ import annotations

_SINCE = (
    ("0.5.2", "olmo2"),
    ("0.5.3", "qwen2vl"),
    ("0.5.5", "cohere2 deci deepseek wavtokenizer-dec"),
    ("0.5.13", "phimoe rwkv6qwen2"),
    ("0.6.0", "gemma3"),
    ("0.6.5", "mistral3"),
    ("0.6.6", "arwkv7 bailingmoe glm4 llama4 plm qwen3 qwen3moe rwkv7"),
    ("0.6.8", "nomic-bert-moe"),
    ("0.7.0", "qwen25vl"),
    ("0.9.3", "gemma3n"),
    ("0.11.0", "gptoss"),
    (
        "0.11.5",
        "arcee dots1 dream ernie4_5 ernie4_5-moe exaone4 falcon-h1 glm4moe gpt-oss granitehybrid "
        "hunyuan-dense hunyuan-moe jamba lfm2 llada mamba2 neo-bert plamo2 smallthinker smollm3",
    ),
    ("0.12.4", "gemma-embedding grovemoe jina-bert-v3 llada-moe nemotron_h seed_oss"),
    ("0.12.6", "apertus lfm2moe"),
    ("0.12.7", "qwen3vl qwen3vlmoe"),
    ("0.12.11", "bailingmoe2"),
    ("0.13.0", "deepseekocr"),
    ("0.13.2", "afmoe cogvlm minimax-m2 pangu-embedded qwen3next rnd1"),
    ("0.13.4", "nemotron_h_moe olmo3"),
    ("0.14.3", "glm4moelite"),
    ("0.15.5", "glmocr"),
    ("0.17.1", "qwen35 qwen35moe"),
    ("0.20.0", "gemma4"),
    ("0.22.0", "laguna nemotron_h_omni"),
    (
        "0.30.0",
        "cohere2moe deepseek2-ocr deepseek32 deepseek4 dflash eagle3 eurobert exaone-moe gemma4-assistant "
        "glm-dsa graniteswitch hunyuan_vl hy_v3 jais2 kimi-k3 kimi-linear llama-embed maincoder mellum mimo2 "
        "minimax-01 minimax-m3 mistral4 modern-bert muse-glimmer nanbeige paddleocr plamo3 step35 talkie",
    ),
)

FIRST: dict[str, str] = {name: version for version, names in _SINCE for name in names.split()}
"""The earliest Ollama that may know an architecture: no version before it does."""
