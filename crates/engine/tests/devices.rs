//! The gate on a device that is no host: memory that nobody can address, queues that are late, copies in any
//! order. Every part of it once with everything on the device, once with the experts on the CPU and all else
//! on the device, and once with the experts on the device and all else on the CPU. The device computes with
//! the CPU's kernels, so the bits are the CPU's.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "common/exact.rs"]
mod exact;

use common::serve::{ask, chat, greedy, runner_with, settled};
use common::{demo_path, forced_run, hash, session, settings, streaming, tiny};
use exact::At;
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::ReaderKind;
use hypura_engine::budget::SharedMemory;
use hypura_engine::load::{DeviceSettings, LoadSettings, load, prepare};
use hypura_engine::request::{Finish, Options};
use hypura_engine::serve::RunnerSettings;
use hypura_engine::sim::{Eio, SimConfig, SimDevice, SimDeviceOptions};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::{Held, Prefetch, StreamStats};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Runs a part of the gate on a device of its own, which must have found nothing wrong.
fn on_device(homes: impl Fn(SimDevice) -> DeviceSettings, part: fn(&At)) {
    on(SimDeviceOptions::default(), homes, part);
}

fn on(options: SimDeviceOptions, homes: impl Fn(SimDevice) -> DeviceSettings, part: fn(&At)) {
    let device = SimDevice::new(options).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| part(&At { devices: homes(device) })));
    // Whatever else went wrong follows from these.
    let violations = device.violations();
    assert!(violations.is_empty(), "{} violations, the first: {}", violations.len(), violations[0]);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    assert_eq!(device.used_bytes(), 0, "memory of the device is lost");
}

mod all_on_the_device {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        let device = device.device();
        DeviceSettings {
            devices: vec![device],
            gpu_layers: -1,
            experts: Some(device),
            dense: Some(device),
            ..DeviceSettings::default()
        }
    }

    exactness!(|part| on_device(homes, part));
}

mod experts_on_the_cpu {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        DeviceSettings { devices: vec![device.device()], gpu_layers: -1, ..DeviceSettings::default() }
    }

    exactness!(|part| on_device(homes, part));
}

mod experts_on_the_device {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        DeviceSettings { experts: Some(device.device()), ..DeviceSettings::default() }
    }

    exactness!(|part| on_device(homes, part));
}

/// The device computes with the experts in the host's memory, where they are.
mod experts_in_place {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        in_place(device)
    }

    fn on_device(homes: impl Fn(SimDevice) -> DeviceSettings, part: fn(&At)) {
        on(SimDeviceOptions { imports: Some(1 << 30), ..SimDeviceOptions::default() }, homes, part);
    }

    exactness!(|part| on_device(homes, part));
}

/// The device has slots for fewer experts than the host, but for what a token uses of a layer, and sometimes
/// more than the host has.
mod experts_in_a_few_slots_of_the_device {
    use super::*;

    pub(super) fn homes(device: SimDevice) -> DeviceSettings {
        let device = device.device();
        DeviceSettings {
            devices: vec![device],
            gpu_layers: -1,
            experts: Some(device),
            expert_slots: Some(10),
            ..DeviceSettings::default()
        }
    }

    exactness! {
        |part| on_device(homes, part);
        mixtral qwen3_moe gpt_oss kimi_k2 mixed_quantisations_make_two_size_classes
        gate_and_up_of_experts_in_one_tensor readers_and_policies
        prefetching_right_or_wrong_changes_no_bit
        large_ubatches_equal_the_resident_run_at_the_same_ubatch
        every_ubatch_equals_the_resident_run_at_the_same_ubatch
        the_demo_model_answers_the_same_from_a_third_of_its_experts
    }
}

/// The same on a device that reads the host's memory by itself: what it evicts comes back there.
mod experts_in_a_few_slots_of_a_device_that_gives_them_back {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        experts_in_a_few_slots_of_the_device::homes(device)
    }

    fn on_device(homes: impl Fn(SimDevice) -> DeviceSettings, part: fn(&At)) {
        on(SimDeviceOptions { imports: Some(1 << 30), ..SimDeviceOptions::default() }, homes, part);
    }

    exactness! {
        |part| on_device(homes, part);
        mixtral qwen3_moe gpt_oss kimi_k2 mixed_quantisations_make_two_size_classes
        gate_and_up_of_experts_in_one_tensor readers_and_policies
        prefetching_right_or_wrong_changes_no_bit
        large_ubatches_equal_the_resident_run_at_the_same_ubatch
        every_ubatch_equals_the_resident_run_at_the_same_ubatch
        the_demo_model_answers_the_same_from_a_third_of_its_experts
    }
}

/// The same with operands so small that the slots of most layers are by themselves.
mod experts_in_place_in_small_banks {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        in_place(device)
    }

    fn on_device(homes: impl Fn(SimDevice) -> DeviceSettings, part: fn(&At)) {
        on(SimDeviceOptions { imports: Some(4 << 20), ..SimDeviceOptions::default() }, homes, part);
    }

    exactness! {
        |part| on_device(homes, part);
        qwen3_moe gpt_oss every_ubatch_equals_the_resident_run_at_the_same_ubatch
        the_demo_model_answers_the_same_from_a_third_of_its_experts
    }
}

