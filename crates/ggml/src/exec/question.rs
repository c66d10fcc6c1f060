//! Asking the next layer's router early where a device computes: two nodes behind those that are run anyway,
//! whose scores come to the host together with the ids that it waits for.
//!
//! The question is about the input of a router that has just been computed, so it costs no wait of its own.
//! Its nodes write to memory of their own and change nothing that the model's nodes see.

use crate::error::ExecError;
use crate::memory::DeviceBuffer;
use crate::sys;

use super::asked::QuestionMemory;
use super::graph::MatMul;
use super::memory::is_host;
use super::operand::{lay_out, plain_tensor, to_i64, to_usize};
use super::router::{exchange, norm_operand};
use super::run::GraphRun;

/// Where the parts of a question begin in its memory: more than any device asks for.
const ALIGNMENT: usize = 256;

/// Numbers of operands that no node has, for the stand-ins of a question about a router.
const ROWS: usize = 100;
const SCORES: usize = 101;
const RATIO: usize = 102;

#[derive(Clone, Copy)]
struct Shape {
    columns: usize,
    tokens: usize,
    scores: usize,
}

impl Shape {
    fn rows_at(self) -> usize {
        (self.columns * size_of::<f32>()).next_multiple_of(ALIGNMENT)
    }

    fn scores_at(self) -> usize {
        self.rows_at() + (self.columns * self.tokens * size_of::<f32>()).next_multiple_of(ALIGNMENT)
    }

    fn bytes(self) -> usize {
        self.scores_at() + self.scores * self.tokens * size_of::<f32>()
    }
}

impl MatMul {
    /// Has the matrix of `later` applied to the input of this one, which the nodes that are run next compute,
    /// right behind them: the scores of the later router for the hidden state of today. Where the inputs are
    /// normalised with weights of their own, its own are exchanged for those of the later one. The scores are
    /// there when ids have been read next ([`MatMul::take_answer`]).
    ///
    /// Returns whether it is asked: on a device, and where the shapes allow it.
    ///
    /// # Errors
    /// [`ExecError::Engine`] when the device has no memory for it.
    pub fn ask_behind(self, run: &mut GraphRun<'_>, later: MatMul) -> Result<bool, ExecError> {
        let (now, next) = (run.graph().node(self.node), run.graph().node(later.node));
        // SAFETY: both nodes and their operands are alive.
        let Some(shape) = (unsafe { shape_of(now, next) }).filter(|_| !run.is_host()) else {
            return Ok(false);
        };
        let key = (self.weight, later.weight);
        let known = run.scratch.questions.memory.get(&key);
        if known.is_none_or(|known| known.tokens < shape.tokens) {
            // Kernels may still use what it replaces.
            run.synchronize();
            // SAFETY: as above.
            let memory = unsafe { memory(run, now, next, shape)? };
            run.scratch.questions.memory.insert(key, memory);
        }
        let Some(memory) = run.scratch.questions.memory.get(&key) else { return Ok(false) };
        let mut nodes = Vec::with_capacity(2);
        let standins = &mut run.scratch.standins;
        // SAFETY: both nodes and their operands are alive for the graph; the stand-ins describe memory of the
        // question, which has room for the shape, and stay where they are until the backend was waited for.
        let scores = unsafe {
            let mut input = (*now).src[1];
            if memory.exchanged {
                let mut ratio = plain_tensor((*now).src[1], std::ptr::null_mut());
                make_leaf(&mut ratio, [shape.columns, 1, 1])?;
                (ratio.buffer, ratio.data) = memory.buffer.place(0);
                let ratio = standins.place(next, RATIO, ratio);
                let mut rows = plain_tensor(next, std::ptr::null_mut());
                rows.op = sys::GGML_OP_MUL;
                rows.op_params = [0; 16];
                rows.src = [std::ptr::null_mut(); 10];
                (rows.src[0], rows.src[1]) = (input, ratio);
                lay_out(&mut rows, [shape.columns, shape.tokens, 1])?;
                (rows.buffer, rows.data) = memory.buffer.place(shape.rows_at());
                input = standins.place(next, ROWS, rows);
                nodes.push(input);
            }
            let mut scores = plain_tensor(next, std::ptr::null_mut());
            scores.src = [std::ptr::null_mut(); 10];
            (scores.src[0], scores.src[1]) = ((*next).src[0], input);
            lay_out(&mut scores, [shape.scores, shape.tokens, 1])?;
            (scores.buffer, scores.data) = memory.buffer.place(shape.scores_at());
            standins.place(next, SCORES, scores)
        };
        nodes.push(scores);
        run.scratch.questions.ask(later.weight, nodes, scores, shape.scores * shape.tokens);
        Ok(true)
    }

