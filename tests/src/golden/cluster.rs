//! The control plane as the recording had it, and the operator on it.

use std::{
    collections::BTreeSet,
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use golden::Recording;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempPath;
use testkit::{ControlPlane, try_eventually};
use tokio::sync::Mutex;

use super::{
    DRAIN, Injection,
    definitions::Definitions,
    kinds::{KINDS, Kind, kind},
    settle::Idle,
    view::View,
};
use crate::{Failure, Installation, Running, installation, settings, start};

/// Where `KServe` keeps its settings.
const PLATFORM_NAMESPACE: &str = "kserve";

/// The role of `deploy/` that allows to read the platform's settings, by name.
const SETTINGS_ROLE: &str = "leanserve-platform-settings";

/// Kinds a case may change for the whole cluster.
const CLUSTER_WIDE: [&str; 2] = ["ClusterServingRuntime", "ClusterStorageContainer"];

/// On a busy machine.
const SOON: std::time::Duration = std::time::Duration::from_secs(60);

/// The control plane with everything that is there before any case.
pub(super) struct Cluster<'a> {
    pub(super) client: Client,
    pub(super) view: View,
    pub(super) recording: Recording,
    installation: Installation<'a>,
    /// A copy of the operator's binary: a build in the middle of a run must not change what is tested.
    binary: TempPath,
    /// Names of the `ConfigMaps` of the settings in force.
    settings: Mutex<BTreeSet<String>>,
}

/// A running operator.
pub(super) struct Serving {
    running: Arc<Running>,
    pub(super) idle: Idle,
}

impl<'a> Cluster<'a> {
    pub(super) async fn prepare(
        plane: &'a ControlPlane,
        definitions: Definitions,
        recording: Recording,
        injection: Injection,
    ) -> Result<Self, Failure> {
        let installation = Installation::with_definitions(plane, definitions.objects).await?;
        let mut binary = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o700))
            .tempfile()?;
        io::copy(&mut File::open(Running::binary()?)?, &mut binary)?;
        let client = plane.client().await?;
        serves_all_kinds(&client).await?;
        create_namespace(&client, PLATFORM_NAMESPACE, &json!({}))
            .await
            .map_err(io::Error::other)?;
        set_injection(&client, injection).await?;
        allow_settings(&client, &recording).await?;
        let cluster = Self {
            view: View::follow(&client),
            client,
            recording,
            installation,
            // Closed, or the system would not run it.
            binary: binary.into_temp_path(),
            settings: Mutex::default(),
        };
        cluster.put_cluster_wide().await?;
        Ok(cluster)
    }

    /// An operator with these platform settings, ready and with nothing to do.
    pub(super) async fn operator(&self, config: &str) -> Result<Serving, Failure> {
        self.configure(config).await.map_err(io::Error::other)?;
        let mut running = Running::spawn_copy(&self.binary, &self.installation, &[])?;
        if let Err(error) = start::ready(&mut running).await {
            let log = running.process.log();
            return Err(Failure::from(error).with_log(&log));
        }
        let running = Arc::new(running);
        Ok(Serving {
            idle: Idle::watch(Arc::clone(&running)),
            running,
        })
    }

    /// Brings a file of `config/` into force.
    pub(super) async fn configure(&self, config: &str) -> Result<(), String> {
        let maps = self.recording.config(config).map_err(|error| error.to_string())?;
        let mut known = self.settings.lock().await;
        let mut names = BTreeSet::new();
        for map in maps {
            names.insert(map["metadata"]["name"].as_str().unwrap_or_default().to_owned());
            put(&self.client, PLATFORM_NAMESPACE, map)
                .await
                .map_err(|error| error.to_string())?;
        }
        for gone in known.difference(&names) {
            remove(
                &self.client,
                kind("ConfigMap")?,
                PLATFORM_NAMESPACE,
                gone,
                &DeleteParams::background(),
            )
            .await?;
        }
        *known = names;
        Ok(())
    }

    /// Undoes what a case did to the cluster and to the settings.
    pub(super) async fn restore(&self, config: &str) -> Result<(), Failure> {
        self.put_cluster_wide().await?;
        self.configure(config).await.map_err(io::Error::other)?;
        Ok(())
    }

    /// Brings the cluster-wide objects into the recorded form, and removes others.
    async fn put_cluster_wide(&self) -> Result<(), Failure> {
        let wanted = self.recording.cluster().map_err(io::Error::other)?;
        for name in CLUSTER_WIDE {
            let api = kind(name).map_err(io::Error::other)?.api(&self.client, "");
            let there = api.list(&ListParams::default()).await?;
            for object in there {
                let known =
                    |one: &&Value| one["kind"] == name && one["metadata"]["name"] == json!(object.metadata.name);
                if !wanted.iter().any(|one| known(&one)) {
                    let gone = object.metadata.name.unwrap_or_default();
                    api.delete(&gone, &DeleteParams::default()).await?;
                }
            }
        }
        for object in wanted {
            put(&self.client, "", object).await?;
        }
        Ok(())
    }

    /// A case's namespace, with the account that Pods run under by default.
    pub(super) async fn namespace(&self, name: &str, labels: &Value) -> Result<(), String> {
        create_namespace(&self.client, name, labels).await?;
        let accounts = kind("ServiceAccount")?.api(&self.client, name);
        let there = try_eventually("the default ServiceAccount is there", SOON, async || {
            accounts
                .get("default")
                .await
                .map(|_| ())
                .map_err(|error| error.to_string())
        });
        there.await.map_err(|error| error.to_string())
    }

    /// Deletes a case's namespace, without waiting until all of it is gone.
    pub(super) async fn forget(&self, name: &str) -> Result<(), String> {
        // Services first, so that the operator has nothing to look after while Kubernetes clears the rest away.
        let services = kind("InferenceService")?.api(&self.client, name);
        let deleted = services
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await;
        deleted.map_err(|error| error.to_string())?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let deleted = namespaces.delete(name, &DeleteParams::default()).await;
        deleted.map_err(|error| error.to_string())?;
        self.view.forget(name);
        Ok(())
    }
}

