//! One pass's decision: what to read, then what to build.

use std::borrow::Cow;

use crate::{
    api::{
        Component, ComponentKind, InferenceService, Scope,
        status::{INGRESS_READY, READY, STOPPED},
    },
    build::{self, build},
    defaults,
    desired::DesiredState,
    names,
    observed::{Live, LiveDeployment, Lookup, Observed, ServiceAccountFacts, StorageInjection, Wanted},
    readiness,
    rejection::Rejection,
    resolve::{self, Resolved, ResolvedComponent},
    settings::{DeploymentMode, Settings},
    validate::INVALID_SPEC,
};

/// What a pass has decided.
#[derive(Debug)]
pub enum Decision {
    /// The service is not ours to touch (another deployment mode): no child, no status, no event.
    Ignored {
        /// Why, for the log.
        why: String,
    },
    /// The service is frozen by its annotation while it is Ready: nothing is touched.
    Frozen,
    /// What to build.
    Build {
        /// What the specification means.
        resolved: Box<Resolved>,
        /// The children it should have.
        desired: Box<DesiredState>,
    },
    /// The service is stopped: nothing of it should exist, whatever else is wrong with it.
    Stop {
        /// What its status says.
        stopped: Stopped,
        /// What it shares with other services, and nothing else.
        desired: Box<DesiredState>,
    },
    /// Why nothing can be built; children stay as they are.
    Reject(Rejection),
}

/// What is known of a stopped service.
#[derive(Debug)]
pub struct Stopped {
    /// The runtime it would use.
    pub runtime: Option<(Scope, String)>,
    /// The components it has.
    pub components: Vec<ComponentKind>,
    /// Whether it has variants of its predictor.
    pub has_canaries: bool,
    /// Whether it was reached from outside until now.
    pub was_exposed: bool,
}

impl Decision {
    /// The children a service should have, if anything is to be done about them.
    #[must_use]
    pub fn desired(&self) -> Option<&DesiredState> {
        match self {
            Self::Build { desired, .. } | Self::Stop { desired, .. } => Some(desired),
            Self::Ignored { .. } | Self::Frozen | Self::Reject(_) => None,
        }
    }
}

/// Whether a service is ours: its deployment mode is Standard.
#[must_use]
pub fn is_ours(service: &InferenceService, settings: &Settings) -> bool {
    resolve::deployment_mode(service, settings) == DeploymentMode::Standard
}

/// The names a pass has to read before it can decide.
#[must_use]
pub fn wanted(
    service: &InferenceService,
    settings: &Settings,
    storage_injection: StorageInjection,
    live: &Live,
) -> Wanted {
    let mut wanted = Wanted::default();
    let annotated = service.meta.annotation(names::ANNOTATION_DISABLE_AUTO_UPDATE) == Some("true");
    let frozen = annotated && service.status.is_true(READY);
    if frozen || resolve::is_stopped(service) || !is_ours(service, settings) {
        return wanted;
    }
    // A framework in its old field says where the model is like `model` does.
    let mut service = Cow::Borrowed(service);
    if service.spec.workloads().any(|component| component.legacy.is_some())
        && defaults::apply(service.to_mut(), settings).is_err()
    {
        return wanted;
    }
    for component in service.spec.workloads() {
        let mut needs = resolve::needs(
            component,
            resolve::specified_uri(component),
            settings,
            storage_injection,
        );
        needs.service_account |= storage_injection == StorageInjection::Deployment
            && (component.logger.is_some() || component.batcher.is_some());
        if needs.storage_secret {
            let secret = resolve::storage_secret(&service, component, settings);
            wanted.secrets.insert(secret.to_owned());
            wanted.storage_secrets.insert(secret.to_owned());
        }
        if needs.service_account {
            wanted
                .service_accounts
                .insert(resolve::service_account(component).to_owned());
            match resolve::annotated_secret(&service, component, settings) {
                Some(secret) => {
                    wanted.secrets.insert(secret.to_owned());
                }
                None => {
                    wanted.secrets_of.insert(resolve::service_account(component).to_owned());
                }
            }
        }
        // Secrets the containers refer to matter only while something keeps the Pods from being ready.
        let name = names::component_object(
            &service.meta.name,
            component.variant.as_deref(),
            component.kind.as_str(),
        );
        if !readiness::of(live_deployment(live, &name)).is_ready() {
            let references =
                specified_containers(component).flat_map(|(_, container)| readiness::secret_references(container));
            wanted
                .secrets
                .extend(references.map(|reference| reference.secret.to_owned()));
        }
    }
    wanted
}

