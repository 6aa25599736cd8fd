//! The demo: leanserve on a control plane of its own, three services, and a mode switch, told step by step.

mod cluster;
mod readings;
mod screen;

use std::{
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use kube::Client;
use testkit::{ControlPlane, Options, assets, try_eventually};

use self::{cluster::Demonstration, readings::Readings, screen::Screen};
use crate::{
    Failure, Installation, Running, installation, load,
    policies::ready_made::{AUDITED, DENIED, ReadyMade},
    program::{Interrupt, Interrupted},
    settings, start, table,
};

/// Secrets that no service refers to.
const UNRELATED: usize = 2_000;
const UNRELATED_NAMESPACE: &str = "unrelated";
/// A common size: a TLS certificate with its key.
const SECRET_BYTES: usize = 4096;
const AUDIT_ACCOUNT: &str = "leanserve-audit";
/// Of steps that take seconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(30);

/// Runs the demo. Unless `once`, it stays until a signal when everything has been shown. Whatever happens, the operator
/// is stopped first and the control plane after it.
///
/// # Errors
///
/// What went wrong. A signal is no error.
pub async fn run(out: impl Write, styled: bool, once: bool) -> Result<(), Failure> {
    let mut stage = Stage {
        screen: Screen::new(out, styled),
        interrupt: Interrupt::listen()?,
        once,
    };
    match stage.perform().await {
        Err(Failure::Interrupted(_)) => {
            stage.screen.line("Interrupted.")?;
            Ok(())
        }
        result => result,
    }
}

/// What every act needs.
struct Stage<W> {
    screen: Screen<W>,
    interrupt: Interrupt,
    once: bool,
}

impl<W: Write> Stage<W> {
    async fn perform(&mut self) -> Result<(), Failure> {
        let step = self
            .screen
            .step("Build the operator, unless it is built; the first time takes minutes")?;
        let built = tokio::task::spawn_blocking(Running::binary);
        let binary = self.interrupt.unless(built).await?.map_err(io::Error::other)??;
        self.screen.done(&step, &size(&binary))?;

        let what = "Start a control plane: etcd, kube-apiserver, controllers, scheduler and one simulated node";
        let step = self.screen.step(what)?;
        let plane = start::control_plane(&mut self.interrupt, Options::default()).await?;
        let version = plane.server_version().unwrap_or_default();
        let simulated = "its Pods are simulated, no image is pulled and no model is loaded";
        self.screen.done(&step, &format!("Kubernetes {version}; {simulated}"))?;

        let result = self.on(&plane).await;
        let stopping = self.screen.step("Stop the control plane and remove its directory");
        let stopped = plane.stop().await;
        result?;
        stopped?;
        Ok(self.screen.done(&stopping?, "")?)
    }

    /// Everything between the start and the stop of the control plane.
    async fn on(&mut self, plane: &ControlPlane) -> Result<(), Failure> {
        let step = self
            .screen
            .step("Install leanserve from deploy/: definitions, rights, settings, serving runtimes")?;
        let installation = self.interrupt.unless(Installation::on(plane)).await??;
        self.interrupt.unless(grant_policies(plane)).await??;
        let client = load::client(plane).await?;
        self.screen.done(&step, "")?;

        let count = table::thousands(UNRELATED);
        let step = self
            .screen
            .step(&format!("Create {count} Secrets of 4 kB that no service refers to"))?;
        let secrets = load::unrelated_secrets(&client, UNRELATED_NAMESPACE, UNRELATED, SECRET_BYTES);
        self.interrupt.unless(secrets).await??;
        self.screen.done(&step, &format!("namespace {UNRELATED_NAMESPACE}"))?;

        let step = self.screen.step(&format!("Apply {}", cluster::EXAMPLES.join(", ")))?;
        let demonstration = Demonstration::new(client.clone());
        self.interrupt.unless(demonstration.apply(plane)).await??;
        self.screen.done(&step, &format!("namespace {}", cluster::NAMESPACE))?;

        let step = self
            .screen
            .step("Start the operator, as its own ServiceAccount with the rights of deploy/ and no others")?;
        let mut operator = Running::spawn(&installation, &["--policies"])?;
        let result = self
            .with(&installation, &client, &demonstration, &mut operator, &step)
            .await;
        let log = operator.process.log();
        let stopping = self.screen.step("Stop the operator");
        let stopped = operator.process.terminate(STOP).await;
        result.map_err(|failure| failure.with_log(&log))?;
        stopped?;
        Ok(self.screen.done(&stopping?, "")?)
    }

    /// Everything between the start and the stop of the operator.
    async fn with(
        &mut self,
        installation: &Installation<'_>,
        client: &Client,
        demonstration: &Demonstration,
        operator: &mut Running,
        step: &screen::Step,
    ) -> Result<(), Failure> {
        self.interrupt.unless(start::ready(operator)).await??;
        self.screen.done(step, &format!("process {}", operator.process.pid()))?;

        let step = self.screen.step("Wait until all services are Ready")?;
        let seen = self.interrupt.unless(demonstration.ready(PATIENCE)).await??;
        self.screen.done(&step, "")?;
        self.screen.line("")?;
        self.screen.block(&cluster::service_table(&seen))?;
        self.screen.line("")?;
        let before = Readings::of(operator).await?;
        self.screen.block(&before.table(UNRELATED))?;
        self.screen.line("")?;

        self.switch(client, demonstration, operator).await?;
        self.policies(installation, client).await?;
        let plane = installation.plane;
        if self.once {
            return Ok(());
        }
        self.look_around(plane, operator)?;
        loop {
            match self.interrupt.unless(tokio::time::sleep(Duration::from_secs(1))).await {
                Err(Interrupted) => return Ok(self.screen.line("")?),
                Ok(()) if operator.process.exited().is_some() => return Err(Failure::Ended),
                Ok(()) => {}
            }
        }
    }

    /// Switches the mode and shows that it took.
    async fn switch(
        &mut self,
        client: &Client,
        demonstration: &Demonstration,
        operator: &Running,
    ) -> Result<(), Failure> {
        let (from, to) = {
            let mode = Readings::of(operator).await?.mode;
            let to = if mode == "direct" { "lru" } else { "direct" };
            (mode, to)
        };
        let step = self.screen.step(&format!(
            "Switch the mode from {from} to {to} in the ConfigMap leanserve-config"
        ))?;
        let began = Instant::now();
        self.interrupt.unless(settings::set_mode(client, to)).await??;
        let looked = try_eventually(
            "the operator is in the new mode",
            PATIENCE,
            async || match Readings::of(operator).await {
                Ok(readings) if readings.mode == to => Ok(()),
                Ok(readings) => Err(format!("mode {}", readings.mode)),
                Err(error) => Err(error.to_string()),
            },
        );
        self.interrupt.unless(looked).await??;
        let took = began.elapsed();
        let told = cluster::mode_event(client, PATIENCE);
        let event = self.interrupt.unless(told).await??;
        self.screen.done(&step, "")?;

        let step = self.screen.step("Touch a service, so that its Secret is read again")?;
        self.interrupt.unless(demonstration.touch()).await??;
        let read = try_eventually(
            "a Secret is read in the new mode",
            PATIENCE,
            async || match Readings::of(operator).await {
                Ok(readings) if readings.reads_in(to) > 0 => Ok(readings),
                Ok(readings) => Err(format!("reads: {}", readings.reads_text())),
                Err(error) => Err(error.to_string()),
            },
        );
        let after = self.interrupt.unless(read).await??;
        self.screen.done(&step, "")?;
        self.screen.line("")?;
        let row = |what: &str, value: String| vec![format!("  {what}"), value];
        self.screen.block(&table::aligned(&[
            row(
                "in force",
                format!(
                    "{to}, {} ms after the ConfigMap was changed, without a restart",
                    took.as_millis()
                ),
            ),
            row("Event", event),
            row("Secret reads", after.reads_text()),
            row("memory", after.memory_text()),
        ]))?;
        Ok(self.screen.line("")?)
    }

    /// Shows what policies do.
    async fn policies(&mut self, installation: &Installation<'_>, client: &Client) -> Result<(), Failure> {
        let policies = ReadyMade::new(client, cluster::NAMESPACE);
        let step = self.screen.step(&format!(
            "Apply two policies of deploy/policies: {DENIED}, which refuses, and {AUDITED}, which only looks"
        ))?;
        let applied = policies.apply(installation.plane, PATIENCE);
        self.interrupt.unless(applied).await??;
        self.screen
            .done(&step, "in force in the API server, which evaluates them")?;

        let step = self.screen.step("Apply a service with 100 replicas")?;
        let refusal = self.interrupt.unless(policies.refusal()).await??;
        self.screen.done(&step, "refused")?;
        self.screen.block(&format!("  {refusal}\n"))?;

        let step = self.screen.step("Audit the services that were there before")?;
        let audit = self.interrupt.unless(start_audit(installation)).await??;
        let found = policies.finding(cluster::EXAMPLES.len(), PATIENCE);
        let found = self.interrupt.unless(found).await;
        let log = audit.process.log();
        audit.process.terminate(STOP).await?;
        let found = found?.map_err(|failure| Failure::from(failure).with_log(&log))?;
        self.screen.done(&step, "without a write on any of them")?;
        self.screen.block(&format!("  {found}\n\n"))?;
        Ok(())
    }

    /// How to go on from here by hand.
    fn look_around(&mut self, plane: &ControlPlane, operator: &Running) -> Result<(), Failure> {
        let kubectl = assets::find().map_or_else(
            || "kubectl".to_owned(),
            |assets| assets.path(assets::Component::Kubectl).display().to_string(),
        );
        let namespace = cluster::NAMESPACE;
        let log = operator.process.log_file();
        self.screen.heading("Look around, in another terminal")?;
        self.screen.block(&format!(
            "  export KUBECONFIG={}\n  alias kubectl={kubectl}\n\n",
            plane.kubeconfig_path().display()
        ))?;
        self.screen.block(&table::aligned(&[
            vec!["  the services".into(), format!("kubectl get isvc -n {namespace}")],
            vec![
                "  what they are made of".into(),
                format!("kubectl get deployment,service,hpa,ingress,pod -n {namespace}"),
            ],
            vec![
                "  another mode".into(),
                "kubectl patch configmap leanserve-config -n leanserve-system --type merge \
                 -p '{\"data\":{\"secretAccessMode\":\"lru\"}}'"
                    .into(),
            ],
            vec![
                "  what it said to that".into(),
                "kubectl get events -n leanserve-system".into(),
            ],
            vec!["  metrics".into(), format!("curl {}", operator.metrics_url())],
            vec!["  the operator's log".into(), format!("tail -f {}", log.display())],
        ]))?;
        self.screen.line("")?;
        Ok(self
            .screen
            .heading("Ctrl-C stops everything and leaves nothing behind.")?)
    }
}

/// Gives the operator and the audit the rights that policies take.
async fn grant_policies(plane: &ControlPlane) -> Result<(), testkit::Error> {
    for file in ["policies/rbac.yaml", "audit/access.yaml", "audit/guard.yaml"] {
        plane
            .apply_file(&installation::kustomization("components").join(file))
            .await?;
    }
    Ok(())
}

/// Starts the audit with its own account.
async fn start_audit(installation: &Installation<'_>) -> Result<Running, Failure> {
    let kubeconfig = installation.kubeconfig().with_file_name("audit.kubeconfig");
    installation
        .plane
        .write_service_account_kubeconfig(installation::NAMESPACE, AUDIT_ACCOUNT, &kubeconfig)
        .await?;
    Ok(Running::spawn_role("audit", &kubeconfig, &[])?)
}

/// The size of a program.
fn size(program: &Path) -> String {
    let bytes = program.metadata().map_or(0, |metadata| metadata.len());
    format!("one file of {:.1} MiB", screen::mebibytes(bytes / 1024))
}
