//! What a service refers to by name and is not there: `ServiceAccounts`, Secrets, and keys in them.
//!
//! Asked before a service is stored, when nothing of it is running yet. What is found missing is told in the words in which
//! the status would tell it later.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use serde_json::Value;

use crate::{
    api::{Component, InferenceService},
    decide, defaults,
    named::name_of,
    names,
    observed::{ByName, Live, Lookup, Observed, StorageInjection, Wanted},
    readiness::{lacking, secret_references, user_of},
    resolve,
    settings::Settings,
};

/// What is said of a name that the API server was not asked about.
pub(crate) const NOT_LOOKED_UP: &str = "it was not looked up";

/// A service whose references can be looked up.
#[derive(Clone, Debug)]
pub struct References {
    /// Nothing is known but the service itself.
    observed: Observed,
    wanted: Wanted,
}

/// Something about a reference that its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// For people: names field or user, object and key, and what to do.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody can say whether it is there: it cannot be read.
    Unknown,
    /// It is not there, and Pods start all the same.
    Harmless,
    /// It is not there, and no Pod can start, or be made, before it is.
    Missing,
}

impl References {
    /// The references of a service; none where there is nothing to check: it is stopped, it is not in Standard mode, or it is
    /// not valid, which others tell.
    #[must_use]
    pub fn of(mut service: InferenceService, settings: Arc<Settings>) -> Option<Self> {
        if resolve::is_stopped(&service) || !decide::is_ours(&service, &settings) {
            return None;
        }
        defaults::apply(&mut service, &settings).ok()?;
        let observed = Observed {
            service,
            settings,
            runtimes: Vec::new(),
            cluster_runtimes: Vec::new(),
            storage_containers: Vec::new(),
            by_name: ByName::default(),
            live: Live::default(),
            cluster_domain: String::new(),
            platform_namespace: String::new(),
            storage_injection: StorageInjection::Deployment,
        };
        let wanted = wanted(&observed);
        Some(Self { observed, wanted })
    }

    /// The names to look up, all of them in the service's own namespace.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What is missing, or cannot be read, of what was looked up: each thing once. Names that `found` does not have were not
    /// looked up, and so are never told to be missing; that there are such names comes first.
    #[must_use]
    pub fn findings(&mut self, mut found: ByName) -> Vec<Finding> {
        let cut_short = self.name_what_was_not_looked_up(&mut found);
        self.observed.by_name = found;
        let observed = &self.observed;
        let mut findings = Findings::default();
        for component in observed.service.spec.workloads() {
            of_account(component, observed, &mut findings);
            for problem in resolve::credential_problems(component, observed) {
                match problem.reason {
                    "ServiceAccountNotFound" | "SecretNotFound" | "SecretKeyNotFound" => {
                        findings.add(Severity::Missing, problem.message);
                    }
                    "ServiceAccountNotReadable" | "SecretNotReadable" => {
                        findings.add(Severity::Unknown, problem.message);
                    }
                    // About the content of an entry: the status tells it.
                    _ => {}
                }
            }
            for reference in of_pod(component) {
                reference.look(observed, &mut findings);
            }
        }
        let mut findings = findings.0;
        if let Some(cut_short) = cut_short {
            // There may be many, of which people are shown the first ones.
            findings.sort_by_key(|finding| Reverse(finding.severity));
            findings.insert(0, cut_short);
        }
        findings
    }

    /// Adds those names of the service that were not looked up to `found`, as what cannot be read. Says how many names there
    /// are, with those that accounts list, if not all of them were looked up.
    ///
    /// What accounts list is not added: one may list far more than a service can name, and of a Secret that is not in `found`
    /// credentials say the same.
    fn name_what_was_not_looked_up(&self, found: &mut ByName) -> Option<Finding> {
        let wanted = &self.wanted;
        let looked_up = found.service_accounts.len() + found.secrets.len();
        let mut secrets = wanted.secrets.clone();
        for (name, account) in &found.service_accounts {
            secrets.extend(decide::secrets_of(wanted, name, account));
        }
        let names = wanted.service_accounts.len() + secrets.len();
        for name in &wanted.service_accounts {
            let account = found.service_accounts.entry(name.clone());
            account.or_insert_with(not_looked_up);
        }
        for name in &wanted.secrets {
            found.secrets.entry(name.clone()).or_insert_with(not_looked_up);
        }
        (names > looked_up).then(|| Finding {
            severity: Severity::Unknown,
            message: format!("{names} ServiceAccounts and Secrets are referred to; {looked_up} of them were looked up"),
        })
    }
}

