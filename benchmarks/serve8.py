#!/usr/bin/env python3
"""Users of a running server: the tokens per second of one, and of eight together.

    benchmarks/serve8.py URL MODEL OUT.json [--users 8] [--tokens 64] [--rounds 3]

URL like http://127.0.0.1:11434, MODEL as the server knows it. Speaks Ollama's /api/generate; every user has a prompt of
its own, so that nothing is shared but the weights. Rounds of one and of all users take turns. Needs nothing but Python 3.
"""

import argparse
import json
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median


def generate(url, model, prompt, tokens):
    """The tokens that were generated, and the seconds that the server says decoding took."""
    asked = {
        "model": model,
        "prompt": prompt,
        "raw": True,
        "stream": False,
        "options": {"num_predict": tokens, "temperature": 0, "seed": 1},
    }
    request = urllib.request.Request(f"{url}/api/generate", json.dumps(asked).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        said = json.load(answer)
    return said["eval_count"], said["eval_duration"] / 1e9


def together(url, model, users, tokens, seed):
    """All users at once: tokens of all over the time until the last one has its answer."""
    results = [None] * users

    def one(user):
        results[user] = generate(url, model, f"User {seed}-{user} asks about number {user * 7919 + seed}: ", tokens)

    threads = [threading.Thread(target=one, args=(user,)) for user in range(users)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - start
    if any(result is None for result in results):
        raise SystemExit("serve8.py: a user got no answer")
    tokens = sum(count for count, _ in results)
    return {"users": users, "tokens": tokens, "wall_s": wall, "tokens_per_s": tokens / wall,
            "decode_tokens_per_s": tokens / max(seconds for _, seconds in results)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    # Loads the model, and is not measured.
    generate(asked.url, asked.model, "Hello", 4)
    rounds = []
    for seed in range(asked.rounds):
        alone = together(asked.url, asked.model, 1, asked.tokens, 1000 + seed)
        many = together(asked.url, asked.model, asked.users, asked.tokens, 2000 + seed)
        ratio = lambda key: many[key] / alone[key]
        rounds.append({"alone": alone, "together": many, "ratio": ratio("tokens_per_s"), "decode_ratio": ratio("decode_tokens_per_s")})
    found = {"model": asked.model, "users": asked.users, "tokens": asked.tokens, "rounds": rounds,
             "ratio": median(found["ratio"] for found in rounds),
             "decode_ratio": median(found["decode_ratio"] for found in rounds)}
    asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
