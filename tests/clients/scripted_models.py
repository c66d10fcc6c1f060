"""Tiny models that say exactly what a test needs: a tool call, a thought, a JSON object, or words without end.

They are real GGUF files that llama.cpp runs like any other; nothing in the server knows them. Attention and
feed-forward are zero, so the next token depends on the last one alone, and the output matrix is a table "after this
piece comes that piece". What comes first depends on how the prompt ends: a chat template that ends in one line break
starts the thought (if there is one), one that ends in two (thinking switched off) or anything else starts the answer.
"""

from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy

from server import DEMO

WIDTH = 128
HEADS = 4
LAYERS = 1
CONTEXT = 8192
# Logits of what must come next; all others are 0, so no temperature that a client sends changes the text.
CERTAIN = 10.0

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SPECIALS = {"<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL}
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")

# ChatML with tools and thoughts, as the Qwen family writes them.
TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
@REASONING@
        {{- content }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or (messages[loop.index0 - 1].role != 'tool') %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != 'tool') %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
@SWITCH@
{%- endif %}"""
REASONING = """\
        {%- if message.reasoning_content is string and message.reasoning_content %}
            {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
        {%- endif %}"""
# What the prompt ends with where a call is due.
WORK = "<|work|>"
CALLING = f"""\
    {{%- if tools and messages | selectattr('role', 'equalto', 'tool') | list | length == 0 %}}
        {{{{- '{WORK}' }}}}
    {{%- endif %}}"""
SWITCH = """\
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}"""


@dataclass
class Script:
    """What a model says: `thought` first, if the template lets it, then `answer`; piece by piece, a token each."""

    name: str
    answer: list[str]
    thought: list[str] = field(default_factory=list)
    endless: bool = False
    # What it says instead where tools are offered and none was called yet.
    call: list[str] = field(default_factory=list)
    # Of a vocabulary of bytes a long prompt has four times the tokens that it has for real models.
    words: bool = False
    context: int = CONTEXT

    def pieces(self) -> list[str]:
        return self.thought + self.answer + self.call

    def thinks(self) -> bool:
        return bool(self.thought)


WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}'
CALL = ["<tool_call>", "\n" + WEATHER[:25], WEATHER[25:] + "\n", "</tool_call>"]
# The name is a piece by itself: where another tool is offered, the grammar, which begins to bind before the name, has
# a place to say so.
MAGIC = ["<tool_call>", '\n{"name": "', 'magic_function", ', '"arguments": {"input": 3}}\n', "</tool_call>"]
NO_ARGUMENTS = ["<tool_call>", '\n{"name": "magic_function_no_args", ', '"arguments": {}}\n', "</tool_call>"]
THOUGHT = ["<think>", "\nThe user greets me.", " So do I.\n", "</think>", "\n\n"]
JOKE = ['{"setup": "Why do', ' lynxes purr?", ', '"punchline": "Nobody', ' dares to ask."}']

# Model -> tool that runs a command, and its arguments, in the order of the tool's schema.
MADE = "made-here.txt"
WORKERS = {
    "worker-claude": ("Bash", '{"command": "touch ' + MADE + '"}'),
    "worker-codex": ("exec_command", '{"cmd": "touch ' + MADE + '"}'),
    "worker-bash": ("bash", '{"command": "touch ' + MADE + '"}'),
    "worker-cline": ("run_commands", '{"commands": ["touch ' + MADE + '"]}'),
}


def worker(name: str, tool: str, arguments: str) -> Script:
    call = ["<tool_call>", f'\n{{"name": "{tool}", ', f'"arguments": {arguments}}}\n', "</tool_call>"]
    return Script(name, ["I have done", " all of it", ", human."], call=call, words=True, context=65536)


SCRIPTS = [
    Script("thinker", ["Good", " morning", ", human."], THOUGHT),
    Script("caller", CALL, ["<think>", "\nI should look", " at the sky.\n", "</think>", "\n\n"]),
    Script("weather", CALL),
    Script("magic", MAGIC),
    Script("noargs", NO_ARGUMENTS),
    Script("joker", JOKE),
    Script("endless", [" tick", " tock", " tack"], endless=True),
    # What agents talk to: their first prompts have some 20,000 tokens.
    Script("agent", ["I have read", " all of it", ", human."], words=True, context=65536),
    # The same after one call of the tool that runs commands, in the words of several agents.
    *(worker(name, *words) for name, words in WORKERS.items()),
    # What edits a file by saying its new text.
    Script("editor", ["made-here.txt\n```", "\nIt was edited.\n", "```\n"], words=True, context=65536),
    # The same for programs that want objects.
    Script("scribe", JOKE, words=True, context=65536),
    # The same as `agent` with too little context.
    Script("forgetful", ["I have read", " nothing", ", human."], words=True),
]


def byte_symbols() -> list[str]:
    """The character that stands for each byte in byte-level BPE."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols, extra = [""] * 256, 0
    for byte in range(256):
        if byte in printable:
            symbols[byte] = chr(byte)
        else:
            symbols[byte] = chr(0x100 + extra)
            extra += 1
    return symbols


def demo_words() -> tuple[list[str], list[str]]:
    """Tokens and merges of the demo model."""
    fields = gguf.GGUFReader(DEMO).fields
    texts = lambda key: [bytes(fields[key].parts[index]).decode() for index in fields[key].data]
    kinds = fields["tokenizer.ggml.token_type"]
    normal = [int(kinds.parts[index][0]) == NORMAL for index in kinds.data]
    tokens = [token for token, keep in zip(texts("tokenizer.ggml.tokens"), normal) if keep]
    return tokens, texts("tokenizer.ggml.merges")


def write(script: Script, folder: Path) -> Path:
    """Writes `folder`/NAME.gguf."""
    symbols = byte_symbols()
    spell = lambda text: "".join(symbols[byte] for byte in text.encode())
    tokens, merges = demo_words() if script.words else (list(symbols), [f"{symbols[10]} {symbols[10]}"])
    types, places = [NORMAL] * len(tokens), {token: index for index, token in enumerate(tokens)}

    def add(text: str, kind: int) -> int:
        if text not in places:
            places[text] = len(tokens)
            tokens.append(text)
            types.append(kind)
        return places[text]

    line, lines = places[symbols[10]], add(spell("\n\n"), NORMAL)
    tags = {tag: add(tag, USER_DEFINED) for tag in TAGS}
    known = {"\n\n": lines, **tags}
    pieces = [known[piece] if piece in known else add(spell(piece), NORMAL) for piece in script.pieces()]
    specials = {text: add(text, kind) for text, kind in SPECIALS.items()}
    end = specials["<|im_end|>"]

    answer = pieces[len(script.thought) : len(script.thought) + len(script.answer)]
    call = pieces[len(script.thought) + len(script.answer) :]
    # Token after which the next one is known -> that one.
    after = {last: answer[0] for last in range(len(tokens)) if last not in pieces}
    after[line] = pieces[0]
    after[lines] = answer[0]
    # A thought ends in two line breaks, and after these the answer starts, as for a prompt that ends so.
    after |= dict(zip(pieces, pieces[1:]))
    after[answer[-1]] = answer[0] if script.endless else end
    if call:
        after[add(WORK, CONTROL)] = call[0]
        after[call[-1]] = end
    assert len(set(pieces)) == len(pieces), "a piece comes once, since it says what comes next"

    # One direction of the embedding for each different successor.
    successors = sorted(set(after.values()))
    assert len(successors) <= WIDTH
    direction = {successor: index for index, successor in enumerate(successors)}
    embedding = numpy.zeros((len(tokens), WIDTH), dtype=numpy.float32)
    output = numpy.zeros((len(tokens), WIDTH), dtype=numpy.float32)
    for token, successor in after.items():
        embedding[token, direction[successor]] = 1.0
    for successor, index in direction.items():
        output[successor, index] = CERTAIN

    path = folder / f"{script.name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, script, tokens, types, specials, merges)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", numpy.ones(WIDTH, dtype=numpy.float32))
    writer.add_tensor("output.weight", output)
    square = numpy.zeros((WIDTH, WIDTH), dtype=numpy.float32)
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", numpy.ones(WIDTH, dtype=numpy.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", square)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def describe(writer, script: Script, tokens: list[str], types: list[int], specials: dict[str, int], merges: list[str]) -> None:
    writer.add_name(f"Scripted {script.name}")
    writer.add_context_length(script.context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(specials["<|endoftext|>"])
    writer.add_eos_token_id(specials["<|im_end|>"])
    writer.add_pad_token_id(specials["<|endoftext|>"])
    writer.add_add_bos_token(False)
    thinks = script.thinks()
    switch = SWITCH if thinks else CALLING if script.call else ""
    template = TEMPLATE.replace("@REASONING@", REASONING if thinks else "").replace("@SWITCH@", switch)
    writer.add_chat_template(template)


def write_all(folder: Path) -> dict[str, Path]:
    """All of them, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {script.name: write(script, folder) for script in SCRIPTS}


if __name__ == "__main__":
    import sys

    for path in write_all(Path(sys.argv[1])).values():
        print(path)