fn in_place(device: SimDevice) -> DeviceSettings {
    let device = device.device();
    DeviceSettings {
        devices: vec![device],
        gpu_layers: -1,
        experts: Some(device),
        in_place: true,
        dense: Some(device),
        ..DeviceSettings::default()
    }
}

fn importing() -> SimDevice {
    SimDevice::new(SimDeviceOptions { imports: Some(1 << 30), ..SimDeviceOptions::default() }).unwrap()
}

#[test]
fn a_layer_in_place_costs_one_wait_and_no_upload() {
    let (device, model) = (importing(), tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1));
    let mut session = session(&model.path, streaming(60.0).with_devices(in_place(device)));
    let layers = session.loaded().planned.layout.layers.len() as u64;
    let stats = forced_run(&mut session, 40, 8).unwrap().decode_stats;
    assert!(stats.decode.misses > 0 && stats.uploaded_bytes == 0, "{stats:?}");
    assert!(stats.device_waits <= stats.graphs * (layers + 1), "{stats:?}");
    assert_eq!(device.violations(), Vec::<String>::new());
}

#[test]
fn a_failed_read_into_memory_that_a_device_reads_fails_one_decode_alone() {
    for (shape, calls) in [(Shape::TinyQwen3Moe, [3, 40, 90]), (Shape::TinyLlama, [1, 5, 30])] {
        let (device, model) = (importing(), tiny(shape, Quant::Q4_K, 1));
        let resident = hash(&model.path, settings(Residency::Resident));
        for call in calls {
            let sim = SimConfig { eio: Eio::OnceAt(call), ..SimConfig::default() };
            let asked = streaming(40.0).with_devices(in_place(device));
            let mut session = session(&model.path, asked.with_stream_reader(Some(ReaderKind::Sim(sim))));
            let error = forced_run(&mut session, 40, 8).unwrap_err().to_string();
            assert!(error.contains("cannot read"), "{error}");
            assert_eq!(session.loaded().stats.held(), Held::default());
            session.clear();
            let outcome = forced_run(&mut session, 40, 8).unwrap();
            assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "call {call}");
        }
        assert_eq!(device.violations(), Vec::<String>::new());
    }
}

/// While the device computes with cells, and while it is waited for.
#[test]
fn a_stop_in_the_middle_of_dense_weights_on_a_device_gives_everything_back() {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let device = importing();
    let uploaded = DeviceSettings { in_place: false, ..in_place(device) };
    for devices in [in_place(device), uploaded] {
        let mut session = session(&model.path, streaming(20.0).with_devices(devices));
        for micros in [0, 300, 1500, 4000, 9000] {
            let abort = session.loaded().abort.clone();
            let stopper = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(micros));
                abort.store(true, Ordering::Relaxed);
            });
            let outcome = forced_run(&mut session, 40, 8).unwrap();
            stopper.join().unwrap();
            assert!(outcome.finish != Finish::Stopped || session.loaded().stats.held().pins == 0);
            session.clear();
            let outcome = forced_run(&mut session, 40, 8).unwrap();
            assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "after {micros} µs");
            session.clear();
        }
    }
    assert_eq!((device.violations(), device.used_bytes()), (Vec::<String>::new(), 0));
}

#[test]
fn a_device_that_does_not_read_the_hosts_memory_is_an_error_with_its_name() {
    let (device, model) = (SimDevice::new(SimDeviceOptions::default()).unwrap(), demo_path());
    let planned = prepare(ModelSource::open(&model).unwrap(), streaming(60.0).with_devices(in_place(device)));
    let error = load(planned.unwrap(), &mut |_, _| {}).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("SIM refuses to read"), "{error}");
    assert_eq!(device.used_bytes(), 0, "memory of the device is lost");
}

/// Memory that others have taken.
#[derive(Debug)]
struct Full;

impl SharedMemory for Full {
    fn free_bytes(&self) -> u64 {
        0
    }

    fn reserve(&self, _: u64) -> u64 {
        0
    }

    fn release(&self, _: u64) {}
}

#[test]
fn slots_that_are_given_back_leave_the_device_first_and_the_others_stay() {
    let answers = |settings: LoadSettings| {
        let memory: Option<Arc<dyn SharedMemory>> = Some(Arc::new(Full));
        let settings = settings.with_context(256);
        let runner =
            runner_with(&demo_path(), settings, 1, RunnerSettings { memory, ..RunnerSettings::default() });
        let prompt = chat(&runner, "What is a lynx?");
        let (before, _) = ask(&runner, prompt.clone(), greedy());
        let longer = Options { num_ctx: Some(512), ..greedy() };
        let (after, _) = ask(&runner, prompt, longer);
        assert!(settled(&runner).context_length > 256, "nothing was given back");
        [before, after]
    };
    let device = importing();
    let on_device = answers(streaming(80.0).with_devices(in_place(device)));
    assert_eq!(on_device, answers(streaming(80.0)));
    assert_eq!((device.violations(), device.used_bytes()), (Vec::<String>::new(), 0));
}

