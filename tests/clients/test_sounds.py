"""Sounds through the clients of two protocols (Anthropic's has none): a model of random weights says nothing sensible, but
what it says depends on the sound, and its tokens are counted."""

import base64
import io
import math
import struct
import wave

import ollama
import openai
import pytest
from conftest import DEMO

HEARING = "sight"
OPTIONS = {"temperature": 0, "num_predict": 6, "num_ctx": 2048}


def wav(pitch: int, seconds: float = 1.0, rate: int = 22050) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        for at in range(int(seconds * rate)):
            sample = int(20000 * math.sin(2 * math.pi * pitch * at / rate))
            file.writeframesraw(struct.pack("<hh", sample, -sample // 2))
    return out.getvalue()


@pytest.fixture(scope="module")
def client(url):
    return ollama.Client(host=url, timeout=120)


def test_ollama_plays_sounds(client, tmp_path):
    assert "audio" in client.show(HEARING).capabilities and "audio" not in client.show(DEMO).capabilities
    file = tmp_path / "sound.wav"
    file.write_bytes(wav(440))

    def ask(*sounds):
        message = {"role": "user", "content": "What is it?", "images": list(sounds)}
        return client.chat(HEARING, [message], options=OPTIONS)

    deaf, by_bytes, by_path = ask(), ask(wav(440)), ask(file)
    assert by_bytes.prompt_eval_count >= deaf.prompt_eval_count + 700
    assert by_bytes.message.content == by_path.message.content
    pieces = list(client.generate(HEARING, "What is it?", images=[wav(440)], options=OPTIONS, stream=True))
    assert pieces[-1].done and "".join(piece.response for piece in pieces)
    for model, sound in [(DEMO, wav(440)), (HEARING, wav(440)[:5000]), (HEARING, wav(440, seconds=0))]:
        with pytest.raises(ollama.ResponseError) as error:
            client.generate(model, "What is it?", images=[sound])
        assert error.value.status_code == 400


def test_openai_plays_sounds(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="ollama", max_retries=0, timeout=120)

    def ask(data, format="wav"):
        audio = {"data": base64.b64encode(data).decode(), "format": format}
        parts = [{"type": "text", "text": "What is it?"}, {"type": "input_audio", "input_audio": audio}]
        return client.chat.completions.create(
            model=HEARING, messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=6
        )

    answer = ask(wav(440))
    assert answer.choices[0].message.content and answer.usage.prompt_tokens > 750
    for data, format in [(b"no sound", "mp3"), (wav(440), "opus"), (wav(440)[:3000], "wav")]:
        with pytest.raises(openai.BadRequestError):
            ask(data, format)


def test_openai_writes_down_sounds(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="ollama", max_retries=0, timeout=120)

    def ask(**more):
        # A model of random weights never ends: the answer is cut where it repeats itself, or at the context.
        sound = ("sound.wav", wav(440))
        return client.audio.transcriptions.create(model=HEARING, file=sound, **more)

    answer = ask(language="en", prompt="A tone.")
    assert isinstance(answer.text, str) and answer.usage.input_tokens > 750
    assert isinstance(ask(response_format="text"), str)
    kinds = {event.type for event in ask(stream=True)}
    assert "transcript.text.done" in kinds
    for model, more in [(DEMO, {}), (HEARING, {"response_format": "srt"})]:
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(model=model, file=("sound.wav", wav(440)), **more)
