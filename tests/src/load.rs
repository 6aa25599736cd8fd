//! Many objects at once.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use testkit::{ControlPlane, Error};

/// Requests on their way at a time: more make the API server of a small machine slower, not faster.
const AT_ONCE: usize = 24;
/// No request takes longer on a machine that works.
const DEADLINE: Duration = Duration::from_secs(60);

/// A client of the admin whose requests have a deadline.
///
/// # Errors
///
/// When the kubeconfig cannot be used.
pub async fn client(plane: &ControlPlane) -> Result<Client, Error> {
    let mut config = plane.config().await?;
    config.connect_timeout = Some(DEADLINE);
    config.read_timeout = Some(DEADLINE);
    Ok(Client::try_from(config)?)
}

/// Creates a namespace.
///
/// # Errors
///
/// When it is refused.
pub async fn namespace(client: &Client, name: &str) -> Result<(), Error> {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    Ok(())
}

/// Creates objects, some at a time.
///
/// # Errors
///
/// The first refusal; the rest is then not created.
pub async fn create<K>(api: &Api<K>, objects: impl Iterator<Item = K>) -> Result<(), Error>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    stream::iter(objects)
        .map(|object| async move { api.create(&PostParams::default(), &object).await })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    Ok(())
}

/// Creates Secrets nobody refers to, in a namespace of their own.
///
/// # Errors
///
/// The first refusal.
pub async fn unrelated_secrets(client: &Client, namespace_name: &str, count: usize, size: usize) -> Result<(), Error> {
    namespace(client, namespace_name).await?;
    let secrets = Api::namespaced(client.clone(), namespace_name);
    create(
        &secrets,
        (0..count).map(|number| secret(&format!("unrelated-{number}"), size)),
    )
    .await
}

/// A Secret with one key of this many bytes.
#[must_use]
pub fn secret(name: &str, size: usize) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("content".to_owned(), ByteString(filler(name, size)))].into()),
        ..Secret::default()
    }
}

/// Bytes that differ from one name to the next.
fn filler(name: &str, size: usize) -> Vec<u8> {
    name.bytes().cycle().take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn a_secret_has_the_size_asked_for() {
        let secret = secret("a", 4096);
        let sizes: Vec<usize> = secret.data.iter().flatten().map(|(_, value)| value.0.len()).collect();
        assert_eq!(sizes, [4096]);
    }
}