    /// What was to be run next will not be: no router is asked behind it.
    pub fn ask_nothing(run: &mut GraphRun<'_>) {
        run.scratch.questions.withdraw();
    }

    /// The scores that this router gave when it was asked last, `tokens` rows of one score per expert; `None`
    /// before ids were read, and when they were taken already.
    #[must_use]
    pub fn take_answer(self, run: &mut GraphRun<'_>) -> Option<Vec<f32>> {
        run.scratch.questions.take_answer(self.weight)
    }
}

/// Memory for a question of this shape, with what the input of `now` has to be multiplied with in it.
///
/// # Safety
/// Both nodes and their operands are alive.
unsafe fn memory(
    run: &GraphRun<'_>,
    now: *const sys::ggml_tensor,
    next: *const sys::ggml_tensor,
    shape: Shape,
) -> Result<QuestionMemory, ExecError> {
    let mut buffer = DeviceBuffer::new(run.device(), shape.bytes()).map_err(ExecError::engine)?;
    buffer.fill(0);
    // SAFETY: the caller's promise.
    let ratio = unsafe { ratio_of(now, next, shape.columns) };
    if let Some(ratio) = &ratio {
        let bytes = size_of_val(ratio.as_slice());
        let missing = || ExecError::Misuse("there is no room for factors".to_owned());
        let mut tensor = buffer.tensor(0, bytes).ok_or_else(missing)?;
        // SAFETY: the tensor describes as many bytes inside the buffer, which nothing uses yet; the copy is
        // done when the call returns.
        unsafe { sys::ggml_backend_tensor_set(&raw mut tensor, ratio.as_ptr().cast(), 0, bytes) };
    }
    Ok(QuestionMemory { buffer, exchanged: ratio.is_some(), tokens: shape.tokens })
}

/// What the input of `now` has to be multiplied with; `None` where nothing has to be.
///
/// # Safety
/// Both nodes and their operands are alive.
unsafe fn ratio_of(
    now: *const sys::ggml_tensor,
    next: *const sys::ggml_tensor,
    columns: usize,
) -> Option<Vec<f32>> {
    let read = |weight: *const sys::ggml_tensor| {
        let mut values = vec![0.0f32; columns];
        // SAFETY: the weight has `columns` contiguous floats (`norm_operand`), and is never written to.
        unsafe { sys::ggml_backend_tensor_get(weight, values.as_mut_ptr().cast(), 0, 4 * columns) };
        values
    };
    // SAFETY: the caller's promise.
    let (now, next) =
        unsafe { (norm_operand((*now).src[1], columns)?, norm_operand((*next).src[1], columns)?) };
    Some(exchange(&read(now), &read(next)))
}

/// `None` where the router of `next` cannot be asked about the input of `now`.
///
/// # Safety
/// Both nodes and their operands are alive.
unsafe fn shape_of(now: *const sys::ggml_tensor, next: *const sys::ggml_tensor) -> Option<Shape> {
    // SAFETY: the caller's promise; a weight in memory has a buffer.
    unsafe {
        let (input, matrix, other) = ((*now).src[1], (*next).src[0], (*now).src[0]);
        let on_device = |tensor: *const sys::ggml_tensor| !(*tensor).data.is_null() && !is_host(tensor);
        let together = !(*matrix).buffer.is_null()
            && !(*other).buffer.is_null()
            && sys::ggml_backend_buffer_get_type((*matrix).buffer)
                == sys::ggml_backend_buffer_get_type((*other).buffer);
        let fits = (*input).type_ == sys::GGML_TYPE_F32
            && (*next).type_ == sys::GGML_TYPE_F32
            && sys::ggml_is_contiguous(input)
            && (*input).ne[0] == (*matrix).ne[0]
            && (*input).ne[2] == 1
            && (*input).ne[3] == 1
            && (*matrix).ne[2] == 1
            && !crate::buffer::is_streamed(matrix);
        if !(fits && together && on_device(input) && on_device(matrix)) {
            return None;
        }
        let (columns, tokens) = (to_usize((*input).ne[0]).ok()?, to_usize((*input).ne[1]).ok()?);
        Some(Shape { columns, tokens, scores: to_usize((*matrix).ne[1]).ok()? })
    }
}

/// Makes a copy of a tensor a weight of its own, of floats.
fn make_leaf(tensor: &mut sys::ggml_tensor, shape: [usize; 3]) -> Result<(), ExecError> {
    tensor.op = sys::GGML_OP_NONE;
    tensor.src = [std::ptr::null_mut(); 10];
    tensor.op_params = [0; 16];
    tensor.ne[0] = to_i64(shape[0])?;
    lay_out(tensor, shape)
}
