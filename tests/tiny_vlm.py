"""Vision-language models of random weights (LLaVA, Idefics3), stored as real ones are."""

from __future__ import annotations

from pathlib import Path

from tiny_lm import make_tiny_lm

SIDE, PATCH = 28, 14  # pixels; an image takes (28 / 14)^2 = 4 tokens
IMAGE_TOKENS = (SIDE // PATCH) ** 2
IDEFICS_MARKS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_tiny_vlm(folder: Path, *, heads: int = 4, hidden: int = 32) -> Path:
    """Write the model with its processor to ``folder``: real mechanics, answers of noise."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_lm(folder / "words"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    processor = LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=PATCH, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(7)
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=3, num_attention_heads=heads, num_key_value_heads=heads // 2,
        max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.4,
        tie_word_embeddings=False,
    )  # fmt: skip
    eyes = CLIPVisionConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=heads, image_size=SIDE, patch_size=PATCH, projection_dim=hidden,
        initializer_range=0.4,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=eyes, text_config=text, initializer_range=0.4, vision_feature_layer=-1,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
    ))  # fmt: skip
    model.save_pretrained(folder)
    _older_names(folder / "model.safetensors")
    processor.save_pretrained(folder)
    return folder


def make_tiny_idefics(folder: Path, *, heads: int = 4, hidden: int = 128) -> Path:
    """Write an Idefics3 to ``folder``. vLLM reads it without torchvision, which its LLaVA imports.

    A picture is scaled to two tiles in width and height; each of these, and the whole, is one
    token between marks.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
        LlamaConfig,
    )
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_lm(folder / "words"))
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer.add_special_tokens({"additional_special_tokens": IDEFICS_MARKS + tiles})
    tokenizer.chat_template = TEMPLATE
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    processor = Idefics3Processor(pictures, tokenizer, image_seq_len=1, chat_template=TEMPLATE)
    torch.manual_seed(7)
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=3, num_attention_heads=heads, num_key_value_heads=heads // 2,
        max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.4,
        tie_word_embeddings=False,
    )  # fmt: skip
    eyes = Idefics3VisionConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=heads, image_size=SIDE, patch_size=PATCH, initializer_range=0.4,
    )  # fmt: skip
    model = Idefics3ForConditionalGeneration(Idefics3Config(
        vision_config=eyes, text_config=text, initializer_range=0.4, scale_factor=SIDE // PATCH,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False,
    ))  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _older_names(file: Path) -> None:
    """Name the image part's weights as published LLaVA models do: vLLM knows no other names."""
    from safetensors.torch import load_file, save_file

    old, new = "vision_tower.vision_model.", "vision_tower."
    weights = load_file(file)
    named = {n if old in n else n.replace(new, old): w for n, w in weights.items()}
    save_file(named, file, metadata={"format": "pt"})
