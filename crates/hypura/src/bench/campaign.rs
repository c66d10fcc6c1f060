//! The benchmark itself: arms in turns, each in a process of its own, with the disk measured around the one
//! that counts.
//!
//! Whatever is changed on the machine (read-ahead, control groups) is held by guards and put back on every
//! way out.

use anyhow::{Context as _, bail};
use hypura_core::plan::{ExpertLayout, human_bytes};
use hypura_engine::iobench::{self, FileSystem};
use hypura_engine::load::LoadSettings;
use hypura_engine::source::ModelSource;
use hypura_engine::{machine, system};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::arm::Arm;
use super::disk::{self, Bandwidth, CacheState, ReadAheadReport, ReadShape};
use super::memcap::Memcap;
use super::predict::Predictor;
use super::prediction::PredictionError;
use super::report::{ArmSummary, Disk, FORMAT, Machine, Model, Report, Run, Settings};
use super::schedule::{Turn, abba};
use super::spawn::{Launcher, Stop};
use super::stats::{Spread, median};
use super::summary::{Limits, compare, over_budget, roofline, summarise};
use super::work::Work;
use super::{procfs, table};

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Job {
    /// The model.
    pub path: PathBuf,
    /// The arm that counts, and those it is held against; none twice.
    pub arms: Vec<Arm>,
    /// What each arm computes.
    pub work: Work,
    /// Rounds.
    pub pairs: usize,
    /// How the user asked to load.
    pub asked: LoadSettings,
    /// `--memory`, for the report.
    pub memory_bytes: Option<u64>,
    /// Cap on each process, page cache included.
    pub memcap_bytes: Option<u64>,
    /// Trace that forces the routes, for the report.
    pub routes: Option<String>,
    /// Acceptance of drafts that is forced, for the report.
    pub accept: Option<String>,
    /// Run baselines that may drive the machine out of memory.
    pub force: bool,
    /// Says what the measured arm will do; `None` when nobody asked.
    pub predictor: Option<Predictor>,
    /// How to start arms.
    pub launcher: Launcher,
}

/// Runs the benchmark; `say` gets a line of progress now and then.
///
/// # Errors
/// What stopped it: an arm that failed, too little memory for a baseline, missing rights, Ctrl-C.
pub fn run(job: &Job, stop: &Stop, say: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    let source = ModelSource::open(&job.path)?;
    if source.is_for_embeddings() {
        bail!(
            "{} is a model for embeddings: it generates nothing that could be measured",
            job.path.display()
        );
    }
    refuse_long_work(job, source.shape.context_train)?;
    refuse_what_does_not_fit(job, source.file_bytes())?;
    let mut campaign = Campaign::new(job, source)?;
    let turns = abba(job.arms.len(), job.pairs);
    for (at, turn) in turns.iter().enumerate() {
        let line = campaign.turn(*turn, stop)?;
        say(&format!("[{}/{}] {line}", at + 1, turns.len()));
    }
    Ok(campaign.report())
}

/// The context holds what was asked for, but never more than the model was trained for.
fn refuse_long_work(job: &Job, context_train: u64) -> anyhow::Result<()> {
    let trained = if context_train == 0 { u64::MAX } else { context_train };
    let context = trained.min(u64::from(job.asked.model.context));
    let positions = job.work.positions() as u64;
    if positions > context {
        bail!(
            "prompt, warm-up and measured tokens take {positions} positions and the context holds {context}: ask for fewer, \
             or raise --ctx up to what the model was trained for"
        );
    }
    Ok(())
}

/// Baselines take what they take; on a machine without room for them, other programs would die.
fn refuse_what_does_not_fit(job: &Job, model_bytes: u64) -> anyhow::Result<()> {
    let Some(arm) = job.arms.iter().find(|arm| arm.needs_whole_model() || maps_dangerously(**arm)) else {
        return Ok(());
    };
    let memory = machine::memory_available().context("cannot find out how much memory is free")?;
    match shortage(model_bytes, memory.room_bytes()) {
        Some(why) if !job.force => {
            bail!("the {} arm {why}: leave it out of --against, or insist with --force", arm.name())
        }
        _ => Ok(()),
    }
}

/// macOS has panicked under mappings larger than its memory.
fn maps_dangerously(arm: Arm) -> bool {
    cfg!(target_os = "macos") && matches!(arm, Arm::Mmap | Arm::MmapMoeCache)
}

/// Says so if a whole model, and the twentieth of it that computing takes beside, has no room.
fn shortage(model_bytes: u64, room_bytes: u64) -> Option<String> {
    let needed = model_bytes + model_bytes / 20;
    (needed > room_bytes).then(|| {
        format!("needs about {} of memory and {} are free", human_bytes(needed), human_bytes(room_bytes))
    })
}

