//! ggml's RPC backend: devices of another process, over a socket that the caller opened and protects.
//!
//! It is unsafe to face (whoever speaks to the server can have it read and write its memory), so it is given
//! neither address nor port: [`attach`] and [`serve`] take a connected socket, and the transport beneath
//! (`transport.cpp`) knows nothing else. What protects that socket is its owner's business: nobody but the
//! two processes that hold its ends can reach it.
//!
//! Invariants: a socket that was attached is used until the process ends, as are ggml's devices; a lost
//! connection ends the process (`RPC_STATUS_ASSERT` of ggml), so whoever watches the connection should end it
//! first, and say why.

mod graphs;

pub use graphs::ChooseThreads;

use hypura_ggml::Device;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::path::Path;

use llama_cpp_sys_4 as sys;

unsafe extern "C" {
    fn ggml_backend_rpc_init(endpoint: *const c_char, device: u32) -> sys::ggml_backend_t;
    fn ggml_backend_rpc_add_server(endpoint: *const c_char) -> sys::ggml_backend_reg_t;
    fn ggml_backend_rpc_start_server(
        endpoint: *const c_char,
        cache_folder: *const c_char,
        threads: usize,
        count: usize,
        devices: *mut sys::ggml_backend_dev_t,
    );
    fn hypura_rpc_set_layers(device: *const c_char, first: i32, last: i32);
}

/// The version of the protocol, as `ggml-rpc.h` has it. Both ends must have the same, and the same ggml: what
/// travels are numbers of operations and types.
pub const PROTOCOL: (u8, u8, u8) = (8, 0, 1);

/// Why there are no devices.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The other end offers none.
    #[error("the worker offers no device")]
    NoDevice,
    /// A device cannot be used.
    #[error(transparent)]
    Device(#[from] hypura_ggml::LoadError),
    /// The name of a folder cannot be given to C.
    #[error("the folder for weights has a name that cannot be used")]
    Folder,
}

/// The devices of the server at the other end of a connected socket. They, and the socket, belong to this
/// process from now on, until it ends.
///
/// Waits for the server's answers. When the connection is lost, now or later, ggml ends the process.
///
/// # Errors
/// [`RpcError`].
pub fn attach(socket: OwnedFd) -> Result<Vec<Device>, RpcError> {
    hypura_ggml::system::prepare();
    let endpoint = endpoint(socket.into_raw_fd());
    // SAFETY: a NUL-terminated string that is copied. The backend is never freed on purpose: it holds the
    // connection, which `fd:N` stands for once only.
    let backend = unsafe { ggml_backend_rpc_init(endpoint.as_ptr(), 0) };
    if backend.is_null() {
        return Err(RpcError::NoDevice);
    }
    // SAFETY: as above; a registry of the RPC backend lives for the whole process.
    let registry = unsafe { ggml_backend_rpc_add_server(endpoint.as_ptr()) };
    if registry.is_null() {
        return Err(RpcError::NoDevice);
    }
    // SAFETY: a live registry; ggml answers an index below the count with a device that lives for ever, which
    // is what `adopt` asks for.
    let devices = unsafe {
        (0..sys::ggml_backend_reg_dev_count(registry))
            .map(|index| Device::adopt(sys::ggml_backend_reg_dev_get(registry, index).cast::<c_void>()))
            .collect::<Result<Vec<Device>, _>>()?
    };
    if devices.is_empty() { Err(RpcError::NoDevice) } else { Ok(devices) }
}

/// Says which layers a device that was attached computes, from now on: operations without weights of other
/// layers are left to others, so that one hidden state crosses the link, not all that it is made of.
pub fn set_layers(device: Device, layers: std::ops::RangeInclusive<u32>) {
    // A name of ggml's has no NUL.
    let name = CString::new(device.name()).unwrap_or_default();
    let number = |layer: u32| i32::try_from(layer).unwrap_or(i32::MAX);
    // SAFETY: a NUL-terminated string that is copied.
    unsafe { hypura_rpc_set_layers(name.as_ptr(), number(*layers.start()), number(*layers.end())) };
}

/// Serves devices of this process to the other end of a connected socket, until that is closed. `device` is
/// the name of one of ggml's devices. Large weights that arrive are kept in `cache`, and taken from there
/// when they are asked for again. `choose` says how many threads compute each graph, at most `threads`;
/// without it that is the device's business.
///
/// # Errors
/// [`RpcError`] before the connection is served.
pub fn serve(
    socket: &OwnedFd,
    device: &str,
    cache: Option<&Path>,
    threads: u32,
    choose: Option<Box<dyn ChooseThreads>>,
) -> Result<(), RpcError> {
    if let Some(choose) = choose {
        graphs::watch(threads, choose)?;
    }
    let mut devices = [find(device).ok_or(RpcError::NoDevice)?];
    let folder =
        |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| RpcError::Folder);
    let cache = cache.map(folder).transpose()?;
    let cache = cache.as_ref().map_or(std::ptr::null(), |cache| cache.as_ptr());
    let endpoint = endpoint(socket.as_raw_fd());
    // SAFETY: the strings are NUL-terminated and live for the call, as does the array of one device.
    unsafe {
        ggml_backend_rpc_start_server(endpoint.as_ptr(), cache, threads as usize, 1, devices.as_mut_ptr());
    }
    Ok(())
}

/// ggml's device of that name, as it is: undecorated.
fn find(name: &str) -> Option<sys::ggml_backend_dev_t> {
    // So that libraries of backends are loaded.
    let _ = hypura_ggml::system::devices();
    // SAFETY: plain queries; a device lives for the whole process and its name is a static string.
    unsafe {
        (0..sys::ggml_backend_dev_count())
            .map(|index| sys::ggml_backend_dev_get(index))
            .find(|device| CStr::from_ptr(sys::ggml_backend_dev_name(*device)).to_string_lossy() == name)
    }
}

/// A descriptor as the transport wants it.
fn endpoint(descriptor: i32) -> CString {
    // There is no NUL in it.
    CString::new(format!("fd:{descriptor}")).unwrap_or_default()
}
