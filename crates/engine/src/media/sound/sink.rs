//! What takes decoded samples: within limits, in one channel, at the rate that is wanted.

use super::error::SoundError;
use super::resample::Resampler;

/// Samples a second that files may have.
const RATES: std::ops::RangeInclusive<u32> = 2_000..=384_000;

/// Channels that files may have.
const MOST_CHANNELS: usize = 32;

/// Rates and channels of no sound that anybody has made.
pub(super) fn check_shape(rate: u32, channels: usize) -> Result<(), SoundError> {
    if !RATES.contains(&rate) {
        return Err(SoundError::Damaged(format!("it has {rate} samples a second")));
    }
    if channels == 0 || channels > MOST_CHANNELS {
        return Err(SoundError::Damaged(format!("it has {channels} channels")));
    }
    Ok(())
}

/// How long a sound may be, and how many samples a second are wanted.
pub(super) struct Limit {
    pub(super) rate: u32,
    pub(super) seconds: u32,
}

impl Limit {
    /// Samples of a sound of `rate` that may be: a quarter of a second more than is said.
    pub(super) fn samples_at(&self, rate: u32) -> u64 {
        u64::from(rate) * u64::from(self.seconds) + u64::from(rate / 4)
    }

    /// Holds the length that a file says against the limit.
    pub(super) fn check(&self, frames: u64, rate: u32) -> Result<(), SoundError> {
        if frames > self.samples_at(rate) { Err(self.exceeded()) } else { Ok(()) }
    }

    pub(super) fn exceeded(&self) -> SoundError {
        SoundError::TooLong { most: self.seconds }
    }
}

/// Takes what was decoded: mixes, resamples, counts.
pub(super) struct Sink<'a> {
    limit: &'a Limit,
    rate: u32,
    resampler: Resampler,
    /// Frames that came.
    pub(super) frames: u64,
    mono: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> Sink<'a> {
    /// For a sound of `rate` samples a second and, where that is known, so many frames.
    pub(super) fn new(limit: &'a Limit, rate: u32, frames: Option<u64>) -> Result<Self, SoundError> {
        limit.check(frames.unwrap_or(0), rate)?;
        let expected = frames.unwrap_or(0) * u64::from(limit.rate) / u64::from(rate.max(1)) + 1;
        let resampler = Resampler::new(rate, limit.rate);
        let out = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        Ok(Self { limit, rate, resampler, frames: 0, mono: Vec::new(), out })
    }

    /// Frames of `channels` samples each.
    pub(super) fn push(
        &mut self,
        interleaved: impl Iterator<Item = f32>,
        channels: usize,
    ) -> Result<(), SoundError> {
        self.mono.clear();
        let (mut sum, mut taken) = (0.0f32, 0);
        for sample in interleaved {
            // Files of floating-point numbers may hold anything.
            sum += if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
            taken += 1;
            if taken == channels {
                self.mono.push(sum / channels as f32);
                (sum, taken) = (0.0, 0);
            }
        }
        self.frames += self.mono.len() as u64;
        self.limit.check(self.frames, self.rate)?;
        self.resampler.push(&self.mono, &mut self.out);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<f32> {
        self.resampler.finish(&mut self.out);
        self.out
    }
}
