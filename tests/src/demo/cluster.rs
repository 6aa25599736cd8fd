//! The demo's objects.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Event, Service},
        networking::v1::Ingress,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use testkit::{ControlPlane, Error, eventually::NotYet, try_eventually};

use crate::{installation, load, report, services, settings::CONFIG_MAP, table};

pub(super) const NAMESPACE: &str = "demo";
/// In `examples/`.
pub(super) const EXAMPLES: [&str; 3] = ["s3.yaml", "huggingface-token.yaml", "custom-container.yaml"];
/// Of the examples, a service that has credentials.
const WITH_CREDENTIALS: &str = "iris";
/// What the operator says of a switch.
const SWITCHED: &str = "SecretAccessModeChanged";

/// A service and what it owns.
pub(super) struct Seen {
    name: String,
    ready: String,
    url: String,
    objects: Vec<(&'static str, usize)>,
}

/// The three services.
pub(super) struct Demonstration {
    client: Client,
    services: Api<DynamicObject>,
}

impl Demonstration {
    pub(super) fn new(client: Client) -> Self {
        let services = services::api(client.clone(), NAMESPACE);
        Self { client, services }
    }

    /// Applies the examples as a user would.
    pub(super) async fn apply(&self, plane: &ControlPlane) -> Result<(), Error> {
        load::namespace(&self.client, NAMESPACE).await?;
        for example in EXAMPLES {
            let path = report::workspace().join("examples").join(example);
            let path = path.to_string_lossy();
            plane
                .kubectl_stdout(&["apply", "--server-side", "--namespace", NAMESPACE, "--filename", &path])
                .await?;
        }
        Ok(())
    }

    /// Waits until all are Ready and own something.
    pub(super) async fn ready(&self, deadline: Duration) -> Result<Vec<Seen>, NotYet> {
        try_eventually("all services are Ready", deadline, async || {
            let ready = services::ready(&self.services, EXAMPLES.len()).await?;
            let mut seen = Vec::new();
            for service in &ready {
                seen.push(self.seen(service).await.map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(seen)
        })
        .await
    }

    async fn seen(&self, service: &DynamicObject) -> kube::Result<Seen> {
        let uid = service.uid().unwrap_or_default();
        let objects = vec![
            ("Deployment", self.owned::<Deployment>(&uid).await?),
            ("Service", self.owned::<Service>(&uid).await?),
            (
                "HorizontalPodAutoscaler",
                self.owned::<HorizontalPodAutoscaler>(&uid).await?,
            ),
            ("Ingress", self.owned::<Ingress>(&uid).await?),
        ];
        let ready = services::condition(service, "Ready").map_or_else(|| "Unknown".to_owned(), |(status, ..)| status);
        let url = service.data.pointer("/status/url").and_then(serde_json::Value::as_str);
        Ok(Seen {
            name: service.name_any(),
            ready,
            url: url.unwrap_or_default().to_owned(),
            objects,
        })
    }

    /// How many objects of a kind the service owns.
    async fn owned<K>(&self, uid: &str) -> kube::Result<usize>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = api.list_metadata(&ListParams::default()).await?;
        let owned = all.items.iter().filter(|object| {
            let owners = object.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == uid)
        });
        Ok(owned.count())
    }

    /// Changes a service in a way that means nothing.
    pub(super) async fn touch(&self) -> kube::Result<()> {
        let change = json!({"metadata": {"annotations": {"example.com/touched-by": "the demo"}}});
        let patch = Patch::Merge(&change);
        self.services
            .patch(WITH_CREDENTIALS, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

/// Waits for the Event about the switch; its reason and text.
pub(super) async fn mode_event(client: &Client, deadline: Duration) -> Result<String, NotYet> {
    let events: Api<Event> = Api::namespaced(client.clone(), installation::NAMESPACE);
    let about = ListParams::default().fields(&format!("involvedObject.name={CONFIG_MAP},reason={SWITCHED}"));
    try_eventually("there is an Event about the switch", deadline, async || {
        let found = events.list(&about).await.map_err(|error| error.to_string())?;
        let event = found.items.first().ok_or("no such Event")?;
        Ok::<_, String>(format!("{SWITCHED}: {}", event.message.as_deref().unwrap_or_default()))
    })
    .await
}

/// Services, whether they are Ready, and how many objects they have.
pub(super) fn service_table(seen: &[Seen]) -> String {
    let heading = ["  SERVICE", "READY", "OBJECTS", "", "URL"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for service in seen {
        let present: Vec<String> = service
            .objects
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| match count {
                1 => (*kind).to_owned(),
                _ => format!("{count} {kind}s"),
            })
            .collect();
        let total: usize = service.objects.iter().map(|(_, count)| count).sum();
        rows.push(vec![
            format!("  {}", service.name),
            service.ready.clone(),
            total.to_string(),
            present.join(", "),
            service.url.clone(),
        ]);
    }
    table::aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLES, Seen, WITH_CREDENTIALS, service_table};
    use crate::report;

    #[test]
    fn the_table_names_what_there_is() {
        let seen = [Seen {
            name: "a".into(),
            ready: "True".into(),
            url: "http://a".into(),
            objects: vec![("Deployment", 1), ("Service", 2), ("Ingress", 0)],
        }];
        let expected = "  SERVICE   READY   OBJECTS                            URL\n  \
                        a         True    3         Deployment, 2 Services   http://a\n";
        assert_eq!(service_table(&seen), expected);
    }

    #[test]
    fn the_examples_are_there() {
        for example in EXAMPLES {
            let text = std::fs::read_to_string(report::workspace().join("examples").join(example));
            let text = text.unwrap_or_else(|error| panic!("{example}: {error}"));
            let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
            let service = documents
                .iter()
                .find(|document| document["kind"] == "InferenceService")
                .unwrap_or_else(|| panic!("{example} has a service"));
            assert_eq!(
                service["metadata"]["name"] == WITH_CREDENTIALS,
                example == EXAMPLES[0],
                "{example}"
            );
        }
    }
}
