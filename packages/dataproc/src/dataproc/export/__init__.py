"""A mixture for other programs: its tokens as Megatron reads them, or its documents as Hugging Face loads them."""
