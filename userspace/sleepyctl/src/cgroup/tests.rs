// SPDX-License-Identifier: GPL-2.0-only

use procfs::FromRead;
use tempfile::TempDir;

use super::*;

/// A tree of groups of version 2: each with what is in its `cgroup.subtree_control`.
pub fn tree(groups: &[(&str, &str)]) -> (TempDir, Hierarchy) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name.trim_start_matches('/'));
    let control = |name: &str| {
        let found = groups.iter().find(|(group, _)| *group == name);
        found.map_or("", |(_, control)| *control)
    };
    for (name, subtree) in groups {
        std::fs::create_dir_all(path(name)).unwrap();
        std::fs::write(path(name).join("cgroup.subtree_control"), subtree).unwrap();
        let above = up(name).nth(1);
        if above.is_some_and(|above| control(above).contains("cpu")) {
            std::fs::write(path(name).join("cpu.weight"), "100\n").unwrap();
        }
    }
    std::fs::write(path("/").join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
    let hierarchy = Hierarchy {
        legacy: false,
        mounts: vec![("/".to_string(), dir.path().to_path_buf())],
    };
    (dir, hierarchy)
}

fn parsed(groups: &str, mounts: &str) -> std::result::Result<Hierarchy, String> {
    Hierarchy::of(
        &own(groups),
        &MountInfos::from_read(mounts.as_bytes()).unwrap(),
    )
}

fn own(text: &str) -> ProcessCGroups {
    ProcessCGroups::from_read(text.as_bytes()).unwrap()
}

const UNIFIED: &str =
    "35 24 0:30 / /nowhere/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const HYBRID: &str = "31 23 0:28 / /nowhere/cgroup rw - tmpfs tmpfs rw,mode=755\n\
    32 31 0:29 / /nowhere/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    33 31 0:30 / /nowhere/cgroup/memory rw - cgroup cgroup rw,memory\n\
    41 31 0:38 / /nowhere/cgroup/unified rw - cgroup2 cgroup2 rw\n";

#[test]
fn unified_hierarchy_is_found() {
    let found = parsed("0::/user.slice\n", UNIFIED).unwrap();
    assert!(!found.legacy);
    let groups = own("1:name=systemd:/x\n0::/machine.slice/fc-7\n");
    assert_eq!(
        found.group_of(&groups).as_deref(),
        Some("/machine.slice/fc-7")
    );
    assert_eq!(
        found.path("/machine.slice/fc-7").unwrap(),
        Path::new("/nowhere/cgroup/machine.slice/fc-7")
    );
    assert_eq!(found.path("/").unwrap(), Path::new("/nowhere/cgroup/"));
}

#[test]
fn controller_of_version_1_is_found() {
    let groups = "4:memory:/m\n1:cpu,cpuacct:/vms/a\n0::/\n";
    let found = parsed(groups, HYBRID).unwrap();
    assert!(found.legacy);
    assert_eq!(found.group_of(&own(groups)).as_deref(), Some("/vms/a"));
    assert_eq!(
        found.path("/vms/a").unwrap(),
        Path::new("/nowhere/cgroup/cpu,cpuacct/vms/a")
    );
    assert_eq!(found.accounts("/vms/a"), "/vms/a");
    assert!(found.is_root("/"));
}

#[test]
fn hierarchy_that_is_not_mounted_has_a_remedy() {
    let none = "31 23 0:28 / /sys rw - sysfs sysfs rw\n";
    let error = parsed("0::/\n", none).unwrap_err();
    assert!(error.contains("`mount -t cgroup2 none"), "{error}");
    let error = parsed("1:cpu:/\n0::/\n", UNIFIED).unwrap_err();
    assert!(error.contains("`mount -t cgroup -o cpu none"), "{error}");
}

