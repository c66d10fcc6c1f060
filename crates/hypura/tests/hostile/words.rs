//! What llama.cpp knows by name: architectures, keys, rules that cut text, and templates that mean harm.

/// `LLM_ARCH_NAMES`, without what is no language model.
pub const ARCHITECTURES: &str = "llama llama4 deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bert \
    modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert bloom stablelm qwen qwen2 \
    qwen2moe qwen2vl qwen3 qwen3moe qwen3next qwen3vl qwen3vlmoe qwen35 qwen35moe phi2 phi3 phimoe plamo plamo2 \
    plamo3 codeshell orion internlm2 minicpm minicpm3 gemma gemma2 gemma3 gemma3n gemma4 gemma-embedding starcoder2 \
    mamba mamba2 jamba falcon-h1 xverse command-r cohere2 cohere2moe dbrx olmo olmo2 olmoe openelm arctic deepseek \
    deepseek2 deepseek32 deepseek4 chatglm glm4 glm4moe glm-dsa bitnet t5 t5encoder jais jais2 nemotron nemotron_h \
    nemotron_h_moe exaone exaone4 exaone-moe rwkv6 rwkv6qwen2 rwkv7 arwkv7 granite granitemoe granitehybrid \
    chameleon wavtokenizer-dec plm bailingmoe bailingmoe2 dots1 arcee afmoe laguna ernie4_5 ernie4_5-moe \
    hunyuan-moe hunyuan-dense smollm3 gpt-oss lfm2 lfm2moe dream smallthinker llada llada-moe seed_oss grovemoe \
    apertus minimax-m2 cogvlm rnd1 pangu-embedded mistral3 mistral4 paddleocr mimo2 step35 llama-embed maincoder \
    kimi-linear clip no-such-architecture";

/// Keys of architectures, without their prefix (`LLM_KV_NAMES`).
pub const KEYS: &str = "attention.causal attention.clamp_kqv attention.group_norm_epsilon \
    attention.group_norm_groups attention.head_count attention.head_count_kv attention.indexer.head_count \
    attention.indexer.key_length attention.indexer.top_k attention.key_length attention.key_length_mla \
    attention.key_length_swa attention.kv_lora_rank attention.layer_norm_epsilon attention.layer_norm_rms_epsilon \
    attention.max_alibi_bias attention.output_scale attention.q_lora_rank attention.relative_buckets_count \
    attention.scale attention.shared_kv_layers attention.sliding_window attention.sliding_window_pattern \
    attention.temperature_length attention.temperature_scale attention.value_length attention.value_length_mla \
    attention.value_length_swa attn_logit_softcapping block_count classifier.activation classifier.output_labels \
    context_length convnext.block_count convnext.embedding_length decoder_block_count decoder_start_token_id \
    embedding_length embedding_length_out embedding_length_per_layer_input embedding_scale \
    expert_chunk_feed_forward_length expert_count expert_feed_forward_length expert_gating_func expert_group_count \
    expert_group_scale expert_group_used_count expert_shared_count expert_shared_feed_forward_length \
    expert_used_count expert_weights_norm expert_weights_scale experts_per_group features_length \
    feed_forward_length final_logit_softcapping full_attention_interval interleave_moe_layer_step kda.head_dim \
    leading_dense_block_count logit_scale moe_every_n_layers n_deepstack_layers nextn_predict_layers num_loops \
    pooling_type posnet.block_count posnet.embedding_length rescale_every_n_layers residual_scale \
    rope.dimension_count rope.dimension_count_swa rope.dimension_sections rope.freq_base rope.freq_base_swa \
    rope.scale_linear rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor rope.scaling.finetuned \
    rope.scaling.original_context_length rope.scaling.type rope.scaling.yarn_attn_factor \
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow rope.scaling.yarn_ext_factor \
    rope.scaling.yarn_log_multiplier router_logit_softcapping shortconv.l_cache ssm.conv_kernel ssm.dt_b_c_rms \
    ssm.group_count ssm.inner_size ssm.state_size ssm.time_step_rank swin_norm tensor_data_layout \
    time_decay_extra_dim time_mix_extra_dim token_shift_count use_parallel_residual vocab_size wkv.head_size";

/// `tokenizer.ggml.model`.
pub const TOKENIZERS: &str = "gpt2 llama bert t5 rwkv plamo2 none no_vocab gemma4 mystery";

/// `tokenizer.ggml.pre`.
pub const PRE: &str = "default llama-bpe llama3 deepseek-llm deepseek-coder deepseek-v3 falcon falcon3 mpt starcoder \
    gpt-2 gpt-4o qwen2 qwen35 refact command-r olmo dbrx smaug-bpe poro-chat chatglm-bpe viking jais tekken \
    smollm codeshell bloom gpt3-finnish exaone exaone4 chameleon minerva-7b megrez roberta-bpe gigachat bailingmoe \
    llama4 pixtral seed-coder a.x-4.0 midm-2.0 lfm2 superbpe trillion granite-docling minimax-m2 kimi-k2 hunyuan \
    hunyuan-dense grok-2 afmoe jina-v1-en jina-v2-de jina-es stablelm2 modern-bert mystery";

/// Numbers of tokens that mean something, without their prefix.
pub const SPECIAL: &str = "bos_token_id eos_token_id eot_token_id eom_token_id unknown_token_id \
    seperator_token_id padding_token_id cls_token_id mask_token_id fim_pre_token_id fim_suf_token_id \
    fim_mid_token_id fim_pad_token_id fim_rep_token_id fim_sep_token_id prefix_token_id suffix_token_id \
    middle_token_id";

/// Truths of a tokeniser, without their prefix.
pub const SWITCHES: &str =
    "add_bos_token add_eos_token add_sep_token add_space_prefix remove_extra_whitespaces";

/// Chat templates.
pub const TEMPLATES: [&str; 18] = [
    "",
    "{% for m in messages %}{{ m.content }}",
    "{{ 1 / 0 }}",
    "{{ raise_exception('no') }}",
    "{% for a in range(1000000000) %}{% endfor %}x",
    "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{{ messages[999999].content }}",
    "{{ messages[0]['content'][9999999999:-9999999999] }}",
    "{{ 'x' * 1000000000 }}",
    "{{ undefined.field.of.nothing }}",
    "{% for m in messages %}{{ m.content | tojson | tojson | tojson }}{% endfor %}",
    "{{ bos_token }}{% if tools %}{{ tools | tojson(indent=2147483647) }}{% endif %}{{ messages | tojson(indent=-5) }}",
    "{%- for m in messages -%}{{ m['role'] + m['content'] + m['nothing'] }}{%- endfor -%}",
    "\u{0}\u{1}{{",
    "{{ ((((((((((((((((((((((((((((((((((((((((((((1)))))))))))))))))))))))))))))))))))))))))))) }}",
    "{% set x = [] %}{% set _ = x.append(x) %}{{ x }}{{ x | tojson }}",
];
