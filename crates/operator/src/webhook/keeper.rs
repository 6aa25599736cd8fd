//! Keeps the certificates that the webhook makes for itself: in a Secret that all replicas share, and the authorities in the
//! `ValidatingWebhookConfiguration`.

use std::{
    str,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, Request, header};
use k8s_openapi::{ByteString, api::admissionregistration::v1::ValidatingWebhookConfiguration};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    client::Body,
};
use kube_secret_access::{ReadError, SecretAccess, SecretRef, SecretSnapshot, Want};
use serde_json::json;
use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    authority::{Certificates, Plan},
    mounted::CERTIFICATE,
    tls::{Certificate, Served, TlsError},
};
use crate::{
    error::{Fault, FaultKind},
    health::Health,
};

/// Owns the field that is written into the configuration, and nothing else.
const FIELD_MANAGER: &str = "leanserve-webhook";

/// How long to wait after a failure, and how often to look at the least and the most.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
const LOOKS: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(60);

/// Everybody has seen a step when they have looked so many times.
const LOOKS_PER_STEP: u32 = 4;

/// How many times a look is begun anew because somebody else was faster.
const TRIES: usize = 5;

/// Keeps certificates.
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) secrets: Arc<dyn SecretAccess>,
    pub(super) secret: SecretRef,
    /// Name of the `ValidatingWebhookConfiguration`.
    pub(super) configuration: String,
    pub(super) plan: Plan,
    pub(super) served: Arc<Served>,
    pub(super) health: Arc<Health>,
}

