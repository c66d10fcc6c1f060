//! Flags about the GPU that computes beside the CPU.

use hypura_core::plan::ExpertHome;
use hypura_engine::device::{DeviceChoice, DeviceOptions};
use hypura_workers::client::address_of;
use std::collections::BTreeSet;

use super::environment::Env;
use super::size::parse_bytes;

/// The variable that `--device` beats.
const VARIABLE: &str = "HYPURA_DEVICE";

/// Which GPU, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct DeviceFlags {
    /// GPU that computes beside the CPU: auto, none, or a name that `hypura doctor` lists [default:
    /// HYPURA_DEVICE, or auto]
    #[arg(long, value_name = "NAME", help_heading = "Device")]
    pub(super) device: Option<String>,

    /// Memory of the GPU that may be used: 6GiB [default: what is free there, less headroom]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Device")]
    pub(super) vram: Option<u64>,

    /// Layers on the GPU, the output projection counted as one, in place of as many as fit
    #[arg(long, value_name = "N", help_heading = "Device")]
    pub(super) gpu_layers: Option<u32>,

    /// Leave routed experts to the CPU, even where they would fit in the GPU's memory
    #[arg(long, help_heading = "Device", conflicts_with = "gpu_moe")]
    pub(super) cpu_moe: bool,

    /// Have the GPU compute routed experts also where they do not all fit: its memory is then a cache of them
    #[arg(long, help_heading = "Device")]
    pub(super) gpu_moe: bool,
}

impl DeviceFlags {
    /// Whether nobody said which GPU.
    pub(super) fn is_open(&self, env: &Env) -> bool {
        self.device.is_none() && env.variable(VARIABLE).is_none()
    }

    /// What the engine is told.
    pub(super) fn resolve(&self, env: &Env) -> DeviceOptions {
        let name = self.device.clone().or_else(|| env.variable(VARIABLE));
        DeviceOptions {
            choice: name.map_or(DeviceChoice::Auto, |name| DeviceChoice::named(&name)),
            vram_bytes: self.vram,
            layers: self.gpu_layers,
            experts: match (self.cpu_moe, self.gpu_moe) {
                (true, _) => ExpertHome::Host,
                (false, true) => ExpertHome::Device,
                (false, false) => ExpertHome::Auto,
            },
            is_unified: None,
        }
    }
}

/// The workers that were named, or those of the variable, separated by commas. Whoever is named twice is one.
#[must_use]
pub fn worker_addresses(named: &[String], env: &Env) -> Vec<String> {
    if !named.is_empty() {
        return distinct(named.iter().map(String::as_str));
    }
    let listed = env.variable("HYPURA_WORKERS").unwrap_or_default();
    distinct(listed.split(',').map(str::trim).filter(|address| !address.is_empty()))
}

/// Addresses that differ, with the port that they have where none is named. The first of equal ones stays as
/// it was written; what is no address is for whoever connects to say.
fn distinct<'a>(addresses: impl Iterator<Item = &'a str>) -> Vec<String> {
    let key = |text: &str| address_of(text).unwrap_or_else(|_| text.to_owned()).to_ascii_lowercase();
    let mut known = BTreeSet::new();
    addresses.filter(|address| known.insert(key(address))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_come_from_flags_or_from_a_list_in_the_variable() {
        let of = |named: &[&str], list: &str| {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            worker_addresses(&named, &Env::for_tests(&[("HYPURA_WORKERS", list)]))
        };
        assert_eq!(of(&[], ""), [""; 0]);
        assert_eq!(of(&[], "a, b:5,"), ["a", "b:5"]);
        assert_eq!(of(&["c"], "a,b"), ["c"]);
        assert_eq!(of(&["box", "b", "box:11436", "BOX", "box:5"], ""), ["box", "b", "box:5"], "one machine");
        assert_eq!(of(&[], "::1,[::1]:11436, a b,a b"), ["::1", "a b"]);
    }

    #[test]
    fn a_flag_beats_the_variable_and_both_beat_auto() {
        let choice = |flag: Option<&str>, variables: &[(&str, &str)]| {
            let flags = DeviceFlags { device: flag.map(str::to_owned), ..DeviceFlags::default() };
            flags.resolve(&Env::for_tests(variables)).choice
        };
        let named = |name: &str| DeviceChoice::Named(name.to_owned());
        assert_eq!(choice(None, &[]), DeviceChoice::Auto);
        assert_eq!(choice(None, &[(VARIABLE, "none")]), DeviceChoice::None);
        assert_eq!(choice(Some("Vulkan0"), &[(VARIABLE, "none")]), named("Vulkan0"));
    }
}
