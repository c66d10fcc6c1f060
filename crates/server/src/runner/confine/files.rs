//! Landlock: what a process may still read and write, and no TCP.
//!
//! Threads that were there before, a GPU driver's, keep what they had.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};

use super::Hold;

/// What programs read of a system: libraries and their data, facts about the machine.
const SYSTEM: [&str; 9] =
    ["/proc", "/sys", "/etc", "/usr", "/lib", "/lib64", "/opt", "/nix/store", "/run/opengl-driver"];
/// What is asked for; an older kernel leaves out what it does not know.
const ALL: ABI = ABI::V5;

/// What every process of this program may read.
pub(super) fn system() -> impl Iterator<Item = PathBuf> {
    SYSTEM.iter().map(PathBuf::from).chain(hypura_engine::libraries::folder())
}

/// Devices, which are open to whoever may open them.
pub(super) fn devices() -> PathBuf {
    PathBuf::from("/dev")
}

/// Leaves nothing but these to be read and written, and no TCP. Says what holds of files and of TCP.
pub(super) fn restrict(
    read: impl IntoIterator<Item = PathBuf>,
    written: impl IntoIterator<Item = PathBuf>,
) -> (Hold, Hold) {
    match try_restrict(read, written) {
        Ok(RulesetStatus::FullyEnforced) => (Hold::Yes, Hold::Yes),
        Ok(RulesetStatus::PartiallyEnforced) => (Hold::Partly, knows_tcp()),
        Ok(RulesetStatus::NotEnforced) => (Hold::No, Hold::No),
        Err(error) => {
            tracing::debug!(%error, "the view of the file system stays as it is");
            (Hold::No, Hold::No)
        }
    }
}

fn try_restrict(
    read: impl IntoIterator<Item = PathBuf>,
    written: impl IntoIterator<Item = PathBuf>,
) -> Result<RulesetStatus, RulesetError> {
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(ALL))?
        .handle_access(AccessNet::from_all(ALL))?
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(ALL)))?
        .add_rules(path_beneath_rules(written, AccessFs::from_all(ALL)))?
        .restrict_self()?;
    Ok(restricted.ruleset)
}

/// Whether the kernel restricts files at all. Restricts nothing.
pub(super) fn knows_files() -> Hold {
    let made = |abi| {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset.handle_access(AccessFs::from_all(abi)).and_then(|ruleset| ruleset.create()).is_ok()
    };
    match (made(ALL), made(ABI::V1)) {
        (true, _) => Hold::Yes,
        (false, true) => Hold::Partly,
        (false, false) => Hold::No,
    }
}

/// Whether it restricts TCP.
pub(super) fn knows_tcp() -> Hold {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let made = ruleset.handle_access(AccessNet::from_all(ALL)).and_then(|ruleset| ruleset.create());
    if made.is_ok() { Hold::Yes } else { Hold::No }
}
