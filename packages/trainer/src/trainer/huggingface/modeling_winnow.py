# mypy: ignore-errors
"""A decoder for `transformers` (trust_remote_code=True), for the models that no class of the library expresses.

config.json has the names of Jais, BTLM and CrystalCoder:

    n_embd n_layer n_head n_inner n_positions vocab_size tie_word_embeddings layer_norm_epsilon
    activation_function          swiglu | gelu
    position_embedding_type      alibi | learned | rotary: the first rotary_dim of a head, in pairs (2i, 2i + 1)
    alibi_scaling                null, {factor} or {train_seq_len}: position interpolation
    mup_embeddings_scale         × the embedding's output
    mup_output_alpha · mup_width_scale    × the logits
    mup_scale_qk_dot_by_d        scores / head_dim, not / √head_dim

and some more, with defaults that are theirs: n_head_kv, head_dim, norm_type (layernorm | rmsnorm), use_bias,
rotary_base, weight_bits (null, or 4: matrices stay packed in memory and are unpacked one at a time) and weight_group.

Shapes: B rows, Q new positions, T all positions, H heads, D dimensions of a head, R rotated ones.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class WinnowConfig(PretrainedConfig):
    model_type = "jais"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "intermediate_size": "n_inner",
    }

    def __init__(
        self,
        vocab_size=50257,
        n_positions=2048,
        n_embd=768,
        n_layer=12,
        n_head=12,
        n_head_kv=None,
        head_dim=None,
        n_inner=None,
        activation_function="swiglu",
        norm_type="layernorm",
        layer_norm_epsilon=1e-5,
        use_bias=True,
        position_embedding_type="alibi",
        alibi_scaling=None,
        rotary_dim=None,
        rotary_base=10000.0,
        mup_width_scale=1.0,
        mup_embeddings_scale=1.0,
        mup_output_alpha=1.0,
        mup_scale_qk_dot_by_d=False,
        weight_bits=None,
        weight_group=64,
        initializer_range=0.02,
        use_cache=True,
        tie_word_embeddings=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.n_positions = n_positions
        self.n_embd = n_embd
        self.n_layer = n_layer
        self.n_head = n_head
        self.n_head_kv = n_head_kv or n_head
        self.head_dim = head_dim or n_embd // n_head
        self.n_inner = n_inner or 4 * n_embd
        self.activation_function = activation_function
        self.norm_type = norm_type
        self.layer_norm_epsilon = layer_norm_epsilon
        self.use_bias = use_bias
        self.position_embedding_type = position_embedding_type
        self.alibi_scaling = alibi_scaling
        self.rotary_dim = rotary_dim or self.head_dim
        self.rotary_base = rotary_base
        self.mup_width_scale = mup_width_scale
        self.mup_embeddings_scale = mup_embeddings_scale
        self.mup_output_alpha = mup_output_alpha
        self.mup_scale_qk_dot_by_d = mup_scale_qk_dot_by_d
        self.weight_bits = weight_bits
        self.weight_group = weight_group
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class Conv1D(nn.Module):
    """A linear map whose weight is (inputs, outputs), as in GPT-2."""

    def __init__(self, inputs, outputs, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x):
        return functional.linear(x, self.weight.t(), self.bias)


class Packed(nn.Module):
    """A linear map of 4 bits per weight: (code − 8) · scale, a scale per `group` inputs of an output.

    weight_packed (outputs, inputs / 2): the code of an even input in the low half of a byte, of an odd one in the high.
    """

    def __init__(self, inputs, outputs, bias, group):
        super().__init__()
        self.register_buffer("weight_packed", torch.empty(outputs, inputs // 2, dtype=torch.uint8))
        self.register_buffer("weight_scale", torch.empty(outputs, inputs // group))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x):
        codes = torch.stack([self.weight_packed & 15, self.weight_packed >> 4], dim=-1)
        codes = codes.view(*self.weight_scale.shape, -1).to(x.dtype) - 8
        weight = (codes * self.weight_scale[..., None].to(x.dtype)).flatten(1)
        return functional.linear(x, weight, self.bias)


def linear(config, inputs, outputs):
    if config.weight_bits == 4:
        return Packed(inputs, outputs, config.use_bias, config.weight_group)
    return Conv1D(inputs, outputs, config.use_bias)


def norm(config):
    kind = nn.LayerNorm if config.norm_type == "layernorm" else nn.RMSNorm
    return kind(config.n_embd, eps=config.layer_norm_epsilon)


def alibi_slopes(heads):
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * i / power) for i in range(1, power + 1)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[0::2][: heads - power]


def rotate(x_BHQD, cos_QR, sin_QR):
    """Turns the pairs (2i, 2i + 1) of the first R dimensions."""
    dims = cos_QR.shape[-1]
    turned = x_BHQD[..., :dims]
    crossed = torch.stack([-turned[..., 1::2], turned[..., 0::2]], dim=-1).flatten(-2)
    return torch.cat([turned * cos_QR + crossed * sin_QR, x_BHQD[..., dims:]], dim=-1)


class WinnowAttention(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        self.sizes = [heads * config.head_dim for heads in (config.n_head, config.n_head_kv, config.n_head_kv)]
        self.group = config.n_head // config.n_head_kv
        self.scale = self.head_dim ** (-1.0 if config.mup_scale_qk_dot_by_d else -0.5)
        self.c_attn = linear(config, config.n_embd, sum(self.sizes))
        self.c_proj = linear(config, self.sizes[0], config.n_embd)

    def forward(self, x_BQC, mask, rotary, cache):
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in self.c_attn(x_BQC).split(self.sizes, dim=-1)
        )
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        if self.group > 1:
            k, v = k.repeat_interleave(self.group, dim=1), v.repeat_interleave(self.group, dim=1)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class WinnowMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = linear(config, config.n_embd, config.n_inner)
        if config.activation_function == "swiglu":
            self.c_fc2 = linear(config, config.n_embd, config.n_inner)
        self.c_proj = linear(config, config.n_inner, config.n_embd)
        self.swiglu = config.activation_function == "swiglu"

    def forward(self, x):
        return self.c_proj(
            self.c_fc(x) * functional.silu(self.c_fc2(x)) if self.swiglu else functional.gelu(self.c_fc(x))
        )


class WinnowBlock(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.ln_1 = norm(config)
        self.attn = WinnowAttention(config, index)
        self.ln_2 = norm(config)
        self.mlp = WinnowMLP(config)

    def forward(self, x, mask, rotary, cache):
        x = x + self.attn(self.ln_1(x), mask, rotary, cache)
        return x + self.mlp(self.ln_2(x))


class WinnowTransformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position_embedding_type == "learned":
            self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(WinnowBlock(config, index) for index in range(config.n_layer))
        self.ln_f = norm(config)


class WinnowForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = WinnowConfig
    base_model_prefix = "transformer"
    _no_split_modules = ["WinnowBlock"]

    def __init__(self, config):
        super().__init__(config)
        self.transformer = WinnowTransformer(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        std = self.config.initializer_range
        if isinstance(module, (Conv1D, nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            nn.init.ones_(module.weight)

    def get_input_embeddings(self):
        return self.transformer.wte

    def set_input_embeddings(self, value):
        self.transformer.wte = value

    def get_output_embeddings(self):
        return None if self.config.tie_word_embeddings else self.lm_head

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        **kwargs,
    ):
        config, transformer = self.config, self.transformer
        x = transformer.wte(input_ids) if inputs_embeds is None else inputs_embeds
        if past_key_values is None and (config.use_cache if use_cache is None else use_cache) and not self.training:
            past_key_values = DynamicCache()
        first = 0 if past_key_values is None else past_key_values.get_seq_length()
        length = first + x.shape[1]
        if config.position_embedding_type == "learned":
            if position_ids is None:
                position_ids = self._position_ids(attention_mask, first, length, x.device)
            x = x + transformer.wpe(position_ids)
        x = x * config.mup_embeddings_scale
        mask = self._mask(attention_mask, first, length, x)
        rotary = self._rotary(first, length, x) if config.position_embedding_type == "rotary" else None
        for block in transformer.h:
            x = block(x, mask, rotary, past_key_values)
        if isinstance(logits_to_keep, int):
            logits_to_keep = slice(-logits_to_keep, None) if logits_to_keep else slice(None)
        x = transformer.ln_f(x[:, logits_to_keep]) * (config.mup_output_alpha * config.mup_width_scale)
        logits = functional.linear(x, transformer.wte.weight if config.tie_word_embeddings else self.lm_head.weight)
        loss = None
        if labels is not None:
            targets = labels[:, 1:].to(logits.device).flatten()
            loss = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets, ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    @staticmethod
    def _position_ids(attention_mask, first, length, device):
        if attention_mask is None:
            return torch.arange(first, length, device=device)[None]
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, first:length]

    def _mask(self, attention_mask, first, length, x):
        """(1 or B, 1 or H, Q, T): what is added to the scores. A query that would see nothing sees itself."""
        places = torch.arange(length, device=x.device)
        distance_QT = places[first:, None] - places[None, :]
        hidden = (distance_QT < 0)[None, None]
        if attention_mask is not None and attention_mask.dim() == 2:
            padding_BT = attention_mask[:, :length] == 0
            hidden = hidden | (padding_BT[:, None, None, :] & (distance_QT != 0))
        bias = x.new_zeros(1, dtype=torch.float32)
        if self.config.position_embedding_type == "alibi":
            slopes_H = torch.tensor(alibi_slopes(self.config.n_head), device=x.device) / self._scale(length)
            bias = (-slopes_H[:, None, None] * distance_QT)[None]
        return bias.masked_fill(hidden, float("-inf")).to(x.dtype)

    def _scale(self, length):
        """What the slopes are divided by."""
        scaling = self.config.alibi_scaling or {}
        if scaling.get("factor") is not None:
            return scaling["factor"]
        return max(1.0, length / scaling["train_seq_len"]) if scaling.get("train_seq_len") else 1.0

    def _rotary(self, first, length, x):
        """cos and sin (Q, R)."""
        dims = self.config.rotary_dim
        frequencies = self.config.rotary_base ** -(torch.arange(0, dims, 2, device=x.device).float() / dims)
        angles = torch.outer(torch.arange(first, length, device=x.device).float(), frequencies)
        angles = angles.repeat_interleave(2, dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)