/// The Secrets the `ServiceAccount` called `name` adds to what is wanted, in its order.
#[must_use]
pub fn secrets_of(wanted: &Wanted, name: &str, account: &Lookup<ServiceAccountFacts>) -> Vec<String> {
    match account {
        Lookup::Found(account) if wanted.secrets_of.contains(name) => account.secrets.clone(),
        Lookup::Found(_) | Lookup::Missing | Lookup::Unreadable(_) => Vec::new(),
    }
}

/// The containers the specification itself names, with the path of each.
pub(crate) fn specified_containers(predictor: &Component) -> impl Iterator<Item = (&'static str, &crate::api::Object)> {
    let model = predictor.model.as_ref().map(|model| ("model", &model.container));
    let art = predictor.art.as_ref().map(|art| ("art", &art.container));
    let legacy = predictor.legacy.as_ref().map(|(name, content)| (*name, content));
    let custom = predictor
        .containers
        .iter()
        .filter_map(|container| Some(("containers", container.as_object()?)));
    model.into_iter().chain(art).chain(legacy).chain(custom)
}

/// Decides what a service should look like.
#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    decide_completed(observed).0
}

/// As [`decide`]; also the service with the defaults of admission.
pub(crate) fn decide_completed(observed: &Observed) -> (Decision, Observed) {
    let mut observed = observed.clone();
    let decision = decide_in_place(&mut observed);
    (decision, observed)
}

fn decide_in_place(observed: &mut Observed) -> Decision {
    let settings = std::sync::Arc::clone(&observed.settings);
    if !is_ours(&observed.service, &settings) {
        let mode = resolve::deployment_mode(&observed.service, &settings);
        return Decision::Ignored {
            why: format!("deployment mode is {}, not Standard", mode.as_str()),
        };
    }
    let service = &mut observed.service;
    let disabled = service.meta.annotation(names::ANNOTATION_DISABLE_AUTO_UPDATE) == Some("true");
    if disabled && service.status.is_true(READY) {
        return Decision::Frozen;
    }
    let unreadable = defaults::apply(service, &settings).err();
    if resolve::is_stopped(service) {
        return stop(observed);
    }
    if let Some(error) = unreadable {
        return Decision::Reject(Rejection::new(INVALID_SPEC, error.to_string()));
    }
    match resolve::resolve(observed) {
        Err(rejection) => Decision::Reject(rejection),
        Ok(resolved) => {
            let is_ready = |component: &&ResolvedComponent| {
                readiness::of(live_deployment(&observed.live, &component.name)).is_ready()
            };
            let ready = resolved.components().filter(is_ready).map(|component| component.kind);
            let mut desired = build(&resolved, &ready.collect());
            build::hand_over_replicas(&mut desired, &observed.live);
            build::keep_the_way(&mut desired, &resolved, &observed.live);
            Decision::Build {
                resolved: Box::new(resolved),
                desired: Box::new(desired),
            }
        }
    }
}

