#!/bin/sh
# Measures everything that has a target, block by block. A block is one command, makes its model, and deletes it at the end;
# blocks named together share models. Each prints target, measured and verdict, and writes JSON to benchmarks/results/suite/.
#
#   sudo benchmarks/suite.sh [FLAG…] BLOCK…
#
#   block        what                                                          quiet machine, 2 cores, 2 GB/s
#   qwen3-6G     MoE under a cap of 6 GiB: mmap, resident, efficiency, prediction        5 min (+1 for the model)
#   qwen3-8G     the same under 8 GiB, and the naive arm                                 5 min
#   qwen3-10G    the same under 10 GiB; reading and computing are balanced here          4 min
#   mixtral      31 GB with all the memory there is: mmap, efficiency                    5 min (+1)
#   llama-70b    40 GB dense: mmap, efficiency                                           7 min (+1)
#   all-hits     streaming with everything in slots, against resident                    2 min
#   stats-cost   with and without statistics                                             2 min
#   neighbour    beside a process that burns a core                                      2 min
#   prefill2048  a prompt of 2048 tokens, streamed against resident                      2 min
#   kimi-1T      1.03T parameters on a file system with shared extents                   4 min
#   plan-400GB   `plan` of a sharded model of 440 GB                                   1/2 min
#   serve8       eight users of a running server against one (SERVER=url SERVED=model)      2 min
#   soak         prompts of many lengths for 20 minutes (SOAK=seconds)                  21 min; needs no quiet machine
#   prediction   how far the predictions of all results were off                           0
#
#   --folder F   where models go: 45 GB free for the largest         [default: this folder]
#   --rounds N   rounds of each comparison                           [default: 3; 2 where one takes minutes]
#   --routes T   a routing trace: the qwen3 blocks also run with its routes forced
#   --quick      tiny models, few tokens, one round, to see that everything works; the figures mean nothing
#   --keep       leave the models
#
# Root is needed for memory groups, the disk's read-ahead, and the loop device of kimi-1T and plan-400GB.
# HYPURA=program, NAME=beginning of the names of results.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
hypura=${HYPURA:-$here/../target/release/hypura}
name=${NAME:-$(uname -n)}
results=${RESULTS:-$here/results/suite}
folder=$here rounds='' routes='' quick='' keep='' blocks=''

fail() { echo "suite.sh: $1" >&2; exit 1; }
usage() { sed -n '2,/^set -eu/p' "$0" | sed -e '$d' -e 's/^# \{0,1\}//' >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
    --folder) folder=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --routes) routes=$2; shift ;;
    --quick) quick=1 ;;
    --keep) keep=1 ;;
    -*) usage ;;
    *) blocks="$blocks $1" ;;
    esac
    shift
done
[ -n "$blocks" ] || usage
[ -x "$hypura" ] || fail "$hypura is not there: build it with 'make build', or name it in HYPURA"
mkdir -p "$results" "$folder"

model='' image='' mounted='' burner=''
drop_model() {
    [ -z "$model" ] || [ -n "$keep" ] || rm -f -- "$model"
    model=''
}
drop_image() {
    [ -z "$image" ] || "$here/reflink-image.sh" drop "$image" "$mounted"
    image=''
}
end_process() { # PID
    [ -z "$1" ] || { kill "$1" 2>/dev/null || :; wait "$1" 2>/dev/null || :; }
}
# Also on Ctrl-C: nothing large and nothing running is left behind.
trap 'end_process "$burner"; drop_model; drop_image' EXIT
trap 'exit 130' INT TERM HUP

need_model() { # SHAPE QUANT LAYERS
    wanted=$folder/hypura-suite-$1-$2-$3.gguf
    [ "$model" != "$wanted" ] || return 0
    drop_model
    model=$wanted
    [ ! -f "$wanted" ] || return 0
    layers=''
    [ "$3" = all ] || layers="--layers $3"
    # shellcheck disable=SC2086 # two words or none
    "$hypura" synth "$1" --quant "$2" $layers --out "$model" >&2
    sync
    # Once for each new model: what a plan says must come from a measurement of this disk in this hour.
    [ -n "$quick" ] || "$hypura" profile --refresh --dir "$model" >&2
}

# Number of rounds: what was asked for, or this block's own.
of_rounds() { if [ -n "$quick" ]; then echo 1; else echo "${rounds:-$1}"; fi; }
# What makes a tiny model stream.
tiny='--arm stream --stream-cache 50%'
# LONG for measurements, SHORT with --quick.
pick() { if [ -n "$quick" ]; then echo "$2"; else echo "$1"; fi; }

bench() { # RESULT FLAG…
    json=$results/$name-$1.json
    shift
    "$hypura" bench "$model" --json "$json" "$@"
}

verdict() { # BLOCK RESULT…
    block=$1
    shift
    files=''
    for result in "$@"; do files="$files $results/$name-$result.json"; done
    # shellcheck disable=SC2086 # several words
    "$here/verdict.py" "$block" $files
}

qwen3() { # CAP
    cap=$(pick "$1" 400M)
    need_model "$(pick qwen3-30b-a3b tiny-qwen3-moe)" Q4_K all
    tokens="--ctx 2048 --prompt 16 $(pick '--warmup 70 --gen 32' "--warmup 2 --gen 8 $tiny")"
    # The naive arm is of interest where reading and computing are balanced, which under 6 GiB they are not.
    arms=mmap,resident,naive
    [ "$1" != 6G ] || arms=mmap,resident
    # shellcheck disable=SC2086
    bench "qwen3-$1" --memcap "$cap" --against $arms --pairs "$(of_rounds 2)" $tokens
    verdict "qwen3-$1" "qwen3-$1"
    [ -n "$routes" ] && [ -z "$quick" ] || return 0
    # shellcheck disable=SC2086
    bench "qwen3-$1-routes" --memcap "$cap" --against resident --routes "$routes" --pairs "$(of_rounds 2)" $tokens
    verdict "qwen3-$1" "qwen3-$1-routes"
}