fn not_looked_up<T>() -> Lookup<T> {
    Lookup::Unreadable(NOT_LOOKED_UP.to_owned())
}

/// As many findings are told: far more than anybody reads, and few enough to be compared with each other.
const MOST: usize = 256;

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// With too many, one that is worse takes the place of another.
    fn add(&mut self, severity: Severity, message: String) {
        if self.0.iter().any(|known| known.message == message) {
            return;
        }
        let finding = Finding { severity, message };
        if self.0.len() < MOST {
            self.0.push(finding);
        } else if let Some(less) = self.0.iter_mut().rfind(|known| known.severity < severity) {
            *less = finding;
        }
    }
}

/// The name of the account that a component asks for, if it asks for any but the one that every namespace gets.
fn named_account(component: &Component) -> Option<&str> {
    Some(resolve::service_account(component)).filter(|name| *name != "default")
}

/// No Pod is made for an account that is not there, whatever it is for.
fn of_account(component: &Component, observed: &Observed, findings: &mut Findings) {
    let Some(name) = named_account(component) else { return };
    let (field, namespace) = (component.field("serviceAccountName"), &observed.service.meta.namespace);
    match observed.by_name.service_accounts.get(name) {
        Some(Lookup::Missing) => {
            let problem = resolve::account_not_found(&field, namespace, name);
            findings.add(Severity::Missing, problem.message);
        }
        Some(Lookup::Unreadable(why)) => {
            let problem = resolve::account_not_readable(&field, namespace, name, why);
            findings.add(Severity::Unknown, problem.message);
        }
        Some(Lookup::Found(_)) | None => {}
    }
}

/// A reference of a Pod to a Secret, or to a key in it.
struct OfPod<'a> {
    secret: &'a str,
    key: Option<&'a str>,
    user: String,
    /// How bad it is if it is not there.
    severity: Severity,
}

impl OfPod<'_> {
    fn look(&self, observed: &Observed, findings: &mut Findings) {
        let namespace = &observed.service.meta.namespace;
        let found = observed.by_name.secrets.get(self.secret);
        if let Some(Lookup::Unreadable(why)) = found {
            let (secret, user) = (self.secret, &self.user);
            let message = format!("Secret {namespace}/{secret} cannot be read ({user}): {why}");
            findings.add(Severity::Unknown, message);
        }
        if let Some((_, message)) = lacking(namespace, self.secret, self.key, &self.user, found) {
            findings.add(self.severity, message);
        }
    }
}

/// The references of a component's own part of its Pods that are not optional: of containers, volumes, and the Secrets images
/// are pulled with.
fn of_pod(component: &Component) -> Vec<OfPod<'_>> {
    let mut references = Vec::new();
    let list = |name: &str| {
        let list = component.pod.get(name).and_then(Value::as_array);
        list.into_iter().flatten()
    };
    let of_spec = decide::specified_containers(component).map(|(_, container)| container);
    let initial = list("initContainers").filter_map(Value::as_object);
    for container in of_spec.chain(initial) {
        let name = container.get("name").and_then(Value::as_str);
        let name = name.unwrap_or(names::MODEL_CONTAINER);
        references.extend(secret_references(container).map(|reference| OfPod {
            secret: reference.secret,
            key: reference.key,
            user: user_of(reference.variable, name),
            severity: Severity::Missing,
        }));
    }
    for volume in list("volumes") {
        let user = || format!("volume {}", name_of(volume).unwrap_or_default());
        if let Some(source) = volume.get("secret") {
            let name = source.get("secretName").and_then(Value::as_str);
            of_volume(name, source, &user, &mut references);
        }
        let projected = volume.pointer("/projected/sources").and_then(Value::as_array);
        for source in projected
            .into_iter()
            .flatten()
            .filter_map(|source| source.get("secret"))
        {
            of_volume(name_of(source), source, &user, &mut references);
        }
    }
    references.extend(list("imagePullSecrets").filter_map(name_of).map(|secret| OfPod {
        secret,
        key: None,
        user: "imagePullSecrets".to_owned(),
        // The kubelet goes on without it: the image may be public, or there already.
        severity: Severity::Harmless,
    }));
    references.retain(|reference| !reference.secret.is_empty());
    references
}

