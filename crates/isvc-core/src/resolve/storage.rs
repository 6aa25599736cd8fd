//! Where models come from, and what brings them into a Pod.
//!
//! `KServe` brings a single model in when the Pod is created, by a webhook that finds annotations, and the models of
//! `storageUris` while it makes the Deployment. Here both happen in the Deployment's template; the annotations are
//! written all the same, and a Pod that already carries what brings its model is left alone, so that the webhook may run
//! as well.

mod ca_bundle;
mod container;
mod image;
mod initializer;
mod list;
mod pod;
mod source;

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};

pub(crate) use ca_bundle::ca_bundle_copy;
pub(super) use source::check_uri;

use crate::{
    api::{Component, InferenceService, Object, component::StorageSpec},
    json::as_go_writes,
    named, names,
    observed::{Observed, StorageInjection},
    rejection::Rejection,
    settings::Settings,
};

use self::{
    image::Image,
    initializer::{Download, Initializer},
    source::Source,
};
use super::{credentials, env};

/// What is asked of one component, and what is known around it.
struct Request<'a> {
    component: &'a Component,
    annotations: &'a BTreeMap<String, String>,
    observed: &'a Observed,
}

impl Request<'_> {
    /// A mount of a volume, for the server.
    fn mount(&self, volume: &str, path: &str) -> Value {
        let mut mount = json!({"name": volume, "mountPath": path});
        if self
            .annotations
            .get(names::ANNOTATION_STORAGE_READONLY)
            .map(String::as_str)
            != Some("false")
        {
            mount["readOnly"] = Value::Bool(true);
        }
        mount
    }

    fn settings(&self) -> &Settings {
        &self.observed.settings
    }
}

/// The annotations by which the model is asked for. They are written wherever the model is brought in.
pub(super) fn annotations(component: &Component, uri: Option<&str>) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let mut add = |key: &str, value: &str| annotations.insert(key.to_owned(), value.to_owned());
    if let Some(uri) = single_uri(component, uri) {
        add(names::ANNOTATION_SOURCE_URI, &uri);
    }
    if let Some(name) = component.storage_container_name.as_deref() {
        add(names::ANNOTATION_STORAGE_CONTAINER, name);
    }
    let model = component.model.as_ref();
    if let Some(storage) = model.and_then(|model| model.storage.as_ref()) {
        add(names::ANNOTATION_STORAGE_SPEC, "true");
        if let Some(parameters) = &storage.parameters {
            add(names::ANNOTATION_STORAGE_SPEC_PARAM, &parameters_json(parameters));
        }
        if let Some(key) = &storage.key {
            add(names::ANNOTATION_STORAGE_SPEC_KEY, key);
        }
    }
    let confidential = model.and_then(|model| model.confidential.as_ref());
    if let Some(confidential) = confidential.filter(|confidential| confidential.enabled) {
        add(names::ANNOTATION_CONFIDENTIAL, "true");
        if let Some(resource) = &confidential.resource_id {
            add(names::ANNOTATION_CONFIDENTIAL_RESOURCE, resource);
        }
    }
    annotations
}

/// Brings the models of a component into its Pod. A single URI was checked before.
pub(super) fn bring(
    pod: &mut Object,
    component: &Component,
    uri: Option<&str>,
    annotations: &BTreeMap<String, String>,
    observed: &Observed,
) -> Result<(), Rejection> {
    if is_multi_model(component, annotations) {
        return Ok(());
    }
    let request = Request {
        component,
        annotations,
        observed,
    };
    if !component.storage_uris.is_empty() {
        list::bring(pod, &request)?;
    }
    if observed.storage_injection == StorageInjection::Annotations {
        return Ok(());
    }
    if let Some(uri) = single_uri(component, uri).filter(|uri| !uri.is_empty()) {
        bring_single(pod, &uri, &request)?;
    }
    initializer::run_as(pod, &request)
}

fn bring_single(pod: &mut Object, uri: &str, request: &Request<'_>) -> Result<(), Rejection> {
    let source = Source::of(uri, &request.settings().storage_initializer);
    if let Source::Image { mode, reference } = source {
        let image = Image {
            mode,
            reference,
            path: names::MODEL_PATH,
            volume: source::volume_name(names::MODEL_PATH),
        };
        return image::bring_single(pod, &image, request);
    }
    if named::has(pod, "initContainers", names::STORAGE_INITIALIZER) {
        return Ok(());
    }
    let container = container::find(uri, request)?;
    if let Source::Claim { claim, sub_path } = source {
        named::add(pod, "volumes", claim_volume(names::PVC_VOLUME, claim));
        pod::mount(
            pod,
            &claim_mount(request, names::PVC_VOLUME, names::MODEL_PATH, sub_path),
        )?;
    } else {
        let downloads = [Download {
            uri,
            path: names::MODEL_PATH,
        }];
        let credentials =
            credentials::of_storage(single_entry(request.component), request.component, request.observed)?;
        let mut initializer = Initializer::download(
            &downloads,
            (names::PROVISION_VOLUME, names::MODEL_PATH),
            credentials,
            container.as_deref(),
            request,
        )?;
        initializer.decrypt(request.annotations);
        initializer.place(pod);
        pod::mount(pod, &request.mount(names::PROVISION_VOLUME, names::MODEL_PATH))?;
    }
    // The server finds the model where it was put, whatever the URI was.
    for server in pod::servers(pod) {
        let variables = server.get_mut("env").and_then(Value::as_array_mut);
        if let Some(variables) = variables
            && env::literal(variables, names::ENV_STORAGE_URI).is_some_and(|uri| !uri.is_empty())
        {
            env::set(variables, env::value(names::ENV_STORAGE_URI, names::MODEL_PATH));
        }
    }
    Ok(())
}

