// What of ggml's RPC backend is decided here: build.rs puts calls of these into its source.

#pragma once

#include "ggml-backend.h"

// Whether a device of another machine takes an operation (layers.cpp).
bool hypura_rpc_takes(ggml_backend_dev_t dev, const ggml_tensor * op);

// Computes a graph that another machine asked for (graphs.cpp).
ggml_status hypura_rpc_compute(ggml_backend_t backend, ggml_cgraph * graph);
