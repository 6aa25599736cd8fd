//! `KServe`'s own CRDs, full and minimal, work as well as ours.

use std::{env, path::PathBuf};

use leanserve_tests::{Installation, Running, services};
use testkit::{ControlPlane, Options};

use crate::{DEADLINE, services_of};

/// `KServe`'s CRDs are data that is not part of this repository.
fn definitions(flavour: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = env::var_os("LEANSERVE_SHARED").map_or_else(beside, PathBuf::from);
    let folder = shared.join("crds").join(flavour);
    folder.is_dir().then_some(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_become_ready_under_kserves_full_and_minimal_definitions() {
    let (Some(full), Some(minimal)) = (definitions("kserve-full"), definitions("kserve-minimal")) else {
        println!("NOT RUN: KServe's CRDs are not beside this checkout; LEANSERVE_SHARED may name the folder");
        return;
    };
    // A control plane of its own: the definitions of the shared one stay ours.
    let plane = ControlPlane::start(Options::default()).await.expect("a control plane");
    let installation = Installation::on(&plane).await.expect("installed");
    let client = plane.client().await.expect("a client");
    for (flavour, folder) in [("full", full), ("minimal", minimal)] {
        plane
            .apply_file(&folder)
            .await
            .unwrap_or_else(|error| panic!("{flavour}: {error}"));
        let scope = installation.scope(flavour).await.expect("a namespace");
        let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
        let mut objects = services::s3_credentials("s3", "loader", scope.name(), "a secret access key");
        objects.push(services::sklearn("model", scope.name(), Some("loader")));
        objects.push(services::custom("own", scope.name()));
        plane
            .apply_yaml(&services::list(&objects))
            .await
            .unwrap_or_else(|error| panic!("{flavour}: {error}"));
        services::all_ready(&services_of(&client, &scope), 2, DEADLINE).await;
    }
    plane.stop().await.expect("stopped");
}
