// The border to llama.cpp's mtmd library, in C: what mtmd offers to C++ alone, and no exception beyond it.
//
// mtmd catches exceptions in most of its functions, not in all; ggml ends the program where a damaged projector breaks
// one of its assertions. Loading, measuring and tokenizing run under `Guard`, which turns such an end into an
// exception on the way out of ggml_abort: nothing computes meanwhile, so no other thread stands on that stack. Encoding
// computes, and is therefore not under it; the graph that it builds was built once with the same weights while loading.
//
// `ffi.rs` declares the same functions.

#include "clip.h"
#include "clip-model.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "mtmd.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" void ggml_print_backtrace(void);

namespace {

thread_local int guards = 0;

// Of a process that has its own last words (`crash.cpp`).
ggml_abort_callback_t previous_abort = nullptr;

void on_abort(const char * message) {
    if (guards > 0) {
        throw std::runtime_error(message);
    }
    if (previous_abort != nullptr) {
        previous_abort(message);
    }
    fprintf(stderr, "%s\n", message);
    ggml_print_backtrace();
}

struct Guard {
    Guard() {
        static std::once_flag once;
        std::call_once(once, [] { previous_abort = ggml_set_abort_callback(on_abort); });
        guards++;
    }
    ~Guard() { guards--; }
};

void tell(char * out, size_t room, const char * what) {
    if (room > 0) {
        snprintf(out, room, "%s", what);
    }
}

// Runs `body`; what it throws becomes text, and the answer false.
template <typename Body> bool caught(char * error, size_t room, Body && body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        tell(error, room, "out of memory");
    } catch (const std::exception & e) {
        tell(error, room, e.what());
    } catch (...) {
        tell(error, room, "an exception without a message");
    }
    return false;
}

mtmd_context_params params_of(int threads) {
    mtmd_context_params params = mtmd_context_params_default();
    // Where the model is: on the CPU.
    params.use_gpu       = false;
    params.print_timings = false;
    params.n_threads     = threads;
    params.warmup        = true; // Builds the graph and reserves its memory; computes nothing.
    return params;
}

// mtmd_decode_use_non_causal, for a projector that no context of mtmd has yet.
bool non_causal(projector_type type, uint64_t width) {
    switch (type) {
        case PROJECTOR_TYPE_GEMMA4V:
            return width != 1536 && width != 2560;
        case PROJECTOR_TYPE_GEMMA4UV:
        case PROJECTOR_TYPE_GEMMA3:
        case PROJECTOR_TYPE_SENSENOVA_U1:
        case PROJECTOR_TYPE_DEEPSEEK4V:
            return true;
        default:
            return false;
    }
}

// Seconds of the longest piece of a sound that compute buffers are reserved for; longer sounds are for encoders that get
// them in pieces.
constexpr int64_t piece_seconds = 30;

// Whether an encoder takes sounds of prompts. Others listen to a stream beside the text, or to the voice that is to be spoken
// with: mtmd has them in the same place, and asserts that they are not asked for this.
bool hears(projector_type type) {
    switch (type) {
        case PROJECTOR_TYPE_VOXTRAL_RT:
        case PROJECTOR_TYPE_QWEN3TTS_SPKENC:
        case PROJECTOR_TYPE_POCKETTTS_SPKENC:
            return false;
        default:
            return true;
    }
}

// Whether mtmd cuts a sound of any length into pieces of at most `piece_seconds` (its preprocessors in mtmd-audio.cpp). The
// others get it as a whole, which they need memory for, or lose what comes later.
bool cuts_sounds(projector_type type) {
    switch (type) {
        case PROJECTOR_TYPE_QWEN2A:
        case PROJECTOR_TYPE_QWEN3A:
        case PROJECTOR_TYPE_ULTRAVOX:
        case PROJECTOR_TYPE_VOXTRAL:
        case PROJECTOR_TYPE_MUSIC_FLAMINGO:
        case PROJECTOR_TYPE_GLMA:
        case PROJECTOR_TYPE_MERALION:
            return true;
        default:
            return false;
    }
}

