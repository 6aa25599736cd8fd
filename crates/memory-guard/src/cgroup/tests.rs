//! Against trees of files as kernels and container runtimes make them.

use std::fs;

use tempfile::TempDir;

use crate::{Origin, Source};

const MIB: u64 = 1 << 20;
const NO_LIMIT_V1: &str = "9223372036854771712";

/// A root with these files in it.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().expect("a writable directory for temporary files");
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("writable");
        fs::write(path, content).expect("writable");
    }
    root
}

/// Recorded on Linux 6.18 with the memory controller in version 1, figures shortened.
const STAT_V1: &str = "\
cache 70651904
rss 745373696
shmem 0
inactive_file 62582784
active_file 8069120
unevictable 0
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 70651904
total_rss 745373696
total_inactive_file 5242880
total_active_file 1048576
";

const STAT_V2: &str = "\
anon 20971520
file 6291456
kernel 3145728
slab_reclaimable 1048576
slab_unreclaimable 1048576
sock 4096
shmem 0
inactive_anon 20971520
active_anon 0
inactive_file 4194304
active_file 2097152
unevictable 0
slab 2097152
";

const MEMBERS_V1: &str = "9:name=systemd:/\n8:pids:/\n4:memory:/jobs/one\n1:cpu:/\n0::/\n";
const MOUNTS_V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const MOUNTS_V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
const PRESSURE: &str =
    "some avg10=20.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=10.00 avg60=0.00 avg300=0.00 total=3\n";

/// What a reading is to say: use and limit in MiB, and from where.
fn check(what: &str, files: &[(&str, &str)], expected: (u64, Option<u64>, Origin)) -> Source {
    let root = tree(files);
    let source = Source::discover(root.path());
    let reading = source.read(None).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = (reading.used_bytes, reading.limit_bytes, reading.origin);
    let (used, limit, origin) = expected;
    assert_eq!(found, (used * MIB, limit.map(|limit| limit * MIB), origin), "{what}");
    source
}

#[test]
fn version_1_on_the_host() {
    let files = [
        ("proc/self/cgroup", MEMBERS_V1),
        ("proc/self/mountinfo", MOUNTS_V1),
        ("sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "67108864\n"),
        ("sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes", "41943040\n"),
        ("sys/fs/cgroup/memory/jobs/one/memory.stat", STAT_V1),
        ("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", NO_LIMIT_V1),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", NO_LIMIT_V1),
    ];
    check("its own limit", &files, (34, Some(64), Origin::CgroupV1));
}

#[test]
fn version_1_limits_above() {
    let files = |jobs_limit: &'static str, hidden: &'static str| {
        let stat: &'static str = STAT_V1
            .replace("limit 9223372036854771712", &format!("limit {hidden}"))
            .leak();
        [
            ("proc/self/cgroup", MEMBERS_V1),
            ("proc/self/mountinfo", MOUNTS_V1),
            ("sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "67108864\n"),
            ("sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes", "41943040\n"),
            ("sys/fs/cgroup/memory/jobs/one/memory.stat", stat),
            ("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", jobs_limit),
            ("sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", "94371840\n"),
            ("sys/fs/cgroup/memory/jobs/memory.stat", STAT_V1),
        ]
    };
    // 34 of 64 MiB here, 84 of 100 there: whoever else is in there, all are killed together.
    check(
        "a fuller group above",
        &files("104857600", "67108864"),
        (84, Some(100), Origin::CgroupV1),
    );
    check(
        "an emptier group above",
        &files("1073741824", "67108864"),
        (34, Some(64), Origin::CgroupV1),
    );
    check(
        "one out of sight",
        &files(NO_LIMIT_V1, "52428800"),
        (34, Some(50), Origin::CgroupV1),
    );
}

#[test]
fn version_1_in_a_container() {
    let own = [
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "41943040\n"),
        ("sys/fs/cgroup/memory/memory.stat", STAT_V1),
    ];
    let host_path = "11:memory:/kubepods/burstable/pod1/c1\n";
    // The container's own group is mounted, and named as the host has it.
    let bound = "9 8 0:3 /kubepods/burstable/pod1/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    // The whole hierarchy seems to be mounted, and the path leads nowhere in it.
    let elsewhere = "9 8 0:3 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    // A namespace of its own, seen from outside of it.
    let outside = "9 8 0:3 /../.. /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    for (what, membership, mount) in [
        ("bound", host_path, bound),
        ("elsewhere", host_path, elsewhere),
        ("namespace", "11:memory:/\n", elsewhere),
        ("outside", "11:memory:/../../x\n", outside),
        ("several controllers", "4:cpuset,memory:/\n", elsewhere),
    ] {
        let mut files = vec![("proc/self/cgroup", membership), ("proc/self/mountinfo", mount)];
        files.extend(own);
        check(what, &files, (34, Some(64), Origin::CgroupV1));
    }
}

