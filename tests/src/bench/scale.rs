//! Thousands of services: how fast leanserve builds them, what it asks of the API server for that, and what it takes to
//! keep them.
//!
//! The services exist before the operator starts, on a control plane without a scheduler and without the controller of
//! autoscalers: Deployments get their status and Pods, which stay Pending. A bare client that makes the same writes
//! follows in the same run on the same server. Times of requests are those of the API server's audit log.

mod calls;
mod peer;
mod phase;
mod shape;

use std::io::{self, Write};

use testkit::{ControlPlane, Options};

use self::phase::Phases;
pub use self::shape::Shapes;
use crate::{
    Failure, Running,
    program::Interrupt,
    report::{Report, Row, measured_versions},
    start,
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Services.
    pub services: usize,
    /// Services of a second size, for what each of them takes; none when it is not greater.
    pub more_services: usize,
    /// Passes of the operator, and writes of the bare client, at a time.
    pub at_once: usize,
}

/// Measures, and stops everything before it returns. Says on `out` what it does.
///
/// # Errors
///
/// What kept it from measuring.
pub async fn run(out: &mut dyn Write, size: Size, shapes: &[Shapes]) -> Result<Report, Failure> {
    let mut interrupt = Interrupt::listen()?;
    writeln!(out, "Building the operator, unless it is built ...")?;
    let built = tokio::task::spawn_blocking(Running::binary);
    interrupt.unless(built).await?.map_err(io::Error::other)??;
    let mut versions = measured_versions(&["k8s-openapi", "kube", "kube-runtime", "leanserve", "tikv-jemallocator"]);
    let mut rows: Vec<Row> = Vec::new();
    for shapes in shapes {
        writeln!(out, "Starting a control plane ...")?;
        let plane = start::control_plane(&mut interrupt, Options::bare()).await?;
        let version = plane.server_version().unwrap_or_default().trim_start_matches('v');
        versions.insert("kubernetes".to_owned(), version.to_owned());
        let measured = measure(out, &mut interrupt, &plane, size, *shapes).await;
        let stopped = plane.stop().await;
        rows.extend(measured?);
        stopped?;
    }
    Ok(Report::new("scale", versions, rows))
}

async fn measure(
    out: &mut dyn Write,
    interrupt: &mut Interrupt,
    plane: &ControlPlane,
    size: Size,
    shapes: Shapes,
) -> Result<Vec<Row>, Failure> {
    let phases = Phases::new(plane, size, shapes);
    let mut phases = interrupt.unless(phases).await??;
    interrupt.unless(phases.run(out)).await??;
    Ok(phases.rows)
}
