//! The policy on a simulated machine: how fast it finds the best number of threads, and what finding costs.

use std::time::Duration;

use super::{ThreadPolicy, Window, Work};

/// Cores, other programs that each keep one busy, and whether idle cores can be counted.
#[derive(Clone, Copy)]
struct Machine {
    cores: u32,
    busy: u32,
    counts_idle: bool,
}

const QUIET: Machine = Machine { cores: 2, busy: 0, counts_idle: true };

impl Machine {
    /// The part of the time that each thread has a core.
    fn share(self, threads: u32) -> f64 {
        (f64::from(self.cores) / f64::from(threads + self.busy)).min(1.0)
    }

    /// Steps of a second: threads work only while all of them have a core, because they wait at barriers.
    fn speed(self, threads: u32) -> f64 {
        100.0 * f64::from(threads).powf(0.9) * self.share(threads).powi(threads.min(4).cast_signed())
    }

    fn best(self) -> f64 {
        (1..=self.cores).map(|threads| self.speed(threads)).fold(0.0, f64::max)
    }

    /// Steps until the clock says `until`; returns how many and with how many threads the last one was.
    fn run(self, policy: &mut ThreadPolicy, clock: &mut f64, until: f64, tokens: u32) -> (f64, u32) {
        const WINDOW_S: f64 = 0.05;
        let (mut done, mut threads) = (0.0, 0);
        while *clock < until {
            threads = policy.threads(tokens);
            let step_s = f64::from(tokens) / self.speed(threads);
            let steps = (WINDOW_S / step_s).ceil();
            let length_s = steps * step_s;
            *clock += length_s;
            let waiting = f64::from(threads) * (1.0 - self.share(threads));
            let idle = f64::from(self.cores) - f64::from(threads + self.busy);
            policy.observe(&Window {
                end: Duration::from_secs_f64(*clock),
                length: Duration::from_secs_f64(length_s),
                waited: Duration::from_secs_f64(length_s * waiting),
                idle_cores: self.counts_idle.then_some(idle.max(0.0)),
                work: &[Work { tokens, steps: steps as u32, compute: Duration::from_secs_f64(length_s) }],
            });
            done += steps;
        }
        (done, threads)
    }
}

#[test]
fn a_quiet_machine_is_never_tried_with_fewer() {
    let mut policy = ThreadPolicy::new(2, None);
    let mut clock = 0.0;
    let (done, threads) = QUIET.run(&mut policy, &mut clock, 60.0, 1);
    assert_eq!(threads, 2);
    assert!((done - QUIET.best() * clock).abs() < 1.0, "{done} steps in {clock} s");
}

#[test]
fn beside_busy_programs_it_is_as_fast_as_the_best_fixed_number() {
    for cores in [2, 4, 8, 16] {
        for busy in [1, 2, 4, 6, 16] {
            for counts_idle in [true, false] {
                let machine = Machine { cores, busy, counts_idle };
                let mut policy = ThreadPolicy::new(cores, None);
                let mut clock = 0.0;
                machine.run(&mut policy, &mut clock, 3.0, 1);
                let (done, threads) = machine.run(&mut policy, &mut clock, 62.0, 1);
                let share = done / (machine.best() * 60.0);
                assert!(share > 0.95, "{share} with {threads} threads on {cores} cores beside {busy}");
            }
        }
    }
}

#[test]
fn down_and_back_up_within_a_second() {
    let mut policy = ThreadPolicy::new(2, None);
    let mut clock = 0.0;
    QUIET.run(&mut policy, &mut clock, 3.0, 1);
    for round in 0..5 {
        let busy = Machine { busy: 1 + round, ..QUIET };
        let until = clock + 1.0;
        let (_, threads) = busy.run(&mut policy, &mut clock, until, 1);
        assert_eq!(threads, 1, "beside {}", busy.busy);
        let until = clock + 10.0;
        busy.run(&mut policy, &mut clock, until, 1);
        let until = clock + 1.0;
        let (_, threads) = QUIET.run(&mut policy, &mut clock, until, 1);
        assert_eq!(threads, 2, "quiet again after {}", busy.busy);
        let until = clock + 5.0;
        QUIET.run(&mut policy, &mut clock, until, 1);
    }
}

