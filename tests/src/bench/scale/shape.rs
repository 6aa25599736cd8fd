//! The services that are measured, and what they refer to.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Api, Client, api::DynamicObject};
use serde_json::{Value, json};

use crate::{Failure, load, services};

/// Services of a team share a namespace, and there a `ServiceAccount` and a Secret.
const PER_NAMESPACE: usize = 50;
const ACCOUNT: &str = "reader";
const SECRET: &str = "s3";

/// Which services there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// scikit-learn models from S3, with credentials of a `ServiceAccount`.
    One,
    /// Those, containers of the user's, models with a transformer, and models of a hub with settings of their own.
    Four,
}

impl Shapes {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::One => "one shape",
            Self::Four => "four shapes",
        }
    }

    /// Components that so many services have: each has a Deployment, a Service and an autoscaler.
    pub(super) const fn components(self, services: usize) -> usize {
        match self {
            Self::One => services,
            // Every fourth, from the third on, has a transformer.
            Self::Four => services + (services + 1) / 4,
        }
    }

    fn service(self, number: usize, namespace: &str) -> Value {
        let name = format!("model-{number}");
        let sklearn = || services::sklearn(&name, namespace, Some(ACCOUNT));
        match (self, number % 4) {
            (Self::One, _) | (Self::Four, 0) => sklearn(),
            (Self::Four, 1) => services::custom(&name, namespace),
            (Self::Four, 2) => {
                let mut service = sklearn();
                service["spec"]["transformer"] = json!({"containers": [{
                    "name": "kserve-container",
                    "image": "example.com/models/transform:1",
                    "args": ["--model_name", name],
                    "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
                }]});
                service
            }
            (Self::Four, _) => {
                let mut service = sklearn();
                service["spec"]["predictor"] = json!({
                    "minReplicas": 1, "maxReplicas": 3, "scaleMetric": "cpu", "scaleTarget": 70,
                    "model": {
                        "modelFormat": {"name": "huggingface"},
                        "storageUri": format!("hf://example/model-{number}"),
                        "args": ["--max_model_len=4096", format!("--dtype=bfloat{}", 16)],
                        "env": [{"name": "HF_HUB_OFFLINE", "value": "0"}],
                        "resources": {"limits": {"cpu": "4", "memory": "16Gi"}, "requests": {"cpu": "2", "memory": "8Gi"}},
                    },
                });
                service
            }
        }
    }
}

/// The namespace of a service, by its number.
pub(super) fn namespace(prefix: &str, number: usize) -> String {
    format!("{prefix}-{}", number / PER_NAMESPACE)
}

/// Creates the services numbered so and whatever they refer to.
pub(super) async fn create(
    client: &Client,
    shapes: Shapes,
    prefix: &str,
    numbers: std::ops::Range<usize>,
) -> Result<(), Failure> {
    let first = numbers.start.next_multiple_of(PER_NAMESPACE);
    for number in (first..numbers.end).step_by(PER_NAMESPACE) {
        let name = namespace(prefix, number);
        load::namespace(client, &name).await?;
        let mut credentials = services::s3_credentials(SECRET, ACCOUNT, &name, "not-a-real-key").into_iter();
        let mut next = || credentials.next().unwrap_or_default();
        let secret: Secret = serde_json::from_value(next()).map_err(std::io::Error::other)?;
        let account: ServiceAccount = serde_json::from_value(next()).map_err(std::io::Error::other)?;
        load::create(&Api::namespaced(client.clone(), &name), std::iter::once(secret)).await?;
        load::create(&Api::namespaced(client.clone(), &name), std::iter::once(account)).await?;
    }
    let mut start = numbers.start;
    while start < numbers.end {
        let end = (start / PER_NAMESPACE + 1) * PER_NAMESPACE;
        let here = namespace(prefix, start);
        let some = start..end.min(numbers.end);
        let objects: Vec<DynamicObject> = some
            .map(|number| serde_json::from_value(shapes.service(number, &here)))
            .collect::<Result<_, _>>()
            .map_err(std::io::Error::other)?;
        load::create(&services::api(client.clone(), &here), objects.into_iter()).await?;
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Shapes, namespace};

    #[test]
    fn components_are_counted_as_they_are_made() {
        for count in 0..20 {
            for shapes in [Shapes::One, Shapes::Four] {
                let made = (0..count).map(|number| shapes.service(number, "n"));
                let components = made.map(|service| 1 + usize::from(service["spec"]["transformer"].is_object()));
                assert_eq!(
                    shapes.components(count),
                    components.sum::<usize>(),
                    "{shapes:?}, {count}"
                );
            }
        }
    }

    #[test]
    fn fifty_share_a_namespace() {
        assert_eq!(namespace("m", 49), "m-0");
        assert_eq!(namespace("m", 50), "m-1");
    }
}
