//! Finding programs that are already there.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Assets, Component, build::cached};

/// What `KUBEBUILDER_ASSETS` must hold to be used at all.
const BASE: [Component; 3] = [Component::Etcd, Component::KubeApiserver, Component::Kubectl];

/// The programs, if all of them are there already; builds nothing.
#[must_use]
pub fn find() -> Option<Assets> {
    let places = Places::from_environment();
    places.complete().or_else(|| places.with_cache(&cached()?))
}

/// Where a user's own programs may be.
#[derive(Default)]
pub(super) struct Places {
    pub(super) kubebuilder: Option<PathBuf>,
    pub(super) envtest_store: Option<PathBuf>,
}

impl Places {
    pub(super) fn from_environment() -> Self {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = path("XDG_DATA_HOME").or_else(|| Some(path("HOME")?.join(".local/share")));
        Self {
            kubebuilder: path("KUBEBUILDER_ASSETS"),
            envtest_store: data.map(|data| data.join("kubebuilder-envtest/k8s")),
        }
    }

    /// Every program from the user's own places, if they suffice.
    pub(super) fn complete(&self) -> Option<Assets> {
        if let Some(directory) = &self.kubebuilder
            && let Some(assets) = from_directories(&[directory])
        {
            return Some(assets);
        }
        // With a usable KUBEBUILDER_ASSETS the store is not asked: the user chose the versions.
        if self.base().is_some() {
            return None;
        }
        // One directory per version and platform; names sort by version well enough to prefer the newest.
        let mut versions: Vec<PathBuf> = fs::read_dir(self.envtest_store.as_ref()?)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        versions.sort();
        versions
            .iter()
            .rev()
            .find_map(|directory| from_directories(&[directory]))
    }

    /// The user's programs where they are usable, the rest from the cache.
    pub(super) fn with_cache(&self, cache: &Path) -> Option<Assets> {
        match self.base() {
            Some(base) => from_directories(&[base, cache]),
            None => from_directories(&[cache]),
        }
    }

    fn base(&self) -> Option<&Path> {
        let directory = self.kubebuilder.as_deref()?;
        BASE.iter()
            .all(|component| is_program(&directory.join(component.name())))
            .then_some(directory)
    }
}

/// Each program from the first directory that has it.
pub(super) fn from_directories(directories: &[&Path]) -> Option<Assets> {
    let paths = Component::ALL.map(|component| {
        directories
            .iter()
            .map(|directory| directory.join(component.name()))
            .find(|path| is_program(path))
    });
    let paths: Vec<PathBuf> = paths.into_iter().collect::<Option<_>>()?;
    Some(Assets {
        paths: paths.try_into().ok()?,
    })
}

pub(super) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::{Assets, BASE, Component, Places};

    fn install(directory: &Path, components: &[Component]) {
        fs::create_dir_all(directory).unwrap();
        for component in components {
            let path = directory.join(component.name());
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn directories(assets: Option<Assets>) -> Vec<String> {
        let Some(assets) = assets else { return Vec::new() };
        let name = |component| {
            let parent = assets.path(component).parent().unwrap();
            parent.file_name().unwrap().to_string_lossy().into_owned()
        };
        Component::ALL.into_iter().map(name).collect()
    }

    #[test]
    fn a_users_own_programs_come_first_and_only_if_they_suffice() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let cache = at("cache");
        install(&cache, &Component::ALL);
        let places = |kubebuilder: Option<&str>, store: Option<&str>| Places {
            kubebuilder: kubebuilder.map(at),
            envtest_store: store.map(at),
        };

        let empty = places(None, None);
        assert!(empty.complete().is_none());
        assert_eq!(directories(empty.with_cache(&cache)), ["cache"; 6]);

        // Without the base, it is as if unset.
        install(&at("partial"), &[Component::Etcd]);
        let partial = places(Some("partial"), None);
        assert!(partial.complete().is_none());
        assert_eq!(directories(partial.with_cache(&cache)), ["cache"; 6]);

        install(&at("base"), &BASE);
        let base = places(Some("base"), Some("store"));
        assert!(base.complete().is_none());
        assert_eq!(
            directories(base.with_cache(&cache)),
            ["base", "base", "cache", "cache", "base", "cache"]
        );

        install(&at("full"), &Component::ALL);
        assert_eq!(directories(places(Some("full"), None).complete()), ["full"; 6]);

        install(&at("store/1.35.0-linux-amd64"), &Component::ALL);
        install(&at("store/1.36.0-linux-amd64"), &BASE);
        let store = places(None, Some("store"));
        assert_eq!(directories(store.complete()), ["1.35.0-linux-amd64"; 6]);
        assert!(
            base.complete().is_none(),
            "a usable KUBEBUILDER_ASSETS wins over the store"
        );
    }

    #[test]
    fn a_file_that_cannot_run_is_no_program() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), &Component::ALL);
        let path = root.path().join("kwok");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(super::from_directories(&[root.path()]).is_none());
    }
}