#[test]
fn version_2_on_the_host_and_in_a_container() {
    let on_host = [
        ("proc/self/cgroup", "0::/system.slice/a.service\n"),
        ("proc/self/mountinfo", MOUNTS_V2),
        ("sys/fs/cgroup/system.slice/a.service/memory.max", "67108864\n"),
        ("sys/fs/cgroup/system.slice/a.service/memory.current", "31457280\n"),
        ("sys/fs/cgroup/system.slice/a.service/memory.stat", STAT_V2),
        ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
        ("sys/fs/cgroup/system.slice/memory.current", "999999999\n"),
        ("sys/fs/cgroup/system.slice/memory.stat", STAT_V2),
        // The root group has no limit and no use.
        ("sys/fs/cgroup/memory.stat", STAT_V2),
    ];
    check("host", &on_host, (23, Some(64), Origin::CgroupV2));
    let in_container = [
        ("proc/self/cgroup", "0::/\n"),
        ("proc/self/mountinfo", MOUNTS_V2),
        ("sys/fs/cgroup/memory.max", "33554432\n"),
        ("sys/fs/cgroup/memory.current", "31457280\n"),
        ("sys/fs/cgroup/memory.stat", STAT_V2),
        ("sys/fs/cgroup/cgroup.events", "populated 1\n"),
        ("sys/fs/cgroup/memory.pressure", PRESSURE),
    ];
    let root = tree(&in_container);
    let source = Source::discover(root.path());
    let reading = source.read(None).expect("readable");
    assert_eq!((reading.used_bytes, reading.limit_bytes), (23 * MIB, Some(32 * MIB)));
    assert!(
        reading
            .stall
            .is_some_and(|stall| (stall.some_percent - 20.0).abs() < 1e-9)
    );
    assert_eq!(source.directory(), Some(&*root.path().join("sys/fs/cgroup")));
    assert_eq!(source.least_limit_bytes(), Some(32 * MIB));
}

/// A container, and the use of the Pod it is in.
fn in_a_pod(pod_current: &'static str) -> [(&'static str, &'static str); 9] {
    [
        ("proc/self/cgroup", "0::/kubepods/pod1/c1\n"),
        ("proc/self/mountinfo", MOUNTS_V2),
        ("sys/fs/cgroup/kubepods/pod1/c1/memory.max", "67108864\n"),
        ("sys/fs/cgroup/kubepods/pod1/c1/memory.current", "31457280\n"),
        ("sys/fs/cgroup/kubepods/pod1/c1/memory.stat", STAT_V2),
        ("sys/fs/cgroup/kubepods/pod1/memory.max", "62914560\n"),
        ("sys/fs/cgroup/kubepods/pod1/memory.current", pod_current),
        ("sys/fs/cgroup/kubepods/pod1/memory.stat", STAT_V2),
        ("sys/fs/cgroup/kubepods/memory.max", "max\n"),
    ]
}

#[test]
fn version_2_nested_in_a_pod_with_a_limit_of_its_own() {
    check(
        "a sidecar takes a lot",
        &in_a_pod("61865984\n"),
        (52, Some(60), Origin::CgroupV2),
    );
    let root = tree(&in_a_pod("31457280\n"));
    let source = Source::discover(root.path());
    assert_eq!(source.least_limit_bytes(), Some(60 * MIB), "for defaults");
}

/// Limit and use are always those of the same group.
#[test]
fn a_configured_limit_is_for_the_own_group() {
    // 23 of 64 MiB here, 52 of 60 in the Pod.
    let root = tree(&in_a_pod("61865984\n"));
    let source = Source::discover(root.path());
    for (configured, expected) in [
        (None, (52, Some(60))),
        (Some(100), (52, Some(60))),
        // 23 of 40 is less tight than 52 of 60; what the sidecar uses is not held against the 40.
        (Some(40), (52, Some(60))),
        (Some(24), (23, Some(24))),
        (Some(20), (23, Some(20))),
    ] {
        let reading = source.read(configured.map(|limit| limit * MIB)).expect("readable");
        let found = (reading.used_bytes / MIB, reading.limit_bytes.map(|limit| limit / MIB));
        assert_eq!(found, expected, "{configured:?}");
    }
    let root = tree(&[("proc/self/status", "RssAnon:\t1024 kB\nRssShmem:\t0 kB\n")]);
    let reading = Source::discover(root.path()).read(Some(2 * MIB)).expect("readable");
    assert_eq!(
        (reading.used_bytes, reading.limit_bytes),
        (MIB, Some(2 * MIB)),
        "of the process"
    );
}

