//! Doing things to the components of a control plane.

use std::sync::Arc;

use super::{ControlPlane, lock};
use crate::{Error, assets::Component};

impl ControlPlane {
    /// Stops a component in order (SIGTERM) and waits for its end. Unlike one that ends on its own, it does not take the
    /// others with it.
    ///
    /// # Errors
    ///
    /// When it does not run, or the control plane is not ours.
    pub async fn stop_component(&self, component: Component) -> Result<(), Error> {
        self.order("stop", component).await
    }

    /// Kills a component (SIGKILL).
    ///
    /// # Errors
    ///
    /// When it does not run, or the control plane is not ours.
    pub async fn kill_component(&self, component: Component) -> Result<(), Error> {
        self.order("kill", component).await
    }

    /// Starts a component that was stopped or killed, with its old state and addresses, and waits for etcd and the API
    /// server to answer.
    ///
    /// # Errors
    ///
    /// When it runs, does not start, or the control plane is not ours.
    pub async fn start_component(&self, component: Component) -> Result<(), Error> {
        self.order("start", component).await
    }

    /// Stops a component where it is (SIGSTOP): connections to it stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When it does not run, or the control plane is not ours.
    pub async fn pause_component(&self, component: Component) -> Result<(), Error> {
        self.order("pause", component).await
    }

    /// Lets a paused component go on.
    ///
    /// # Errors
    ///
    /// When it does not run, or the control plane is not ours.
    pub async fn resume_component(&self, component: Component) -> Result<(), Error> {
        self.order("resume", component).await
    }

    async fn order(&self, verb: &'static str, component: Component) -> Result<(), Error> {
        let refused = |reason: String| Error::Order {
            order: format!("{verb} {}", component.name()),
            reason,
        };
        let ours = self.ours.as_ref().ok_or_else(|| refused("it is not ours".to_owned()))?;
        let running = Arc::clone(&ours.running);
        let ordered = tokio::task::spawn_blocking(move || {
            let mut running = lock(&running);
            let Some(supervisor) = &mut running.supervisor else {
                return Ok(());
            };
            running.processes = supervisor.order(verb, component.name())?;
            Ok(())
        });
        ordered.await.map_err(|error| refused(error.to_string()))?
    }
}