struct Campaign<'a> {
    job: &'a Job,
    source: ModelSource,
    files: Vec<PathBuf>,
    began: SystemTime,
    file_system: FileSystem,
    reads: ReadShape,
    measured: Vec<Bandwidth>,
    read_ahead: Option<ReadAheadReport>,
    caches: CacheState,
    memcap_by: Option<&'static str>,
    /// Runs of each arm, with what the disk delivered around them.
    runs: Vec<Vec<(Run, Option<f64>)>>,
    warnings: Vec<String>,
}

impl<'a> Campaign<'a> {
    fn new(job: &'a Job, source: ModelSource) -> anyhow::Result<Self> {
        let layout = ExpertLayout::new(&source.shape);
        let memcap_by = match job.memcap_bytes {
            // Before minutes of work: may we make such a group at all?
            Some(bytes) => Some(Memcap::new(bytes)?.version()),
            None => None,
        };
        let file_system = iobench::file_system_of(&source.path)
            .with_context(|| format!("cannot find the file system of {}", source.path.display()))?;
        Ok(Self {
            reads: ReadShape::of(&source.shape, &layout, &job.asked),
            files: source.files.iter().map(|file| file.path().to_path_buf()).collect(),
            job,
            source,
            began: SystemTime::now(),
            file_system,
            measured: Vec::new(),
            read_ahead: None,
            caches: CacheState::Cold,
            memcap_by,
            runs: vec![Vec::new(); job.arms.len()],
            warnings: Vec::new(),
        })
    }

    /// Runs one arm once. Returns a line for people.
    fn turn(&mut self, turn: Turn, stop: &Stop) -> anyhow::Result<String> {
        stop.check()?;
        let arm = self.job.arms[turn.arm];
        let counts = turn.arm == 0;
        let before = if counts { self.probe() } else { None };
        if disk::forget_cached(&self.files) == CacheState::Warm {
            self.caches = CacheState::Warm;
        }
        let device = self.file_system.device.as_ref();
        let (guard, read_ahead) = if matches!(arm, Arm::Mmap | Arm::MmapMoeCache) {
            disk::usual_read_ahead(device)
        } else {
            (None, no_read_ahead())
        };
        let name = device.map(|device| device.name.as_str());
        let finished = self.job.launcher.run(arm, name, self.cap_of(arm), stop)?;
        drop(guard);
        if matches!(arm, Arm::Mmap | Arm::MmapMoeCache) {
            self.read_ahead = Some(read_ahead);
        }
        let after = if counts { self.probe() } else { None };
        let around: Vec<f64> = before.into_iter().chain(after).collect();
        let disk_bytes_per_s = (!around.is_empty()).then(|| around.iter().sum::<f64>() / around.len() as f64);
        let run = Run {
            round: turn.round,
            disturbed: finished.run.decode.disturbance(),
            arm: finished.run,
            cgroup_peak_bytes: finished.cgroup_peak_bytes,
            roofline: None,
        };
        let line = table::progress(arm, &run);
        self.runs[turn.arm].push((run, disk_bytes_per_s));
        Ok(line)
    }

    /// A cap that an arm cannot fit under would only kill it.
    fn cap_of(&self, arm: Arm) -> Option<u64> {
        let hopeless =
            |cap: &u64| arm.needs_whole_model() && shortage(self.source.file_bytes(), *cap).is_some();
        self.job.memcap_bytes.filter(|cap| !hopeless(cap))
    }

