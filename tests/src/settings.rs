//! The operator's own `ConfigMap`.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::installation;

/// Its name, in [`installation::NAMESPACE`].
pub const CONFIG_MAP: &str = "leanserve-config";

/// Sets how Secrets are read.
///
/// # Errors
///
/// When the API server refuses.
pub async fn set_mode(client: &Client, mode: &str) -> kube::Result<()> {
    let settings: Api<ConfigMap> = Api::namespaced(client.clone(), installation::NAMESPACE);
    let change = json!({"data": {"secretAccessMode": mode}});
    settings
        .patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    Ok(())
}
