//! Policies by the thousand, and waiting until they are in force.

use std::{ops::Range, path::Path, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Client,
    api::{DynamicObject, PostParams},
};
use serde_json::{Value, json};
use testkit::{ControlPlane, Error};
use tokio::time::Instant;

use crate::{
    Failure, Installation, Running, load,
    policies::{self, Policies},
    services,
};

/// Where the services of the measurement are.
pub(super) const NAMESPACE: &str = "policy-bench";
/// A namespace without services for the controller to serve: it is policies that are measured.
const ELSEWHERE: &str = "policy-bench-elsewhere";
pub(super) const TEMPLATE: &str = "bench-max-replicas";
/// Faster than anybody would have it, because it is memory that is measured.
const AUDIT_QPS: &str = "500";
/// Services made at a time.
const AT_ONCE: usize = 16;
/// For ten thousand policies, none like another, on a busy machine: the API server takes half an hour to an hour for them.
const DEADLINE: Duration = Duration::from_secs(3600);
const STOP: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(2);

/// How many different parameters policies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sets {
    /// So many, each used again and again.
    Few(usize),
    /// As many as policies.
    Distinct,
}

impl Sets {
    /// For the names of rows.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Few(sets) => format!("{sets} sets"),
            Self::Distinct => "all distinct".to_owned(),
        }
    }

    fn of(self, number: usize) -> usize {
        match self {
            Self::Few(sets) => number % sets,
            Self::Distinct => number,
        }
    }
}

/// A control plane with leanserve installed, a template, and as many policies as it is told to make.
pub(super) struct Field<'a> {
    pub(super) plane: &'a ControlPlane,
    pub(super) client: Client,
    pub(super) policies: Policies,
    /// Keeps what was installed.
    _installation: Installation<'a>,
    pub(super) sets: Sets,
}

impl<'a> Field<'a> {
    pub(super) async fn new(plane: &'a ControlPlane, sets: Sets) -> Result<Self, Failure> {
        let client = load::client(plane).await?;
        let installation = Installation::on(plane).await?;
        for namespace in ["kserve", NAMESPACE, ELSEWHERE] {
            load::namespace(&client, namespace).await?;
        }
        let field = Self {
            plane,
            policies: Policies::new(&client),
            client,
            _installation: installation,
            sets,
        };
        field.policies.apply(&policies::template(TEMPLATE)).await?;
        Ok(field)
    }

    /// The controller, with policies.
    pub(super) async fn controller(&self) -> Result<Running, Failure> {
        once_ready(spawn_controller(self.plane.kubeconfig_path())?).await
    }

    /// The audit, which begins its first run at once.
    pub(super) async fn audit(&self) -> Result<Running, Failure> {
        let arguments = ["--interval", "24h", "--qps", AUDIT_QPS];
        once_ready(Running::spawn_role("audit", self.plane.kubeconfig_path(), &arguments)?).await
    }

    /// Makes the services with these numbers. Every other one breaks a policy.
    pub(super) async fn services(&self, numbers: Range<usize>) -> Result<(), Failure> {
        let api = &services::api(self.client.clone(), NAMESPACE);
        let made = stream::iter(numbers).map(|number| async move {
            let mut service = services::sklearn(&format!("audited-{number}"), NAMESPACE, None);
            service["spec"]["predictor"]["maxReplicas"] = json!(if number % 2 == 0 { 1 } else { 9 });
            api.create(&PostParams::default(), &object(service)?).await?;
            Ok::<_, Failure>(())
        });
        made.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Makes the policies with these numbers.
    pub(super) async fn plant(&self, numbers: Range<usize>) -> Result<(), Failure> {
        self.policies
            .create(TEMPLATE, numbers, |number| 8 + self.sets.of(number))
            .await
    }

    /// Waits until so many policies say that they are in force.
    pub(super) async fn in_force(&self, count: usize) -> Result<(), Failure> {
        until(PAUSE, DEADLINE, async || {
            let (ready, _) = self.policies.in_force().await?;
            Ok((ready != count).then(|| format!("{ready} of {count} policies are in force")))
        })
        .await
    }

    /// Deletes all policies and waits until nothing is left of them.
    pub(super) async fn emptied(&self) -> Result<(), Failure> {
        self.policies.delete_all().await?;
        let controller = self.controller().await?;
        self.bindings_gone(PAUSE).await?;
        controller.process.terminate(STOP).await?;
        Ok(())
    }

    /// Waits until no policy has a binding, looking again after each pause.
    pub(super) async fn bindings_gone(&self, pause: Duration) -> Result<(), Failure> {
        until(pause, DEADLINE, async || {
            let left = self.policies.bindings_of_policies().await?;
            Ok((left > 0).then(|| format!("{left} bindings of deleted policies are left")))
        })
        .await
    }
}

/// Looks again after each pause until there is nothing to say any more.
pub(super) async fn until(
    pause: Duration,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<String>, Failure>,
) -> Result<(), Failure> {
    let began = Instant::now();
    while let Some(what) = look().await? {
        if began.elapsed() > deadline {
            return Err(Failure::Unmet(format!("{what} after {} s", deadline.as_secs())));
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

async fn once_ready(mut running: Running) -> Result<Running, Failure> {
    crate::start::ready(&mut running).await?;
    Ok(running)
}

/// The controller, as the account of this kubeconfig, without waiting.
pub(super) fn spawn_controller(kubeconfig: &Path) -> Result<Running, Error> {
    let arguments = ["--policies", "--namespace", ELSEWHERE, "--watch-namespaces", ELSEWHERE];
    Running::spawn_role("run", kubeconfig, &arguments)
}

pub(super) fn object(value: Value) -> Result<DynamicObject, Failure> {
    serde_json::from_value(value).map_err(|error| Failure::Unmet(error.to_string()))
}
