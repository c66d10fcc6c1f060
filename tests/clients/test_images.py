"""Images through the clients of three protocols: a model of random weights says nothing sensible, but what it says depends
on the image, and its tokens are counted."""

import base64
import struct
import zlib

import anthropic
import ollama
import openai
import pytest
from conftest import DEMO

SIGHT = "sight"
OPTIONS = {"temperature": 0, "num_predict": 6}


def png(shade: int, side: int = 64) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * y * shade + channel * 60) % 256 for x in range(side) for channel in range(3)) for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def url_of(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


@pytest.fixture(scope="module")
def client(url):
    return ollama.Client(host=url, timeout=60)


def test_ollama_shows_images(client, tmp_path):
    assert "vision" in client.show(SIGHT).capabilities and "vision" not in client.show(DEMO).capabilities
    file = tmp_path / "image.png"
    file.write_bytes(png(3))

    def ask(*images):
        message = {"role": "user", "content": "What is it?", "images": list(images)}
        return client.chat(SIGHT, [message], options=OPTIONS)

    blind, by_bytes, by_path = ask(), ask(png(3)), ask(file)
    assert by_bytes.prompt_eval_count > blind.prompt_eval_count
    assert by_bytes.message.content == by_path.message.content
    pieces = list(client.generate(SIGHT, "What is it?", images=[png(3)], options=OPTIONS, stream=True))
    assert pieces[-1].done and "".join(piece.response for piece in pieces)
    for model, image in [(DEMO, png(3)), (SIGHT, b"no image")]:
        with pytest.raises(ollama.ResponseError) as error:
            client.generate(model, "What is it?", images=[image])
        assert error.value.status_code == 400


def test_openai_shows_images(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="ollama", max_retries=0, timeout=60)

    def ask(image_url):
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": image_url}}]
        return client.chat.completions.create(
            model=SIGHT, messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=6
        )

    answer = ask(url_of(png(3)))
    assert answer.choices[0].message.content and answer.usage.prompt_tokens > 10
    with pytest.raises(openai.BadRequestError, match="data URL"):
        ask("https://example.com/image.png")
    parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": url_of(png(3))}]
    response = client.responses.create(
        model=SIGHT, input=[{"role": "user", "content": parts}], temperature=0, max_output_tokens=6
    )
    assert response.output_text


def test_anthropic_shows_images(url):
    client = anthropic.Anthropic(base_url=url, api_key="x", max_retries=0, timeout=60)
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(3)).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    answer = client.messages.create(model=SIGHT, max_tokens=6, messages=[{"role": "user", "content": content}])
    assert answer.content[0].text and answer.usage.input_tokens > 10
