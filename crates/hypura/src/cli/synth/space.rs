//! Room on the disk, looked at before anything is written.

use hypura_core::plan::human_bytes;
use hypura_core::synth::SynthPlan;
use hypura_engine::machine;

use super::files::OutFiles;
use super::write;

/// # Errors
/// When the file system has less room than the model takes.
pub(super) fn check_space(plan: &SynthPlan, files: &OutFiles, share: bool) -> anyhow::Result<()> {
    // A file system that does not say how much is free may well have room.
    let Ok(free_bytes) = machine::free_bytes(files.folder()) else { return Ok(()) };
    match lack_of_space(&files.name(), write::bytes_to_make(plan, share), free_bytes) {
        Some(message) => anyhow::bail!(message),
        None => Ok(()),
    }
}

fn lack_of_space(name: &str, needed_bytes: u64, free_bytes: u64) -> Option<String> {
    (needed_bytes > free_bytes).then(|| {
        format!(
            "cannot write {name}: it takes {} and the file system has {} free: free some, write it elsewhere (--out), or \
             make it smaller (--layers; --unique on XFS or btrfs)",
            human_bytes(needed_bytes),
            human_bytes(free_bytes)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_space_is_told_with_both_numbers() {
        assert_eq!(lack_of_space("x", 1 << 30, 1 << 30), None);
        let message = lack_of_space("x.gguf", 3 << 30, 1 << 30).unwrap();
        for part in ["x.gguf", "3.00 GiB", "1.00 GiB", "--layers"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