/// Stopping asks for nothing that could be missing or wrong.
fn stop(observed: &Observed) -> Decision {
    let (service, live) = (&observed.service, &observed.live);
    let was_exposed = !live.ingresses.is_empty() || !live.http_routes.is_empty();
    // Where the last pass deleted the routes and could not say so, the status still has them.
    let says_so = service.status.is_true(INGRESS_READY)
        && !service.status.is_true(STOPPED)
        && !resolve::is_internal(&service.meta, &observed.settings.ingress);
    let stopped = Stopped {
        runtime: match resolve::resolve(observed) {
            Ok(resolved) => resolved.runtime,
            Err(rejection) => rejection.runtime,
        },
        components: service.spec.components().map(|component| component.kind).collect(),
        has_canaries: !service.spec.canaries.is_empty(),
        was_exposed: was_exposed || says_so,
    };
    Decision::Stop {
        stopped,
        desired: Box::new(DesiredState {
            ca_bundle: resolve::ca_bundle_copy(observed).ok().flatten(),
            ..DesiredState::default()
        }),
    }
}

/// The live Deployment of a name.
pub(crate) fn live_deployment<'a>(live: &'a Live, name: &str) -> Option<&'a LiveDeployment> {
    live.deployments
        .iter()
        .find(|deployment| deployment.object.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::{Condition, ConditionStatus, InferenceServiceStatus, Meta};

    fn service(spec: Value, annotations: &[(&str, &str)]) -> InferenceService {
        let meta = Meta {
            name: "m".to_owned(),
            namespace: "n".to_owned(),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Meta::default()
        };
        InferenceService::parse(meta, spec, InferenceServiceStatus::default()).expect("a readable specification")
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn wanted_of(service: &InferenceService) -> Wanted {
        let settings = Settings::built_in();
        wanted(service, &settings, StorageInjection::Deployment, &Live::default())
    }

    #[test]
    fn what_a_model_is_brought_in_with_is_read() {
        let of_account = |name: &str| Wanted {
            service_accounts: set(&[name]),
            secrets_of: set(&[name]),
            ..Wanted::default()
        };
        let model = |uri: &str| json!({"predictor": {"model": {"storageUri": uri}}});
        assert_eq!(wanted_of(&service(model("s3://b/a"), &[])), of_account("default"));
        assert_eq!(wanted_of(&service(model("pvc://c"), &[])), Wanted::default());
        let legacy = json!({"predictor": {"sklearn": {"storageUri": "s3://b/a"}, "serviceAccountName": "loader"}});
        assert_eq!(wanted_of(&service(legacy, &[])), of_account("loader"));
        let logger = json!({"predictor": {"model": {}, "logger": {}}});
        assert_eq!(wanted_of(&service(logger, &[])), of_account("default"));

        let annotated = ("serving.kserve.io/storageSecretName", "own");
        let named = Wanted {
            service_accounts: set(&["default"]),
            secrets: set(&["own"]),
            ..Wanted::default()
        };
        assert_eq!(wanted_of(&service(model("s3://b/a"), &[annotated])), named);

        let described = json!({"predictor": {"sklearn": {"storage": {"path": "a"}}}});
        for (annotations, secret) in [(&[][..], "storage-config"), (&[annotated][..], "own")] {
            let entries = Wanted {
                secrets: set(&[secret]),
                storage_secrets: set(&[secret]),
                ..Wanted::default()
            };
            assert_eq!(wanted_of(&service(described.clone(), annotations)), entries);
        }
    }

    #[test]
    fn nothing_is_read_for_a_service_that_is_left_alone() {
        let spec = json!({"predictor": {"model": {"storageUri": "s3://b/a"}}});
        for annotation in [
            (names::ANNOTATION_STOP, "true"),
            (names::ANNOTATION_DEPLOYMENT_MODE, "Knative"),
        ] {
            assert_eq!(wanted_of(&service(spec.clone(), &[annotation])), Wanted::default());
        }
        let mut frozen = service(spec, &[(names::ANNOTATION_DISABLE_AUTO_UPDATE, "true")]);
        assert_ne!(wanted_of(&frozen), Wanted::default(), "it is not Ready");
        frozen.status.conditions = vec![Condition {
            type_: READY.to_owned(),
            status: ConditionStatus::True,
            ..Condition::default()
        }];
        assert_eq!(wanted_of(&frozen), Wanted::default());
    }
}
