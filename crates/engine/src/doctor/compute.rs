//! Kernels and ggml's backends.

use hypura_ggml::libraries::Refused;
use hypura_ggml::system;
use std::fs;

use super::{Finding, Verdict};

pub(super) fn examine() -> Vec<Finding> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let judged = [kernels(&system::compiled_features(), &processor), backends(&system::backends())];
    system::refused_kernels().iter().map(unusable).chain(judged).collect()
}

/// Kernels that came with the program, for nothing.
fn unusable(library: &Refused) -> Finding {
    Finding::new("kernels", Verdict::Slow, format!("{}: {}", library.path.display(), library.reason))
        .fix("install Hypura again: its libraries and the program must come from one build")
}

/// Extensions that make kernels much faster: their name in llama.cpp, and among the flags of `/proc/cpuinfo`.
const EXTENSIONS: [(&str, &str); 4] =
    [("AVX2", "avx2"), ("FMA", "fma"), ("AVX512", "avx512f"), ("DOTPROD", "asimddp")];

/// A program is compiled for the processor that built it, or brings kernels for several
/// ([`system::kernels`]). Where neither is for this one it runs, slower than it could.
fn kernels(compiled: &str, cpuinfo: &str) -> Finding {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let flags: Vec<&str> = flags.map(|line| line.split_whitespace().collect()).unwrap_or_default();
    let lacking =
        |(name, flag): &&(&str, &str)| flags.contains(flag) && !compiled.contains(&format!("{name} = 1"));
    let lacking: Vec<&str> = EXTENSIONS.iter().filter(lacking).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return Finding::new("kernels", Verdict::Good, compiled);
    }
    Finding::new(
        "kernels",
        Verdict::Slow,
        format!("without {}, which this processor has", lacking.join(", ")),
    )
    .fix("build Hypura on this machine: make build")
}

fn backends(names: &[String]) -> Finding {
    if names.is_empty() {
        return Finding::new("backends", Verdict::Bad, "ggml has none: nothing can be computed")
            .fix("build Hypura anew: make clean, then make build");
    }
    Finding::new("backends", Verdict::Good, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_for_an_older_processor_is_told() {
        let newer = "processor : 0\nflags : fpu avx2 fma avx512f\n";
        assert_eq!(kernels("AVX2 = 1 | FMA = 1 | AVX512 = 1 |", newer).verdict, Verdict::Good);
        let old = kernels("AVX2 = 1 | FMA = 1 | AVX512 = 0 |", newer);
        assert_eq!(old.verdict, Verdict::Slow);
        assert!(old.found.contains("AVX512") && !old.found.contains("AVX2") && old.fix.is_some(), "{old:?}");
        assert_eq!(kernels("AVX2 = 1", "").verdict, Verdict::Good, "nothing is known to be missing");
    }

    #[test]
    fn a_broken_library_of_kernels_is_told() {
        let reason = "undefined symbol".to_owned();
        let finding = unusable(&Refused { path: "/opt/libggml-cpu-zen4.so".into(), reason });
        assert_eq!(finding.verdict, Verdict::Slow);
        assert!(finding.found.contains("zen4") && finding.found.contains("undefined symbol"), "{finding:?}");
    }

    #[test]
    fn what_is_compiled_in_is_listed() {
        assert!(backends(&["CPU".to_owned(), "CUDA".to_owned()]).found.ends_with("CPU, CUDA"));
        assert_eq!(backends(&[]).verdict, Verdict::Bad);
        assert!(system::backends().contains(&"CPU".to_owned()), "{:?}", system::backends());
    }
}
