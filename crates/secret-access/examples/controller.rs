//! A controller in forty lines: for each Deployment labelled `example.dev/secret=NAME` it says whether that Secret has a
//! token, and says so again when the Deployment or the Secret changes. Needs the rights to list and watch Deployments and to
//! get Secrets, and no others.
//!
//!     cargo run -p kube-secret-access --example controller

use std::collections::HashMap;

use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Config, ResourceExt as _};
use kube_secret_access::{AccessOptions, ObjectRef, SecretAccess, SecretRef, Switch, Want};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = kube_secret_access::client(Config::infer().await?)?;
    let secrets = Switch::new(client.clone(), AccessOptions::default())?;
    let mut news = secrets.changes();
    let mut references = HashMap::new();
    let labelled = watcher::Config::default().labels("example.dev/secret");
    let mut deployments = Box::pin(watcher(Api::<Deployment>::all(client), labelled).default_backoff());
    loop {
        tokio::select! {
            event = deployments.try_next() => match event? {
                Some(watcher::Event::Apply(deployment) | watcher::Event::InitApply(deployment)) => {
                    let (owner, secret) = reference(&deployment)?;
                    // From here on every change of the Secret is told, until the guard is dropped.
                    references.insert(owner.clone(), secrets.track(secret.clone(), owner.clone()));
                    look_at(&secrets, &owner, &secret).await;
                }
                Some(watcher::Event::Delete(deployment)) => drop(references.remove(&reference(&deployment)?.0)),
                Some(watcher::Event::Init | watcher::Event::InitDone) => {}
                None => return Ok(()),
            },
            Some(changed) = news.next() => {
                for owner in &changed.owners {
                    look_at(&secrets, owner, &changed.secret).await;
                }
            }
        }
    }
}

fn reference(deployment: &Deployment) -> Result<(ObjectRef, SecretRef), Box<dyn std::error::Error>> {
    let namespace = deployment.namespace().unwrap_or_default();
    let secret = deployment.labels().get("example.dev/secret").map_or("", String::as_str);
    let owner = ObjectRef::new("Deployment", &namespace, &deployment.name_any());
    Ok((owner, SecretRef::new(&namespace, secret)?))
}

#[expect(clippy::print_stdout, reason = "an example speaks on its standard output")]
async fn look_at(secrets: &impl SecretAccess, owner: &ObjectRef, secret: &SecretRef) {
    match secrets.read(secret, Want::default().keys(["token"])).await {
        Ok(read) if read.bytes("token").is_some() => println!("{owner}: Secret {secret} has a token"),
        Ok(_) => println!("{owner}: Secret {secret} has no key `token`"),
        Err(error) => println!("{owner}: {error}"),
    }
}
