# A build of ggml's CPU kernels for any processor of the architecture, whatever the machine that builds.
#
# llama-cpp-sys-4 asks for the building machine's own instructions (`-DGGML_NATIVE=ON`), and forwards no other
# wish about ggml. Handed to cmake as CMAKE_TOOLCHAIN_FILE, this file sets variables of the same names, which stand before
# those of the command line; ggml's `option` leaves variables that are set alone. Kernels for newer processors
# come as libraries: scripts/dist/kernels.sh.
set(GGML_NATIVE OFF)
foreach(feature SSE42 AVX AVX_VNNI AVX2 BMI2 FMA F16C AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16
        AMX_TILE AMX_INT8 AMX_BF16)
    set(GGML_${feature} OFF)
endforeach()
