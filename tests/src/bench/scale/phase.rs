//! The phases of a measurement, one after the other on one control plane.

use std::{io::Write, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{
    ControlPlane,
    audit::{AuditLog, Mark},
};
use tokio::time::Instant;

use super::{
    Size,
    calls::Calls,
    peer,
    shape::{self, Shapes},
};
use crate::{
    Failure, Installation, Running,
    bench::memory::settle::{Reading, settled},
    installation, load,
    report::{Row, Spread},
    table::thousands,
};

const PREFIX: &str = "models";
const PLATFORM: &str = "kserve";
const LABEL: &str = "serving.kserve.io/inferenceservice";
const STOP: Duration = Duration::from_secs(30);
/// Without a request of the operator for so long, a phase is over.
const QUIET: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// For thousands of services on a busy machine.
const DEADLINE: Duration = Duration::from_secs(1800);

/// What has been measured so far.
pub(super) struct Phases<'a> {
    plane: &'a ControlPlane,
    installation: Installation<'a>,
    client: Client,
    size: Size,
    shapes: Shapes,
    pub(super) rows: Vec<Row>,
}

/// One phase of a running operator.
struct Phase {
    mark: Mark,
    begun: Timestamp,
    cpu_before: f64,
}

impl<'a> Phases<'a> {
    /// Installs leanserve.
    pub(super) async fn new(plane: &'a ControlPlane, size: Size, shapes: Shapes) -> Result<Self, Failure> {
        let client = load::client(plane).await?;
        let installation = Installation::on(plane).await?;
        load::namespace(&client, PLATFORM).await?;
        let phases = Self {
            plane,
            installation,
            client,
            size,
            shapes,
            rows: Vec::new(),
        };
        phases.set_rollout("25%").await?;
        Ok(phases)
    }

    /// All phases.
    pub(super) async fn run(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        let Size {
            services,
            more_services,
            at_once,
        } = self.size;
        let name = self.shapes.name();
        writeln!(out, "{name}: an operator without services ...")?;
        self.idle().await?;
        writeln!(out, "{name}: creating {} services ...", thousands(services))?;
        shape::create(&self.client, self.shapes, PREFIX, 0..services).await?;
        writeln!(out, "{name}: an operator builds them ...")?;
        let (operator, rate) = self.cold().await?;
        writeln!(out, "{name}: a setting changes all of them ...")?;
        self.change(operator).await?;
        writeln!(out, "{name}: an operator finds them built ...")?;
        let at_first = self.restart(services).await?;
        if more_services > services {
            writeln!(out, "{name}: {} services ...", thousands(more_services))?;
            self.grow(at_first).await?;
        }
        writeln!(out, "{name}: a bare client makes the same writes ...")?;
        let peer = peer::run(&self.client, self.shapes, services, PREFIX, at_once).await?;
        self.compare(rate, peer);
        Ok(())
    }

    async fn idle(&mut self) -> Result<(), Failure> {
        let operator = self.start().await?;
        let reading = self.memory(&operator).await?;
        stop(operator).await?;
        self.row("idle: rss", "MiB", reading.settled, Some(12.0));
        Ok(())
    }

    /// From the start of the process until everything is built and said.
    async fn cold(&mut self) -> Result<(Running, f64), Failure> {
        let services = self.size.services;
        let components = self.shapes.components(services);
        let mark = self.audit()?.mark().await?;
        let begun = Timestamp::now();
        let operator = self.start().await?;
        let phase = Phase {
            mark,
            begun,
            cpu_before: 0.0,
        };
        self.quiet(&operator, 3 * components + services).await?;
        let calls = self.calls(&phase).await?;
        let cpu = cpu(&operator).await? - phase.cpu_before;
        self.all_built().await?;
        let per_thousand = number(services) / 1000.0;
        self.row(
            "cold: start to the last child",
            "s",
            since(begun, calls.last_child),
            None,
        );
        self.row(
            "cold: start to the first status of the last service",
            "s",
            since(begun, calls.last_first_status),
            None,
        );
        let first = calls.first_write.unwrap_or(begun);
        let last = calls.last_child.max(calls.last_first_status);
        let rate = number(services) / since(first, last);
        self.bar_of_one("cold: cpu", "s", cpu, 2.5 * per_thousand);
        self.bar_of_one(
            "cold: API calls a service",
            "calls",
            number(calls.all()) / number(services),
            5.0,
        );
        for (kind, count) in &calls.by_kind {
            self.row(
                &format!("cold: {kind}, a service"),
                "calls",
                number(*count) / number(services),
                None,
            );
        }
        self.row("cold: errors", "calls", number(calls.errors), None);
        let reading = self.memory(&operator).await?;
        self.row("cold: peak rss", "MiB", reading.peak, None);
        self.bar_of_one(
            "cold: rss settled",
            "MiB",
            reading.settled,
            28.0 * per_thousand.max(1.0),
        );
        Ok((operator, rate))
    }