// Steps of a second of sound and numbers of a step, as the encoder's graph reads them.
struct steps {
    int64_t per_second;
    int64_t numbers;
};

steps steps_of(projector_type type, const clip_hparams * hparams) {
    const int64_t rate = hparams->audio_sample_rate;
    switch (type) {
        case PROJECTOR_TYPE_GEMMA4UA: // Samples themselves, so many a row.
            return {rate / std::max(hparams->n_mel_bins, 1) + 1, hparams->n_mel_bins};
        case PROJECTOR_TYPE_MUSE_SPARK_AUDIO: // Samples themselves.
            return {rate, 1};
        default:
            return {rate / std::max(hparams->audio_hop_len, 1) + 1, hparams->n_mel_bins};
    }
}

} // namespace

extern "C" {

struct hypura_media_facts {
    bool vision;
    bool audio;
    bool mrope;
    // Samples a second that sounds must have.
    int32_t sample_rate;
};

struct hypura_media_use {
    // Weights, and compute buffers for a picture of `probe_pixels`.
    uint64_t vision_bytes;
    // Weights, and compute buffers for `probe_steps` of sound.
    uint64_t audio_bytes;
    // Weights of what speaks, which is not used.
    uint64_t other_bytes;
    // Numbers in a row of embeddings.
    uint64_t width;
    // Pixels of the picture that the compute buffers were reserved for, and of the largest one; 0: all are alike.
    uint64_t probe_pixels;
    uint64_t most_pixels;
    // Rows of the largest picture that is known, or -1.
    int32_t most_rows;
    // Steps of sound that the compute buffers were reserved for, and of the longest piece.
    uint64_t probe_steps;
    uint64_t most_steps;
    // Numbers that a second of sound becomes before it is encoded.
    uint64_t sound_numbers;
    // Rows of the longest piece of a sound.
    int32_t sound_rows;
    bool    image_non_causal;
    bool    vision;
    bool    audio;
    // Whether sounds of any length are taken; otherwise those of one piece.
    bool    audio_any_length;
};

struct hypura_media_part {
    // Null for a medium.
    const char *        text;
    size_t              length;
    bool                control;
    const mtmd_bitmap * bitmap;
};

void hypura_media_log(ggml_log_callback callback) {
    mtmd_log_set(callback, nullptr);
}

mtmd_context * hypura_media_load(const char * path, const llama_model * model, int threads,
                                 mtmd_progress_callback watch, void * data, char * error, size_t room) {
    mtmd_context * loaded = nullptr;
    caught(error, room, [&] {
        Guard guard;
        mtmd_context_params params         = params_of(threads);
        params.progress_callback           = watch;
        params.progress_callback_user_data = data;
        loaded = mtmd_init_from_file(path, model, params);
        return loaded != nullptr;
    });
    return loaded;
}

void hypura_media_free(mtmd_context * context) {
    mtmd_free(context);
}

hypura_media_facts hypura_media_facts_of(const mtmd_context * context) {
    return {mtmd_support_vision(context), mtmd_support_audio(context), mtmd_decode_use_mrope(context),
            mtmd_get_audio_sample_rate(context)};
}

static uint64_t bytes_of(const clip_ctx * part) {
    uint64_t sum = 0;
    if (part) {
        for (const auto & [device, bytes] : clip_get_mem_usage(part)) {
            sum += bytes;
        }
    }
    return sum;
}

static void measure_vision(const clip_ctx * vision, hypura_media_use * use) {
    const clip_hparams * hparams = clip_get_hparams(vision);
    const int            side    = hparams->warmup_image_size;
    clip_image_f32       probe;
    probe.set_size({side, side}, false, false);
    use->vision           = true;
    use->width            = clip_n_mmproj_embd(vision);
    use->image_non_causal = non_causal(clip_get_projector_type(vision), use->width);
    use->probe_pixels     = (uint64_t) side * side;
    use->most_pixels      = hparams->image_max_pixels > 0 ? hparams->image_max_pixels : 0;
    use->most_rows        = std::max(clip_get_image_max_tokens(vision), clip_n_output_tokens(vision, &probe));
}

static void measure_audio(const clip_ctx * audio, hypura_media_use * use) {
    const clip_hparams * hparams = clip_get_hparams(audio);
    const projector_type type    = clip_get_projector_type(audio);
    const steps          steps   = steps_of(type, hparams);
    const int64_t        most    = std::max<int64_t>(steps.per_second * piece_seconds, hparams->warmup_audio_size);
    clip_image_f32       longest;
    longest.set_size({(int) most, hparams->n_mel_bins}, true, true);
    use->audio            = hears(type);
    use->audio_any_length = cuts_sounds(type);
    use->width            = clip_n_mmproj_embd(audio);
    use->probe_steps      = hparams->warmup_audio_size;
    use->most_steps       = most;
    use->sound_numbers    = steps.per_second * steps.numbers;
    use->sound_rows       = clip_n_output_tokens(audio, &longest);
}

// What a projector would take, without its weights being read. Not mtmd_get_memory_usage, which does the same: it exchanges
// the log of all threads meanwhile.
bool hypura_media_measure(const char * path, hypura_media_use * use, char * error, size_t room) {
    return caught(error, room, [&] {
        Guard guard;
        *use = {};
        clip_context_params params{};
        params.flash_attn_type = CLIP_FLASH_ATTN_TYPE_AUTO;
        params.warmup          = true;
        params.no_alloc        = true;
        const clip_init_result clip = clip_init(path, params);
        use->vision_bytes = bytes_of(clip.ctx_v);
        use->audio_bytes  = bytes_of(clip.ctx_a);
        use->other_bytes  = bytes_of(clip.ctx_gen_a);
        if (clip.ctx_a) {
            measure_audio(clip.ctx_a, use);
        }
        if (clip.ctx_v) {
            measure_vision(clip.ctx_v, use);
        }
        const bool found = clip.ctx_v || clip.ctx_a;
        clip_free(clip.ctx_v);
        clip_free(clip.ctx_a);
        clip_free(clip.ctx_gen_a);
        return found;
    });
}

mtmd_bitmap * hypura_media_picture(uint32_t width, uint32_t height, const unsigned char * rgb, const char * id,
                                   char * error, size_t room) {
    mtmd_bitmap * bitmap = nullptr;
    caught(error, room, [&] {
        bitmap = mtmd_bitmap_init(width, height, rgb);
        mtmd_bitmap_set_id(bitmap, id);
        return true;
    });
    return bitmap;
}

// A sound: `count` samples of one channel, as many a second as the projector says.
mtmd_bitmap * hypura_media_sound(const float * samples, size_t count, const char * id, char * error, size_t room) {
    mtmd_bitmap * bitmap = nullptr;
    caught(error, room, [&] {
        bitmap = mtmd_bitmap_init_from_audio(count, samples);
        mtmd_bitmap_set_id(bitmap, id);
        return true;
    });
    return bitmap;
}

void hypura_media_bitmap_free(mtmd_bitmap * bitmap) {
    mtmd_bitmap_free(bitmap);
}

mtmd_input_chunks * hypura_media_tokenize(const mtmd_context * context, const hypura_media_part * parts, size_t count,
                                          char * error, size_t room) {
    mtmd_input_chunks * chunks = nullptr;
    const bool ok = caught(error, room, [&] {
        Guard guard;
        std::vector<mtmd_input_text> texts(count);
        std::vector<mtmd_input_part> all(count);
        std::vector<const mtmd_input_part *> pointers(count);
        for (size_t i = 0; i < count; i++) {
            texts[i]    = {parts[i].text, parts[i].length, false, parts[i].control};
            all[i]      = {parts[i].text ? &texts[i] : nullptr, parts[i].text ? nullptr : parts[i].bitmap};
            pointers[i] = &all[i];
        }
        chunks = mtmd_input_chunks_init();
        return mtmd_tokenize_from_parts(context, chunks, pointers.data(), count, /* add_special */ true) == 0;
    });
    if (!ok) {
        mtmd_input_chunks_free(chunks);
        return nullptr;
    }
    return chunks;
}

size_t hypura_media_chunk_count(const mtmd_input_chunks * chunks) {
    return mtmd_input_chunks_size(chunks);
}

void hypura_media_chunks_free(mtmd_input_chunks * chunks) {
    mtmd_input_chunks_free(chunks);
}

// The tokens of chunk `at`, or null when it is a medium.
const llama_token * hypura_media_chunk_tokens(const mtmd_input_chunks * chunks, size_t at, size_t * count) {
    const mtmd_input_chunk * chunk = mtmd_input_chunks_get(chunks, at);
    *count = 0;
    if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_TEXT) {
        return nullptr;
    }
    return mtmd_input_chunk_get_tokens_text(chunk, count);
}