impl Serving {
    /// Ends the operator in order.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.idle.stop().await;
        // Nobody else has one: players have borrowed this.
        let Some(running) = Arc::into_inner(self.running) else {
            return Err(io::Error::other("the operator is still in use").into());
        };
        let (_, killed) = running.process.terminate(DRAIN).await?;
        if killed {
            return Err(io::Error::other("the operator did not end when it was told to").into());
        }
        Ok(())
    }
}

/// Waits until every kind can be listed: a definition is established before its storage is.
async fn serves_all_kinds(client: &Client) -> Result<(), Failure> {
    try_eventually("all kinds can be listed", SOON, async || {
        for kind in KINDS {
            let listed = kind.api(client, "default").list(&ListParams::default().limit(1)).await;
            listed.map_err(|error| format!("{}: {error}", kind.name))?;
        }
        Ok::<_, String>(())
    })
    .await?;
    Ok(())
}

async fn set_injection(client: &Client, injection: Injection) -> Result<(), Failure> {
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(client.clone(), installation::NAMESPACE);
    let change = json!({"data": {"storageInjection": injection.as_str()}});
    maps.patch(settings::CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    Ok(())
}

/// Adds the recorded names of `ConfigMaps` to the one right that goes by such names, as whoever installs leanserve is told
/// to do for certificate authorities of another name.
async fn allow_settings(client: &Client, recording: &Recording) -> Result<(), Failure> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let mut role = roles.get(SETTINGS_ROLE).await?;
    let mut names = BTreeSet::new();
    for case in recording.cases().map_err(io::Error::other)? {
        for map in recording.config(&case.config).map_err(io::Error::other)? {
            names.insert(map["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    for rule in role.rules.iter_mut().flatten() {
        if let Some(known) = &mut rule.resource_names {
            names.extend(known.drain(..));
            known.extend(names.iter().cloned());
        }
    }
    roles.replace(SETTINGS_ROLE, &PostParams::default(), &role).await?;
    Ok(())
}

async fn create_namespace(client: &Client, name: &str, labels: &Value) -> Result<(), String> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}));
    let namespace = namespace.map_err(|error| format!("namespace {name}: {error}"))?;
    let created = namespaces.create(&PostParams::default(), &namespace).await;
    created
        .map(|_| ())
        .map_err(|error| format!("namespace {name}: {error}"))
}

/// Creates an object, or replaces what is there but for its finalizers. Gives what was there before.
pub(super) async fn put(client: &Client, namespace: &str, object: Value) -> Result<Option<DynamicObject>, kube::Error> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let kind = kind(object["kind"].as_str().unwrap_or_default())
        .map_err(io::Error::other)
        .map_err(service)?;
    let api = kind.api(client, namespace);
    let mut object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let before = api.get_opt(&name).await?;
    match &before {
        None => {
            api.create(&PostParams::default(), &object).await?;
        }
        Some(live) => {
            object
                .metadata
                .resource_version
                .clone_from(&live.metadata.resource_version);
            object.metadata.finalizers.clone_from(&live.metadata.finalizers);
            api.replace(&name, &PostParams::default(), &object).await?;
        }
    }
    Ok(before)
}

fn service(error: io::Error) -> kube::Error {
    kube::Error::Service(error.into())
}

/// Deletes an object and waits until it is gone.
pub(super) async fn remove(
    client: &Client,
    kind: &Kind,
    namespace: &str,
    name: &str,
    how: &DeleteParams,
) -> Result<(), String> {
    let api = kind.api(client, namespace);
    let uid = match api.get_opt(name).await {
        Ok(Some(object)) => object.metadata.uid,
        Ok(None) => return Err(format!("there is no {} {name}", kind.name)),
        Err(error) => return Err(error.to_string()),
    };
    let deleted = api.delete(name, how).await;
    deleted.map_err(|error| error.to_string())?;
    let what = format!("{} {name} is gone", kind.name);
    let gone = try_eventually(&what, SOON, async || {
        // Its controller may have made another of the name.
        match api.get_opt(name).await {
            Ok(live) if live.as_ref().is_none_or(|live| live.metadata.uid != uid) => Ok(()),
            Ok(_) => Err("it is there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    gone.await
        .map_err(|error: testkit::eventually::NotYet| error.to_string())
}
