#!/usr/bin/env python3
"""How close to the limit a streamed mixture of experts can come, by what is known of the routers' next choices.

The limit 1 / max(C, (1-h)A/B) of the benchmarks asks that no read is ever waited for. This simulates tokens of a machine whose
disk and processors do not disturb each other, with a scheduler that has no cost of its own: the disk reads in chunks, what is waited for
overtakes all guesses, guesses of the nearest layer come first, hits are computed before misses, and the disk idles only where
nothing that could be read is known. What is lost of the limit then is lost to not knowing, as far as this order of reading is the best.

  --knowledge all      every choice of this token is known from its first layer on; the next token's are not
  --knowledge routers  the choices of this layer and of those behind it as far as --right says: for each layer ahead the share, in
                       percent, of right guesses by rank. Wrong guesses are read too, if their rank is right often enough.
  --knowledge nothing  reads start when a layer's ids are known

The defaults are Qwen3-30B-A3B with random routers under 8 GiB on two Xeon cores (docs/benchmarks.md). Times are milliseconds.
"""

import argparse
import random
import statistics

# Measured (docs/experiments.md, "Asked where a layer begins"); the third and fourth layers are estimated from the first two.
QWEN3 = "100 100 100 100 99 95 87 67, 100 100 99 97 92 85 71 57, 99 99 97 92 84 74 60 48, 97 95 90 84 74 64 52 42"
WORTH_READING = 70  # percent
CHUNKS = 3  # of an expert: gate, up, down


class Disk:
    """Reads one chunk at a time to its end; demands first, then guesses in their order."""

    def __init__(self, chunk_ms, latency_ms):
        self.now, self.chunk, self.latency = 0.0, chunk_ms, latency_ms
        self.demands, self.guesses = [], []
        self.reading = None
        self.left, self.landed = {}, {}

    def advance(self, until):
        while True:
            if self.reading is None:
                if not (queue := self.demands or self.guesses):
                    self.now = max(self.now, until)
                    return
                self.reading = queue[0]
            if self.now + self.chunk > until:
                return
            self.now += self.chunk
            self.finish_chunk()

    def finish_chunk(self):
        expert, self.reading = self.reading, None
        self.left[expert] -= 1
        if not self.left[expert]:
            self.landed[expert] = self.now + self.latency
            for queue in (self.demands, self.guesses):
                if expert in queue:
                    queue.remove(expert)

    def forget(self):
        """A new token: what was guessed for the last one is of no use."""
        self.demands, self.guesses, self.landed = [], [], {}
        self.left = {}
        if self.reading:
            self.reading = "of the last token"
            self.left[self.reading] = 1

    def guess(self, experts):
        self.guesses = [expert for expert in experts if self.left.setdefault(expert, CHUNKS)]

    def demand(self, experts):
        self.guesses = [guess for guess in self.guesses if guess not in experts]
        self.demands = [expert for expert in experts if self.left.setdefault(expert, CHUNKS)]


def choices_of_token(args, rng, right):
    """For each layer its experts (by rank, and whether each is missing), and for each distance whether a guess is right."""
    miss = [[rng.random() < args.miss for _ in range(args.used)] for _ in range(args.layers)]
    seen = [[[100 * rng.random() < share for share in row] for row in right] for _ in range(args.layers)]
    return miss, seen


def guesses_at(args, rng, right, layer, miss, seen):
    """What is read ahead, seen from the beginning of a layer, nearest layer first."""
    if args.knowledge == "nothing":
        return []
    if args.knowledge == "all":
        return [(ahead, rank) for ahead in range(layer, args.layers) for rank in range(args.used) if miss[ahead][rank]]
    guesses = []
    for distance, row in enumerate(right[: args.layers - layer]):
        ahead = layer + distance
        for rank, share in enumerate(row):
            if distance and share < WORTH_READING:
                continue
            if not seen[ahead][distance][rank]:
                if rng.random() < args.wrong_missing:
                    guesses.append((ahead, (distance, rank)))
            elif miss[ahead][rank]:
                guesses.append((ahead, rank))
    return guesses


def token(args, rng, right, disk, now):
    miss, seen = choices_of_token(args, rng, right)
    disk.forget()
    for layer in range(args.layers):
        disk.advance(now)
        disk.guess(guesses_at(args, rng, right, layer, miss, seen))
        now += args.attention
        disk.advance(now)
        waiting = [(layer, rank) for rank in range(args.used) if miss[layer][rank]]
        disk.demand(waiting)
        now += args.experts * (args.used - len(waiting)) / args.used
        while waiting:
            disk.advance(now)
            ready = [expert for expert in waiting if disk.landed.get(expert, now + 1) <= now]
            waiting = [expert for expert in waiting if expert not in ready]
            now += args.experts * len(ready) / args.used if ready else 0.02
    missed = sum(map(sum, miss))
    return now + args.head, missed


def simulate(args):
    rng = random.Random(args.seed)
    right = [[float(share) for share in row.split()] for row in args.right.split(",")]
    if any(len(row) != args.used for row in right):
        raise SystemExit(f"--right: {args.used} numbers are needed for each layer ahead")
    disk = Disk(args.read / CHUNKS, args.latency)
    now, times, missed = 0.0, [], 0
    for _ in range(args.tokens):
        end, misses = token(args, rng, right, disk, now)
        times.append(end - now)
        missed += misses
        now = end
    computing = args.layers * (args.attention + args.experts) + args.head
    reading = missed / args.tokens * args.read
    return statistics.mean(times), computing, reading


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knowledge", choices=["all", "routers", "nothing"], help="one of them only")
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--used", type=int, default=8, help="experts of a token in each layer")
    parser.add_argument("--miss", type=float, default=0.33, help="share of lookups that miss")
    parser.add_argument("--attention", type=float, default=1.4, help="of a layer, with all that is no expert")
    parser.add_argument("--experts", type=float, default=2.1, help="of a layer")
    parser.add_argument("--head", type=float, default=19.0, help="the output matrix")
    parser.add_argument("--read", type=float, default=1.6, help="an expert, at the rate of the disk")
    parser.add_argument("--latency", type=float, default=0.4, help="from the end of a read to its use")
    parser.add_argument("--right", default=QWEN3, help="layers ahead with commas, ranks with blanks")
    parser.add_argument("--wrong-missing", type=float, default=0.65, help="share of wrong guesses that are not in memory")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for knowledge in [args.knowledge] if args.knowledge else ["all", "routers", "nothing"]:
        args.knowledge = knowledge
        mean, computing, reading = simulate(args)
        limit = max(computing, reading)
        print(f"{knowledge:8}  token {mean:5.0f} ms  computing {computing:5.0f}  reading {reading:5.0f}  of the limit {limit / mean:.2f}")


if __name__ == "__main__":
    main()