// A medium on its own, to be freed.
mtmd_input_chunk * hypura_media_chunk_take(const mtmd_input_chunks * chunks, size_t at) {
    try {
        return mtmd_input_chunk_copy(mtmd_input_chunks_get(chunks, at));
    } catch (...) {
        return nullptr;
    }
}

void hypura_media_chunk_free(mtmd_input_chunk * chunk) {
    mtmd_input_chunk_free(chunk);
}

bool hypura_media_chunk_non_causal(const mtmd_context * context, const mtmd_input_chunk * chunk) {
    return mtmd_decode_use_non_causal(context, chunk);
}

// The name of the medium that it comes from; lives as long as the chunk.
const char * hypura_media_chunk_id(const mtmd_input_chunk * chunk) {
    return mtmd_input_chunk_get_id(chunk);
}

size_t hypura_media_chunk_rows(const mtmd_input_chunk * chunk) {
    return mtmd_input_chunk_get_n_tokens(chunk);
}

int32_t hypura_media_chunk_positions(const mtmd_input_chunk * chunk) {
    return mtmd_input_chunk_get_n_pos(chunk);
}

// The four positions of each row of a chunk that begins at `first`, row by row: time, height, width, and one more.
bool hypura_media_chunk_places(const mtmd_input_chunk * chunk, int32_t first, int32_t * out, char * error, size_t room) {
    return caught(error, room, [&] {
        Guard guard;
        const mtmd_image_tokens * image = mtmd_input_chunk_get_tokens_image(chunk);
        const size_t              rows  = mtmd_input_chunk_get_n_tokens(chunk);
        for (size_t i = 0; i < rows; i++) {
            int32_t * to = out + 4 * i;
            if (image) {
                const mtmd_decoder_pos place = mtmd_image_tokens_get_decoder_pos(image, first, i);
                to[0] = (int32_t) place.t;
                to[1] = (int32_t) place.y;
                to[2] = (int32_t) place.x;
                to[3] = (int32_t) place.z;
            } else {
                // A sound: one row after the other, as mtmd's own helper has it.
                to[0] = to[1] = to[2] = to[3] = first + (int32_t) i;
            }
        }
        return true;
    });
}

bool hypura_media_encode(mtmd_context * context, const mtmd_input_chunk * chunk, float * out, size_t count, char * error,
                         size_t room) {
    return caught(error, room, [&] {
        if (mtmd_encode_chunk(context, chunk) != 0) {
            return false;
        }
        memcpy(out, mtmd_get_output_embd(context), count * sizeof(float));
        return true;
    });
}

} // extern "C"
