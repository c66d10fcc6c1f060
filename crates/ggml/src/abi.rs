//! The vtables of our device, registry and backend. Absent operations are named, so that a reader sees what is not
//! offered: a CPU device has no asynchronous copies, no events and no offloading.

use crate::sys::{self, raw};
use crate::{backend, device};

pub(crate) fn registry() -> raw::ggml_backend_reg {
    raw::ggml_backend_reg {
        api_version: raw::GGML_BACKEND_API_VERSION.cast_signed(),
        iface: raw::ggml_backend_reg_i {
            get_name: Some(device::registry_name),
            get_device_count: Some(device::registry_count),
            get_device: Some(device::registry_device),
            get_proc_address: Some(device::proc_address),
        },
        context: std::ptr::null_mut(),
    }
}

pub(crate) fn device(registry: sys::ggml_backend_reg_t) -> raw::ggml_backend_device {
    raw::ggml_backend_device {
        iface: raw::ggml_backend_device_i {
            get_name: Some(device::name),
            get_description: Some(device::description),
            get_memory: Some(device::memory),
            get_type: Some(device::kind),
            get_props: Some(device::properties),
            init_backend: Some(device::init_backend),
            get_buffer_type: Some(device::default_buffer_type),
            get_host_buffer_type: None,
            buffer_from_host_ptr: Some(device::buffer_from_host_ptr),
            supports_op: Some(device::supports_op),
            supports_buft: Some(device::supports_buffer_type),
            offload_op: None,
            event_new: None,
            event_free: None,
            event_synchronize: None,
        },
        reg: registry,
        context: std::ptr::null_mut(),
    }
}

pub(crate) fn backend() -> raw::ggml_backend_i {
    raw::ggml_backend_i {
        get_name: Some(backend::name),
        free: Some(backend::free),
        set_tensor_async: None,
        get_tensor_async: None,
        set_tensor_2d_async: None,
        get_tensor_2d_async: None,
        cpy_tensor_async: None,
        synchronize: None,
        graph_plan_create: None,
        graph_plan_free: None,
        graph_plan_update: None,
        graph_plan_compute: None,
        graph_compute: Some(backend::graph_compute),
        event_record: None,
        event_wait: None,
        graph_optimize: None,
    }
}
