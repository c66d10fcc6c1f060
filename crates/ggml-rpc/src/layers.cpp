// Which operations a device of the RPC backend takes: those of its layers. Weights say where their own operations
// are computed; the others (sums, norms, what combines experts) go, in ggml's scheduler, to a neighbour that is not
// the CPU and takes them. Taken from the layer before, such an operation would bring all that goes into it over the
// link, several hidden states in place of one. Where an operation is refused, the CPU computes it.
//
// llama.cpp names what it computes for layer N `…-N`; what has no name is of the layer of what goes into it. What is
// of no layer is taken.

#include "hooks.h"

#include "ggml.h"

#include <cctype>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace {

std::mutex mutex;
// First and last layer, by name of the device.
std::map<std::string, std::pair<int, int>> layers_of;

constexpr int NO_LAYER = -1;
// How far back a name is looked for: a sum over experts is a chain of nameless ones.
constexpr int MOST_STEPS = 4;

// The number behind the last dash of the first word, as in `l_out-12` and `ffn_moe_weighted-3 (view)`.
int layer_in(const char * name) {
    const char * end = name + std::strcspn(name, " #");
    const char * at = end;
    while (at > name && std::isdigit(static_cast<unsigned char>(at[-1]))) {
        at--;
    }
    if (at == end || at == name || at[-1] != '-' || end - at > 6) {
        return NO_LAYER;
    }
    int layer = 0;
    for (; at < end; at++) {
        layer = layer * 10 + (*at - '0');
    }
    return layer;
}

int layer_of(const ggml_tensor * op, int steps) {
    const int named = layer_in(op->name);
    if (named != NO_LAYER || steps == 0) {
        return named;
    }
    int layer = NO_LAYER;
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        if (op->src[i] != nullptr) {
            const int of_src = layer_of(op->src[i], steps - 1);
            layer = of_src > layer ? of_src : layer;
        }
    }
    return layer;
}

} // namespace

bool hypura_rpc_takes(ggml_backend_dev_t dev, const ggml_tensor * op) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = layers_of.find(ggml_backend_dev_name(dev));
    if (found == layers_of.end()) {
        return true;
    }
    const int layer = layer_of(op, MOST_STEPS);
    return layer == NO_LAYER || (layer >= found->second.first && layer <= found->second.second);
}

// `first` to `last` are computed by the device of that name.
extern "C" void hypura_rpc_set_layers(const char * device, int first, int last) {
    std::lock_guard<std::mutex> lock(mutex);
    layers_of[device] = { first, last };
}
