//! Namespaces of single tests.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ObjectMeta, PostParams},
};

use crate::Error;

const DELETE_DEADLINE: Duration = Duration::from_secs(10);

/// A namespace that no other test has. Dropped, it is deleted in the background, without waiting for that.
pub struct TestNamespace {
    /// Its name.
    pub name: String,
    config: Option<Config>,
}

impl std::fmt::Debug for TestNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestNamespace")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for TestNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl TestNamespace {
    pub(super) async fn create(config: Config, prefix: &str) -> Result<Self, Error> {
        let namespaces: Api<Namespace> = Api::all(Client::try_from(config.clone())?);
        let name = unique(prefix);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        namespaces
            .create(
                &PostParams::default(),
                &Namespace {
                    metadata,
                    ..Namespace::default()
                },
            )
            .await?;
        Ok(Self {
            name,
            config: Some(config),
        })
    }

    /// Deletes it; its contents follow in the cluster's own time.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn delete(mut self) -> Result<(), Error> {
        match self.config.take() {
            Some(config) => delete(config, &self.name).await,
            None => Ok(()),
        }
    }

    /// Leaves it in the cluster, to be looked at.
    pub fn keep(mut self) {
        self.config = None;
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let Some(config) = self.config.take() else { return };
        let name = std::mem::take(&mut self.name);
        // The test's runtime ends with the test, so this needs one of its own. A cluster that is gone, or a process that
        // ends before the request is out, leaves the namespace: it has the name of no other test.
        std::thread::spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                // Best effort, as said above.
                let _ = runtime.block_on(async { tokio::time::timeout(DELETE_DEADLINE, delete(config, &name)).await });
            }
        });
    }
}

async fn delete(config: Config, name: &str) -> Result<(), Error> {
    let namespaces: Api<Namespace> = Api::all(Client::try_from(config)?);
    namespaces.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// `PREFIX-...`, unlike any other of this process, and of others that share the cluster.
fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:x}-{count:x}-{nanos:x}", std::process::id())
}
