//! Resampling by a windowed sinc, piece by piece, in memory that does not depend on the sound's length.
//!
//! Written here because what the crates for it bring (FFTs, adapters for buffers of all kinds) is more than
//! this one use of it. The kernel has 16 zero crossings on each side under a Blackman window; frequencies
//! that the slower of the two rates cannot hold are cut at 95% of its half.

use std::f64::consts::PI;

/// Zero crossings of the sinc on each side.
const ZEROS: usize = 16;
/// Entries of the kernel's table between two of them; between entries it is interpolated.
const STEPS: usize = 256;
/// Where frequencies are cut, of half of the slower rate.
const CUT: f64 = 0.95;

/// Input in, output out.
pub(super) struct Resampler {
    from: u64,
    to: u64,
    /// Half of the kernel; none where the rates are equal.
    kernel: Vec<f32>,
    /// How much wider the kernel is in samples of the input: 1 or more.
    stretch: f64,
    /// The input that later outputs still need, and where it begins.
    history: Vec<f32>,
    begins: u64,
    received: u64,
    produced: u64,
}

impl Resampler {
    /// From so many samples a second to so many.
    pub fn new(from: u32, to: u32) -> Self {
        let scale = (f64::from(to) / f64::from(from)).min(1.0) * CUT;
        let table = |at: usize| {
            let x = at as f64 / STEPS as f64;
            let sinc = if at == 0 { 1.0 } else { (PI * x).sin() / (PI * x) };
            let turn = PI * x / ZEROS as f64;
            let window = 0.42 + 0.5 * turn.cos() + 0.08 * (2.0 * turn).cos();
            (sinc * window * scale) as f32
        };
        let kernel = if from == to { Vec::new() } else { (0..=ZEROS * STEPS + 1).map(table).collect() };
        Self {
            from: u64::from(from),
            to: u64::from(to),
            kernel,
            stretch: 1.0 / scale,
            history: Vec::new(),
            begins: 0,
            received: 0,
            produced: 0,
        }
    }

    /// Takes more of the input.
    pub fn push(&mut self, input: &[f32], out: &mut Vec<f32>) {
        if self.kernel.is_empty() {
            out.extend_from_slice(input);
            return;
        }
        self.history.extend_from_slice(input);
        self.received += input.len() as u64;
        self.produce(out, self.half());
        // What no later output looks at any more.
        let (whole, _) = self.place();
        let needed = whole.saturating_sub(self.half());
        let gone = usize::try_from(needed.saturating_sub(self.begins)).unwrap_or(0).min(self.history.len());
        self.history.drain(..gone);
        self.begins += gone as u64;
    }

    /// The rest: behind the input there is silence.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if !self.kernel.is_empty() {
            self.produce(out, 0);
        }
    }

    /// Input samples on each side of an output.
    fn half(&self) -> u64 {
        (ZEROS as f64 * self.stretch).ceil() as u64 + 1
    }

    /// Where the next output lies in the input: whole samples, and the share of one beyond.
    fn place(&self) -> (u64, f64) {
        let at = self.produced * self.from;
        (at / self.to, (at % self.to) as f64 / self.to as f64)
    }

    /// Every output that has `ahead` input samples beyond its place.
    fn produce(&mut self, out: &mut Vec<f32>, ahead: u64) {
        loop {
            let (whole, part) = self.place();
            if whole + ahead >= self.received {
                return;
            }
            out.push(self.output(whole, part));
            self.produced += 1;
        }
    }

    fn output(&self, whole: u64, part: f64) -> f32 {
        let (half, per_sample) = (self.half(), STEPS as f64 / self.stretch);
        let first = whole.saturating_sub(half).max(self.begins);
        let last = (whole + half).min(self.received.saturating_sub(1));
        let mut sum = 0.0f32;
        for at in first..=last {
            let distance = (at as f64 - whole as f64 - part).abs() * per_sample;
            let entry = distance as usize;
            let (Some(near), Some(far)) = (self.kernel.get(entry), self.kernel.get(entry + 1)) else {
                continue;
            };
            let weight = near + (far - near) * (distance - entry as f64) as f32;
            sum += weight * self.history[(at - self.begins) as usize];
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<f32> {
        let count = (f64::from(rate) * seconds) as usize;
        (0..count).map(|at| (2.0 * PI * hertz * at as f64 / f64::from(rate)).sin() as f32 * 0.5).collect()
    }

    fn resampled(input: &[f32], from: u32, to: u32, piece: usize) -> Vec<f32> {
        let (mut resampler, mut out) = (Resampler::new(from, to), Vec::new());
        input.chunks(piece).for_each(|piece| resampler.push(piece, &mut out));
        resampler.finish(&mut out);
        out
    }

    fn loudness(samples: &[f32]) -> f64 {
        (samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn a_tone_stays_what_it_is_at_another_rate() {
        for (from, to) in
            [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (22_050, 24_000), (384_000, 16_000)]
        {
            let out = resampled(&tone(from, 440.0, 0.5), from, to, 1000);
            let expected = tone(to, 440.0, 0.5);
            assert!(out.len().abs_diff(expected.len()) <= 1, "{from} {to}");
            // Away from the ends, where there is silence on one side.
            let inner = 600..expected.len() - 600;
            let worst = inner.map(|at| (out[at] - expected[at]).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{from} {to}: {worst}");
        }
    }

    #[test]
    fn what_the_slower_rate_cannot_hold_is_cut_and_does_not_come_back_as_another_tone() {
        let out = resampled(&tone(48_000, 11_000.0, 0.3), 48_000, 16_000, 777);
        assert!(loudness(&out[600..out.len() - 600]) < 1e-3);
    }

    #[test]
    fn pieces_of_any_length_give_the_same_samples() {
        let input = tone(44_100, 333.0, 0.1);
        let whole = resampled(&input, 44_100, 16_000, usize::MAX);
        for piece in [1, 7, 1024] {
            assert_eq!(resampled(&input, 44_100, 16_000, piece), whole);
        }
        assert_eq!(resampled(&input, 16_000, 16_000, 10), input);
        assert!(resampled(&[], 44_100, 16_000, 1).is_empty());
    }
}