    fn probe(&mut self) -> Option<f64> {
        match disk::measure_bandwidth(&self.source.path, &self.reads, self.measured.len() as u64) {
            Ok(bandwidth) => {
                self.measured.push(bandwidth.clone());
                Some(bandwidth.bytes_per_s)
            }
            Err(why) => {
                self.warn(format!("the disk could not be measured ({why}), so there is no efficiency"));
                None
            }
        }
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn report(mut self) -> Report {
        self.collect_warnings();
        let job = self.job;
        let limits = Limits {
            routed_bytes: self.source.shape.routed_bytes_per_token(),
            routed_experts: self.source.shape.expert_layers.iter().map(|layer| u64::from(layer.used)).sum(),
            resident_token_s: self.resident_token_s(),
        };
        let mut arms = Vec::new();
        for (at, runs) in std::mem::take(&mut self.runs).into_iter().enumerate() {
            let arm = job.arms[at];
            let runs = runs
                .into_iter()
                .map(|(run, disk)| Run { roofline: roofline(&run, &limits, disk), ..run })
                .collect();
            arms.extend(summarise(arm, self.cap_of(arm), runs));
        }
        if let (Some(predictor), Some(measured)) = (&job.predictor, arms.first_mut()) {
            let told = predict(predictor, &self.source, measured);
            self.warnings.extend(told.err().map(|why| format!("nothing was predicted: {why}")));
        }
        let comparisons = match arms.split_first() {
            Some((measured, others)) => others.iter().map(|other| compare(measured, other)).collect(),
            None => Vec::new(),
        };
        Report {
            format: FORMAT,
            hypura: env!("CARGO_PKG_VERSION").to_owned(),
            ggml: system::ggml_version(),
            unix_time_s: self.began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            machine: this_machine(),
            model: self.model(),
            settings: self.settings(),
            disk: self.disk(),
            arms,
            comparisons,
            warnings: self.warnings,
        }
    }

    /// C: what a token takes when everything is in memory, in the same kernels as streaming.
    fn resident_token_s(&self) -> Option<f64> {
        let at = self.job.arms.iter().position(|arm| *arm == Arm::Resident)?;
        median(self.runs[at].iter().map(|(run, _)| 1.0 / run.arm.decode.tps))
    }

    fn collect_warnings(&mut self) {
        if let Some(warning) = self.read_ahead.as_ref().and_then(|report| report.warning.clone()) {
            self.warn(warning);
        }
        if self.caches == CacheState::Warm {
            self.warn(
                "the page cache could not be dropped for the model: arms over it may have started warm"
                    .to_owned(),
            );
        }
        for arm in &self.job.arms {
            if self.job.memcap_bytes.is_some() && self.cap_of(*arm).is_none() {
                self.warn(format!("the {} arm ran without --memcap, under which it has no room", arm.name()));
            }
        }
        let runs: Vec<Run> = self.runs.iter().flatten().map(|(run, _)| run.clone()).collect();
        for note in runs.iter().flat_map(|run| run.arm.notes.iter().cloned().chain(over_budget(run))) {
            self.warn(note);
        }
        let disturbed = runs.iter().filter(|run| run.disturbed.is_some()).count();
        if disturbed > 0 {
            self.warn(format!(
                "{disturbed} of {} runs were disturbed by other work on this machine: trust ratios and counted bytes, \
                 not speeds",
                runs.len()
            ));
        }
    }

    fn model(&self) -> Model {
        let name = self.source.path.file_name().unwrap_or_default();
        Model {
            file: name.to_string_lossy().into_owned(),
            architecture: self.source.shape.architecture.clone(),
            file_bytes: self.source.file_bytes(),
            routed_bytes_per_token: self.source.shape.routed_bytes_per_token(),
        }
    }

    fn settings(&self) -> Settings {
        let Job { asked, work, pairs, memory_bytes, memcap_bytes, routes, accept, .. } = self.job;
        Settings {
            work: *work,
            pairs: *pairs,
            context: asked.model.context,
            ubatch: asked.model.ubatch,
            threads: asked.tuning.threads,
            memory_bytes: *memory_bytes,
            memcap_bytes: *memcap_bytes,
            memcap_by: self.memcap_by.map(str::to_owned),
            routes: routes.clone(),
            accept: accept.clone(),
        }
    }

    fn disk(&self) -> Disk {
        let device = self.file_system.device.as_ref();
        Disk {
            file_system: self.file_system.kind.clone(),
            device: device.map(|device| device.name.clone()),
            rotational: device.and_then(|device| device.rotational),
            read_ahead: self.read_ahead.clone(),
            caches: self.caches,
            measured: self.measured.clone(),
            bytes_per_s: Spread::of(self.measured.iter().map(|found| found.bytes_per_s)),
        }
    }
}

/// Adds what the planner says of the measured arm. The plan does not depend on the runs, so it may come after
/// them.
fn predict(predictor: &Predictor, source: &ModelSource, measured: &mut ArmSummary) -> anyhow::Result<()> {
    let predicted = predictor.predict(source)?;
    measured.prediction_error = Some(PredictionError::of(&predicted, measured));
    measured.predicted = Some(predicted);
    if let Some(hit_rate) = measured.hit_rate.filter(|_| measured.mode.ends_with("-streaming")) {
        let predicted = predictor.given_hits(source, hit_rate)?;
        measured.error_given_hits = Some(PredictionError::of(&predicted, measured));
        measured.predicted_given_hits = Some(predicted);
    }
    Ok(())
}

fn no_read_ahead() -> ReadAheadReport {
    ReadAheadReport { found_kb: None, used_kb: None, warning: None }
}

fn this_machine() -> Machine {
    Machine {
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| procfs::parse_cpu_model(&text)),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: machine::memory_available().ok().map(|memory| memory.total_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_needs_a_little_more_than_its_bytes() {
        assert_eq!(shortage(100 << 30, 106 << 30), None);
        let why = shortage(100 << 30, 104 << 30).unwrap();
        assert_eq!(why, "needs about 105.00 GiB of memory and 104.00 GiB are free");
    }
}
