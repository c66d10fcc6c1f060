// No AMX. ggml sets up the tiles of Intel's matrix units from a structure on the stack; the compilers' intrinsic names only
// its first 8 of 64 bytes as its input (GCC's amxtileintrin.h), so an optimising compiler drops the rest, and the
// first product of more than one token ends in an illegal instruction (llama.cpp pull request 26954).
// The function below is the one place where ggml asks for them; without them it repacks for AVX-512.
//
// It takes the place of ggml's own, whose object file the linker then never takes from llama.cpp's archive: this one comes
// first, because `hypura_without_amx` is called. Should llama.cpp ever need another function of that file, linking fails and says so.

#include "ggml-backend.h"

ggml_backend_buffer_type_t ggml_backend_amx_buffer_type(void);

ggml_backend_buffer_type_t ggml_backend_amx_buffer_type(void) {
    return nullptr;
}

extern "C" void hypura_without_amx(void) {}
