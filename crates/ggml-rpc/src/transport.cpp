// The transport of ggml's RPC backend, in place of its own (ggml-rpc/transport.cpp): sockets that somebody else
// opened, by their descriptors. ggml's RPC has no authentication, so nothing here listens, connects or resolves a
// name: an endpoint is `fd:N`, whatever else is refused. That is also the end of commands by which a client could
// have a server listen or connect elsewhere (COMM_INIT).
//
// A descriptor is good for one connection, on either side. What is read and written there is blocking.

#include "ggml-rpc.h"
#include "transport.h"

#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>

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
    const int fd;
};

namespace {

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
    while (size > 0) {
        const ssize_t sent = ::write(pimpl->fd, at, size < MAX_CHUNK_SIZE ? size : MAX_CHUNK_SIZE);
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

bool socket_t::recv_data(void * data, size_t size) {
    char * at = static_cast<char *>(data);
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
    return true;
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