/// A volume waits for the Secret, and for the keys it lists.
fn of_volume<'a>(name: Option<&'a str>, source: &'a Value, user: &dyn Fn() -> String, to: &mut Vec<OfPod<'a>>) {
    let is_optional = source.get("optional").and_then(Value::as_bool) == Some(true);
    let Some(secret) = name.filter(|_| !is_optional) else {
        return;
    };
    let items = source.get("items").and_then(Value::as_array);
    let keys = items.into_iter().flatten();
    let mut keys: Vec<_> = keys.filter_map(|item| item.get("key")?.as_str()).map(Some).collect();
    if keys.is_empty() {
        keys.push(None);
    }
    to.extend(keys.into_iter().map(|key| OfPod {
        secret,
        key,
        user: user(),
        severity: Severity::Missing,
    }));
}

fn wanted(observed: &Observed) -> Wanted {
    let (service, settings) = (&observed.service, &observed.settings);
    let mut wanted = decide::wanted(service, settings, observed.storage_injection, &observed.live);
    let mut secrets = BTreeSet::new();
    for component in service.spec.workloads() {
        wanted
            .service_accounts
            .extend(named_account(component).map(str::to_owned));
        secrets.extend(of_pod(component).iter().map(|reference| reference.secret.to_owned()));
    }
    wanted.secrets.append(&mut secrets);
    wanted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::{
        api::{InferenceServiceStatus, Meta},
        credential::CredentialFacts,
        observed::ServiceAccountFacts,
    };

    fn service(predictor: Value, annotations: &[(&str, &str)]) -> InferenceService {
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let meta = Meta {
            namespace: "n".to_owned(),
            annotations: annotations.collect(),
            ..Meta::default()
        };
        let mut spec = json!({});
        spec["predictor"] = predictor;
        InferenceService::parse(meta, spec, InferenceServiceStatus::default()).expect("a readable specification")
    }

    fn references(predictor: Value) -> References {
        let settings = Arc::new(Settings::built_in());
        References::of(service(predictor, &[]), settings).expect("there is something to check")
    }

    /// Looks the names of `wanted` up in a namespace with these accounts (and the Secrets they list) and Secrets (and their
    /// keys).
    fn world(wanted: &Wanted, accounts: &[(&str, &[&str])], secrets: &[(&str, &[&str])]) -> ByName {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut names = wanted.secrets.clone();
        let mut service_accounts = BTreeMap::new();
        for name in &wanted.service_accounts {
            let found = accounts.iter().find(|(known, _)| known == name);
            let lookup = found.map_or(Lookup::Missing, |(_, secrets)| {
                Lookup::Found(ServiceAccountFacts {
                    secrets: owned(secrets),
                    ..ServiceAccountFacts::default()
                })
            });
            names.extend(decide::secrets_of(wanted, name, &lookup));
            service_accounts.insert(name.clone(), lookup);
        }
        let secrets = names.into_iter().map(|name| {
            let found = secrets.iter().find(|(known, _)| *known == name);
            let lookup = found.map_or(Lookup::Missing, |(_, keys)| {
                Lookup::Found(CredentialFacts {
                    keys: owned(keys).into_iter().collect(),
                    ..CredentialFacts::default()
                })
            });
            (name, lookup)
        });
        ByName {
            service_accounts,
            secrets: secrets.collect(),
            ca_bundle: None,
        }
    }

    #[track_caller]
    fn check(
        predictor: Value,
        accounts: &[(&str, &[&str])],
        secrets: &[(&str, &[&str])],
        expected: &[(Severity, &str)],
    ) {
        let mut references = references(predictor);
        let found = world(references.wanted(), accounts, secrets);
        finds(&mut references, found, expected);
    }

    #[track_caller]
    fn finds(references: &mut References, found: ByName, expected: &[(Severity, &str)]) {
        let findings = references.findings(found);
        let texts: Vec<_> = findings
            .iter()
            .map(|finding| (finding.severity, finding.message.as_str()))
            .collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?}");
        for ((severity, text), (expected, part)) in texts.iter().zip(expected) {
            assert_eq!(severity, expected, "{text}");
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    const DOWNLOAD: &str = "s3://bucket/model";

    #[test]
    fn an_account_that_is_named_has_to_be_there_whatever_it_is_for() {
        use Severity::Missing;
        let named = |uri: &str| json!({"serviceAccountName": "loader", "model": {"storageUri": uri}});
        let text = "spec.predictor.serviceAccountName: ServiceAccount n/loader not found; create it";
        check(named("pvc://claim/model"), &[], &[], &[(Missing, text)]);
        check(named(DOWNLOAD), &[], &[], &[(Missing, text)]);
        check(named("pvc://claim/model"), &[("loader", &[])], &[], &[]);
        // The one that every namespace gets may be on its way.
        check(json!({"model": {"storageUri": DOWNLOAD}}), &[], &[], &[]);
    }

    #[test]
    fn secrets_that_an_account_lists_have_to_be_there_with_their_keys() {
        use Severity::Missing;
        let named = || json!({"serviceAccountName": "loader", "model": {"storageUri": DOWNLOAD}});
        let accounts: &[(&str, &[&str])] = &[("loader", &["s3"])];
        check(
            named(),
            accounts,
            &[],
            &[(Missing, "Secret n/s3 not found (ServiceAccount loader lists it)")],
        );
        check(
            named(),
            accounts,
            &[("s3", &["AWS_SECRET_ACCESS_KEY"])],
            &[(Missing, "has key AWS_SECRET_ACCESS_KEY and no key AWS_ACCESS_KEY_ID")],
        );
        let both: &[&str] = &["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"];
        check(named(), accounts, &[("s3", both)], &[]);
    }

    #[test]
    fn an_entry_of_the_storage_secret_has_to_be_there() {
        use Severity::Missing;
        let entry = || json!({"model": {"storage": {"key": "main", "path": "model"}}});
        let names = "spec.predictor.model.storage.key names main";
        check(entry(), &[], &[], &[(Missing, names)]);
        check(
            entry(),
            &[],
            &[("storage-config", &["other"])],
            &[(Missing, "has no key main")],
        );
    }

    #[test]
    fn containers_and_volumes_wait_for_their_secrets() {
        use Severity::{Harmless, Missing};
        let reference = |name: &str, key: &str| json!({"valueFrom": {"secretKeyRef": {"name": name, "key": key}}});
        let mut token = reference("tokens", "hf");
        token["name"] = json!("HF_TOKEN");
        let mut optional = reference("nowhere", "x");
        optional["name"] = json!("OPTIONAL");
        optional["valueFrom"]["secretKeyRef"]["optional"] = json!(true);
        let predictor = || {
            json!({
                "model": {"storageUri": "pvc://claim/model", "env": [token.clone(), optional.clone()]},
                "initContainers": [{"name": "warm", "image": "i", "envFrom": [{"secretRef": {"name": "warmth"}}]}],
                "volumes": [
                    {"name": "tls", "secret": {"secretName": "certs", "items": [{"key": "a", "path": "a"}]}},
                    {"name": "maybe", "secret": {"secretName": "nowhere", "optional": true}},
                    {"name": "all", "projected": {"sources": [{"secret": {"name": "parts"}}]}},
                ],
                "imagePullSecrets": [{"name": "registry"}],
            })
        };
        check(
            predictor(),
            &[],
            &[],
            &[
                (
                    Missing,
                    "Secret n/tokens not found (env HF_TOKEN of container kserve-container); create it with key hf",
                ),
                (
                    Missing,
                    "Secret n/warmth not found (envFrom of container warm); create it",
                ),
                (Missing, "Secret n/certs not found (volume tls); create it with key a"),
                (Missing, "Secret n/parts not found (volume all); create it"),
                (Harmless, "Secret n/registry not found (imagePullSecrets); create it"),
            ],
        );
        let secrets: &[(&str, &[&str])] = &[
            ("tokens", &["other"]),
            ("warmth", &[]),
            ("certs", &["b"]),
            ("parts", &[]),
            ("registry", &[]),
        ];
        check(
            predictor(),
            &[],
            secrets,
            &[
                (
                    Missing,
                    "Secret n/tokens has no key hf (env HF_TOKEN of container kserve-container); add it",
                ),
                (Missing, "Secret n/certs has no key a (volume tls); add it"),
            ],
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_apart_from_what_is_missing() {
        let mut references = references(json!({
            "serviceAccountName": "loader",
            "model": {"storageUri": "pvc://c"},
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        }));
        let unreadable = ByName {
            service_accounts: BTreeMap::from([("loader".to_owned(), Lookup::Unreadable("forbidden".to_owned()))]),
            secrets: BTreeMap::from([("s".to_owned(), Lookup::Unreadable("too large".to_owned()))]),
            ca_bundle: None,
        };
        let findings = references.findings(unreadable);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings.iter().all(|finding| finding.severity == Severity::Unknown),
            "{findings:?}"
        );
    }

    #[test]
    fn what_was_not_looked_up_is_never_told_to_be_missing() {
        use Severity::{Missing, Unknown};
        let cut = |predictor: Value, secrets: &[&str], behind: &str, expected: &[(Severity, &str)]| {
            let mut references = references(predictor);
            let mut found = world(references.wanted(), &[("loader", secrets)], &[("first", &[])]);
            found.service_accounts.remove(behind);
            found.secrets.remove(behind);
            finds(&mut references, found, expected);
        };
        let listed = json!({"serviceAccountName": "loader", "model": {"storageUri": DOWNLOAD}});
        let text = "Secret n/last cannot be read (ServiceAccount loader lists it): it was not looked up";
        let counted = "3 ServiceAccounts and Secrets are referred to; 2 of them were looked up";
        cut(
            listed.clone(),
            &["first", "last"],
            "last",
            &[(Unknown, counted), (Unknown, text)],
        );
        let text = "spec.predictor.serviceAccountName: ServiceAccount n/loader cannot be read: it was not looked up";
        cut(
            listed,
            &[],
            "loader",
            &[(Unknown, "1 ServiceAccounts"), (Unknown, text)],
        );
        let entry = json!({"model": {"storage": {"key": "main", "path": "model"}}});
        let text = "spec.predictor.model.storage.key names main in it: it was not looked up";
        cut(entry, &[], "storage-config", &[(Unknown, "0 of them"), (Unknown, text)]);
        // What is known to be missing comes before what nobody knows about.
        let volume = |secret: &str| json!({"name": secret, "secret": {"secretName": secret}});
        let mounted = json!({"model": {"storageUri": "pvc://c"}, "volumes": [volume("last"), volume("absent")]});
        let texts = [
            (Unknown, "2 ServiceAccounts and Secrets are referred to; 1 of them"),
            (Missing, "Secret n/absent not found (volume absent)"),
            (
                Unknown,
                "Secret n/last cannot be read (volume last): it was not looked up",
            ),
        ];
        cut(mounted, &[], "last", &texts);
    }

    #[test]
    fn what_leanserve_does_not_serve_is_not_checked() {
        let settings = Arc::new(Settings::built_in());
        let predictor = || json!({"serviceAccountName": "nobody", "model": {"storageUri": DOWNLOAD}});
        for annotation in [
            (names::ANNOTATION_STOP, "true"),
            (names::ANNOTATION_DEPLOYMENT_MODE, "Knative"),
        ] {
            let service = service(predictor(), &[annotation]);
            assert!(
                References::of(service, Arc::clone(&settings)).is_none(),
                "{annotation:?}"
            );
        }
    }

    #[test]
    fn with_too_much_to_tell_the_worst_is_told() {
        let pulls: Vec<Value> = (0..2 * MOST)
            .map(|number| json!({"name": format!("s{number}")}))
            .collect();
        let mut references = references(json!({"containers": [{"name": "c"}], "imagePullSecrets": pulls}));
        let mut found = ByName::default();
        found.secrets.insert(format!("s{}", 2 * MOST - 1), Lookup::Missing);
        let findings = references.findings(found);
        assert_eq!(findings.len(), MOST + 1, "and that there are more names");
        let told = findings.iter().filter(|finding| finding.severity > Severity::Unknown);
        assert_eq!(told.count(), 1, "{:?}", &findings[..3]);
    }
}
