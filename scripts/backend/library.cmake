# Makes a backend a library that has no ggml of its own: what it uses of it is the program's, which exports it.
function(use_ggml_of_the_program target)
    get_target_property(libraries ${target} LINK_LIBRARIES)
    list(REMOVE_ITEM libraries ggml-base)
    set_target_properties(${target} PROPERTIES LINK_LIBRARIES "${libraries}")
    target_include_directories(${target} PRIVATE "${LLAMA_SOURCE}/ggml/include")
    target_compile_definitions(${target} PRIVATE GGML_BACKEND_SHARED GGML_SHARED)
endfunction()
