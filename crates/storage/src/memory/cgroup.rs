//! Memory limits of control groups, v1 and v2: parses `/proc/self/cgroup` and `/proc/self/mountinfo` to find
//! the folders of this process' group and all groups around it, and reads the limit of each. Pure: files are
//! read through a function that tests replace.

use std::path::{Path, PathBuf};

use super::MemoryLimit;

/// The two interfaces differ in file names and in how they say "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The limit that leaves least room, of this process' group and every group above it.
pub(crate) fn tightest_limit(
    cgroup: &str,
    mountinfo: &str,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Option<MemoryLimit> {
    let hierarchies = mountinfo.lines().filter_map(|line| hierarchy(line, cgroup));
    hierarchies
        .flat_map(|(version, folders)| folders.into_iter().map(move |folder| (version, folder)))
        .filter_map(|(version, folder)| limit_of(version, folder, read))
        .min_by_key(MemoryLimit::room_bytes)
}

/// The folder of this process' group in the unified hierarchy (v2), where that is mounted.
pub(crate) fn unified_group(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let mut hierarchies = mountinfo.lines().filter_map(|line| hierarchy(line, cgroup));
    let (_, folders) = hierarchies.find(|(version, _)| *version == Version::V2)?;
    folders.into_iter().next()
}

/// If this mount is a hierarchy that can limit memory: the folders of our group and those above it.
fn hierarchy(mount: &str, cgroup: &str) -> Option<(Version, Vec<PathBuf>)> {
    // mountinfo: id parent major:minor root point options … - type source super-options (proc(5)).
    let (before, after) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    let version = match kind {
        "cgroup2" => Version::V2,
        "cgroup" if options.split(',').any(|option| option == "memory") => Version::V1,
        _ => return None,
    };
    let group = group_path(cgroup, version)?;
    // In a container the mount may show only a part of the tree, or the group may lie outside of it
    // ("/../…").
    let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    let inside = if group.contains("..") { Path::new("") } else { below };
    let point = Path::new(point);
    let folders =
        point.join(inside).ancestors().take_while(|at| at.starts_with(point)).map(PathBuf::from).collect();
    Some((version, folders))
}

/// Our group from `/proc/self/cgroup`, lines of `id:controllers:path`.
fn group_path(cgroup: &str, version: Version) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match version {
            Version::V2 => id == "0" && controllers.is_empty(),
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
        };
        ours.then_some(path)
    })
}

fn limit_of(version: Version, group: PathBuf, read: &dyn Fn(&Path) -> Option<String>) -> Option<MemoryLimit> {
    let number = |name: &str| read(&group.join(name))?.trim().parse::<u64>().ok();
    // v2 says "max", which is no number; v1 says the largest multiple of a page in an i64.
    let (limit_bytes, usage, cache) = match version {
        // Above `memory.high` the kernel slows the group down to a crawl: to us that is a limit too.
        Version::V2 => {
            let limit = number("memory.max").into_iter().chain(number("memory.high")).min()?;
            (limit, number("memory.current")?, ["active_file", "inactive_file"])
        }
        Version::V1 => {
            let limit = number("memory.limit_in_bytes").filter(|&limit| limit < 1 << 62)?;
            (limit, number("memory.usage_in_bytes")?, ["total_active_file", "total_inactive_file"])
        }
    };
    let stat = read(&group.join("memory.stat")).unwrap_or_default();
    let cached: u64 = cache.iter().filter_map(|name| stat_field(&stat, name)).sum();
    Some(MemoryLimit { limit_bytes, used_bytes: usage.saturating_sub(cached), group })
}

/// A line `name value` of `memory.stat`.
fn stat_field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests;