#[test]
fn names_are_those_of_the_namespace() {
    let mounts = |root: &str| format!("35 24 0:30 {root} /nowhere/c rw - cgroup2 cgroup2 rw\n");
    let path = |root: &str, name: &str| parsed("0::/\n", &mounts(root)).unwrap().path(name);
    // A container's part of the tree, seen from outside; and what is not in it.
    let inside = path("/docker/1", "/docker/1/vm");
    assert_eq!(inside.as_deref(), Some(Path::new("/nowhere/c/vm")));
    assert_eq!(path("/docker/1", "/docker/12"), None);
    assert_eq!(path("/docker/1", "/"), None);
    // Above the root of our namespace.
    assert_eq!(path("/", "/../other"), None);
    let above = path("/..", "/../other");
    assert_eq!(above.as_deref(), Some(Path::new("/nowhere/c/other")));
}

#[test]
fn nearest_common_group_is_found() {
    for (names, expected) in [
        (&["/a/b"][..], "/a/b"),
        (&["/a/b/vcpu0", "/a/b/vcpu1"], "/a/b"),
        (&["/a/b", "/a/b/c"], "/a/b"),
        (&["/a/b", "/a/bc"], "/a"),
        (&["/a", "/b"], "/"),
        (&["/a", "/"], "/"),
    ] {
        let names = names.iter().copied();
        assert_eq!(common(names).as_deref(), Some(expected));
    }
    assert_eq!(up("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
    assert_eq!(up("/").collect::<Vec<_>>(), ["/"]);
}

#[test]
fn time_is_that_of_the_nearest_controller() {
    let (_dir, tree) = tree(&[
        ("/", "cpu"),
        ("/m", ""),
        ("/m/a", ""),
        ("/n", "cpu"),
        ("/n/b", ""),
    ]);
    assert_eq!(tree.accounts("/m/a"), "/m");
    assert_eq!(tree.accounts("/n/b"), "/n/b");
    assert_eq!(tree.accounts("/"), "/");
    assert_eq!(tree.accounts("/../x"), "/../x", "it cannot be seen");
    assert!(tree.is_root("/") && !tree.is_root("/m"));
    assert!(tree.enable("/m/a").ends_with("/m/cgroup.subtree_control"));
    assert_eq!(tree.enable("/n/b"), "");
}

#[test]
fn bandwidth_limits_above_count() {
    let (dir, tree) = tree(&[("/", "cpu"), ("/m", "cpu"), ("/m/a", "")]);
    assert_eq!(tree.limits("/m/a"), []);
    std::fs::write(dir.path().join("m/a/cpu.max"), "max 100000\n").unwrap();
    std::fs::write(dir.path().join("m/cpu.max"), "50000 100000\n").unwrap();
    let limit = Limit {
        group: "/m".to_string(),
        quota: 50_000_000,
        period: 100_000_000,
    };
    assert_eq!(tree.limits("/m/a"), [limit]);
    let legacy = Hierarchy {
        legacy: true,
        ..tree
    };
    std::fs::write(dir.path().join("m/cpu.cfs_quota_us"), "-1\n").unwrap();
    std::fs::write(dir.path().join("m/cpu.cfs_period_us"), "100000\n").unwrap();
    assert_eq!(legacy.limits("/m"), []);
    std::fs::write(dir.path().join("m/cpu.cfs_quota_us"), "1000\n").unwrap();
    assert_eq!(legacy.limits("/m/a")[0].quota, 1_000_000);
}

#[test]
fn groups_are_found_by_their_inodes() {
    let (dir, tree) = tree(&[("/", "cpu"), ("/m", "cpu"), ("/m/a", ""), ("/n", "")]);
    for (name, pids) in [("m", "7\n"), ("m/a", "9\n8\n"), ("n", "1\n")] {
        std::fs::write(dir.path().join(name).join("cgroup.procs"), pids).unwrap();
    }
    let group = tree.group("/m/a").unwrap();
    assert_eq!(tree.with_inode(group.inode().unwrap()), Some(group));
    assert_eq!(tree.with_inode(1), None);
    assert_eq!(tree.processes("/m"), [7, 8, 9].into());
    assert!(!tree.has_one_process("/m"));
}
