"""A BLIP-2 of 90,000 random weights, of the very classes of the large ones, written to a folder."""

from stages import torchvision_shim

QUERIES = 4


def write_tiny_blip2(folder, **text_changes):
    """Write model, tokenizer and preprocessing; returns the model."""
    torchvision_shim.declare()
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        PreTrainedTokenizerFast,
    )

    torch.set_num_threads(1)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(["an aerial image of a harbor with boats", "a photo of trees and houses"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="</s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # The default range, 1e-10, would leave nothing of a picture in half precision.
    picture = {**small, "initializer_range": 0.02}
    text = {
        "model_type": "opt", **small, "ffn_dim": 64, "word_embed_proj_dim": 32, "vocab_size": len(tokenizer),
        "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    config = Blip2Config(
        vision_config={**picture, "intermediate_size": 64, "image_size": 32, "patch_size": 16},
        qformer_config={**small, "intermediate_size": 64, "encoder_hidden_size": 32, "vocab_size": 50},
        text_config=text | text_changes,
        num_query_tokens=QUERIES,
        image_token_index=2,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config).eval()
    # Initial weights are so small that every picture and every word would look alike.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
        model.query_tokens.normal_()
    model.save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    Blip2Processor(processor, tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    return model
