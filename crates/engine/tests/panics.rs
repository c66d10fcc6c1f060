//! A panic in the middle of llama.cpp becomes the error of that decode; the next one is computed as if
//! nothing had been.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails, and what this one is about"
)]

mod common;

use common::{tiny, tokens};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::source::ModelSource;
use hypura_ggml::{
    Batch, Context, ContextOptions, DecodeError, Device, ExecError, Executor, GraphRun, KvType, LoadMode,
    LoadOptions, Model, Pooling, TensorMemory,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Computes the first half of a graph, and panics there as long as it is asked to.
struct Panicky(Arc<AtomicBool>);

impl Executor for Panicky {
    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let half = run.graph().len() / 2;
        run.run(0..half)?;
        if self.0.load(Ordering::SeqCst) {
            panic!("slot 7 lost");
        }
        run.run(half..run.graph().len())
    }
}

/// Computes a graph with something to do between its nodes, which panics as long as it is asked to.
#[derive(Clone, Default)]
struct Tending {
    nodes: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    panics: Arc<AtomicBool>,
}

impl Executor for Tending {
    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        self.nodes.fetch_add(run.graph().len(), Ordering::SeqCst);
        let (calls, panics) = (&self.calls, &self.panics);
        let mut poll_reads = || {
            calls.fetch_add(1, Ordering::SeqCst);
            assert!(!panics.load(Ordering::SeqCst), "the disk is gone");
        };
        run.meanwhile(&mut poll_reads, |run| run.run(0..run.graph().len()))
    }
}

/// A model under our device, every weight read from its file.
fn load(path: &Path) -> Model {
    let source = ModelSource::open(path).unwrap();
    let bytes = fs::read(path).unwrap();
    let mode = LoadMode::Decorated { placements: Vec::new() };
    let pending = Model::load(&LoadOptions::on_cpu(path.to_owned(), mode)).unwrap();
    let fill = |wanted: &[hypura_ggml::PendingTensor<'_>]| {
        for tensor in wanted {
            let found = source.shape.tensors.iter().find(|found| found.info.name == tensor.name).unwrap();
            let from = usize::try_from(found.info.offset).unwrap();
            let TensorMemory::Host(memory) = tensor.memory else { panic!("it is on the CPU") };
            for (cell, byte) in memory.iter().zip(&bytes[from..]) {
                cell.store(*byte, Ordering::Relaxed);
            }
        }
        Ok::<(), ()>(())
    };
    pending.fill(fill).unwrap()
}

fn context(model: &Model, executor: Box<dyn Executor>) -> Context {
    context_of(model, executor, 0)
}

fn context_of(model: &Model, executor: Box<dyn Executor>, outputs: u32) -> Context {
    let options = ContextOptions {
        context: 64,
        batch: 16,
        ubatch: 16,
        outputs,
        sequences: 1,
        threads: 1,
        kv: KvType::F16,
        pooling: Some(Pooling::default()),
        flash_attention: true,
        alone: false,
        reference_kernels: false,
        moe_cache_bytes: 0,
    };
    Context::new(model, &options, vec![(Device::cpu().unwrap(), executor)], Arc::default()).unwrap()
}

fn prompt() -> Batch {
    let mut batch = Batch::new(16);
    for (at, token) in tokens(9, 200).into_iter().enumerate() {
        batch.push(token, i32::try_from(at).unwrap(), 0, at == 8).unwrap();
    }
    batch
}

#[test]
fn a_panic_in_a_callback_is_the_error_of_its_decode_and_of_no_other() {
    let tiny = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let model = load(&tiny.path);
    let panics = Arc::new(AtomicBool::new(false));
    let mut healthy = context(&model, Box::new(Panicky(Arc::clone(&panics))));
    healthy.decode(&prompt()).unwrap();
    let expected = healthy.logits(-1).unwrap().to_vec();
    drop(healthy);

    let mut context = context(&model, Box::new(Panicky(Arc::clone(&panics))));
    for _ in 0..3 {
        panics.store(true, Ordering::SeqCst);
        match context.decode(&prompt()) {
            Err(DecodeError::Exec(ExecError::Panic(message))) => assert_eq!(message, "slot 7 lost"),
            other => panic!("{other:?}"),
        }
        assert!(context.forget(0, 0));
        panics.store(false, Ordering::SeqCst);
        context.decode(&prompt()).unwrap();
        assert_eq!(context.logits(-1).unwrap(), expected, "the same bits as without the panic");
        assert!(context.forget(0, 0));
    }
}

#[test]
fn between_any_two_nodes_there_is_time_for_the_disk() {
    let tiny = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let model = load(&tiny.path);
    let mut plain = context(&model, Box::new(Panicky(Arc::default())));
    plain.decode(&prompt()).unwrap();
    let expected = plain.logits(-1).unwrap().to_vec();

    let tending = Tending::default();
    let mut context = context(&model, Box::new(tending.clone()));
    context.decode(&prompt()).unwrap();
    assert_eq!(context.logits(-1).unwrap(), expected);
    let (nodes, calls) = (tending.nodes.load(Ordering::SeqCst), tending.calls.load(Ordering::SeqCst));
    // ggml goes over nodes that compute nothing (views, reshapes), and computes some pairs as one.
    assert!((nodes / 3..=nodes).contains(&calls), "{calls} calls in {nodes} nodes");

    tending.panics.store(true, Ordering::SeqCst);
    assert!(context.forget(0, 0));
    match context.decode(&prompt()) {
        Err(DecodeError::Exec(ExecError::Panic(message))) => assert_eq!(message, "the disk is gone"),
        other => panic!("{other:?}"),
    }
    assert_eq!(tending.calls.load(Ordering::SeqCst), calls + 1, "the graph ends where the panic was");
    tending.panics.store(false, Ordering::SeqCst);
    assert!(context.forget(0, 0));
    context.decode(&prompt()).unwrap();
    assert_eq!(context.logits(-1).unwrap(), expected, "the same bits as without the panic");
}

#[test]
fn more_outputs_than_the_context_has_are_an_error_and_not_the_end_of_the_program() {
    let tiny = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let model = load(&tiny.path);
    let mut context = context_of(&model, Box::new(Panicky(Arc::default())), 2);
    let batch = |outputs: usize| {
        let mut batch = Batch::new(16);
        for (at, token) in tokens(9, 200).into_iter().enumerate() {
            batch.push(token, i32::try_from(at).unwrap(), 0, at >= 9 - outputs).unwrap();
        }
        batch
    };
    let refused = context.decode(&batch(3)).unwrap_err().to_string();
    assert!(refused.contains("3 outputs asked for, 2 at most"), "{refused}");
    context.decode(&batch(2)).unwrap();
    assert!(context.logits(7).is_ok() && context.logits(8).is_ok());
    assert!(context.forget(0, 0));
    context.set_embeddings(true);
    let refused = context.decode(&batch(1)).unwrap_err().to_string();
    assert!(refused.contains("9 outputs asked for, 2 at most"), "{refused}");
}
