// Graphs that another machine asks for: computed with as many threads as whoever serves them says before each.

#include "hooks.h"

#include "ggml.h"

namespace {

typedef void (*begin_t)(ggml_backend_t backend, int64_t rows);
typedef void (*end_t)(int64_t rows);

// Set before the first graph, by the thread that computes all of them.
begin_t begin_graph = nullptr;
end_t end_graph = nullptr;

// Tokens of a graph: what a weight is multiplied with has a row for each. Not what leaves the last layer, which may be
// of the last token alone.
int64_t rows_of(ggml_cgraph * graph) {
    int64_t rows = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node != nullptr && node->op == GGML_OP_MUL_MAT && node->ne[1] > rows) {
            rows = node->ne[1];
        }
    }
    return rows;
}

} // namespace

ggml_status hypura_rpc_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    if (begin_graph == nullptr || end_graph == nullptr) {
        return ggml_backend_graph_compute_async(backend, graph);
    }
    const int64_t rows = rows_of(graph);
    begin_graph(backend, rows);
    const ggml_status status = ggml_backend_graph_compute(backend, graph);
    end_graph(rows);
    return status;
}

extern "C" void hypura_rpc_watch_graphs(begin_t begin, end_t end) {
    begin_graph = begin;
    end_graph = end;
}