#[test]
fn hybrid_has_memory_in_version_1_and_pressure_in_version_2() {
    let files = [
        ("proc/self/cgroup", "4:memory:/jobs/one\n0::/jobs/one\n"),
        ("proc/self/mountinfo", MOUNTS_V1),
        ("sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "67108864\n"),
        ("sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes", "41943040\n"),
        ("sys/fs/cgroup/memory/jobs/one/memory.stat", STAT_V1),
        ("sys/fs/cgroup/unified/jobs/one/cgroup.events", "populated 1\n"),
        ("sys/fs/cgroup/unified/jobs/one/memory.pressure", PRESSURE),
        // The machine's, which is no business of this process.
        ("sys/fs/cgroup/unified/memory.pressure", PRESSURE),
    ];
    let root = tree(&files);
    let reading = Source::discover(root.path()).read(None).expect("readable");
    assert_eq!(reading.origin, Origin::CgroupV1);
    assert!(reading.stall.is_some());
    let in_root_group = [("proc/self/cgroup", "4:memory:/jobs/one\n0::/\n")];
    let root = tree(&[&in_root_group, &files[1..]].concat());
    assert_eq!(Source::discover(root.path()).read(None).expect("readable").stall, None);
}

#[test]
fn no_limit() {
    let v1 = [
        ("proc/self/cgroup", MEMBERS_V1),
        ("proc/self/mountinfo", MOUNTS_V1),
        ("sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", NO_LIMIT_V1),
        ("sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes", "41943040\n"),
        ("sys/fs/cgroup/memory/jobs/one/memory.stat", STAT_V1),
    ];
    check("version 1", &v1, (34, None, Origin::CgroupV1));
    let v2 = [
        ("proc/self/cgroup", "0::/a\n"),
        ("proc/self/mountinfo", MOUNTS_V2),
        ("sys/fs/cgroup/a/memory.max", "max\n"),
        ("sys/fs/cgroup/a/memory.current", "31457280\n"),
        ("sys/fs/cgroup/a/memory.stat", STAT_V2),
    ];
    let source = check("version 2", &v2, (23, None, Origin::CgroupV2));
    assert_eq!(source.least_limit_bytes(), None);
}

#[test]
fn whatever_cannot_be_read_is_done_without() {
    const STATUS: (&str, &str) = ("proc/self/status", "RssAnon:\t1024 kB\nRssShmem:\t0 kB\n");
    let nothing: [&[(&str, &str)]; 6] = [
        &[],
        &[("proc/self/cgroup", "0::/\n")],
        &[
            ("proc/self/cgroup", "garbage\n::\n"),
            ("proc/self/mountinfo", "garbage\n"),
        ],
        &[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "1 2 0:1 / /proc rw - proc proc rw\n"),
        ],
        // The root group: its memory is nobody's in particular.
        &[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", MOUNTS_V2),
            ("sys/fs/cgroup/memory.stat", STAT_V2),
        ],
        &[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", MOUNTS_V2),
            ("sys/fs/cgroup/memory.current", "many\n"),
            ("sys/fs/cgroup/memory.stat", STAT_V2),
        ],
    ];
    for files in nothing {
        let files = [files, &[STATUS]].concat();
        check(&format!("{files:?}"), &files, (1, None, Origin::Process));
    }
    let root = tree(&[]);
    assert!(Source::discover(root.path()).read(None).is_err(), "not even a status");
}

#[test]
fn files_that_vanish_leave_the_process() {
    let root = tree(&[
        ("proc/self/cgroup", "0::/\n"),
        ("proc/self/mountinfo", MOUNTS_V2),
        ("proc/self/status", "RssAnon:\t1024 kB\nRssShmem:\t0 kB\n"),
        ("sys/fs/cgroup/memory.max", "33554432\n"),
        ("sys/fs/cgroup/memory.current", "31457280\n"),
        ("sys/fs/cgroup/memory.stat", STAT_V2),
    ]);
    let source = Source::discover(root.path());
    assert_eq!(source.read(None).expect("readable").origin, Origin::CgroupV2);
    fs::remove_file(root.path().join("sys/fs/cgroup/memory.current")).expect("it is there");
    let reading = source.read(None).expect("the process has a size");
    assert_eq!((reading.used_bytes, reading.limit_bytes), (MIB, Some(32 * MIB)));
    assert_eq!(reading.origin, Origin::Process);
}

#[test]
fn more_reclaimable_than_charged_is_nothing_used() {
    let files = [
        ("proc/self/cgroup", "0::/a\n"),
        ("proc/self/mountinfo", MOUNTS_V2),
        ("sys/fs/cgroup/a/memory.max", "33554432\n"),
        ("sys/fs/cgroup/a/memory.current", "1048576\n"),
        ("sys/fs/cgroup/a/memory.stat", STAT_V2),
    ];
    check("read at different times", &files, (0, Some(32), Origin::CgroupV2));
}
