//! Control groups as real machines show them.

use std::collections::HashMap;

use super::*;

const GIB: u64 = 1 << 30;
const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

fn limit(cgroup: &str, mounts: &str, files: &[(&str, String)]) -> Option<MemoryLimit> {
    let files: HashMap<&Path, &String> = files.iter().map(|(path, text)| (Path::new(path), text)).collect();
    tightest_limit(cgroup, mounts, &|path| files.get(path).map(|text| (*text).clone()))
}

fn text(value: u64) -> String {
    format!("{value}\n")
}

#[test]
fn v2_without_limits_has_none() {
    let files = [
        ("/sys/fs/cgroup/user.slice/memory.max", "max\n".to_owned()),
        ("/sys/fs/cgroup/user.slice/memory.high", "max\n".to_owned()),
        ("/sys/fs/cgroup/user.slice/memory.current", text(GIB)),
    ];
    assert_eq!(limit("0::/user.slice\n", V2_MOUNT, &files), None);
}

#[test]
fn v2_takes_the_group_that_leaves_least_room() {
    let files = [
        ("/sys/fs/cgroup/a/memory.max", text(8 * GIB)),
        ("/sys/fs/cgroup/a/memory.current", text(7 * GIB)),
        ("/sys/fs/cgroup/a/memory.stat", format!("anon 5\nactive_file 100\ninactive_file {GIB}\n")),
        ("/sys/fs/cgroup/a/b/memory.max", text(4 * GIB)),
        ("/sys/fs/cgroup/a/b/memory.high", text(3 * GIB)),
        ("/sys/fs/cgroup/a/b/memory.current", text(GIB / 2)),
    ];
    let tightest = limit("0::/a/b\n", V2_MOUNT, &files).unwrap();
    assert_eq!(tightest.group, Path::new("/sys/fs/cgroup/a"));
    assert_eq!(tightest.room_bytes(), 2 * GIB + 100);
    // Without the outer group the inner one counts, by its lower mark.
    let inner = limit("0::/a/b\n", V2_MOUNT, &files[3..]).unwrap();
    assert_eq!((inner.limit_bytes, inner.used_bytes), (3 * GIB, GIB / 2));
}

#[test]
fn v1_is_found_beside_an_empty_v2() {
    let files = [
        ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", text(10 * GIB)),
        ("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", text(6 * GIB)),
        (
            "/sys/fs/cgroup/memory/job/memory.stat",
            format!("inactive_file 1\ntotal_inactive_file {}\ntotal_active_file {GIB}\n", 2 * GIB),
        ),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", text(9_223_372_036_854_771_712)),
        ("/sys/fs/cgroup/memory/memory.usage_in_bytes", text(20 * GIB)),
    ];
    let found = limit("4:memory:/job\n1:cpu:/\n0::/\n", V1_MOUNTS, &files).unwrap();
    assert_eq!((found.limit_bytes, found.used_bytes), (10 * GIB, 3 * GIB));
}

#[test]
fn a_container_that_sees_only_its_part_of_the_tree_finds_its_limit() {
    let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
    let files = [
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", text(GIB)),
        ("/sys/fs/cgroup/memory/memory.usage_in_bytes", text(0)),
    ];
    for group in ["/docker/abc", "/elsewhere", "/../outside"] {
        let found = limit(&format!("4:memory:{group}\n"), mounts, &files);
        assert_eq!(found.map(|found| found.limit_bytes), Some(GIB), "{group}");
    }
}

#[test]
fn nonsense_is_no_limit() {
    assert_eq!(limit("", "", &[]), None);
    assert_eq!(limit("0::/a", "garbage - cgroup2", &[]), None);
    assert_eq!(limit("no colons", V2_MOUNT, &[("/sys/fs/cgroup/memory.max", "many".to_owned())]), None);
}
