// The transport of ggml's RPC backend, in place of its own (ggml-rpc/transport.cpp): sockets that somebody else
// opened, by their descriptors. ggml's RPC has no authentication, so nothing here listens, connects or resolves a
// name: an endpoint is `fd:N`, whatever else is refused. That is also the end of commands by which a client could
// have a server listen or connect elsewhere (COMM_INIT).
//
// A descriptor is good for one connection, on either side. What is read and written there is blocking. The pieces of a
// message are written at once, when it is whole: whoever carries them then wakes once for each message, not for each
// piece.

#include "ggml-rpc.h"
#include "transport.h"

#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

static_assert(RPC_PROTO_MAJOR_VERSION == 8 && RPC_PROTO_MINOR_VERSION == 0 && RPC_PROTO_PATCH_VERSION == 1,
    "another version of the protocol: PROTOCOL in lib.rs has it, too");

struct socket_t::impl {
    explicit impl(int fd) : fd(fd) {}
    ~impl() {
        // The descriptor stays open until the process ends, so that its number is nobody else's; whoever is at the
        // other end must see that this is over.
        shutdown(fd, SHUT_RDWR);
    }
    bool write_all(const char * at, size_t size) const {
        while (size > 0) {
            const ssize_t sent = ::write(fd, at, size < MAX_CHUNK_SIZE ? size : MAX_CHUNK_SIZE);
            if (sent < 0 && errno == EINTR) {
                continue;
            }
            if (sent <= 0) {
                return false;
            }
            at += sent;
            size -= static_cast<size_t>(sent);
        }
        return true;
    }

    bool write_pending() {
        const bool written = pending.empty() || write_all(pending.data(), pending.size());
        pending.clear();
        return written;
    }

    const int fd;
    // Pieces of a message that is not whole yet.
    std::vector<char> pending;
};

namespace {

// Messages of more are written piece by piece.
constexpr size_t MOST_PENDING = 128 * 1024;

std::mutex mutex;
std::set<int> used;

// Whether it is the first time that this descriptor is asked for.
bool take(int fd) {
    std::lock_guard<std::mutex> lock(mutex);
    return fd >= 0 && used.insert(fd).second;
}

bool is_descriptor(const char * host) {
    return host != nullptr && std::strcmp(host, "fd") == 0;
}

} // namespace

socket_t::socket_t(std::unique_ptr<impl> p) : pimpl(std::move(p)) {}
socket_t::~socket_t() = default;

bool socket_t::send_data(const void * data, size_t size) {
    const char * at = static_cast<const char *>(data);
    if (pimpl->pending.size() + size <= MOST_PENDING) {
        pimpl->pending.insert(pimpl->pending.end(), at, at + size);
        return true;
    }
    return pimpl->write_pending() && pimpl->write_all(at, size);
}

bool socket_t::recv_data(void * data, size_t size) {
    char * at = static_cast<char *>(data);
    // Nobody waits for an answer to what was not sent.
    if (!pimpl->write_pending()) {
        return false;
    }
    while (size > 0) {
        const ssize_t received = ::read(pimpl->fd, at, size < MAX_CHUNK_SIZE ? size : MAX_CHUNK_SIZE);
        if (received < 0 && errno == EINTR) {
            continue;
        }
        if (received <= 0) {
            return false;
        }
        at += received;
        size -= static_cast<size_t>(received);
    }
    return true;
}

bool socket_t::flush() {
    return pimpl->write_pending();
}

void socket_t::get_caps(uint8_t * local_caps) {
    std::memset(local_caps, 0, RPC_CONN_CAPS_SIZE);
}

void socket_t::update_caps(const uint8_t * remote_caps) {
    (void) remote_caps;
}

const char * socket_t::transport_name() const {
    return "descriptor";
}

socket_ptr socket_t::connect(const char * host, int port) {
    return is_descriptor(host) && take(port) ? socket_ptr(new socket_t(std::make_unique<impl>(port))) : nullptr;
}

socket_ptr socket_t::create_server(const char * host, int port) {
    return is_descriptor(host) && port >= 0 ? socket_ptr(new socket_t(std::make_unique<impl>(dup(port)))) : nullptr;
}

socket_ptr socket_t::accept() {
    // The one connection that there will be; the second time the server is done.
    static std::once_flag once;
    socket_ptr accepted;
    std::call_once(once, [&] { accepted = socket_ptr(new socket_t(std::make_unique<impl>(dup(pimpl->fd)))); });
    return accepted;
}

bool rpc_transport_init() {
    return true;
}

void rpc_transport_shutdown() {}