fn claim_volume(name: &str, claim: &str) -> Value {
    // The claim is read-only for this mount, not for the volume: KServe leaves the volume writable.
    json!({"name": name, "persistentVolumeClaim": {"claimName": claim}})
}

fn claim_mount(request: &Request<'_>, volume: &str, path: &str, sub_path: &str) -> Value {
    let mut mount = request.mount(volume, path);
    if !sub_path.is_empty() {
        mount["subPath"] = Value::from(sub_path);
    }
    mount
}

/// Which credentials the models of a component need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Those of its `ServiceAccount`.
    pub(crate) service_account: bool,
    /// An entry of the storage Secret.
    pub(crate) storage_secret: bool,
}

/// What credentials the models of a component need, as far as its specification tells. `uri` is its single URI.
pub(crate) fn needs(
    component: &Component,
    uri: Option<&str>,
    settings: &Settings,
    injection: StorageInjection,
) -> Needs {
    let mut needs = Needs::default();
    let mut add = |uri: &str, entry: Option<&StorageSpec>| {
        if !uri.is_empty() && Source::of(uri, &settings.storage_initializer) == Source::Download {
            match entry {
                Some(_) => needs.storage_secret = true,
                None => needs.service_account = true,
            }
        }
    };
    for listed in &component.storage_uris {
        add(&listed.uri, list_entry(component));
    }
    if injection == StorageInjection::Deployment
        && let Some(uri) = single_uri(component, uri)
    {
        add(&uri, single_entry(component));
    }
    needs
}

/// What is wrong with the credentials that the models of a component need, as far as its specification tells.
pub(crate) fn credential_problems(component: &Component, observed: &Observed) -> Vec<Rejection> {
    let mut problems = Vec::new();
    let mut add = |uri: &str, entry: Option<&StorageSpec>| {
        let source = Source::of(uri, &observed.settings.storage_initializer);
        if !uri.is_empty() && source == Source::Download {
            problems.extend(credentials::of_storage(entry, component, observed).err());
        }
    };
    for listed in &component.storage_uris {
        add(&listed.uri, list_entry(component));
    }
    if let Some(uri) = single_uri(component, specified_uri(component)) {
        add(&uri, single_entry(component));
    }
    if component.logger.is_some() || component.batcher.is_some() {
        problems.extend(credentials::resolve(component, observed).err());
    }
    problems
}

/// The single URI a component's specification gives: of its model or explainer, or in the environment of the container
/// that serves.
pub(crate) fn specified_uri(component: &Component) -> Option<&str> {
    if let Some(model) = &component.model {
        return model.storage_uri.as_deref();
    }
    if let Some(art) = &component.art {
        return art.storage_uri.as_deref();
    }
    let server = named::find(&component.containers, names::MODEL_CONTAINER);
    let server = server.or_else(|| component.containers.first())?;
    env::literal(server.get("env")?.as_array()?, names::ENV_STORAGE_URI)
}

/// Name of the storage Secret of a component.
pub(crate) fn storage_secret<'a>(
    service: &'a InferenceService,
    component: &'a Component,
    settings: &'a Settings,
) -> &'a str {
    credentials::annotated_secret(service, component, settings)
        .unwrap_or(&settings.credentials.storage_spec_secret_name)
}

/// The one URI to bring: the given one, or the path in the storage that `storage` describes.
fn single_uri<'a>(component: &Component, uri: Option<&'a str>) -> Option<Cow<'a, str>> {
    let storage = component.model.as_ref().and_then(|model| model.storage.as_ref());
    match storage.and_then(|storage| storage.path.as_deref()) {
        Some(path) => {
            let path = path.strip_prefix('/').unwrap_or(path);
            Some(Cow::Owned(format!("{}://{path}", names::SCHEME_PLACEHOLDER)))
        }
        None => uri.map(Cow::Borrowed),
    }
}

/// What describes the storage of a single URI.
fn single_entry(component: &Component) -> Option<&StorageSpec> {
    component.model.as_ref()?.storage.as_ref()
}

/// What describes the storage of `storageUris`: here `KServe` asks for key and parameters.
fn list_entry(component: &Component) -> Option<&StorageSpec> {
    single_entry(component).filter(|storage| storage.key.is_some() && storage.parameters.is_some())
}

/// Whether models are pulled by the agent of the old multi-model servers, who load them while they run.
fn is_multi_model(component: &Component, annotations: &BTreeMap<String, String>) -> bool {
    let server = component.containers.first().filter(|_| component.model.is_none());
    let env = server.and_then(|server| server.get("env")?.as_array());
    annotations.contains_key(names::ANNOTATION_PULLING_AGENT)
        || env.is_some_and(|env| env::literal(env, "MULTI_MODEL_SERVER") == Some("true"))
}

/// Parameters as `KServe` writes them: sorted.
pub(super) fn parameters_json(parameters: &BTreeMap<String, String>) -> String {
    as_go_writes(&json!(parameters).to_string())
}

#[cfg(test)]
mod tests;