    /// One platform setting changes, and with it every Deployment.
    async fn change(&mut self, operator: Running) -> Result<(), Failure> {
        let services = self.size.services;
        let phase = self.begin(&operator).await?;
        self.set_rollout("50%").await?;
        self.quiet(&operator, self.shapes.components(services)).await?;
        let calls = self.calls(&phase).await?;
        let cpu = cpu(&operator).await? - phase.cpu_before;
        let patched = calls.by_kind.get("patch deployments").copied().unwrap_or_default();
        self.row(
            "changed setting: to the last Deployment",
            "s",
            since(phase.begun, calls.last_child),
            None,
        );
        self.row("changed setting: cpu", "s", cpu, None);
        self.row(
            "changed setting: Deployments written, a service",
            "calls",
            number(patched) / number(services),
            None,
        );
        self.row(
            "changed setting: API calls a service",
            "calls",
            number(calls.all()) / number(services),
            None,
        );
        stop(operator).await
    }

    /// A new process with everything in place. Returns its memory.
    async fn restart(&mut self, services: usize) -> Result<Reading, Failure> {
        let mark = self.audit()?.mark().await?;
        let begun = Timestamp::now();
        let started = Instant::now();
        let operator = self.start().await?;
        let ready = started.elapsed();
        let passes = async || {
            let passes = operator.metric("controller_runtime_reconcile_total", &[]).await?;
            let waiting = operator.metric("workqueue_depth", &[]).await?
                + operator.metric("controller_runtime_active_workers", &[]).await?;
            std::io::Result::Ok((passes, waiting))
        };
        loop {
            let (passes, waiting) = passes().await?;
            if passes >= number(services) && waiting < 0.5 {
                break;
            }
            if started.elapsed() > DEADLINE {
                return Err(std::io::Error::other(format!("{passes} passes, {waiting} waiting")).into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        let converged = started.elapsed();
        let spent = cpu(&operator).await?;
        self.quiet(&operator, 0).await?;
        let phase = Phase {
            mark,
            begun,
            cpu_before: 0.0,
        };
        let calls = self.calls(&phase).await?;
        let at = |what: &str| format!("restart with {}: {what}", thousands(services));
        self.row(&at("start to ready"), "s", ready.as_secs_f64(), None);
        let bar = (services <= 1000).then_some(3.0);
        self.row(
            &at("ready to converged"),
            "s",
            (converged.saturating_sub(ready)).as_secs_f64(),
            bar,
        );
        self.row(&at("cpu"), "s", spent, None);
        self.row(&at("writes"), "calls", number(calls.writes), Some(0.0));
        let reading = self.memory(&operator).await?;
        self.row(&at("peak rss"), "MiB", reading.peak, None);
        self.row(&at("rss settled"), "MiB", reading.settled, None);
        stop(operator).await?;
        Ok(reading)
    }

    /// More services, and what each of them takes.
    async fn grow(&mut self, at_first: Reading) -> Result<(), Failure> {
        let Size {
            services,
            more_services,
            ..
        } = self.size;
        shape::create(&self.client, self.shapes, PREFIX, services..more_services).await?;
        let more = more_services - services;
        let operator = self.start().await?;
        self.quiet(&operator, 3 * self.shapes.components(more) + more).await?;
        stop(operator).await?;
        let now = self.restart(more_services).await?;
        let each = (now.settled - at_first.settled) * 1024.0 * 1024.0 / 1000.0 / number(more);
        let row = format!("rss for each service from {} on", thousands(services));
        self.bar_of_one(&row, "kB", each, 8.0);
        Ok(())
    }

    fn compare(&mut self, rate: f64, peer: f64) {
        let unit = "services/s";
        let row = Row::new(self.name("cold: services built"), unit, Spread::of(&[rate]))
            .beside("bare client", Spread::of(&[peer]));
        self.rows.push(match self.shapes {
            Shapes::One => row.at_least((0.8 * peer).min(100.0)),
            Shapes::Four => row,
        });
    }

    /// Waits until the operator has made so many writes and then none for a while.
    async fn quiet(&self, operator: &Running, writes: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut before = (0.0, Instant::now());
        loop {
            let mut made = 0.0;
            for method in ["PATCH", "PUT", "POST", "DELETE"] {
                let method = format!("method=\"{method}\"");
                made += operator.metric("rest_client_requests_total", &[&method]).await?;
            }
            let busy = operator.metric("workqueue_depth", &[]).await?
                + operator.metric("controller_runtime_active_workers", &[]).await?;
            if made > before.0 || busy > 0.5 {
                before = (made, Instant::now());
            }
            if made >= number(writes) && before.1.elapsed() >= QUIET {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                let reason = format!("the operator has made {made} of {writes} writes");
                return Err(Failure::from(std::io::Error::other(reason)).with_log(&operator.process.log()));
            }
            tokio::time::sleep(10 * PAUSE).await;
        }
    }

    /// Makes sure that everything is there.
    async fn all_built(&self) -> Result<(), Failure> {
        let expected = self.shapes.components(self.size.services);
        let found = [
            self.labelled::<Deployment>().await?,
            self.labelled::<Service>().await?,
            self.labelled::<HorizontalPodAutoscaler>().await?,
        ];
        if found != [expected; 3] {
            let reason = format!("{found:?} Deployments, Services and autoscalers for {expected} components");
            return Err(std::io::Error::other(reason).into());
        }
        let kind = kube::api::GroupVersionKind::gvk("serving.kserve.io", "v1beta1", "InferenceService");
        let kind = kube::api::ApiResource::from_gvk(&kind);
        let services: Api<kube::api::DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let services = services.list(&ListParams::default()).await?;
        let silent = services
            .iter()
            .find(|service| !service.data["status"]["conditions"].is_array());
        match silent {
            None => Ok(()),
            Some(service) => Err(std::io::Error::other(format!("{} has no status", service.name_any())).into()),
        }
    }

    async fn labelled<K>(&self) -> Result<usize, Failure>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        Ok(api
            .list_metadata(&ListParams::default().labels(LABEL))
            .await?
            .items
            .len())
    }

    /// Sets the one setting that is in every Deployment.
    async fn set_rollout(&self, surge: &str) -> Result<(), Failure> {
        let deploy = json!({
            "defaultDeploymentMode": "Standard",
            "deploymentRolloutStrategy": {"defaultRollout": {"maxSurge": surge, "maxUnavailable": "25%"}},
        });
        let name = "inferenceservice-config";
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {
                "deploy": deploy.to_string(),
                "ingress": json!({"ingressGateway": "a/b", "disableIngressCreation": true}).to_string(),
                "storageInitializer": json!({
                    "image": "kserve/storage-initializer:v0.20.0",
                    "memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1",
                }).to_string(),
            },
        });
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), PLATFORM);
        let parameters = PatchParams::apply("bench").force();
        maps.patch(name, &parameters, &Patch::<Value>::Apply(map)).await?;
        Ok(())
    }

    /// An operator that is ready.
    async fn start(&self) -> Result<Running, Failure> {
        let at_once = self.size.at_once.to_string();
        let mut operator = Running::spawn(&self.installation, &["--max-concurrent-reconciles", &at_once])?;
        let begun = Instant::now();
        while !matches!(operator.probe("/readyz").await, Ok((200, _))) {
            if operator.process.exited().is_some() || begun.elapsed() > DEADLINE {
                return Err(Failure::Ended.with_log(&operator.process.log()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(operator)
    }

    async fn begin(&self, operator: &Running) -> Result<Phase, Failure> {
        Ok(Phase {
            mark: self.audit()?.mark().await?,
            begun: Timestamp::now(),
            cpu_before: cpu(operator).await?,
        })
    }

    async fn calls(&self, phase: &Phase) -> Result<Calls, Failure> {
        let entries = self.audit()?.since(&phase.mark).await?;
        Ok(Calls::of(entries.by_user(installation::USER)))
    }

    fn audit(&self) -> Result<AuditLog<'_>, Failure> {
        let missing = || std::io::Error::other("the control plane has no audit log");
        Ok(self.plane.audit().ok_or_else(missing)?)
    }

    async fn memory(&self, operator: &Running) -> Result<Reading, Failure> {
        Ok(settled(&operator.process).await.map_err(std::io::Error::other)?)
    }

    fn name(&self, what: &str) -> String {
        format!("{}, {}: {what}", thousands(self.size.services), self.shapes.name())
    }

    fn row(&mut self, what: &str, unit: &str, value: f64, bar: Option<f64>) {
        let row = Row::new(self.name(what), unit, Spread::of(&[value]));
        self.rows.push(match bar {
            Some(limit) => row.at_most(limit),
            None => row,
        });
    }

    /// A figure whose bar is for services of one shape.
    fn bar_of_one(&mut self, what: &str, unit: &str, value: f64, limit: f64) {
        self.row(what, unit, value, (self.shapes == Shapes::One).then_some(limit));
    }
}

async fn stop(operator: Running) -> Result<(), Failure> {
    let (_, killed) = operator.process.terminate(STOP).await?;
    if killed {
        return Err(std::io::Error::other("the operator did not end when it was asked to").into());
    }
    Ok(())
}

async fn cpu(operator: &Running) -> Result<f64, Failure> {
    Ok(operator.metric("process_cpu_seconds_total", &[]).await?)
}

/// Seconds from one time to another; not a number when there is none.
fn since(begun: Timestamp, end: Option<Timestamp>) -> f64 {
    end.map_or(f64::NAN, |end| end.duration_since(begun).as_secs_f64())
}

#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 of anything")]
fn number(count: usize) -> f64 {
    count as f64
}
