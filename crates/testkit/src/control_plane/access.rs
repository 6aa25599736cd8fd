//! Clients and credentials.

use std::path::Path;

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};

use super::ControlPlane;
use crate::{Error, kubeconfig};

/// How long a requested token is valid: longer than any test.
const TOKEN_SECONDS: i64 = 24 * 3600;

impl ControlPlane {
    /// The admin's client configuration, to change before a client is made of it. kube's own retries are off, here and in
    /// every client below: a test is to see the server's answer, and minutes of silent retries look like a hang.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be used.
    pub async fn config(&self) -> Result<Config, Error> {
        let kubeconfig =
            Kubeconfig::read_from(&self.kubeconfig).map_err(|error| Error::Kubeconfig(error.to_string()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| Error::Kubeconfig(error.to_string()))?;
        config.default_retry = false;
        Ok(config)
    }

    /// A new client of the admin. It belongs to the calling runtime.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client, Error> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// A new client with this bearer token and no other credential.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be used.
    pub async fn client_for_token(&self, token: &str) -> Result<Client, Error> {
        let mut config = self.config().await?;
        // AuthInfo keeps the token as a secret string; its own deserializer makes one.
        config.auth_info = serde_json::from_value::<AuthInfo>(serde_json::json!({"token": token}))
            .map_err(|error| Error::Kubeconfig(error.to_string()))?;
        Ok(Client::try_from(config)?)
    }

    /// A token of a `ServiceAccount`, from the `TokenRequest` API.
    ///
    /// # Errors
    ///
    /// When there is no such `ServiceAccount`.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String, Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        answer
            .status
            .map(|status| status.token)
            .ok_or_else(|| Error::Kubeconfig(format!("the server gave no token for {namespace}/{name}")))
    }

    /// A new client of a `ServiceAccount`, with the rights it has.
    ///
    /// # Errors
    ///
    /// When there is no such `ServiceAccount`.
    pub async fn service_account_client(&self, namespace: &str, name: &str) -> Result<Client, Error> {
        let token = self.service_account_token(namespace, name).await?;
        self.client_for_token(&token).await
    }

    /// Writes a kubeconfig of a `ServiceAccount`, for a program under test. Only its owner can read the file.
    ///
    /// # Errors
    ///
    /// When there is no such `ServiceAccount`, or the file cannot be written.
    pub async fn write_service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        path: &Path,
    ) -> Result<(), Error> {
        let token = self.service_account_token(namespace, name).await?;
        let config = self.config().await?;
        let certificates = config.root_cert.unwrap_or_default();
        let mut ca_pem = String::new();
        for certificate in &certificates {
            ca_pem.push_str(&kubeconfig::certificate_pem(certificate));
        }
        let text = kubeconfig::with_token(&config.cluster_url.to_string(), ca_pem.as_bytes(), name, &token);
        kubeconfig::write_private(path, text).map_err(Error::io(format!("writing {}", path.display())))
    }
}
