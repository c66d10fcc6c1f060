//! The schedule against random sequences of calls: every request is answered once, depths are kept, and
//! nothing starts behind something less urgent.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Arena, HugePages, PAGE, SourceFile};

#[derive(Clone, Debug)]
enum Act {
    Submit { chunks: usize, prefetch: bool },
    Start,
    Finish { which: usize, fails: bool },
    Cancel { tag: u64 },
    Promote { tag: u64 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (1..5_usize, any::<bool>()).prop_map(|(chunks, prefetch)| Act::Submit { chunks, prefetch }),
        Just(Act::Start),
        Just(Act::Start),
        (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(which, fails)| Act::Finish { which, fails }),
        (0..20_u64).prop_map(|tag| Act::Cancel { tag }),
        (0..20_u64).prop_map(|tag| Act::Promote { tag }),
    ];
    prop::collection::vec(act, 1..120)
}

const CONFIG: ReaderConfig =
    ReaderConfig { depth: 4, prefetch_depth: 2, chunk_bytes: PAGE, threads: 1, simulate_uring_refusal: None };

struct World {
    schedule: Schedule,
    file: Arc<SourceFile>,
    memory: Arc<Arena>,
    device: Vec<Chunk>,
    /// Tags of the requests without an answer.
    open: BTreeSet<u64>,
    submitted: u64,
}

impl World {
    fn new() -> World {
        let file = tempfile::NamedTempFile::new().unwrap();
        World {
            schedule: Schedule::new(&CONFIG),
            file: SourceFile::open(file.path()).unwrap(),
            memory: Arena::new(4 * PAGE, HugePages::No).unwrap(),
            device: Vec::new(),
            open: BTreeSet::new(),
            submitted: 0,
        }
    }

    fn submit(&mut self, chunks: usize, priority: Priority) {
        let tag = self.submitted;
        self.submitted += 1;
        self.open.insert(tag);
        self.schedule.submit(ReadRequest {
            tag,
            file: Arc::clone(&self.file),
            offset: 0,
            len: chunks * PAGE,
            required: chunks * PAGE,
            dst: Arc::clone(&self.memory),
            dst_offset: 0,
            priority,
        });
    }

    fn start(&mut self) {
        let demand_waits = !self.schedule.demand.is_empty();
        if let Some(chunk) = self.schedule.next_chunk(Duration::ZERO) {
            assert!(
                chunk.priority() == Priority::Demand || !demand_waits,
                "a prefetch overtook a demand read"
            );
            self.device.push(chunk);
        } else {
            let prefetches = self.at_device(Priority::Prefetch);
            assert!(self.device.len() == CONFIG.depth || !demand_waits);
            assert!(
                self.device.len() == CONFIG.depth
                    || prefetches == CONFIG.prefetch_depth
                    || !self.schedule.has_queued(),
                "the device idles while something waits"
            );
        }
        assert!(self.device.len() <= CONFIG.depth);
        assert!(self.at_device(Priority::Prefetch) <= CONFIG.prefetch_depth);
    }

    fn at_device(&self, priority: Priority) -> usize {
        self.device.iter().filter(|chunk| chunk.priority() == priority).count()
    }

    fn finish(&mut self, which: usize, fails: bool) {
        if self.device.is_empty() {
            return;
        }
        let chunk = self.device.swap_remove(which % self.device.len());
        let outcome = if fails { Err(chunk.io_error(libc::EIO)) } else { Ok(()) };
        self.schedule.finish(chunk, outcome, Duration::ZERO);
        self.deliver();
    }

    fn deliver(&mut self) {
        let mut done = Vec::new();
        self.schedule.deliver(&mut done);
        for Completion { tag, .. } in done {
            assert!(self.open.remove(&tag), "{tag} was answered twice");
        }
        assert_eq!(self.open.len(), self.schedule.in_flight());
    }

    fn cancel(&mut self, tag: u64) {
        for tag in self.schedule.cancel_queued(Some(&[tag])) {
            assert!(self.open.remove(&tag), "{tag} was answered twice");
        }
    }

    /// Lets everything end.
    fn run_out(&mut self) {
        loop {
            self.start();
            if self.device.is_empty() {
                break;
            }
            self.finish(0, false);
        }
    }
}

proptest! {
    #[test]
    fn every_request_is_answered_once_whatever_happens(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            match act {
                Act::Submit { chunks, prefetch } => {
                    world.submit(chunks, if prefetch { Priority::Prefetch } else { Priority::Demand });
                }
                Act::Start => world.start(),
                Act::Finish { which, fails } => world.finish(which, fails),
                Act::Cancel { tag } => world.cancel(tag),
                Act::Promote { tag } => world.schedule.promote(&[tag]),
            }
        }
        world.run_out();
        prop_assert!(world.open.is_empty(), "never answered: {:?}", world.open);
        prop_assert_eq!(world.schedule.backlog_bytes(), 0);
        prop_assert_eq!(Arc::strong_count(&world.memory), 1);
        let stats = world.schedule.stats(Duration::ZERO);
        prop_assert_eq!(stats.completed + stats.failed + stats.cancelled, world.submitted);
    }

    /// After `stop`, whatever was under way is answered when its chunks come back, with the error.
    #[test]
    fn stopping_fails_everything_once(submits in 1..12_usize, started in 0..8_usize) {
        let mut world = World::new();
        for index in 0..submits {
            world.submit(1 + index % 4, Priority::Demand);
        }
        (0..started).for_each(|_| world.start());
        world.schedule.stop(&ReadError::Busy { in_flight: 0 });
        world.deliver();
        while !world.device.is_empty() {
            world.finish(0, false);
        }
        prop_assert!(world.open.is_empty());
        prop_assert_eq!(world.schedule.backlog_bytes(), 0);
        prop_assert_eq!(world.schedule.stats(Duration::ZERO).failed, submits as u64);
    }
}

#[test]
fn the_error_nearest_to_the_start_is_reported() {
    let mut world = World::new();
    world.submit(3, Priority::Demand);
    (0..3).for_each(|_| world.start());
    for (which, number) in [(2, libc::EBADF), (0, libc::EIO), (0, libc::EINVAL)] {
        let chunk = world.device.remove(which);
        let error = chunk.io_error(number);
        world.schedule.finish(chunk, Err(error), Duration::ZERO);
    }
    let mut done = Vec::new();
    world.schedule.deliver(&mut done);
    assert!(matches!(done[0].result, Err(ReadError::Io { errno: libc::EIO, .. })), "{done:?}");
}

#[test]
fn busy_time_counts_only_while_something_is_at_the_device() {
    let mut world = World::new();
    let at = Duration::from_secs;
    for (start, end) in [(10, 12), (20, 25)] {
        world.submit(1, Priority::Demand);
        let chunk = world.schedule.next_chunk(at(start)).unwrap();
        assert_eq!(
            world.schedule.stats(at(end)).busy + at(start),
            at(end) + if start == 10 { at(0) } else { at(2) }
        );
        world.schedule.finish(chunk, Ok(()), at(end));
    }
    assert_eq!(world.schedule.stats(at(100)).busy, at(7));
}
