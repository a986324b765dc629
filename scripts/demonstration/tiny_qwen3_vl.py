"""Build a tiny Qwen3-VL repository in the layout of the real ones, for tests and the demo.

    python scripts/demonstration/tiny_qwen3_vl.py OUT [--moe] [--thinking] [--pad-mb N] [--seed S]

The architecture, the file names, the sharding and the tensor layouts are those of the real repositories. The weights
are random, so the answers are gibberish that depends on the prompt and on the image. The same arguments give the same
bytes on every run: weights come from numpy's Philox as small integers times a power of two, never from a float routine
that differs between processors.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SHARDS = 5
BPE_VOCABULARY = 486
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
PLAIN_ADDED_TOKENS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINING_TEXT = """
The picture shows a red circle beside a blue square on a white background. A green triangle stands in the middle of
the picture, and a yellow line goes from the left corner to the right corner. What is in this image? Describe the
image in detail, please. There are three shapes in the image: one circle, one square and one triangle. The circle is
larger than the square, and the triangle is smaller than both of them. How many colours can you see? I can see four
colours: red, blue, green and yellow. The user asks about the position of the shapes, so let me think about where each
one of them is. First, the circle is at the top left. Second, the square is at the bottom right. Therefore the answer
is that they do not touch each other. You are a helpful assistant that answers questions about images and documents.
Models are distributed between many machines in pieces: every piece is verified before it is shared with other peers,
and the weights are loaded onto the device when the last piece has arrived.
"""
CHAT_TEMPLATE = """\
{%- macro render(content) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for part in content %}
            {%- if part.type == 'image' or 'image' in part or 'image_url' in part %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part.type == 'video' or 'video' in part %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- elif 'text' in part %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {{- render(message.content) }}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
THINKING_TEMPLATE = CHAT_TEMPLATE.replace("assistant\\n", "assistant\\n<think>\\n")


def build(out: Path, *, moe: bool = False, thinking: bool = False, pad_mb: int = 0, seed: int = 0) -> Path:
    """Write the repository into the directory `out` (created; files of the same names are replaced).

    Dense models tie their embeddings as Qwen3-VL-2B and 4B do. `moe` gives untied Qwen3VLMoe with the experts in the
    hub's layout ([experts, hidden, 2 x intermediate] and [experts, intermediate, hidden]), which transformers
    transposes as it loads. `pad_mb` adds a file of that many MiB that no loader reads. Returns `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    _write_tokenizer(out, tokenizer, THINKING_TEMPLATE if thinking else CHAT_TEMPLATE)
    _write_model(out, _config(tokenizer, moe=moe), mute=_not_words(tokenizer), seed=seed)
    _write_processing(out, THINKING_TEMPLATE if thinking else CHAT_TEMPLATE)
    _write_generation(out, tokenizer)
    _write_readme(out, moe=moe, thinking=thinking)
    if pad_mb:
        _write_padding(out / "data-00001.safetensors", pad_mb << 20, seed)
    for path in out.iterdir():
        path.chmod(0o644)  # safetensors writes 0600
    return out


def make_image(path: Path, *, seed: int = 0, size: tuple[int, int] = (128, 96)) -> Path:
    """Write a PNG with a circle, a square and a line, with places and colours by `seed`. Returns `path`."""
    random = np.random.Generator(np.random.Philox(seed))
    image = Image.new("RGB", size, _colour(random, bright=True))
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.line):
        left, right = sorted(int(x) for x in random.integers(0, size[0], 2))
        top, bottom = sorted(int(y) for y in random.integers(0, size[1], 2))
        shape((left, top, right + 4, bottom + 4), fill=_colour(random, bright=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")
    return path


def _colour(random: np.random.Generator, *, bright: bool) -> tuple[int, int, int]:
    low = 200 if bright else 0
    red, green, blue = (int(value) for value in random.integers(low, low + 56 if bright else 200, 3))
    return red, green, blue


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    if tokenizer.get_vocab_size() != BPE_VOCABULARY:
        raise ValueError(f"the training text gives only {tokenizer.get_vocab_size()} of {BPE_VOCABULARY} tokens")
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in PLAIN_ADDED_TOKENS])
    return tokenizer


def _write_tokenizer(out: Path, tokenizer: Tokenizer, template: str) -> None:
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.model.save(str(out))  # vocab.json and merges.txt
    added = {
        str(tokenizer.token_to_id(text)): {"content": text, "special": text in SPECIAL_TOKENS}
        | dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        for text in SPECIAL_TOKENS + PLAIN_ADDED_TOKENS
    }
    _write_json(
        out / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "bos_token": None,
            "chat_template": template,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 4096,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def _config(tokenizer: Tokenizer, *, moe: bool) -> Any:
    text: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [2, 3, 3],  # adds up to head_dim / 2
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": not moe,
    }
    if moe:
        # 2 x 24 differs from hidden_size: a loader that does not transpose the experts fails
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    tokens = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    tokens |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    ids = {f"{name}_token_id": tokenizer.token_to_id(text) for name, text in tokens.items()}
    cls: Any = transformers.Qwen3VLMoeConfig if moe else transformers.Qwen3VLConfig
    return cls(text_config=text, vision_config=vision, tie_word_embeddings=not moe, dtype="bfloat16", **ids)


def _not_words(tokenizer: Tokenizer) -> list[int]:
    word = re.compile(r"\u0120?[A-Za-z]{2,}")  # U+0120 stands for a leading space
    return sorted(number for text, number in tokenizer.get_vocab().items() if not word.fullmatch(text))


def _write_model(out: Path, config: Any, *, mute: list[int], seed: int) -> None:
    """Write the shards and the index. The tokens in `mute` become so unlikely that answers consist of words."""
    moe = config.model_type.endswith("moe")
    cls: Any = getattr(transformers, f"Qwen3VL{'Moe' if moe else ''}ForConditionalGeneration")
    model = cls(config).to(torch.bfloat16)
    random = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(_weights(name, parameter, random))
        model.lm_head.weight[mute] *= 0.125
    size = sum(parameter.numel() * 2 for parameter in model.parameters())
    model.save_pretrained(out, max_shard_size=math.ceil(size / SHARDS * 1.2))
    if moe:
        for shard in sorted(out.glob("model-*.safetensors")):
            _store_experts_as_the_hub_does(shard, hidden=config.text_config.hidden_size)


def _weights(name: str, parameter: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Norms and biases keep the values of the model's own constructor; matrices become random."""
    if parameter.ndim < 2:
        return torch.full_like(parameter, 0.0 if name.endswith("bias") else 1.0)
    fan_in = math.prod(parameter.shape[1:]) if "experts" not in name else parameter.shape[-1]
    scale = 2.0 ** round(math.log2(2 / math.sqrt(fan_in)))
    values = random.integers(-128, 128, tuple(parameter.shape), dtype=np.int16)
    return (torch.from_numpy(values).float() * (scale / 64)).to(parameter.dtype)


def _store_experts_as_the_hub_does(shard: Path, *, hidden: int) -> None:
    """Transpose the experts: save_pretrained writes [E, 2I, H] and [E, H, I], the hub's checkpoints the transposes."""
    tensors = load_file(shard)
    for name, tensor in tensors.items():
        held = {"gate_up_proj": -1, "down_proj": -2}.get(name.rpartition(".")[2])
        if ".experts." in name and held is not None and tensor.shape[held] == hidden:
            tensors[name] = tensor.transpose(1, 2).contiguous()
    save_file(tensors, shard, metadata={"format": "pt"})


def _write_processing(out: Path, template: str) -> None:
    shared = {
        "size": {"longest_edge": 65536, "shortest_edge": 4096},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    image = {"image_processor_type": "Qwen2VLImageProcessorFast"}
    video = {"video_processor_type": "Qwen3VLVideoProcessor"}
    _write_json(out / "preprocessor_config.json", shared | image)
    _write_json(out / "video_preprocessor_config.json", shared | video)
    _write_json(out / "chat_template.json", {"chat_template": template})


def _write_generation(out: Path, tokenizer: Tokenizer) -> None:
    end = [tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")]
    sampling = {"do_sample": True, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0, "temperature": 0.7}
    tokens = {"bos_token_id": end[1], "pad_token_id": end[1], "eos_token_id": end}
    _write_json(out / "generation_config.json", tokens | sampling | {"transformers_version": transformers.__version__})


def _write_readme(out: Path, *, moe: bool, thinking: bool) -> None:
    kind = f"{'MoE' if moe else 'dense'}, {'Thinking' if thinking else 'Instruct'}"
    front = "---\nlicense: apache-2.0\npipeline_tag: image-text-to-text\nlibrary_name: transformers\n---\n"
    text = f"# Tiny Qwen3-VL ({kind})\n\nRandom weights in the layout of the real repositories. It answers gibberish.\n"
    (out / "README.md").write_text(front + text, encoding="utf-8")


def _write_padding(path: Path, size: int, seed: int) -> None:
    """One valid safetensors file with a byte tensor that is in no index. Its body is incompressible."""
    span = {"padding": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(span, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.Generator(np.random.Philox(seed + 1))
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, size, 1 << 24):
            file.write(random.bytes(min(1 << 24, size - start)))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--moe", action="store_true", help="mixture of experts instead of dense")
    parser.add_argument("--thinking", action="store_true", help="a chat template that opens <think>")
    parser.add_argument("--pad-mb", type=int, default=0, metavar="N", help="add N MiB that no loader reads")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Build the repository of the command line and print its path."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = _arguments(argv)
    print(build(options.out, moe=options.moe, thinking=options.thinking, pad_mb=options.pad_mb, seed=options.seed))


if __name__ == "__main__":
    main(sys.argv[1:])