mixtral() {
    need_model "$(pick mixtral-8x7b tiny-mixtral)" Q5_K all
    flags=$(pick '' "$tiny")
    # shellcheck disable=SC2086
    bench mixtral --against mmap --pairs "$(of_rounds 2)" --ctx 2048 --prompt 16 --warmup "$(pick 66 4)" --gen "$(pick 20 4)" $flags
    verdict mixtral mixtral
}

llama() {
    need_model "$(pick llama-70b tiny-llama)" Q4_K all
    flags=$(pick '' "$tiny")
    # shellcheck disable=SC2086
    bench llama-70b --against mmap --pairs "$(of_rounds 2)" --ctx 2048 --prompt 8 --warmup 1 --gen "$(pick 6 3)" $flags
    verdict llama-70b llama-70b
}

few_layers() { need_model "$(pick qwen3-30b-a3b tiny-qwen3-moe)" Q4_K "$(pick 8 all)"; }

all_hits() {
    few_layers
    bench all-hits --arm stream --stream-cache 100% --against resident --pairs "$(of_rounds 6)" --populate \
        --ctx 2048 --prompt "$(pick 1024 256)" --warmup "$(pick 80 4)" --gen "$(pick 150 16)"
    verdict all-hits all-hits
}

stats_cost() {
    few_layers
    bench stats-cost --arm stream --stream-cache 100% --against blind --pairs "$(of_rounds 8)" \
        --ctx 2048 --prompt "$(pick 1024 256)" --warmup "$(pick 32 4)" --gen "$(pick 150 16)"
    verdict stats-cost stats-cost
}

neighbour() {
    few_layers
    list=''
    for round in $(seq "$(of_rounds 3)"); do
        for state in quiet busy; do
            if [ "$state" = busy ]; then
                sh -c 'while :; do :; done' &
                burner=$!
            fi
            bench "neighbour-$round-$state" --arm stream --stream-cache 100% --against resident --pairs 1 --no-predict \
                --ctx 2048 --prompt 256 --warmup 8 --gen "$(pick 100 12)"
            end_process "$burner"
            burner=''
            list="$list neighbour-$round-$state"
        done
    done
    # shellcheck disable=SC2086
    verdict neighbour $list
}

prefill2048() {
    few_layers
    tokens=$(pick 2048 512)
    bench prefill2048 --arm stream --stream-cache 40% --against resident --pairs "$(of_rounds 3)" \
        --ctx 4096 --populate --ubatch "$tokens" --prompt "$tokens" --warmup 1 --gen 2
    verdict prefill2048 prefill2048
}

soak() {
    few_layers
    # shellcheck disable=SC2046 # two words or none
    bench soak --memcap "$(pick 2G 400M)" --arm stream $(pick '' "--stream-cache 50%") --against none --pairs 1 --no-predict --soak "$(pick "${SOAK:-1200}" 20)" \
        --ctx 4096 --prompt 64 --warmup 1 --gen 8
    verdict soak soak
}

need_image() {
    [ -z "$image" ] || return 0
    image=$folder/hypura-suite.xfs mounted=$folder/hypura-suite.mnt
    "$here/reflink-image.sh" make "$image" 24G "$mounted" >&2
}

kimi() {
    drop_model
    need_image
    model=$mounted/hypura-suite-kimi-k2-Q2_K.gguf
    "$hypura" synth kimi-k2 --quant Q2_K --unique "$(pick 8G 2G)" --out "$model" >&2
    sync
    "$hypura" profile --refresh --dir "$model" >&2
    bench kimi-1T --memory 20GiB --against none --populate --pairs "$(of_rounds 2)" --ctx 1024 --prompt 4 --warmup "$(pick 66 1)" --gen "$(pick 12 2)"
    verdict kimi-1T kimi-1T
    drop_model
}

plan_400() {
    drop_model
    need_image
    "$hypura" synth kimi-k2 --quant Q3_K --unique 1G --shards 10 --out "$mounted/sharded.gguf" >&2
    first=$(find "$mounted" -name 'sharded-00001-of-*.gguf')
    # So that the plan is not charged with the profile, which is measured once.
    "$hypura" profile --dir "$first" >&2
    "$here/verdict.py" plan "$hypura" "$first" "$results/$name-plan-400GB.json"
    find "$mounted" -name 'sharded-*.gguf' -delete
}

serve8() {
    if [ -z "${SERVER:-}" ] || [ -z "${SERVED:-}" ]; then
        fail "serve8 needs a running server: SERVER=http://127.0.0.1:11434 SERVED=model"
    fi
    "$here/serve8.py" "$SERVER" "$SERVED" "$results/$name-serve8.json" --rounds "$(of_rounds 3)" --tokens "$(pick 48 8)"
    verdict serve8 serve8
}

for block in $blocks; do
    began=$(date +%s)
    case $block in
    qwen3-6G | qwen3-8G | qwen3-10G) qwen3 "${block#qwen3-}" ;;
    mixtral) mixtral ;;
    llama-70b) llama ;;
    all-hits) all_hits ;;
    stats-cost) stats_cost ;;
    neighbour) neighbour ;;
    prefill2048) prefill2048 ;;
    soak) soak ;;
    kimi-1T) kimi ;;
    plan-400GB) plan_400 ;;
    serve8) serve8 ;;
    prediction) "$here/verdict.py" prediction ;;
    *) usage ;;
    esac
    echo "suite.sh: $block took $(($(date +%s) - began)) s" >&2
done
