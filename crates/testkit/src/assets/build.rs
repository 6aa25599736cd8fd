//! The programs of the control plane, as pinned Go modules.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::{
    Assets, AssetsError, Component,
    find::Places,
    go::{Module, Program, Set},
};

const CONTROL_PLANE: Module = Module {
    name: "control-plane",
    go_mod: include_str!("../../../../tools/control-plane/go.mod"),
    go_sum: include_str!("../../../../tools/control-plane/go.sum"),
    sources: &[],
};
const KWOK: Module = Module {
    name: "kwok",
    go_mod: include_str!("../../../../tools/kwok/go.mod"),
    go_sum: include_str!("../../../../tools/kwok/go.sum"),
    sources: &[],
};

/// The programs; builds what is missing, with lines of progress, under a lock so that one process builds for all.
///
/// # Errors
///
/// When something is missing to build with, or a build fails.
pub fn find_or_build(progress: &mut dyn Write) -> Result<Assets, AssetsError> {
    let places = Places::from_environment();
    if let Some(assets) = places.complete() {
        return Ok(assets);
    }
    let cache = set().find_or_build(progress)?;
    places.with_cache(&cache).ok_or_else(|| AssetsError::Io {
        what: format!("{} is incomplete; remove it", cache.display()),
        source: io::Error::from(io::ErrorKind::NotFound),
    })
}

/// The cache's entry, if it is there.
pub(super) fn cached() -> Option<PathBuf> {
    set().cached()
}

fn set() -> Set {
    Set {
        title: "control plane",
        directory: "control-plane",
        programs: Component::ALL.into_iter().map(program).collect(),
    }
}

fn program(component: Component) -> Program {
    let module = match component {
        Component::Etcd
        | Component::KubeApiserver
        | Component::KubeControllerManager
        | Component::KubeScheduler
        | Component::Kubectl => &CONTROL_PLANE,
        Component::Kwok => &KWOK,
    };
    Program {
        name: component.name(),
        package: component.package(),
        module,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        fs,
        os::unix::fs::PermissionsExt,
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::{AssetsError, CONTROL_PLANE, Component, KWOK, Program, set};
    use crate::assets::{
        find::from_directories,
        go::{digest, kubernetes_version, link_flags},
    };

    fn write_program(output: &Path) {
        fs::write(output, "program").unwrap();
        fs::set_permissions(output, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_key_is_that_of_every_input() {
        let parts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(digest(&parts(&["a", "b"])), digest(&parts(&["a", "b"])));
        assert_ne!(digest(&parts(&["a", "b"])), digest(&parts(&["ab", ""])));
        assert_eq!(digest(&parts(&["a"])).len(), 16);
        assert_ne!(
            set().entry_name("go1.26.8 linux/amd64"),
            set().entry_name("go1.26.9 linux/amd64")
        );
        assert!(
            set()
                .entry_name("go1.26.8 linux/amd64")
                .ends_with("-go1.26.8-linux-amd64")
        );
    }

    #[test]
    fn the_version_is_stamped_from_the_pin() {
        let version = kubernetes_version(CONTROL_PLANE.go_mod).unwrap();
        let flags = link_flags(&CONTROL_PLANE);
        assert!(
            flags.contains(&format!("k8s.io/component-base/version.gitVersion={version}")),
            "{flags}"
        );
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
        assert_eq!(link_flags(&KWOK), "-s -w");
        for component in Component::ALL {
            let module = super::program(component).module;
            assert!(
                module.go_mod.contains(component.package()),
                "{} is no tool of its module",
                component.name()
            );
        }
    }

    #[test]
    fn a_build_goes_on_where_it_was_interrupted() {
        let root = tempfile::tempdir().unwrap();
        let built = RefCell::new(Vec::new());
        let mut progress = Vec::new();
        let broken = |program: &Program, _: &Path, output: &Path, _: &mut dyn FnMut(_)| {
            // A killed build leaves something half-written behind.
            fs::write(output, "half").unwrap();
            if program.name == "kube-scheduler" {
                return Err(AssetsError::NoGo);
            }
            write_program(output);
            built.borrow_mut().push(program.name);
            Ok(())
        };
        assert!(set().fill(root.path(), "key", &mut progress, &broken).is_err());
        assert_eq!(built.borrow().len(), 3);
        assert!(!root.path().join("key").exists());

        let works = |program: &Program, _: &Path, output: &Path, heartbeat: &mut dyn FnMut(std::time::Duration)| {
            heartbeat(std::time::Duration::from_secs(31));
            write_program(output);
            built.borrow_mut().push(program.name);
            Ok(())
        };
        let entry = set().fill(root.path(), "key", &mut progress, &works).unwrap();
        assert_eq!(*built.borrow(), Component::ALL.map(Component::name));
        assert!(from_directories(&[&entry]).is_some());
        assert!(!root.path().join("key.partial").exists());
        let progress = String::from_utf8(progress).unwrap();
        assert!(progress.contains("building kube-scheduler (4 of 6)"), "{progress}");
        assert!(
            progress.contains("still building kwok (6 of 6), 31 s so far"),
            "{progress}"
        );

        let never = |_: &Program, _: &Path, _: &Path, _: &mut dyn FnMut(_)| -> Result<(), AssetsError> {
            panic!("complete entries are not built again")
        };
        assert_eq!(set().fill(root.path(), "key", &mut Vec::new(), &never).unwrap(), entry);
    }

    #[test]
    fn of_many_that_want_the_same_one_builds() {
        let root = tempfile::tempdir().unwrap();
        let builds = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let build = |_: &Program, _: &Path, output: &Path, _: &mut dyn FnMut(_)| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        write_program(output);
                        Ok(())
                    };
                    set().fill(root.path(), "key", &mut Vec::new(), &build).unwrap();
                });
            }
        });
        assert_eq!(builds.load(Ordering::SeqCst), Component::ALL.len());
    }
}