/// Why certificates are not as they should be.
#[derive(Debug, Error)]
enum KeepError {
    #[error("cannot read the Secret of certificates: {0}")]
    Read(#[from] ReadError),
    #[error("cannot write the Secret of certificates: the API server answers {0}")]
    Write(http::StatusCode),
    #[error("cannot {action} ValidatingWebhookConfiguration {name}: {fault}")]
    Configuration {
        action: &'static str,
        name: String,
        fault: Fault,
    },
    #[error("cannot reach the API server: {0}")]
    Reach(Fault),
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot use what was made: {0}")]
    Use(#[from] TlsError),
    #[error("others changed the certificates at the same time, again and again")]
    Contested,
}

/// What one look found out.
enum Look {
    /// Nothing is due for so long.
    Done(Duration),
    /// Somebody else was faster.
    Anew,
}

impl Keeper {
    /// Looks at everything again and again, and does what is due. Never ends.
    pub(super) async fn keep(self) {
        let mut told = None;
        let mut has_one = false;
        loop {
            let pause = match self.settle().await {
                Ok(rest) => {
                    has_one = true;
                    if told.take().is_some() {
                        info!("certificates are as they should be again");
                    }
                    let look = (self.plan.settle / LOOKS_PER_STEP).clamp(*LOOKS.start(), *LOOKS.end());
                    rest.clamp(*LOOKS.start(), look)
                }
                Err(error) => {
                    let problem = error.to_string();
                    if told.as_ref() != Some(&problem) {
                        warn!(error = problem, "certificates are not as they should be");
                    }
                    told = Some(problem);
                    AFTER_FAILURE
                }
            };
            // With a certificate that the API server trusts, the webhook can wait.
            self.health.lacks(CERTIFICATE, told.clone().filter(|_| !has_one));
            sleep(pause.mul_f64(0.9 + 0.1 * fastrand::f64())).await;
        }
    }

    async fn settle(&self) -> Result<Duration, KeepError> {
        for _ in 0..TRIES {
            match self.look().await? {
                Look::Done(rest) => return Ok(rest),
                Look::Anew => {}
            }
        }
        Err(KeepError::Contested)
    }

    async fn look(&self) -> Result<Look, KeepError> {
        // First the configuration and then the Secret: what is written into a configuration that has not changed since then
        // is at least as new as what is there.
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let configuration = configurations.get(&self.configuration).await;
        let configuration = configuration.map_err(|error| self.configuration_error("read", error))?;
        let snapshot = self.secrets.read(&self.secret, Want::quorum()).await?;
        let now = seconds_now();
        let kept = Certificates::parse(|key| str::from_utf8(snapshot.bytes(key)?.as_slice()).ok());
        let (certificates, changed) = match kept {
            Some(mut kept) => {
                let advanced = kept.advance(&self.plan, now)?;
                (kept, advanced)
            }
            None => (Certificates::first(&self.plan, now)?, true),
        };
        if changed && !self.write(&snapshot, &certificates).await? {
            return Ok(Look::Anew);
        }
        let bundle = certificates.bundle();
        if !trusts(&configuration, &bundle) && !self.trust(&configurations, &configuration, &bundle).await? {
            return Ok(Look::Anew);
        }
        let (chain, key) = certificates.served();
        if self.served.set(Certificate::parse(chain.as_bytes(), key.as_bytes())?) {
            info!("certificate in use");
        }
        Ok(Look::Done(certificates.rest(&self.plan, now)))
    }

    /// Writes the Secret, unless it has changed since it was read. Returns whether it was written.
    ///
    /// kube's own requests log answers that they cannot read, which here would be keys; so this one is sent as it is, and
    /// its answer is dropped unread.
    async fn write(&self, read: &SecretSnapshot, certificates: &Certificates) -> Result<bool, KeepError> {
        let patch = json!({
            "metadata": {"uid": read.uid(), "resourceVersion": read.resource_version().to_string()},
            "data": certificates.data(),
        });
        let (namespace, name) = (self.secret.namespace(), self.secret.name());
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!(
                "/api/v1/namespaces/{namespace}/secrets/{name}?fieldManager={FIELD_MANAGER}"
            ))
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(Body::from(patch.to_string().into_bytes()))
            .expect("names of a SecretRef can be in a path");
        let answer = self.client.send(request).await;
        let status = answer.map_err(|error| KeepError::Reach(error.into()))?.status();
        match status {
            status if status.is_success() => {
                info!(namespace, secret = name, "certificates made");
                Ok(true)
            }
            http::StatusCode::CONFLICT => Ok(false),
            status => Err(KeepError::Write(status)),
        }
    }

    /// Has API servers trust these authorities, unless the configuration has changed since it was read. Returns whether it
    /// was written.
    async fn trust(
        &self,
        configurations: &Api<ValidatingWebhookConfiguration>,
        read: &ValidatingWebhookConfiguration,
        bundle: &str,
    ) -> Result<bool, KeepError> {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let webhooks: Vec<_> = names(read)
            .map(|name| json!({"name": name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let patch = json!({
            "apiVersion": ValidatingWebhookConfiguration::api_version(&()),
            "kind": ValidatingWebhookConfiguration::kind(&()),
            "metadata": {"name": self.configuration, "resourceVersion": read.metadata.resource_version},
            "webhooks": webhooks,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match configurations
            .patch(&self.configuration, &parameters, &Patch::Apply(patch))
            .await
            .map_err(Fault::from)
        {
            Ok(_) => {
                info!(configuration = self.configuration, "authorities written");
                Ok(true)
            }
            Err(fault) if fault.kind == FaultKind::Conflict => Ok(false),
            Err(fault) => Err(KeepError::Configuration {
                action: "write",
                name: self.configuration.clone(),
                fault,
            }),
        }
    }

    fn configuration_error(&self, action: &'static str, error: kube::Error) -> KeepError {
        KeepError::Configuration {
            action,
            name: self.configuration.clone(),
            fault: error.into(),
        }
    }
}

fn names(configuration: &ValidatingWebhookConfiguration) -> impl Iterator<Item = &str> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks.map(|webhook| webhook.name.as_str())
}

/// Whether every webhook of a configuration has these authorities and no others.
fn trusts(configuration: &ValidatingWebhookConfiguration, bundle: &str) -> bool {
    let mut webhooks = configuration.webhooks.iter().flatten();
    webhooks.all(|webhook| {
        let held = webhook.client_config.ca_bundle.as_ref();
        held.is_some_and(|held| held.0 == bundle.as_bytes())
    })
}

fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