#[test]
fn where_idle_cores_cannot_be_counted_more_threads_are_tried_now_and_then() {
    let mut policy = ThreadPolicy::new(2, None);
    let mut clock = 0.0;
    let blind = Machine { counts_idle: false, ..QUIET };
    Machine { busy: 1, ..blind }.run(&mut policy, &mut clock, 30.0, 1);
    let (_, threads) = blind.run(&mut policy, &mut clock, 52.0, 1);
    assert_eq!(threads, 2);
}

#[test]
fn fewer_threads_are_kept_only_where_they_are_faster() {
    // Long nodes: two threads beside one program get three quarters of two cores.
    let mut policy = ThreadPolicy::new(2, None);
    let (mut at, mut with_one, mut all) = (0.0, 0.0, 0.0);
    while at < 60.0 {
        let threads = policy.threads(512);
        let step_s = if threads == 2 { 0.7 } else { 1.0 };
        at += step_s;
        all += step_s;
        with_one += if threads == 1 { step_s } else { 0.0 };
        let length = Duration::from_secs_f64(step_s);
        policy.observe(&Window {
            end: Duration::from_secs_f64(at),
            length,
            waited: length.mul_f64(if threads == 2 { 0.6 } else { 0.0 }),
            idle_cores: Some(0.0),
            work: &[Work { tokens: 512, steps: 1, compute: length }],
        });
    }
    assert!(with_one / all < 0.06, "{with_one} of {all} s");
}

#[test]
fn answers_and_prompts_are_chosen_for_apart() {
    let mut policy = ThreadPolicy::new(2, None);
    let mut clock = 0.0;
    Machine { busy: 1, ..QUIET }.run(&mut policy, &mut clock, 3.0, 1);
    assert_eq!((policy.threads(1), policy.threads(16), policy.threads(17)), (1, 1, 2));
}

#[test]
fn after_a_pause_what_was_learned_is_tried_anew() {
    let mut policy = ThreadPolicy::new(2, None);
    let mut clock = 0.0;
    let busy = Machine { busy: 6, counts_idle: false, ..QUIET };
    busy.run(&mut policy, &mut clock, 3.0, 1);
    assert_eq!(policy.threads(1), 1);
    clock += 60.0;
    let until = clock + 0.3;
    let (_, threads) = Machine { busy: 0, ..busy }.run(&mut policy, &mut clock, until, 1);
    assert_eq!(threads, 2, "without counting idle cores");
}

#[test]
fn steps_of_other_sizes_are_not_compared() {
    let mut policy = ThreadPolicy::new(2, None);
    let ms = Duration::from_millis;
    let mut at = ms(0);
    let mut observe = |policy: &mut ThreadPolicy, tokens, compute| {
        at += compute;
        let work = [Work { tokens, steps: 1, compute }];
        policy.observe(&Window {
            end: at,
            length: compute,
            waited: compute,
            idle_cores: Some(0.0),
            work: &work,
        });
    };
    observe(&mut policy, 4, ms(80));
    assert_eq!(policy.threads(4), 1, "a trial");
    observe(&mut policy, 1, ms(60));
    assert_eq!(policy.threads(1), 2, "one token is faster than four for reasons of its own");
}

#[test]
fn it_begins_with_as_many_as_there_were_cores_to_be_had() {
    let begin = |cores| {
        let policy = ThreadPolicy::new(4, cores);
        (policy.threads(1), policy.threads(512))
    };
    assert_eq!((begin(None), begin(Some(4.0)), begin(Some(9.0))), ((4, 4), (4, 4), (4, 4)));
    assert_eq!((begin(Some(2.6)), begin(Some(0.2))), ((3, 4), (1, 4)));
    let mut clock = 0.0;
    let mut policy = ThreadPolicy::new(2, Some(0.4));
    let (_, threads) = QUIET.run(&mut policy, &mut clock, 0.2, 1);
    assert_eq!(threads, 2, "and goes on from there");
}
