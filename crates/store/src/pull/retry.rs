//! How long to wait before the next try: twice as long after each failure, with jitter, or as long as the
//! server asks.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use super::PullSettings;

/// The tries of one connection since it last made progress.
#[derive(Debug)]
pub(super) struct Tries {
    made: u32,
    most: u32,
    first_wait: Duration,
    longest_wait: Duration,
}

impl Tries {
    pub fn new(settings: &PullSettings) -> Self {
        let PullSettings { tries, first_wait, longest_wait, .. } = *settings;
        Self { made: 0, most: tries, first_wait, longest_wait }
    }

    pub fn made(&self) -> u32 {
        self.made
    }

    /// Something arrived: failures before it do not count any more.
    pub fn forget(&mut self) {
        self.made = 0;
    }

    /// How long to wait after another failure; `None`: there were enough.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.made += 1;
        if self.made >= self.most {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << (self.made - 1).min(16));
        let most = doubled.min(self.longest_wait);
        // Between half and all of it: whoever failed together does not come back together.
        let jittered = most.mul_f64(0.5 + 0.5 * fraction());
        Some(asked.map_or(jittered, |asked| asked.min(self.longest_wait).max(jittered)))
    }
}

/// A number between 0 and 1 that nobody can foretell.
fn fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let settings = PullSettings {
            tries: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(4),
            ..PullSettings::default()
        };
        let mut tries = Tries::new(&settings);
        for longest in [1.0, 2.0, 4.0, 4.0, 4.0] {
            let wait = tries.next_wait(None).unwrap().as_secs_f64();
            assert!((longest / 2.0..=longest).contains(&wait), "{wait} of {longest}");
        }
        assert_eq!(tries.next_wait(None), None);
        tries.forget();
        assert_eq!(tries.next_wait(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(tries.next_wait(Some(Duration::from_secs(900))), Some(Duration::from_secs(4)));
    }
}