#[test]
fn a_device_that_fails_in_mid_run_fails_one_decode_with_its_name_and_nothing_is_lost() {
    for shape in [Shape::TinyQwen3Moe, Shape::TinyLlama] {
        let model = tiny(shape, Quant::Q4_K, 1);
        let resident = hash(&model.path, settings(Residency::Resident));
        let device = importing();
        let uploaded = DeviceSettings { in_place: false, ..in_place(device) };
        for devices in [in_place(device), uploaded] {
            let mut session = session(&model.path, streaming(60.0).with_devices(devices));
            for graphs in [0, 1, 2, 7] {
                device.fail_behind(graphs);
                let error = forced_run(&mut session, 40, 8).unwrap_err().to_string();
                assert!(error.contains("SIM failed while it computed"), "{error}");
                assert_eq!(session.loaded().stats.held(), Held::default());
                session.clear();
                let outcome = forced_run(&mut session, 40, 8).unwrap();
                assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "behind {graphs}");
                session.clear();
            }
        }
        assert_eq!((device.violations(), device.used_bytes()), (Vec::<String>::new(), 0));
    }
}

#[test]
fn a_device_without_the_memory_that_it_was_said_to_have_fails_the_load_with_its_name() {
    for shape in [Shape::TinyQwen3Moe, Shape::TinyLlama] {
        let model = tiny(shape, Quant::Q4_K, 1);
        let loaded = |device: SimDevice| {
            let homes = DeviceSettings { in_place: false, ..in_place(device) };
            let planned =
                prepare(ModelSource::open(&model.path).unwrap(), streaming(60.0).with_devices(homes))?;
            load(planned, &mut |_, _| {})
        };
        let device = SimDevice::new(SimDeviceOptions::default()).unwrap();
        let model = loaded(device).unwrap();
        let needed = device.used_bytes();
        drop(model);
        for share in 1..8 {
            let memory_bytes = needed * share / 8;
            let device =
                SimDevice::new(SimDeviceOptions { memory_bytes, ..SimDeviceOptions::default() }).unwrap();
            let error = loaded(device).map(|_| ()).unwrap_err().to_string();
            assert!(
                error.contains("SIM") || error.contains("memory") || error.contains("allocate"),
                "{error}"
            );
            assert_eq!(device.used_bytes(), 0, "memory of the device is lost");
        }
    }
}

/// Decodes with half of the experts in slots of the device and 60% in those of the host; returns lookups that
/// read, bytes that came back from the device, and how many experts there are.
fn misses_over_both(device: SimDevice) -> (u64, u64, u64) {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let planned = |devices: DeviceSettings| {
        let source = ModelSource::open(&model.path).unwrap();
        prepare(source, streaming(60.0).with_devices(devices)).unwrap()
    };
    let at = experts_in_a_few_slots_of_the_device::homes(device);
    let experts = planned(at.clone()).layout.classes[0].experts;
    let slots = Some(u32::try_from(experts / 2).unwrap());
    let settings = streaming(60.0).with_devices(DeviceSettings { expert_slots: slots, ..at });
    let outcome = forced_run(&mut session(&model.path, settings), 4, 120).unwrap();
    let resident = forced_run(&mut session(&model.path, streaming(100.0)), 4, 120).unwrap();
    assert_eq!(outcome.logits_hash, resident.logits_hash);
    let stats = outcome.decode_stats;
    assert_eq!(device.violations(), Vec::<String>::new());
    (stats.decode.misses, stats.demoted_bytes, experts)
}

#[test]
fn what_a_device_gives_up_comes_back_to_the_host_and_is_not_read_again() {
    let (misses, demoted, experts) = misses_over_both(importing());
    assert!(misses <= experts && demoted > 0, "{misses} misses of {experts} experts, {demoted} bytes");
    let (apart, demoted, _) = misses_over_both(SimDevice::new(SimDeviceOptions::default()).unwrap());
    assert!(apart > misses && demoted == 0, "{apart} misses without, {demoted} bytes");
}

#[test]
fn what_the_next_layer_uses_is_read_ahead_where_a_device_computes_in_the_hosts_memory() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let device = importing();
    let run = |prefetch: Prefetch| {
        let settings = streaming(40.0).with_prefetch(prefetch).with_devices(in_place(device));
        let outcome = forced_run(&mut session(&model.path, settings), 4, 60).unwrap();
        (outcome.decode_stats, outcome.logits_hash.unwrap().to_string())
    };
    let ((guessed, hash), (not, without)) = (run(Prefetch::Router), run(Prefetch::Off));
    assert_eq!((hash, not.prefetches), (without, 0));
    let read_in_time = |stats: &StreamStats| stats.decode.prefetched * 2 > stats.decode.misses;
    assert!(read_in_time(&guessed) && !read_in_time(&not), "{guessed:?}");
    assert_eq!((device.violations(), device.used_bytes()), (Vec::<String>::new(), 0));
}
