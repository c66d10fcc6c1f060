//! What a device asks of memory that its kernels read as one operand.

use crate::sys;

use super::handle::Device;

/// Columns of the weight that a device is asked about.
const COLUMNS: i64 = 1024;

/// Sizes of an operand that are tried, as powers of two: no model has larger ones, and every device takes
/// smaller ones.
const LARGEST: u32 = 36;
const SMALLEST: u32 = 20;

impl Device {
    /// Whether it may be asked to compute with host memory where it is. A driver can still refuse.
    #[must_use]
    pub fn may_import(self) -> bool {
        !self.is_host() && self.imports_host_memory()
    }

    /// Operands begin at a multiple of this.
    #[must_use]
    pub fn alignment(self) -> usize {
        // SAFETY: a buffer type lives for the whole process.
        unsafe { sys::ggml_backend_buft_get_alignment(self.inner_buffer_type()) }.max(1)
    }

    /// Whether its kernels count from one slice of a stack to the next in whole blocks of the type. Metal's
    /// count in bytes.
    #[must_use]
    pub fn counts_in_blocks(self) -> bool {
        // SAFETY: device and registry live for the whole process, and so does the name.
        let backend = unsafe {
            let registry = sys::ggml_backend_dev_backend_reg(self.inner());
            std::ffi::CStr::from_ptr(sys::ggml_backend_reg_name(registry))
        };
        backend != c"MTL"
    }

    /// Bytes of the largest weight that its kernels read: a power of two, because it is found by asking.
    #[must_use]
    pub fn largest_operand_bytes(self) -> usize {
        let reads = |bytes: &usize| self.multiplies(*bytes);
        let sizes = (SMALLEST..=LARGEST).rev().map(|exponent| 1usize << exponent);
        sizes.into_iter().find(reads).unwrap_or(1 << SMALLEST).min(self.largest_buffer_bytes())
    }

    /// Whether it multiplies a weight of so many bytes.
    fn multiplies(self, bytes: usize) -> bool {
        let Ok(rows) = i64::try_from(bytes / (2 * COLUMNS as usize)) else { return false };
        let (mut weight, mut input) =
            (matrix(sys::GGML_TYPE_F16, 2, COLUMNS, rows), matrix(sys::GGML_TYPE_F32, 4, COLUMNS, 1));
        let mut product = matrix(sys::GGML_TYPE_F32, 4, rows, 1);
        product.op = sys::GGML_OP_MUL_MAT;
        (product.src[0], product.src[1]) = (&raw mut weight, &raw mut input);
        // SAFETY: the device lives for the whole process; it looks at types and shapes of the node and its
        // operands, which are alive for the call.
        unsafe { sys::ggml_backend_dev_supports_op(self.inner(), &raw const product) }
    }
}

/// A matrix without memory.
fn matrix(ty: sys::ggml_type, element_bytes: usize, columns: i64, rows: i64) -> sys::ggml_tensor {
    // SAFETY: zeroes are a valid tensor.
    let mut tensor: sys::ggml_tensor = unsafe { std::mem::zeroed() };
    tensor.type_ = ty;
    tensor.ne = [columns, rows, 1, 1];
    let row = columns.unsigned_abs() as usize * element_bytes;
    let all = row * rows.unsigned_abs() as usize;
    tensor.nb = [element_bytes, row, all, all];
    tensor
}
